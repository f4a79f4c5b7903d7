"""Conversion of pickled weights: same names, values and types; nothing but what belongs to a checkpoint."""

import json
from collections import OrderedDict

import pytest
import torch
from safetensors.torch import load_file, save_file

from raysp import CheckpointError
from raysp.models import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC, convert_checkpoint, load_model
from tests.models.tokenizers.small import TINY

pytestmark = pytest.mark.lengthy

WEIGHTS, INDEX = "model.safetensors", "pytorch_model.bin.index.json"


@pytest.fixture
def model(tmp_path):
    """A checkpoint without weights, and its state."""
    torch.manual_seed(0)
    config = Wav2Vec2Config(**{**TINY, "vocab_size": 12}, architectures=["Wav2Vec2ForCTC"])
    folder = tmp_path / "pickled"
    Wav2Vec2ForCTC(config).init_weights().save_pretrained(folder)
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
    "expanded": torch.randn(1, 4).expand(3, 4),
    "overlapping": torch.randn(10).as_strided((4, 4), (2, 1)),
    'a name with ü, \U0001f600 and "quotes"': torch.randn(2),
    **{"query": ROWS[:3], "key": ROWS[3:6], "all": ROWS},
}
"""Tensors of each type and layout, some of one storage."""
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


def test_weights_keep_names_values_and_types_and_what_belongs_to_a_checkpoint_is_copied(model, tmp_path):
    """Weights of a model, and files of each format and kind of tensor as adapters of languages."""
    folder, state = model
    with_versions = OrderedDict(state)
    with_versions._metadata = {"": {"version": 1}}  # as those of modules have it
    torch.save(with_versions, folder / "pytorch_model.bin")
    torch.save(KINDS, folder / "adapter.zip.bin")
    torch.save(KINDS, folder / "adapter.old.bin", _use_new_zipfile_serialization=False)
    (folder / "adapter.fra.bin").write_bytes(b"never opened")
    save_file({"lm_head.weight": torch.zeros(1)}, folder / "adapter.fra.safetensors")
    for name in {*KEPT, *OTHERS, *(f"{one}/config.json" for one in FOLDERS)}:
        (folder / name).parent.mkdir(exist_ok=True)
        if not (folder / name).exists():
            (folder / name).write_text(name)
    found, out = convert_checkpoint(folder, tmp_path / "out"), tmp_path / "out"
    assert {*found.written} == {WEIGHTS, *(f"adapter.{name}.safetensors" for name in ("zip", "old"))}
    assert_equal(load_file(out / WEIGHTS), state)
    for name in ("zip", "old"):
        kinds = {name: value.detach() for name, value in KINDS.items()}
        assert_equal(load_file(out / f"adapter.{name}.safetensors"), kinds)
    assert found.num_tensors == len(state) + 2 * len(KINDS)
    assert found.summary.architecture == "Wav2Vec2ForCTC"
    kept = {*KEPT, "adapter.fra.safetensors"}
    assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == {*kept, *found.written}
    assert ({*found.copied}, {*found.left_out}) == (kept, OTHERS | FOLDERS | {"adapter.fra.bin"})
    assert all((out / name).read_bytes() == (folder / name).read_bytes() for name in kept)
    loaded = Wav2Vec2ForCTC.from_pretrained(folder, allow_pickle=True)
    assert_equal(load_model(out).state_dict(), loaded.state_dict())


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
    torch.save(state, folder / max(weight_map.values()))
    with pytest.raises(CheckpointError, match="which another file has too: remove one of the two"):
        convert_checkpoint(folder, tmp_path / "new" / "out")
    assert [*(tmp_path / "new").iterdir()] == []


TIED = {
    **{f"{name}.weight": WORDS for name in ("lm_head", "model.decoder.embed_tokens", "model.encoder.embed_tokens")},
    **{"model.shared.weight": WORDS, "other": WORDS},
}


def test_of_several_names_of_one_tensor_those_of_tied_outputs_are_left_out(model, tmp_path):
    folder, _ = model
    torch.save(TIED, folder / "pytorch_model.bin")
    config = json.loads((folder / "config.json").read_text())
    for is_tied in (True, False):
        (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": is_tied}))
        found = convert_checkpoint(folder, tmp_path / str(is_tied))
        assert found.tied == (dict.fromkeys([*TIED][:3], "model.shared.weight") if is_tied else {})
        kept = {name: value for name, value in TIED.items() if name not in found.tied}
        assert_equal(load_file(tmp_path / str(is_tied) / WEIGHTS), kept)
        assert found.summary is None
        assert "unexpected" in found.unread
    save_file({"weight": WORDS}, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match="has safetensors, and no pickled weights without safetensors"):
        convert_checkpoint(folder, tmp_path / "out")
