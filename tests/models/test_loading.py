import json
import struct
from pathlib import Path

import pytest
import torch
import transformers

from raysp import CheckpointError, models
from tests.models.oracles import save_checkpoint


def edit_json(path: Path, **changes):
    values = json.loads(path.read_text())
    values.update(changes)
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


def test_a_whole_checkpoint_is_described_without_its_weights(checkpoint):
    summary = models.check_checkpoint(checkpoint)
    oracle = transformers.UniSpeechForCTC.from_pretrained(checkpoint)
    assert summary.path == checkpoint
    assert (summary.model_type, summary.architecture) == ("unispeech", "UniSpeechForCTC")
    assert summary.num_parameters == sum(parameter.numel() for parameter in oracle.parameters())
    assert summary.weight_bytes == 4 * summary.num_parameters
    assert (summary.sample_rate, summary.vocab_size, summary.hidden_size) == (16000, 20, 32)
    assert (summary.min_samples, summary.frame_stride) == (40, 30)
    assert summary.gives == ("ctc", "hidden_states")
    assert summary.dtype == "float32"
    (checkpoint / "README.md").write_text("not a part of a label")
    files = "config.json model.safetensors processor_config.json tokenizer_config.json vocab.json"
    assert [path.name for path in models.checkpoint_files(checkpoint)] == files.split()


def test_shards_load_and_only_those_that_the_index_lists(checkpoint):
    expected = models.load_model(checkpoint).state_dict()
    models.UniSpeechForCTC.from_pretrained(checkpoint).save_pretrained(checkpoint, max_shard_size="0.02 MB")
    assert not (checkpoint / "model.safetensors").exists()
    (checkpoint / "model-other.safetensors").write_bytes(b"not listed, so not read")
    models.check_checkpoint(checkpoint)
    found = models.load_model(checkpoint).state_dict()
    theirs = transformers.UniSpeechForCTC.from_pretrained(checkpoint).state_dict()
    for name, value in expected.items():
        assert torch.equal(found[name], value)
        assert torch.equal(theirs[name], value)
    shards = [path.name for path in models.checkpoint_files(checkpoint) if path.suffix == ".safetensors"]
    assert len(shards) > 2
    assert "model-other.safetensors" not in shards


def test_an_index_cannot_name_files_elsewhere(checkpoint):
    (checkpoint / "model.safetensors").rename(checkpoint.parent / "weights.safetensors")
    place = checkpoint / "model.safetensors.index.json"
    for name in ("../weights.safetensors", "/etc/passwd", "x.bin"):
        place.write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
        for read in (models.check_checkpoint, models.load_model, models.checkpoint_files):
            with pytest.raises(CheckpointError, match="expected a safetensors file in the same folder"):
                read(checkpoint)
    place.write_text(json.dumps({"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}))
    with pytest.raises(CheckpointError, match=r"'model-00001-of-00002.safetensors' not found though"):
        models.check_checkpoint(checkpoint)
    place.unlink()
    for name in ("../pytorch_model.bin", "model.safetensors", "/etc/passwd"):
        index = {"weight_map": {"lm_head.weight": name}}
        (checkpoint / "pytorch_model.bin.index.json").write_text(json.dumps(index))
        with pytest.raises(CheckpointError, match="expected a pickle file in the same folder"):
            models.UniSpeechForCTC.from_pretrained(checkpoint, allow_pickle=True)


OF_FEATURES = {"feature_extractor": {"feature_extractor_type": "SeamlessM4TFeatureExtractor"}}
UNFIT = [
    ("config.json", {"model_type": "bert"}, "model_type is 'bert', expected one of .*unispeech"),
    ("config.json", {"architectures": ["os"]}, r"architectures is \['os'\], expected .*UniSpeechForCTC"),
    ("config.json", {"architectures": ...}, r"architectures is not there, expected the class"),
    ("config.json", {"hidden_size": "big"}, "hidden_size is 'big', expected int"),
    ("config.json", {"intermediate_size": 0}, r"config\.json: UniSpeech\w+: .* would have the shape \(0, \d+\)"),
    ("config.json", {"num_hidden_layers": 999}, "num_hidden_layers is 999, but the checkpoint has"),
    ("config.json", {"num_hidden_layers": 3}, "missing unispeech.encoder.layers.2.* and 8 more .16 in all.; un"),
    ("config.json", {"num_hidden_layers": 1}, "missing none; unexpected unispeech.encoder.layers.1"),
    ("config.json", {"intermediate_size": 50}, r"intermediate_dense.weight is \(48, 32\), expected \(50, 32\)"),
    ("config.json", {"pad_token_id": 3}, "'<pad>' is id 0, config.json has pad_token_id 3: both are the CTC blank"),
    ("config.json", {"sampling_rate": 8000}, "config.json says sampling_rate 8000, the feature extractor 16000"),
    ("config.json", {"final_dropout": 2.0}, r"final_dropout is 2\.0, expected a probability from 0 to 1"),
    ("config.json", {"layer_norm_eps": float("nan")}, "layer_norm_eps is nan, expected a finite number"),
    ("vocab.json", {"P": 20}, "tokenizer has 21 tokens, but the head has 20 classes.*ids without a class 20"),
    ("vocab.json", {"O": ...}, "tokenizer has 19 tokens, but the head has 20.*classes without a token 19"),
    ("vocab.json", {"A": "5"}, "id of 'A' is '5', expected an integer"),
    ("tokenizer_config.json", {"pad_token": ["<pad>"]}, r"pad_token is \['<pad>'\], expected str"),
    ("tokenizer_config.json", {"tokenizer_class": "BertTokenizer"}, "tokenizer_class is 'BertTokenizer', expected"),
    ("tokenizer_config.json", {"added_tokens_decoder": {"x": "y"}}, "added token 'x' is 'y', expected an id"),
    ("processor_config.json", {"feature_extractor": ...}, "neither preprocessor_config.json nor a feature_extr"),
    ("processor_config.json", {"feature_extractor": {"sampling_rate": 0}}, "sampling_rate .* is 0, expected"),
    (
        "processor_config.json",
        OF_FEATURES,
        "type is 'SeamlessM4TFeatureExtractor', expected 'Wav2Vec2FeatureExtractor'",
    ),
]


def test_what_does_not_fit_is_refused_with_both_sides(checkpoint):
    for file, changes, message in UNFIT:
        before = (checkpoint / file).read_text()
        edit_json(checkpoint / file, **changes)
        with pytest.raises(CheckpointError, match=message):
            models.check_checkpoint(checkpoint)
        (checkpoint / file).write_text(before)


def test_files_that_disagree_and_a_nested_vocabulary_without_its_language_are_refused(checkpoint):
    old = {"sampling_rate": 8000, "feature_extractor_type": "Wav2Vec2FeatureExtractor"}
    (checkpoint / "preprocessor_config.json").write_text(json.dumps(old))
    with pytest.raises(CheckpointError, match=r"differ: \{'sampling_rate': \(8000, 16000\)\}"):
        models.check_checkpoint(checkpoint)
    (checkpoint / "preprocessor_config.json").unlink()
    vocab = json.loads((checkpoint / "vocab.json").read_text())
    (checkpoint / "vocab.json").write_text(json.dumps({"eng": vocab, "deu": vocab}))
    with pytest.raises(
        CheckpointError, match=r"holds the languages deu, eng and tokenizer_config.json has no target_la"
    ):
        models.check_checkpoint(checkpoint)
    edit_json(checkpoint / "tokenizer_config.json", target_lang="deu")
    assert models.check_checkpoint(checkpoint).vocab_size == 20


def test_damaged_json_is_refused(checkpoint):
    for file in ("config.json", "vocab.json", "processor_config.json", "tokenizer_config.json"):
        before = (checkpoint / file).read_bytes()
        for content in (b"", b"{", b"[]", b"\xff\xfe{}", b"[" * 100_000):
            (checkpoint / file).write_bytes(content)
            with pytest.raises(CheckpointError, match=file.replace(".", r"\.")):
                models.check_checkpoint(checkpoint)
        (checkpoint / file).write_bytes(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("whole") / "checkpoint")


def damaged_weights(content: bytes) -> dict[str, bytes]:
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    name = next(key for key in header if key != "__metadata__")

    def with_header(**changes) -> bytes:
        text = json.dumps({**header, name: {**header[name], **changes}}).encode()
        return struct.pack("<Q", len(text)) + text + content[8 + length :]

    return {
        "empty": b"",
        "cut in the data": content[:-1],
        "header of all memory": struct.pack("<Q", 2**62) + content[8:],
        "unknown type": with_header(dtype="F8_E4M3"),
        "negative shape": with_header(shape=[-1, -32]),
        "offsets that overlap": with_header(data_offsets=[4, 4 + header[name]["data_offsets"][1]]),
        "offsets behind the end": with_header(data_offsets=[0, 2**60]),
    }


def test_damaged_weights_are_refused(checkpoint):
    path = checkpoint / "model.safetensors"
    for content in damaged_weights(path.read_bytes()).values():
        path.write_bytes(content)
        for read in (models.check_checkpoint, models.load_model):
            with pytest.raises(CheckpointError, match=r"not a complete safetensors file.*copy the file again"):
                read(checkpoint)


def test_a_head_is_made_new_with_a_warning_and_never_for_labels(whole, tmp_path, caplog):
    models.UniSpeechModel.from_pretrained(whole).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"missing lm_head.weight, lm_head.bias; unexpected none"):
        models.UniSpeechForCTC.from_pretrained(tmp_path, strict=True)
    model = models.UniSpeechForCTC.from_pretrained(tmp_path, vocab_size=7)
    assert "randomly initialised, train them before use: lm_head.bias, lm_head.weight" in caplog.text
    assert model(torch.randn(1, 2000)).logits.shape[-1] == 7
    edit_json(tmp_path / "config.json", architectures=["UniSpeechForCTC"])
    with pytest.raises(CheckpointError, match=r"missing lm_head.weight, lm_head.bias; unexpected none"):
        models.load_model(tmp_path)
    with pytest.raises(CheckpointError, match=r"lm_head.weight is \(20, 32\), expected \(7, 32\)"):
        models.UniSpeechForCTC.from_pretrained(whole, vocab_size=7)
    model = models.UniSpeechForCTC.from_pretrained(whole, vocab_size=7, ignore_mismatched_sizes=True)
    assert model.lm_head.out_features == 7
    assert model.new_weights == {"lm_head.weight", "lm_head.bias"}


def test_a_configuration_is_changed_on_the_way(whole):
    model = models.UniSpeechForSequenceClassification.from_pretrained(
        whole, num_labels=3, problem_type="multi_label_classification", mask_time_prob=0.2, torch_dtype="bfloat16"
    )
    assert (model.config.num_labels, model.config.mask_time_prob, model.dtype) == (3, 0.2, torch.bfloat16)
    loss = model(torch.randn(2, 2000, dtype=torch.bfloat16), labels=torch.tensor([[1, 0, 1], [0, 0, 1]])).loss
    assert loss.isfinite()
    config = models.UniSpeechConfig.from_pretrained(whole)
    given = models.UniSpeechForCTC.from_pretrained(whole, config=config, layerdrop=0.0)
    assert given.config.layerdrop == 0.0
