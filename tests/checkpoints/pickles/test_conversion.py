"""Conversion of pickled weights: same names, values and types; nothing but what belongs to a checkpoint."""

import json
import os
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import safetensors.torch
import torch

from raysp import CheckpointError
from raysp.models import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC, convert_checkpoint, load_model
from tests.checkpoints.pickles import hostile

pytestmark = pytest.mark.lengthy

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": [32] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "vocab_size": 12,
}
FORMATS = [True, False]


@pytest.fixture
def model(tmp_path):
    """A checkpoint without weights, and its state."""
    torch.manual_seed(0)
    made = Wav2Vec2ForCTC(Wav2Vec2Config(**SMALL, architectures=["Wav2Vec2ForCTC"])).init_weights()
    folder = tmp_path / "pickled"
    made.save_pretrained(folder)
    Wav2Vec2FeatureExtractor().save_pretrained(folder)
    vocabulary = {"<pad>": 0, "|": 1, **{letter: 2 + place for place, letter in enumerate("abcdefghij")}}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    state = safetensors.torch.load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    return folder, state


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("is_zip", FORMATS, ids=["zip", "older"])
def test_weights_keep_their_names_values_and_types(model, tmp_path, is_zip):
    folder, state = model
    with_versions = OrderedDict(state)
    with_versions._metadata = {"": {"version": 1}}  # as those of modules have it
    torch.save(with_versions, folder / "pytorch_model.bin", _use_new_zipfile_serialization=is_zip)
    found = convert_checkpoint(folder, tmp_path / "out")
    assert_equal(safetensors.torch.load_file(tmp_path / "out" / "model.safetensors"), state)
    assert found.num_tensors == len(state)
    assert found.summary is not None
    assert found.summary.architecture == "Wav2Vec2ForCTC"
    loaded = Wav2Vec2ForCTC.from_pretrained(folder, allow_pickle=True)
    assert_equal(load_model(tmp_path / "out").state_dict(), loaded.state_dict())


TENSORS = {
    **{str(dtype): torch.arange(24).reshape(2, 3, 4).to(dtype) for dtype in (torch.float64, torch.float32)},
    **{str(dtype): torch.randn(5, 3).to(dtype) for dtype in (torch.float16, torch.bfloat16)},
    **{str(dtype): torch.randint(0, 100, (7,)).to(dtype) for dtype in (torch.int64, torch.int32, torch.int16)},
    **{str(dtype): torch.randint(0, 2, (7, 1)).to(dtype) for dtype in (torch.int8, torch.uint8, torch.bool)},
    "one number": torch.tensor(3.5),
    "nothing": torch.empty(0, 4),
    "a parameter": torch.nn.Parameter(torch.randn(3)),
    "transposed": torch.randn(4, 6).T,
    "every other": torch.randn(10)[::2],
    "the middle": torch.randn(10)[3:7],
    "a column": torch.randn(6, 5)[:, 2],
    "expanded": torch.randn(1, 4).expand(3, 4),
    "overlapping": torch.randn(10).as_strided((4, 4), (2, 1)),
    "a strange size of one": torch.randn(3, 1, 2).as_strided((3, 1, 2), (2, 999, 1)),
    'a name with ü, \U0001f600 and "quotes"': torch.randn(2),
}


def sharded(folder, state, num_shards=2, is_zip=True):
    weight_map = {}
    for number, name in enumerate(sorted(state)):
        weight_map[name] = f"pytorch_model-{number % num_shards + 1:05d}-of-{num_shards:05d}.bin"
    for file in {*weight_map.values()}:
        tensors = {name: state[name] for name in state if weight_map[name] == file}
        torch.save(tensors, folder / file, _use_new_zipfile_serialization=is_zip)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return weight_map


def converted(file):
    """Return the name of the new file of a file of weights."""
    return f"{file.removeprefix('pytorch_')[:-4]}.safetensors"


@pytest.mark.parametrize("is_zip", FORMATS, ids=["zip", "older"])
def test_each_kind_of_tensor_is_the_one_that_torch_loads(model, tmp_path, is_zip):
    folder, _ = model
    files = {*sharded(folder, TENSORS, 2, is_zip).values()}
    found = convert_checkpoint(folder, tmp_path / "out")
    for file in files:
        expected = {key: value.detach() for key, value in torch.load(folder / file, weights_only=True).items()}
        assert_equal(safetensors.torch.load_file(tmp_path / "out" / converted(file)), expected)
    assert found.summary is None
    assert "config.json" in found.unread


def test_big_endian_values_are_read(model, tmp_path):
    folder, _ = model
    values = np.arange(4, dtype=">f4")
    program = hostile.pickled({"weight": hostile.tensor(hostile.floats(), 0, (2, 2), (2, 1))})
    (folder / "pytorch_model.bin").write_bytes(hostile.archive(program, _0=values.tobytes()))
    with zipfile.ZipFile(folder / "pytorch_model.bin", "a") as file:
        file.writestr("archive/byteorder", "big")
    convert_checkpoint(folder, tmp_path / "out")
    expected = torch.arange(4, dtype=torch.float32).reshape(2, 2)
    assert_equal(safetensors.torch.load_file(tmp_path / "out" / "model.safetensors"), {"weight": expected})


def test_several_files_become_several_files_with_their_index(model, tmp_path):
    folder, state = model
    weight_map = sharded(folder, state)
    out = tmp_path / "out"
    convert_checkpoint(folder, out)
    names = {name for name in os.listdir(out) if "safetensors" in name}
    assert names == {
        *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json")
    }
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert index["weight_map"] == {name: converted(file) for name, file in weight_map.items()}
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in state.values())
    assert_equal(load_model(out).state_dict(), Wav2Vec2ForCTC.from_pretrained(folder, allow_pickle=True).state_dict())


@pytest.mark.parametrize("fault", ["a weight that its file lacks", "a weight in two files"])
def test_an_index_that_does_not_fit_its_files_is_refused(model, tmp_path, fault):
    folder, state = model
    weight_map = sharded(folder, state)
    if fault == "a weight that its file lacks":
        (folder / "pytorch_model.bin.index.json").write_text(
            json.dumps({"weight_map": {**weight_map, "other": "pytorch_model-00001-of-00002.bin"}})
        )
        message = "lacks other, which pytorch_model.bin.index.json lists there"
    else:
        torch.save(state, folder / "pytorch_model-00002-of-00002.bin")
        message = "which another file has too: remove one of the two"
    with pytest.raises(CheckpointError, match=message):
        convert_checkpoint(folder, tmp_path / "out" / "new")
    assert os.listdir(tmp_path / "out") == []


def test_adapters_of_languages_are_converted(model, tmp_path):
    folder, state = model
    torch.save(state, folder / "pytorch_model.bin")
    adapters = {language: {"lm_head.weight": torch.randn(3, 32)} for language in ("deu", "uzb-script_cyrillic")}
    for language, adapter in adapters.items():
        torch.save(adapter, folder / f"adapter.{language}.bin")
    safetensors.torch.save_file({"lm_head.weight": torch.zeros(1)}, folder / "adapter.fra.safetensors")
    torch.save({"lm_head.weight": torch.ones(1)}, folder / "adapter.fra.bin")
    found = convert_checkpoint(folder, tmp_path / "out")
    for language, adapter in adapters.items():
        assert_equal(safetensors.torch.load_file(tmp_path / "out" / f"adapter.{language}.safetensors"), adapter)
    assert_equal(
        safetensors.torch.load_file(tmp_path / "out" / "adapter.fra.safetensors"), {"lm_head.weight": torch.zeros(1)}
    )
    assert "adapter.fra.bin" in found.left_out


def test_adapters_beside_safetensors_are_converted_alone(model, tmp_path):
    folder, state = model
    safetensors.torch.save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    with pytest.raises(CheckpointError, match="has safetensors, and no pickled weights without safetensors"):
        convert_checkpoint(folder, tmp_path / "out")
    torch.save({"lm_head.weight": torch.randn(3, 32)}, folder / "adapter.deu.bin")
    found = convert_checkpoint(folder, tmp_path / "out")
    assert found.written == ("adapter.deu.safetensors",)
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def test_what_belongs_to_a_checkpoint_is_copied_and_nothing_else(model, tmp_path):
    folder, state = model
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "language_model").mkdir()
    kept = {
        *("config.json", "preprocessor_config.json", "vocab.json", "merges.txt", "spm.model", "README.md", "LICENSE"),
        *("chat_template.jinja", "language_model/lm.binary", "language_model/unigrams.txt"),
    }
    for name in kept:
        if not (folder / name).exists():
            (folder / name).write_text(name)
    others = {
        *("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "trainer_state.json"),
        *("flax_model.msgpack", "tf_model.h5", "model.onnx", "modeling.py", ".gitattributes", "pytorch_model.fp16.bin"),
        *("flax_model.msgpack.index.json", "train_results.json", "events.out.tfevents.1.host"),
    }
    for name in others:
        (folder / name).write_text(name)
    for name in (".git", "runs", "checkpoint-500"):
        (folder / name).mkdir()
        (folder / name / "config.json").touch()
    found = convert_checkpoint(folder, tmp_path / "out")
    there = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert there == {*kept, "model.safetensors"}
    assert {*found.copied} == kept
    assert {*found.left_out} == {*others, ".git", "runs", "checkpoint-500"}
    for name in kept:
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()


WORDS = torch.randn(8, 4)
EMBEDDINGS = ("lm_head", "model.decoder.embed_tokens", "model.encoder.embed_tokens", "model.shared")
ROWS = torch.randn(9, 4)
SHARED = {
    "a tied output, and a name that no model ties": (
        {"decoder.lm_head.weight": WORDS, "decoder.model.decoder.embed_tokens.weight": WORDS, "other": WORDS},
        {"decoder.lm_head.weight": "decoder.model.decoder.embed_tokens.weight"},
    ),
    "all names of one embedding": (
        {f"{name}.weight": WORDS for name in EMBEDDINGS},
        {f"{name}.weight": "model.shared.weight" for name in EMBEDDINGS[:-1]},
    ),
    "an output that is not tied": ({"decoder.lm_head.weight": WORDS, "decoder.embed_tokens.weight": WORDS}, {}),
    "parts of one storage": ({"query": ROWS[:3], "key": ROWS[3:6], "lm_head.weight": ROWS[6:], "all": ROWS}, {}),
}
"""Weights that share their storage, and those that are left out, each with the name that is kept."""


@pytest.mark.parametrize(("kind", "is_zip"), [*((kind, True) for kind in SHARED), (next(iter(SHARED)), False)])
def test_of_several_names_of_one_tensor_those_of_tied_outputs_are_left_out(model, tmp_path, kind, is_zip):
    folder, _ = model
    state, tied = SHARED[kind]
    if "not tied" in kind:
        config = json.loads((folder / "config.json").read_text()) | {"tie_word_embeddings": False}
        (folder / "config.json").write_text(json.dumps(config))
    torch.save(state, folder / "pytorch_model.bin", _use_new_zipfile_serialization=is_zip)
    assert convert_checkpoint(folder, tmp_path / "out").tied == tied
    kept = {name: value for name, value in state.items() if name not in tied}
    assert_equal(safetensors.torch.load_file(tmp_path / "out" / "model.safetensors"), kept)
