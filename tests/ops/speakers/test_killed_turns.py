"""Runs with turns of speakers, killed: the rows of the run that goes on are those of an undisturbed one."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.backends.killed_runs import run_and_kill, run_to_the_end
from tests.classifiers import make_frame_classifier, make_speaker_model
from tests.corpora import CHECKPOINT
from tests.ops.speakers.recordings import joined, write_recordings
from tests.ops.speakers.test_frame_turning import probabilities
from tests.soaked import soaked

pytestmark = [pytest.mark.slow, pytest.mark.drivers]

PIPELINE = """
import raysp
pipeline = raysp.Pipeline(
    source=raysp.Shards({source!r}),
    steps=[
        raysp.Decode(),
        raysp.Label(
            {checkpoint!r},
            outputs=[raysp.Transcript(words=True), raysp.Turns(checkpoint={speakers!r}, threshold={threshold!r})],
            window_seconds=6,
            overlap_seconds=2,
            dtype="float32",
        ),
    ],
    sink=raysp.Parquet({sink!r}),
)
"""


def recipe(folder: Path, name: str, speakers: str, threshold: float) -> tuple[Path, Path]:
    """Write a pipeline file, and return it with its sink."""
    file, sink = folder / f"turns_{name}.py", folder / name
    values = {"source": f"{folder}/in/*.parquet", "checkpoint": str(CHECKPOINT), "speakers": speakers}
    file.write_text(PIPELINE.format(**values, threshold=threshold, sink=str(sink)))
    return file, sink


def of_vectors(folder: Path, wave: np.ndarray) -> tuple[str, float]:
    """Return a checkpoint with x-vectors, and a threshold by which it finds speakers."""
    return make_speaker_model(folder), 0.002


def of_frames(folder: Path, wave: np.ndarray) -> tuple[str, float]:
    """Return a frame classifier, and a probability that half of the frames of a recording exceed."""
    frames = make_frame_classifier(folder, "a", "b", "c")
    return frames, float(np.median(probabilities(frames, wave)))


@pytest.mark.parametrize(
    ("model", "at"),
    [
        (of_vectors, "before_shard_committed:1"),
        (of_frames, "after_piece_staged:1"),
        *soaked((of_vectors, f"after_{moment}") for moment in ("piece_staged:1", "shard_committed:1")),
        *soaked([(of_frames, at) for at in ("before_shard_committed:1", "after_shard_committed:1")]),
    ],
)
def test_a_killed_run_goes_on_to_the_same_turns(tmp_path, model, at):
    waves = [joined(["george", "lucas", "george"] * count, count, gap=0.4) for count in (2, 9, 1, 4)]
    given = model(tmp_path / "speakers", waves[1])
    write_recordings(tmp_path / "in", waves, rows_a_group=1)
    file, undisturbed = recipe(tmp_path, "undisturbed", *given)
    run_to_the_end(file)
    file, sink = recipe(tmp_path, "labels", *given)
    run_and_kill(file, at)
    run_to_the_end(file)
    found, expected = (pq.read_table(one / "a.parquet") for one in (sink, undisturbed))
    assert [len(turns) > 0 for turns in found["pred_turns"].to_pylist()] == [True] * 4
    names = [name for name in found.column_names if name != "pred_turns"]
    assert found.select(names).equals(expected.select(names))
    times = [[(one["speaker"], one["start"], one["end"]) for one in row] for row in found["pred_turns"].to_pylist()]
    assert times == [
        [(one["speaker"], one["start"], one["end"]) for one in row] for row in expected["pred_turns"].to_pylist()
    ]
