"""Hub ids in `from_pretrained`, from a cache without a network."""

from fnmatch import fnmatch
from pathlib import Path

import pytest
import torch

from raysp import CheckpointError
from raysp.checkpoints import hub as hub_of_checkpoints
from raysp.models import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForCTC,
    AutoProcessor,
    AutoTokenizer,
    BertConfig,
    BertLMHeadModel,
    GenerationConfig,
    SpeechEncoderDecoderModel,
    TextTokenizer,
    UniSpeechConfig,
    UniSpeechForCTC,
    Wav2Vec2Processor,
    check_checkpoint,
    load_checkpoint,
)
from raysp.models.base.configuration import LABEL_FILES
from tests.hub_server import COMMIT, lay_out
from tests.models.decoder_oracles import BERT
from tests.models.oracles import TINY, save_checkpoint
from tests.models.test_loading import as_pickle
from tests.models.tokenizers.text_tokenizers import write_bert_tokenizer

OTHER = "f" * 40


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, and no network."""
    folder = tmp_path / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return folder


@pytest.fixture
def hub(cache, tmp_path) -> Path:
    """The folder in the cache of a checkpoint, `owner/name`."""
    return lay_out(cache, save_checkpoint(tmp_path / "pushed"))


def test_a_hub_id_is_read_from_the_cache_without_a_network(hub):
    for options in ({}, {"revision": "v1.0"}, {"revision": hub.name}):
        model = UniSpeechForCTC.from_pretrained("owner/name", **options)
        expected = UniSpeechForCTC.from_pretrained(hub)
        assert torch.equal(model.lm_head.weight, expected.lm_head.weight)
    assert UniSpeechConfig.from_pretrained("owner/name").hidden_size == 32
    assert Wav2Vec2Processor.from_pretrained("owner/name").tokenizer.decode([5, 4, 6]) == "A B"
    UniSpeechForCTC.from_pretrained("owner/name").save_pretrained(hub.parent / "mine")
    with pytest.raises(CheckpointError, match=r"'owner/name': no such folder, and it cannot be loaded from"):
        UniSpeechForCTC.from_pretrained("owner/name", revision="v2.0")
    with pytest.raises(CheckpointError, match=r"'owner/other': no such folder, and it cannot be loaded from"):
        UniSpeechForCTC.from_pretrained("owner/other")


def test_a_folder_goes_before_a_hub_id_of_its_name(hub, tmp_path):
    folder = tmp_path / "owner" / "name"
    UniSpeechForCTC.from_pretrained(hub, vocab_size=7, ignore_mismatched_sizes=True).save_pretrained(folder)
    assert UniSpeechForCTC.from_pretrained("owner/name").config.vocab_size == 7


@pytest.mark.parametrize("name", ["/no/such", "./no", "a/b/c", "../x", Path("owner/name")])
def test_a_path_never_goes_to_the_hub(name, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(CheckpointError, match=r"config.json: not found"):
        UniSpeechForCTC.from_pretrained(name)


def test_only_what_is_read_is_fetched(hub, monkeypatch):
    asked = []

    def snapshot_download(name, *, revision, allow_patterns, **_access):
        asked.append((name, revision, allow_patterns))
        return str(hub)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    UniSpeechForCTC.from_pretrained("owner/name", revision="v1.0")
    ((name, revision, patterns),) = asked
    assert (name, revision) == ("owner/name", "v1.0")
    wanted = ["config.json", "model.safetensors", "model-00001-of-00002.safetensors", "model.safetensors.index.json"]
    other = ["pytorch_model.bin", "training_args.bin", "tf_model.h5", "adapter.fra.safetensors", "optimizer.pt"]
    assert all(any(fnmatch(file, pattern) for pattern in patterns) for file in wanted)
    assert not any(fnmatch(file, pattern) for file in other for pattern in patterns)
    asked.clear()
    as_pickle(hub)
    UniSpeechForCTC.from_pretrained("owner/name", allow_pickle=True)
    assert any(fnmatch("pytorch_model.bin", pattern) for pattern in asked[-1][2])


def test_a_language_is_downloaded_on_request(hub, monkeypatch):
    config = UniSpeechConfig(**TINY, do_stable_layer_norm=True, adapter_attn_dim=4)
    UniSpeechForCTC(config).init_weights().save_pretrained(hub)
    model = UniSpeechForCTC.from_pretrained("owner/name", revision="v1.0")
    asked = []

    def snapshot_download(name, *, revision, allow_patterns, **_access):
        asked.append((name, revision, allow_patterns))
        model.save_adapter(hub, "spa")
        return str(hub)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    model.load_adapter("spa")
    assert asked == [("owner/name", "v1.0", ["adapter.spa.safetensors"])]


@pytest.mark.parametrize("options", [{}, {"revision": "v1.0"}, {"revision": COMMIT}])
def test_every_auto_class_reads_a_hub_id(cache, checkpoint, options):
    lay_out(cache, checkpoint)
    expected = UniSpeechForCTC.from_pretrained(checkpoint)
    for kind in (AutoModelForCTC, AutoModel):
        model = kind.from_pretrained("owner/name", **options)
        assert torch.equal(next(model.base_model.parameters()), next(expected.base_model.parameters()))
    assert AutoConfig.from_pretrained("owner/name", **options) == AutoConfig.from_pretrained(checkpoint)
    assert AutoTokenizer.from_pretrained("owner/name", **options).decode([5, 4, 6]) == "A B"
    assert AutoFeatureExtractor.from_pretrained("owner/name", **options).sampling_rate == 16000
    assert AutoProcessor.from_pretrained("owner/name", **options).tokenizer.decode([5, 4, 6]) == "A B"


def test_a_revision_stands_in_the_name_too(cache, checkpoint):
    lay_out(cache, checkpoint)
    assert AutoConfig.from_pretrained("owner/name@v1.0").hidden_size == 32
    assert load_checkpoint("owner/name@v1.0").summary == check_checkpoint(f"owner/name@{COMMIT}")
    assert AutoConfig.from_pretrained("owner/name@v1.0", revision="v1.0").hidden_size == 32
    with pytest.raises(ValueError, match=r"'owner/name@v1.0' given with revision 'main', expected one revision"):
        AutoConfig.from_pretrained("owner/name@v1.0", revision="main")


def test_tokenizers_of_texts_and_options_of_generate_are_read_from_a_hub_id(cache, tmp_path):
    write_bert_tokenizer(tmp_path / "bert")
    BertLMHeadModel(BertConfig(**BERT)).init_weights().save_pretrained(tmp_path / "bert")
    GenerationConfig(num_beams=3).save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "tokenizer_config.json").unlink(missing_ok=True)  # its class comes from config.json then
    lay_out(cache, tmp_path / "bert")
    expected = TextTokenizer.from_pretrained(tmp_path / "bert")("a text").input_ids
    for read in (AutoTokenizer, TextTokenizer):
        assert read.from_pretrained("owner/name", revision="v1.0")("a text").input_ids == expected
    assert GenerationConfig.from_pretrained("owner/name", revision="v1.0").num_beams == 3


def test_an_encoder_and_a_decoder_of_two_ids_are_put_together(cache, checkpoint, tmp_path):
    BertLMHeadModel(BertConfig(**BERT)).init_weights().save_pretrained(tmp_path / "bert")
    lay_out(cache, checkpoint)
    lay_out(cache, tmp_path / "bert", name="owner/bert", commit=OTHER)
    model = SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(
        "owner/name", "owner/bert@v1.0", encoder_revision="v1.0"
    )
    expected = BertLMHeadModel.from_pretrained(tmp_path / "bert", strict=False, add_cross_attention=True)
    assert torch.equal(model.decoder.get_input_embeddings().weight, expected.get_input_embeddings().weight)
    model.save_pretrained(tmp_path / "both")
    lay_out(cache, tmp_path / "both", name="owner/both", commit="a" * 40)
    again = SpeechEncoderDecoderModel.from_pretrained("owner/both", revision="v1.0")
    assert torch.equal(again.decoder.get_input_embeddings().weight, expected.get_input_embeddings().weight)


def test_all_that_makes_a_label_is_fetched():
    for file in LABEL_FILES:
        assert file in hub_of_checkpoints.CHECKPOINT_FILES
    assert {*hub_of_checkpoints.WEIGHT_FILES} <= {*hub_of_checkpoints.CHECKPOINT_FILES}


def test_files_missing_in_the_cache_are_named_with_a_remedy(cache):
    with pytest.raises(CheckpointError) as found:
        AutoModelForCTC.from_pretrained("owner/name")
    for part in (
        "'owner/name': no such folder",
        str(cache),
        "HF_HUB_OFFLINE",
        "give a folder",
        "Files requested, of those that exist: config",
    ):
        assert part in str(found.value)
