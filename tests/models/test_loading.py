import json
import struct
from pathlib import Path

import pytest
import torch
import transformers

from raysp.errors import CheckpointError
from raysp.models import (
    UniSpeechForCTC,
    UniSpeechModel,
    check_checkpoint,
    checkpoint_files,
    load_checkpoint,
    load_model,
)
from raysp.models.weights import read_header
from tests.models.oracles import save_checkpoint


def edit_json(path: Path, **changes):
    values = json.loads(path.read_text())
    values.update(changes)
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not ...}))


def test_a_whole_checkpoint_is_described_without_its_weights(checkpoint):
    summary = check_checkpoint(checkpoint)
    oracle = transformers.UniSpeechForCTC.from_pretrained(checkpoint)
    assert summary.path == checkpoint
    assert (summary.model_type, summary.architecture) == ("unispeech", "UniSpeechForCTC")
    assert summary.num_parameters == sum(parameter.numel() for parameter in oracle.parameters())
    assert summary.weight_bytes == 4 * summary.num_parameters
    assert (summary.sample_rate, summary.vocab_size, summary.hidden_size) == (16000, 20, 32)
    assert (summary.min_samples, summary.frame_stride) == (40, 30)
    assert summary.outputs == ("Transcript",)
    assert summary.dtype == "float32"


def test_files_that_determine_a_label_are_listed(checkpoint):
    (checkpoint / "README.md").write_text("not a part of a label")
    names = [path.name for path in checkpoint_files(checkpoint)]
    assert names == [
        "config.json",
        "model.safetensors",
        "processor_config.json",
        "tokenizer_config.json",
        "vocab.json",
    ]


def test_models_load_in_eval_mode_with_the_dtype_asked_for(checkpoint):
    model = load_model(checkpoint, dtype="bfloat16", padding="reference")
    assert isinstance(model, UniSpeechForCTC)
    assert not model.training
    assert (model.dtype, model.device.type, model.padding) == (torch.bfloat16, "cpu", "reference")
    assert load_model(checkpoint).dtype == torch.float32
    with pytest.raises(CheckpointError, match="dtype is 'int8', expected 'auto', 'float32'"):
        load_model(checkpoint, dtype="int8")


def test_a_loaded_checkpoint_has_all_that_a_transcript_needs(checkpoint):
    loaded = load_checkpoint(checkpoint)
    assert loaded.sample_rate == 16000
    assert loaded.text_tokenizer.decode_collapsed([5, 4, 6]) == "A B"


def test_shards_load_and_only_those_that_the_index_lists(checkpoint):
    expected = load_model(checkpoint).state_dict()
    UniSpeechForCTC.from_pretrained(checkpoint).save_pretrained(checkpoint, shard_bytes=20_000)
    assert not (checkpoint / "model.safetensors").exists()
    (checkpoint / "model-other.safetensors").write_bytes(b"not listed, so not read")
    check_checkpoint(checkpoint)
    found = load_model(checkpoint).state_dict()
    theirs = transformers.UniSpeechForCTC.from_pretrained(checkpoint).state_dict()
    for name, value in expected.items():
        assert torch.equal(found[name], value)
        assert torch.equal(theirs[name], value)
    shards = [path.name for path in checkpoint_files(checkpoint) if path.suffix == ".safetensors"]
    assert len(shards) > 2
    assert "model-other.safetensors" not in shards


@pytest.mark.parametrize("name", ["../weights.safetensors", "/etc/passwd", "sub/x.safetensors", "x.bin", ".."])
def test_an_index_cannot_name_files_elsewhere(checkpoint, name):
    (checkpoint / "model.safetensors").rename(checkpoint.parent / "weights.safetensors")
    index = {"weight_map": {"lm_head.weight": name}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    for read in (check_checkpoint, load_model, checkpoint_files):
        with pytest.raises(CheckpointError, match="expected a safetensors file of the same folder"):
            read(checkpoint)


def test_a_missing_shard_is_named(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"'model-00001-of-00002.safetensors' not found though"):
        check_checkpoint(checkpoint)


def test_pickles_are_refused(checkpoint):
    (checkpoint / "model.safetensors").rename(checkpoint / "pytorch_model.bin")
    for read in (check_checkpoint, load_model):
        with pytest.raises(
            CheckpointError, match=r"weights are a pickle \(pytorch_model.bin\).*expected model.safeten"
        ):
            read(checkpoint)


def test_code_that_comes_with_a_checkpoint_has_no_effect(checkpoint):
    (checkpoint / "evil.py").write_text("raise SystemExit('imported')")
    edit_json(checkpoint / "config.json", auto_map={"AutoModelForCTC": "evil.Model", "AutoConfig": "evil.Config"})
    check_checkpoint(checkpoint)
    load_model(checkpoint)
    edit_json(checkpoint / "config.json", model_type="evil")
    with pytest.raises(CheckpointError, match=r"model_type is 'evil', expected one of .*unispeech"):
        load_model(checkpoint)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"model_type": "bert"}, "model_type is 'bert', expected one of .*unispeech"),
        ("config.json", {"model_type": ["unispeech"]}, r"model_type is \['unispeech'\], expected one of"),
        ("config.json", {"architectures": ["os"]}, r"architectures is \['os'\], expected .*UniSpeechForCTC"),
        ("config.json", {"architectures": ["Model"]}, r"architectures is \['Model'\], expected"),
        ("config.json", {"architectures": ...}, r"architectures is \[None\], expected"),
        ("config.json", {"hidden_size": "big"}, "hidden_size is 'big', expected int"),
        ("config.json", {"hidden_size": 10**30}, "no model can be built from it"),
        ("config.json", {"num_hidden_layers": 10**12}, "num_hidden_layers is 1000000000000, but the checkpoint has"),
        (
            "config.json",
            {"num_hidden_layers": 3},
            "missing unispeech.encoder.layers.2.* and 8 more .16 in all.; unexpec",
        ),
        ("config.json", {"num_hidden_layers": 1}, "missing none; unexpected unispeech.encoder.layers.1"),
        ("config.json", {"intermediate_size": 50}, r"intermediate_dense.weight is \(48, 32\), expected \(50, 32\)"),
        ("config.json", {"vocab_size": 21}, r"lm_head.weight is \(20, 32\), expected \(21, 32\)"),
        ("config.json", {"pad_token_id": 3}, "'<pad>' is id 0, config.json has pad_token_id 3: both are the CTC blank"),
        ("config.json", {"sampling_rate": 8000}, "config.json says sampling_rate 8000, the feature extractor 16000"),
        ("vocab.json", {"P": 20}, "tokenizer has 21 tokens, the head has 20 classes.*ids without a class 20"),
        ("vocab.json", {"O": ...}, "tokenizer has 19 tokens, the head has 20.*classes without a token 19"),
        ("vocab.json", {"A": "5"}, "id of 'A' is '5', expected a whole number"),
        ("tokenizer_config.json", {"pad_token": ["<pad>"]}, r"pad_token is \['<pad>'\], expected str"),
        ("tokenizer_config.json", {"unk_token": {"lstrip": True}}, "unk_token is None, expected str"),
        ("tokenizer_config.json", {"pad_token": None}, "pad_token is None, expected a token of vocab.json"),
        ("tokenizer_config.json", {"tokenizer_class": "BertTokenizer"}, "tokenizer_class is 'BertTokenizer', expected"),
        ("tokenizer_config.json", {"do_lower_case": "no"}, "do_lower_case is 'no', expected bool"),
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}, r"added_tokens_decoder is \[1\], expected dict"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": "y"}}, "added token 'x' is 'y', expected an id"),
        ("processor_config.json", {"feature_extractor": ...}, "neither preprocessor_config.json nor a feature_extr"),
        ("processor_config.json", {"feature_extractor": {"sampling_rate": 0}}, "sampling_rate .* is 0, expected"),
        (
            "processor_config.json",
            {"feature_extractor": {"feature_extractor_type": "SeamlessM4TFeatureExtractor"}},
            "feature_extractor_type is 'SeamlessM4TFeatureExtractor', expected 'Wav2Vec2FeatureExtractor'",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_both_sides(checkpoint, file, changes, message):
    edit_json(checkpoint / file, **changes)
    with pytest.raises(CheckpointError, match=message):
        check_checkpoint(checkpoint)


def test_processor_files_that_disagree_are_refused(checkpoint):
    old = {"sampling_rate": 8000, "feature_extractor_type": "Wav2Vec2FeatureExtractor"}
    (checkpoint / "preprocessor_config.json").write_text(json.dumps(old))
    with pytest.raises(CheckpointError, match=r"disagree: \{'sampling_rate': \(8000, 16000\)\}"):
        check_checkpoint(checkpoint)


def test_a_nested_vocabulary_needs_its_language(checkpoint):
    vocab = json.loads((checkpoint / "vocab.json").read_text())
    (checkpoint / "vocab.json").write_text(json.dumps({"eng": vocab, "deu": vocab}))
    with pytest.raises(
        CheckpointError, match=r"holds the languages deu, eng and tokenizer_config.json has no target_la"
    ):
        check_checkpoint(checkpoint)
    edit_json(checkpoint / "tokenizer_config.json", target_lang="deu")
    assert check_checkpoint(checkpoint).vocab_size == 20


@pytest.mark.parametrize("file", ["config.json", "vocab.json", "processor_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe{}", b"[" * 100_000])
def test_damaged_json_is_refused(checkpoint, file, content):
    (checkpoint / file).write_bytes(content)
    with pytest.raises(CheckpointError, match=file.replace(".", r"\.")):
        check_checkpoint(checkpoint)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "vocab.json", "processor_config.json"])
def test_a_missing_file_is_named(checkpoint, file):
    (checkpoint / file).unlink()
    with pytest.raises(CheckpointError, match=file.replace(".", r"\.")):
        check_checkpoint(checkpoint)


def test_no_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="no such folder"):
        check_checkpoint(tmp_path / "nowhere")


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
        "cut in the length": content[:5],
        "cut in the header": content[:100],
        "cut in the data": content[:-1],
        "longer than it says": content + b"\0",
        "header of all memory": struct.pack("<Q", 2**62) + content[8:],
        "header that is no JSON": content[:9] + b"!!" + content[11:],
        "unknown type": with_header(dtype="F8_E4M3"),
        "negative shape": with_header(shape=[-1, -32]),
        "shape of floats": with_header(shape=[1.5]),
        "offsets that overlap": with_header(data_offsets=[4, 4 + header[name]["data_offsets"][1]]),
        "offsets behind the end": with_header(data_offsets=[0, 2**60]),
        "no offsets": with_header(data_offsets=None),
        "text": b"<html>404</html>",
    }


DAMAGES = (
    "empty",
    "cut in the length",
    "cut in the header",
    "cut in the data",
    "longer than it says",
    "header of all memory",
    "header that is no JSON",
    "unknown type",
    "negative shape",
    "shape of floats",
    "offsets that overlap",
    "offsets behind the end",
    "no offsets",
    "text",
)


@pytest.mark.parametrize("kind", DAMAGES)
def test_damaged_weights_are_refused(checkpoint, kind):
    path = checkpoint / "model.safetensors"
    path.write_bytes(damaged_weights(path.read_bytes())[kind])
    for read in (check_checkpoint, load_model):
        with pytest.raises(CheckpointError, match=r"not a whole safetensors file.*copy the file again"):
            read(checkpoint)


def test_headers_tell_what_the_file_holds(whole):
    headers = {header.name: header for header in read_header(whole / "model.safetensors")}
    state = load_model(whole).state_dict()
    assert {name: header.shape for name, header in headers.items()} == {
        name: tuple(value.shape) for name, value in state.items()
    }


def test_the_base_model_loads_from_a_checkpoint_with_a_head(whole):
    base, full = UniSpeechModel.from_pretrained(whole), UniSpeechForCTC.from_pretrained(whole)
    waves = torch.randn(1, 2000)
    assert torch.equal(base(waves).last_hidden_state, full.unispeech(waves).last_hidden_state)


def test_a_head_is_made_new_only_where_that_is_asked_for(whole, tmp_path):
    UniSpeechModel.from_pretrained(whole).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"missing lm_head.weight, lm_head.bias; unexpected none"):
        UniSpeechForCTC.from_pretrained(tmp_path)
    model = UniSpeechForCTC.from_pretrained(tmp_path, strict=False, vocab_size=7)
    assert model(torch.randn(1, 2000)).logits.shape[-1] == 7
    again = UniSpeechForCTC.from_pretrained(whole, strict=False, vocab_size=7)
    assert again.lm_head.out_features == 7
    with pytest.raises(CheckpointError, match=r"lm_head.weight is \(20, 32\), expected \(7, 32\)"):
        UniSpeechForCTC.from_pretrained(whole, vocab_size=7)


def test_a_mask_embedding_may_be_missing_or_left_over(checkpoint):
    """Published checkpoints are so: it has a part in training alone."""
    edit_json(checkpoint / "config.json", mask_time_prob=0.0)
    check_checkpoint(checkpoint)
    load_model(checkpoint).save_pretrained(checkpoint)
    edit_json(checkpoint / "config.json", mask_time_prob=0.05)
    check_checkpoint(checkpoint)
    assert load_model(checkpoint).unispeech.masked_spec_embed is not None


def test_a_configuration_that_asks_for_tuples_does_not_reach_the_steps(checkpoint):
    edit_json(checkpoint / "config.json", return_dict=False, output_hidden_states=True)
    assert load_model(checkpoint)(torch.randn(1, 2000)).keys() == ["logits"]
