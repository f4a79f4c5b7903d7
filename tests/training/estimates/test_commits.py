"""Sizes of commits before a training, compared with its files."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

import raysp
from raysp import CTC, Checkpoint, Schedule, Seq2Seq, Speakers, Text, finetune
from tests.recipes import a_recipe
from tests.training.checkpoints import without_adapters
from tests.training.objectives.originals import save_decoder
from tests.training.trained import commits_of, committed_file

LORA, CONVOLUTIONS = raysp.LoRA(4), "feature_encoder"


OBJECTIVES = ("kept head", "adapter", "speakers", "decoder and LoRA")


@pytest.fixture(params=OBJECTIVES)
def objective(request, tiny, headless, listener, tmp_path):
    text = {"text": Text("lower")}
    return {
        "kept head": lambda: CTC(str(tiny), freeze=CONVOLUTIONS, **text),
        "adapter": lambda: CTC(str(without_adapters(tmp_path / "stable")), adapter="tur", vocabulary="build", **text),
        "speakers": lambda: Speakers(listener, column="speaker", crop_seconds=0.5),
        "decoder and LoRA": lambda: Seq2Seq(
            str(headless), decoder=str(save_decoder("gpt2", tmp_path / "d")), freeze=CONVOLUTIONS, lora=LORA, **text
        ),
    }[request.param]()  # fmt: skip


@pytest.mark.slow
def test_commits_of_every_objective_have_the_estimated_bytes_of_tensors_and_as_many_are_kept(
    words, objective, tmp_path
):
    is_averaged = isinstance(objective, CTC)
    fields = {"schedule": Schedule(steps=3 if is_averaged else 1), "ema": 0.9 if is_averaged else None}
    sink, source = Checkpoint(str(tmp_path / "out"), every=1), raysp.Shards(words, text="text")
    recipe = a_recipe(words, Path(), sink, objective=objective, source=source, **fields)
    found = raysp.estimate(recipe).commit
    finetune(recipe)
    commits = commits_of(tmp_path / "out")
    assert [tensor_bytes(tmp_path / "out", done) for done in commits] == [found.num_bytes] * (2 if is_averaged else 1)
    assert (found.kept, found.most_bytes) == (2, 3 * found.num_bytes)


def tensor_bytes(sink: Path, done: int) -> int:
    """Return the bytes of the tensors of a committed step, without the counts of the optimiser and the average."""
    files = [load_file(committed_file(sink, done, name)) for name in commits_of(sink)[done]["files"]]
    return sum(tensor.nbytes for file in files for tensor in file.values() if tensor.ndim)
