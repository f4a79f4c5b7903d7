"""The file of the space of speakers, which a training by `Speakers` ends with."""

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

import raysp
from raysp import Schedule, Speakers, finetune
from tests.classifiers import make_speaker_model
from tests.corpora import AUDIO, a_pipeline
from tests.kit import sound
from tests.ops.speakers.recordings import RATE, joined, write_recordings
from tests.recipes import a_recipe

pytestmark = pytest.mark.slow
NAMES = ["george", "jackson", "lucas", "nicolas"]
SPEAKERS_FILE = "speakers.json"
SHRINKAGE = 0.1
"""Share of the covariance within speakers that is the same in all directions."""


def write_speakers(folder: Path) -> tuple[str, list[np.ndarray]]:
    """Write recordings of each speaker of 0.3 to 3 seconds, and return the url with them."""
    waves = [joined([name] * (1 + number % 4), number) for number in range(6) for name in NAMES]
    waves[0] = waves[0][: RATE // 3]
    source = write_recordings(folder, waves, rows_a_group=7)
    path = folder / "a.parquet"
    table = pq.read_table(path)
    pq.write_table(table.append_column("speaker", pa.array(NAMES * 6)), path, row_group_size=7)
    stored = [soundfile.read(io.BytesIO(one["bytes"]), dtype="int16") for one in table["audio"].to_pylist()]
    assert {rate for _, rate in stored} == {RATE}
    return source, [samples for samples, _ in stored]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, list[np.ndarray]]:
    """A checkpoint of four speakers, and the recordings of its training."""
    folder = tmp_path_factory.mktemp("speakers")
    source, waves = write_speakers(folder / "in")
    objective = Speakers(make_speaker_model(folder / "random"), column="speaker")
    schedule = Schedule(steps=2, learning_rate=1e-3)
    finetune(a_recipe(source, Path(), folder / "out", objective=objective, schedule=schedule))
    return folder / "out", waves


def parts_of(wave: np.ndarray) -> list[np.ndarray]:
    """Return the first two seconds apart; a shorter recording of at least half a second is one part."""
    if len(wave) < RATE:
        return [wave] if len(wave) >= RATE // 2 else []
    return [wave[:RATE], wave[RATE : 2 * RATE]][: min(2, len(wave) // RATE)]


def vectors_of(checkpoint: Path, parts: list[np.ndarray]) -> np.ndarray:
    """Return the vectors of recordings, (N, E)."""
    recordings = [{"bytes": sound(part, RATE), "path": None} for part in parts]
    table = pa.table({"id": [*map(str, range(len(parts)))], "audio": pa.array(recordings, AUDIO)})
    label = raysp.Label(str(checkpoint), outputs=[raysp.Embedding(pooling="xvector")], dtype="float32")
    labels = raysp.Labeller([raysp.Decode(), label], keep=())(table)
    return np.array(labels["embedding"].to_pylist(), np.float64)


def test_it_is_that_of_parts_of_the_rows(trained):
    """By its mean, that of the speakers' means, and its directions, in which the covariance within speakers is 1."""
    checkpoint, waves = trained
    found = json.loads((checkpoint / SPEAKERS_FILE).read_text())
    parts = [(NAMES[row % 4], part) for row, wave in enumerate(waves) for part in parts_of(wave)]
    assert {len(part) for _, part in parts} > {RATE}
    vectors = vectors_of(checkpoint, [part for _, part in parts])
    groups = [vectors[[one == name for one, _ in parts]] for name in NAMES]
    means = np.stack([group.mean(0) for group in groups])
    np.testing.assert_allclose(found["mean"], means.mean(0), rtol=0.01, atol=1e-3)
    apart = np.concatenate([group - mean for group, mean in zip(groups, means, strict=True)])
    within = apart.T @ apart / (len(apart) - len(groups))
    within = (1 - SHRINKAGE) * within + SHRINKAGE * np.trace(within) / len(within) * np.eye(len(within))
    directions = np.array(found["directions"])
    assert len(directions) == len(found["between"]) > 0
    np.testing.assert_allclose(directions @ within @ directions.T, np.eye(len(directions)), atol=0.03)


def test_it_is_part_of_the_digest_and_decides_turns(trained, tmp_path):
    checkpoint = shutil.copytree(trained[0], tmp_path / "checkpoint", ignore=shutil.ignore_patterns(".raysp"))
    recording = write_recordings(tmp_path / "wave", [joined(["george", "lucas"] * 5, 1)])
    steps = [raysp.Decode(), raysp.Label(str(checkpoint), outputs=[raysp.Turns(speakers=2)])]
    fingerprints, turns = [], []
    for name in ("with", "without"):
        pipeline = a_pipeline(recording, tmp_path / name, steps=steps)
        fingerprints.append(raysp.plan(pipeline).fingerprint)
        raysp.run(pipeline, engine="here", progress=False)
        turns.append(pq.read_table(tmp_path / name / "a.parquet")["pred_turns"].to_pylist())
        (checkpoint / SPEAKERS_FILE).unlink(missing_ok=True)
    assert fingerprints[0] != fingerprints[1]
    assert turns[0] != turns[1]
