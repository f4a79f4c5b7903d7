"""Conversion of pickled weights: same names, values and types; nothing but what belongs to a checkpoint."""

import json
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file

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
WEIGHTS, INDEX = "model.safetensors", "pytorch_model.bin.index.json"


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
    state = load_file(folder / WEIGHTS)
    (folder / WEIGHTS).unlink()
    return folder, state


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype, name
        assert torch.equal(found[name], value), name


WORDS, ROWS = torch.randn(8, 4), torch.randn(9, 4)
KINDS = {
    **{str(dtype): torch.arange(24).reshape(2, 3, 4).to(dtype) for dtype in (torch.float64, torch.bfloat16)},
    **{str(dtype): torch.arange(7).to(dtype) for dtype in (torch.float16, torch.int64, torch.uint8, torch.bool)},
    "one number": torch.tensor(3.5),
    "nothing": torch.empty(0, 4),
    "a parameter": torch.nn.Parameter(torch.randn(3)),
    "transposed": torch.randn(4, 6).T,
    "the middle": torch.randn(10)[3:7],
    "expanded": torch.randn(1, 4).expand(3, 4),
    "overlapping": torch.randn(10).as_strided((4, 4), (2, 1)),
    'a name with ü, \U0001f600 and "quotes"': torch.randn(2),
    **{"query": ROWS[:3], "key": ROWS[3:6], "all": ROWS},
}
"""Tensors of each type and layout, some of one storage."""


@pytest.mark.parametrize("is_zip", [True, False], ids=["zip", "older"])
def test_weights_keep_their_names_values_and_types(model, tmp_path, is_zip):
    folder, state = model
    with_versions = OrderedDict(state)
    with_versions._metadata = {"": {"version": 1}}  # as those of modules have it
    torch.save(with_versions, folder / "pytorch_model.bin", _use_new_zipfile_serialization=is_zip)
    found = convert_checkpoint(folder, tmp_path / "out")
    assert_equal(load_file(tmp_path / "out" / WEIGHTS), state)
    assert found.num_tensors == len(state)
    assert found.summary.architecture == "Wav2Vec2ForCTC"
    loaded = Wav2Vec2ForCTC.from_pretrained(folder, allow_pickle=True)
    assert_equal(load_model(tmp_path / "out").state_dict(), loaded.state_dict())
    torch.save(KINDS, folder / "pytorch_model.bin", _use_new_zipfile_serialization=is_zip)
    found = convert_checkpoint(folder, tmp_path / "kinds")
    assert_equal(load_file(tmp_path / "kinds" / WEIGHTS), {name: value.detach() for name, value in KINDS.items()})
    assert found.summary is None
    assert "config.json" in found.unread


def test_big_endian_values_are_read(model, tmp_path):
    folder, _ = model
    values = np.arange(4, dtype=">f4")
    program = hostile.pickled({"weight": hostile.tensor((2, 2), (2, 1))})
    (folder / "pytorch_model.bin").write_bytes(hostile.archive(program, _0=values.tobytes()))
    with zipfile.ZipFile(folder / "pytorch_model.bin", "a") as file:
        file.writestr("archive/byteorder", "big")
    convert_checkpoint(folder, tmp_path / "out")
    assert load_file(tmp_path / "out" / WEIGHTS)["weight"].tolist() == [[0, 1], [2, 3]]


def sharded(folder, state):
    """Write two files with an index; return the file of each weight."""
    weight_map = {name: f"pytorch_model-0000{1 + place % 2}-of-00002.bin" for place, name in enumerate(sorted(state))}
    for file in {*weight_map.values()}:
        torch.save({name: state[name] for name in state if weight_map[name] == file}, folder / file)
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return weight_map


def test_several_files_become_several_files_with_their_index(model, tmp_path):
    folder, state = model
    weight_map, out = sharded(folder, state), tmp_path / "out"
    convert_checkpoint(folder, out)
    index = json.loads((out / f"{WEIGHTS}.index.json").read_text())
    new_names = {name: f"{file.removeprefix('pytorch_')[:-4]}.safetensors" for name, file in weight_map.items()}
    assert index["weight_map"] == new_names
    assert {path.name for path in out.glob("*safetensors*")} == {*new_names.values(), f"{WEIGHTS}.index.json"}
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in state.values())
    assert_equal(load_model(out).state_dict(), Wav2Vec2ForCTC.from_pretrained(folder, allow_pickle=True).state_dict())
    (folder / INDEX).write_text(json.dumps({"weight_map": {**weight_map, "other": min(weight_map.values())}}))
    with pytest.raises(CheckpointError, match=f"lacks other, which {INDEX} lists there"):
        convert_checkpoint(folder, tmp_path / "new" / "out")
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    torch.save(state, folder / max(weight_map.values()))
    with pytest.raises(CheckpointError, match="which another file has too: remove one of the two"):
        convert_checkpoint(folder, tmp_path / "new" / "out")
    assert [*(tmp_path / "new").iterdir()] == []


def test_adapters_of_languages_are_converted(model, tmp_path):
    folder, state = model
    safetensors.torch.save_file(state, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / "pytorch_model.bin").write_bytes(b"never opened")
    with pytest.raises(CheckpointError, match="has safetensors, and no pickled weights without safetensors"):
        convert_checkpoint(folder, tmp_path / "out")
    adapters = {language: {"lm_head.weight": torch.randn(3, 32)} for language in ("deu", "fra", "uzb-script_cyrillic")}
    for language, adapter in adapters.items():
        torch.save(adapter, folder / f"adapter.{language}.bin")
    safetensors.torch.save_file({"lm_head.weight": torch.zeros(1)}, folder / "adapter.fra.safetensors")
    found = convert_checkpoint(folder, tmp_path / "out")
    assert {*found.written} == {"adapter.deu.safetensors", "adapter.uzb-script_cyrillic.safetensors"}
    for name in found.written:
        assert_equal(load_file(tmp_path / "out" / name), adapters[name.split(".")[1]])
    assert "adapter.fra.bin" in found.left_out
    for name in ("adapter.fra.safetensors", WEIGHTS):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()


KEPT = {
    *("config.json", "preprocessor_config.json", "vocab.json", "merges.txt", "spm.model", "README.md", "LICENSE"),
    *("chat_template.jinja", "language_model/lm.binary", "language_model/unigrams.txt"),
}
OTHERS = {
    *("training_args.bin", "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "trainer_state.json"),
    *("flax_model.msgpack", "tf_model.h5", "model.onnx", "modeling.py", ".gitattributes", "pytorch_model.fp16.bin"),
    *("flax_model.msgpack.index.json", "train_results.json", "events.out.tfevents.1.host"),
}
FOLDERS = {".git", "runs", "checkpoint-500"}


def test_what_belongs_to_a_checkpoint_is_copied_and_nothing_else(model, tmp_path):
    folder, state = model
    torch.save(state, folder / "pytorch_model.bin")
    for name in {*KEPT, *OTHERS, *(f"{one}/config.json" for one in FOLDERS)}:
        (folder / name).parent.mkdir(exist_ok=True)
        if not (folder / name).exists():
            (folder / name).write_text(name)
    found, out = convert_checkpoint(folder, tmp_path / "out"), tmp_path / "out"
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == {*KEPT, WEIGHTS}
    assert ({*found.copied}, {*found.left_out}) == (KEPT, OTHERS | FOLDERS)
    assert all((out / name).read_bytes() == (folder / name).read_bytes() for name in KEPT)


EMBEDDINGS = ("lm_head", "model.decoder.embed_tokens", "model.encoder.embed_tokens", "model.shared")
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
}
"""Weights that share their storage, and those that are left out, each with the name that is kept."""


@pytest.mark.parametrize("kind", SHARED)
def test_of_several_names_of_one_tensor_those_of_tied_outputs_are_left_out(model, tmp_path, kind):
    folder, _ = model
    state, tied = SHARED[kind]
    config: Path = folder / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "tie_word_embeddings": bool(tied)}))
    torch.save(state, folder / "pytorch_model.bin")
    assert convert_checkpoint(folder, tmp_path / "out").tied == tied
    kept = {name: value for name, value in state.items() if name not in tied}
    assert_equal(load_file(tmp_path / "out" / WEIGHTS), kept)
