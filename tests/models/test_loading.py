import json
import random
import shutil
import struct
from pathlib import Path

import pytest
import torch
import transformers

import raysp.models
from raysp import CheckpointError
from raysp.models import (
    UniSpeechConfig,
    UniSpeechForCTC,
    UniSpeechForSequenceClassification,
    UniSpeechModel,
    Wav2Vec2Processor,
    check_checkpoint,
    checkpoint_files,
    load_checkpoint,
    load_model,
)
from tests.models.oracles import TINY, save_checkpoint

BOTH = ("weight", "bias")


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
    assert summary.gives == ("ctc", "hidden_states")
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


def test_models_load_in_eval_mode_with_the_requested_dtype(checkpoint):
    model = load_model(checkpoint, dtype="bfloat16")
    assert isinstance(model, UniSpeechForCTC)
    assert not model.training
    assert (model.dtype, model.device.type) == (torch.bfloat16, "cpu")
    assert load_model(checkpoint).dtype == torch.float32
    with pytest.raises(CheckpointError, match="dtype is 'int8', expected 'auto', 'float32'"):
        load_model(checkpoint, dtype="int8")


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
        with pytest.raises(CheckpointError, match="expected a safetensors file in the same folder"):
            read(checkpoint)


def test_a_missing_shard_is_named(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    index = {"weight_map": {"lm_head.weight": "model-00001-of-00002.safetensors"}}
    (checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=r"'model-00001-of-00002.safetensors' not found though"):
        check_checkpoint(checkpoint)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("config.json", {"model_type": "bert"}, "model_type is 'bert', expected one of .*unispeech"),
        ("config.json", {"model_type": ["unispeech"]}, r"model_type is \['unispeech'\], expected one of"),
        ("config.json", {"architectures": ["os"]}, r"architectures is \['os'\], expected .*UniSpeechForCTC"),
        ("config.json", {"architectures": ["Model"]}, r"architectures is \['Model'\], expected"),
        ("config.json", {"architectures": ...}, r"architectures is not there, expected the class"),
        ("config.json", {"hidden_size": "big"}, "hidden_size is 'big', expected int"),
        ("config.json", {"hidden_size": 10**30}, "no model can be built from it"),
        ("config.json", {"intermediate_size": 0}, r"config\.json: UniSpeech\w+: .* would have the shape \(0, \d+\)"),
        ("config.json", {"num_hidden_layers": 999}, "num_hidden_layers is 999, but the checkpoint has"),
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
        ("config.json", {"architectures": [[]]}, r"architectures is \[\[\]\], expected"),
        ("config.json", {"final_dropout": 2.0}, r"final_dropout is 2\.0, expected a probability from 0 to 1"),
        ("config.json", {"layer_norm_eps": float("nan")}, "layer_norm_eps is nan, expected a finite number"),
        ("config.json", {"num_labels": [2]}, r"num_labels is \[2\], expected at least 1"),
        ("vocab.json", {"P": 20}, "tokenizer has 21 tokens, the head has 20 classes.*ids without a class 20"),
        ("vocab.json", {"O": ...}, "tokenizer has 19 tokens, the head has 20.*classes without a token 19"),
        ("vocab.json", {"A": "5"}, "id of 'A' is '5', expected an integer"),
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
            {"feature_extractor": {"padding_value": "0"}},
            "padding_value of the feature extractor is '0', expected a value such as 0.0",
        ),
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


JUNK = [None, True, 0, -1, 3, 1e9, -5.5, 2**70, 1e400, float("nan")]
JUNK += ["", "gelu", [], [1], [[]], ["a", 2], {}, {"0": "x"}]
JUNK_FIELDS = ["output_hidden_size", "add_adapter", "conv_dim", "vocab_size", "num_labels", "id2label", "dtype"]


def changed(draw: random.Random, value):
    """Change something in a JSON value: replace, remove or add."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        name, how = draw.choice(list(value)), draw.random()
        if how < 0.5:
            return {**value, name: draw.choice(JUNK)}
        if how < 0.65:
            return {other: kept for other, kept in value.items() if other != name}
        if how < 0.75:
            return {**value, draw.choice(JUNK_FIELDS): draw.choice(JUNK)}
        return {**value, name: changed(draw, value[name])}
    return draw.choice(JUNK)


def check_any_change(folder, seeds):
    """A checkpoint with any change in its files is refused by name or can be used."""
    files = [path for path in sorted(folder.iterdir()) if path.suffix in (".json", ".safetensors")]
    refused = 0
    for seed in seeds:
        draw = random.Random(seed)
        path = draw.choice(files)
        before = path.read_bytes()
        if path.suffix == ".json" and draw.random() < 0.8:
            path.write_text(json.dumps(changed(draw, json.loads(before))))
        else:
            after = bytearray(before)
            for _ in range(draw.choice([1, 1, 3, 10])):
                after[draw.randrange(min(len(after), 4000))] = draw.randrange(256)
            path.write_bytes(after[: draw.randrange(len(after))] if draw.random() < 0.2 else after)
        try:
            check_checkpoint(folder)
            loaded = load_checkpoint(folder)
            features = loaded.feature_extractor.extract(torch.zeros(2, 3000), torch.tensor([3000, 2000]))
            with torch.inference_mode():
                loaded.model(*features.values())
        except CheckpointError:
            refused += 1
        finally:
            path.write_bytes(before)
    assert 0.3 * len(seeds) < refused < 0.9 * len(seeds)


@pytest.mark.slow
def test_whatever_is_changed_a_checkpoint_is_refused_or_works(checkpoint):
    check_any_change(checkpoint, range(100))


@pytest.mark.soak
@pytest.mark.parametrize("name", ["unispeech-digits-ctc", "w2vbert-digits-ctc"])
def test_whatever_is_changed_in_a_trained_checkpoint(name, shared, tmp_path):
    shutil.copytree(shared / "checkpoints" / name, tmp_path / name)
    check_any_change(tmp_path / name, range(4000))


def test_processor_files_that_disagree_are_refused(checkpoint):
    old = {"sampling_rate": 8000, "feature_extractor_type": "Wav2Vec2FeatureExtractor"}
    (checkpoint / "preprocessor_config.json").write_text(json.dumps(old))
    with pytest.raises(CheckpointError, match=r"differ: \{'sampling_rate': \(8000, 16000\)\}"):
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
        with pytest.raises(CheckpointError, match=r"not a complete safetensors file.*copy the file again"):
            read(checkpoint)


def test_a_head_is_made_new_with_a_warning_and_never_for_labels(whole, tmp_path, caplog):
    UniSpeechModel.from_pretrained(whole).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"missing lm_head.weight, lm_head.bias; unexpected none"):
        UniSpeechForCTC.from_pretrained(tmp_path, strict=True)
    model = UniSpeechForCTC.from_pretrained(tmp_path, vocab_size=7)
    assert "randomly initialised, train them before use: lm_head.bias, lm_head.weight" in caplog.text
    assert model(torch.randn(1, 2000)).logits.shape[-1] == 7
    edit_json(tmp_path / "config.json", architectures=["UniSpeechForCTC"])
    with pytest.raises(CheckpointError, match=r"missing lm_head.weight, lm_head.bias; unexpected none"):
        load_model(tmp_path)


def test_a_head_of_another_size_is_initialised_only_on_request(whole):
    with pytest.raises(CheckpointError, match=r"lm_head.weight is \(20, 32\), expected \(7, 32\)"):
        UniSpeechForCTC.from_pretrained(whole, vocab_size=7)
    model = UniSpeechForCTC.from_pretrained(whole, vocab_size=7, ignore_mismatched_sizes=True)
    assert model.lm_head.out_features == 7
    assert model.new_weights == {"lm_head.weight", "lm_head.bias"}


def test_another_head_is_left_out_but_never_a_part_of_the_base(whole, tmp_path, caplog):
    model = UniSpeechForSequenceClassification.from_pretrained(whole, num_labels=3)
    assert model.config.num_labels == model.classifier.out_features == 3
    assert "not used by UniSpeechForSequenceClassification: lm_head" in caplog.text
    assert model.new_weights == {f"{part}.{kind}" for part in ("projector", "classifier") for kind in BOTH}
    UniSpeechModel.from_pretrained(whole)
    assert "not used by UniSpeechModel: lm_head" in caplog.text
    model = UniSpeechForCTC.from_pretrained(whole)
    del model.unispeech.encoder.layers[1]
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"missing unispeech.encoder.layers.1"):
        UniSpeechForCTC.from_pretrained(tmp_path)


def as_pickle(folder, *, sharded=False):
    """Turn a checkpoint's weights into what torch.save wrote before safetensors."""
    state = load_model(folder).state_dict()
    prefix = "unispeech.encoder.pos_conv_embed.conv."
    for old, new in (("weight_g", "original0"), ("weight_v", "original1")):
        state[prefix + old] = state.pop(f"{prefix}parametrizations.weight.{new}")
    (folder / "model.safetensors").unlink()
    if not sharded:
        torch.save(state, folder / "pytorch_model.bin")
        return state
    weight_map = {}
    for number, name in enumerate(sorted(state)):
        weight_map[name] = f"pytorch_model-{number % 2 + 1:05d}-of-00002.bin"
    for file in set(weight_map.values()):
        torch.save({name: state[name] for name in state if weight_map[name] == file}, folder / file)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return state


@pytest.mark.parametrize("sharded", [False, True])
def test_pickled_weights_are_read_on_request(checkpoint, sharded):
    expected = load_model(checkpoint).state_dict()
    as_pickle(checkpoint, sharded=sharded)
    with pytest.raises(
        CheckpointError, match=r"pickled weights \(.*\) are refused, since they can run any.*raysp convert"
    ):
        UniSpeechForCTC.from_pretrained(checkpoint)
    model = UniSpeechForCTC.from_pretrained(checkpoint, allow_pickle=True)
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name]), name
    model.save_pretrained(checkpoint)
    check_checkpoint(checkpoint)  # which opens no pickle


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("touch evil-was-here",)


@pytest.mark.slow
@pytest.mark.parametrize("content", [{"lm_head.weight": Evil()}, [1, 2], {"lm_head.weight": 3}, b"text", b""])
def test_pickles_of_anything_else_are_refused_unread(checkpoint, content, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (checkpoint / "model.safetensors").unlink()
    path = checkpoint / "pytorch_model.bin"
    path.write_bytes(content) if isinstance(content, bytes) else torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"pytorch_model.bin: (not plain weights|holds)"):
        UniSpeechForCTC.from_pretrained(checkpoint, allow_pickle=True)
    assert not (tmp_path / "evil-was-here").exists()


@pytest.mark.parametrize("name", ["../pytorch_model.bin", "model.safetensors", "/etc/passwd"])
def test_an_index_of_pickles_cannot_name_files_elsewhere(checkpoint, name):
    (checkpoint / "model.safetensors").unlink()
    (checkpoint / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
    with pytest.raises(CheckpointError, match="expected a pickle file in the same folder"):
        UniSpeechForCTC.from_pretrained(checkpoint, allow_pickle=True)


def test_a_configuration_is_changed_on_the_way(whole):
    model = UniSpeechForSequenceClassification.from_pretrained(
        whole, num_labels=3, problem_type="multi_label_classification", mask_time_prob=0.2, torch_dtype="bfloat16"
    )
    assert (model.config.num_labels, model.config.mask_time_prob, model.dtype) == (3, 0.2, torch.bfloat16)
    loss = model(torch.randn(2, 2000, dtype=torch.bfloat16), labels=torch.tensor([[1, 0, 1], [0, 0, 1]])).loss
    assert loss.isfinite()
    config = UniSpeechConfig.from_pretrained(whole)
    given = UniSpeechForCTC.from_pretrained(whole, config=config, layerdrop=0.0)
    assert given.config.layerdrop == 0.0
    with pytest.raises(TypeError, match=r"did you mean 'mask_time_prob'.*no field of UniSpeechConfig"):
        UniSpeechForCTC.from_pretrained(whole, mask_tme_prob=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device_map": {"unispeech": "cpu", "lm_head": 0}}, "expected one device for the whole model"),
        ({"device_map": "balanced"}, "device is 'balanced', expected 'auto', 'cpu' or"),
        ({"device": "gpu"}, "device is 'gpu', expected 'auto', 'cpu' or"),
        ({"device": "cpu", "device_map": "auto"}, "both device 'cpu' and device_map 'auto' given"),
        ({"attn_implementation": "flex"}, "attn_implementation is 'flex', expected one of eager, sdpa, flash_attent"),
    ],
)
def test_devices_and_attentions_that_are_not_there_are_refused(whole, options, message):
    with pytest.raises(ValueError, match=message):
        UniSpeechForCTC.from_pretrained(whole, **options)


def test_a_whole_folder_goes_to_theirs_and_back(checkpoint, tmp_path):
    """Model, configuration and processor."""
    load_model(checkpoint).save_pretrained(tmp_path / "ours")
    Wav2Vec2Processor.from_pretrained(checkpoint).save_pretrained(tmp_path / "ours")
    theirs, info = transformers.UniSpeechForCTC.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    processor = transformers.Wav2Vec2Processor.from_pretrained(tmp_path / "ours")
    theirs.save_pretrained(tmp_path / "theirs")
    processor.save_pretrained(tmp_path / "theirs")
    loaded = load_checkpoint(tmp_path / "theirs")
    assert loaded.text_tokenizer.decode_collapsed([5, 4, 6]) == "A B"
    for name, value in loaded.model.state_dict().items():
        assert torch.equal(value, theirs.state_dict()[name]), name


HEADS = {
    "UniSpeechModel": (),
    "UniSpeechForCTC": ("ctc",),
    "UniSpeechForSequenceClassification": ("classes",),
    "UniSpeechForPreTraining": (),
    "Wav2Vec2Model": (),
    "Wav2Vec2ForCTC": ("ctc",),
    "Wav2Vec2ForSequenceClassification": ("classes",),
    "Wav2Vec2ForSpeechClassification": ("classes",),
    "Wav2Vec2ForAudioFrameClassification": ("frame_classes",),
    "Wav2Vec2ForXVector": ("xvector",),
    "HubertModel": (),
    "HubertForCTC": ("ctc",),
    "HubertForSequenceClassification": ("classes",),
    "HubertForSpeechClassification": ("classes",),
}


@pytest.mark.parametrize("name", HEADS)
def test_every_architecture_is_found_described_and_loaded(checkpoint, name):
    """Whatever its head; the summary knows a vocabulary only of a head with one."""
    cls = getattr(raysp.models, name)
    model = cls(cls.config_class(**TINY, num_labels=3)).init_weights()
    model.save_pretrained(checkpoint)
    summary = check_checkpoint(checkpoint)
    assert (summary.architecture, summary.gives) == (name, (*HEADS[name], "hidden_states"))
    assert summary.vocab_size == (20 if name.endswith("ForCTC") else None)
    assert (summary.min_samples, summary.frame_stride) == (model.min_samples, 30)
    loaded = load_checkpoint(checkpoint)
    assert type(loaded.model) is cls
    assert (loaded.tokenizer is None) == (summary.vocab_size is None)
    found = loaded.model.state_dict()
    assert all(torch.equal(found.pop(key), value) for key, value in model.state_dict().items())
    assert not found
    waves = torch.randn(1, 3000)
    # Weights of a file have another alignment in memory, by which a product may sum in another order.
    torch.testing.assert_close(loaded.model(waves)[0], model.eval()(waves)[0], rtol=1e-5, atol=1e-7)
    edit_json(checkpoint / "config.json", architectures=[cls.__mro__[1].__name__])
    with pytest.raises(CheckpointError, match="architectures is"):
        check_checkpoint(checkpoint)
