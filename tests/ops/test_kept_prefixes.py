"""Rows whose recording is damaged: error rows, on request with the outputs of the samples before the damage."""

import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

import raysp
from tests.corpora import AUDIO, CHECKPOINT, DEMO, wav

RATE = 16_000
TIMED = raysp.Transcript(words=True, chars=True)


def flac(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="FLAC")
    return file.getvalue()


def halved(raw: bytes) -> bytes:
    return raw[: len(raw) // 2]


@pytest.fixture(scope="module")
def spoken() -> np.ndarray:
    """Spoken digits of twelve seconds."""
    table = pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 40)
    found = [soundfile.read(io.BytesIO(one["bytes"]), dtype="int16")[0] for one in table.column("audio").to_pylist()]
    return np.repeat(np.concatenate(found), 2)[: 12 * RATE]


@pytest.fixture(scope="module")
def labelled():
    """Label recordings by windows of a second, and return their rows."""
    label = raysp.Label(str(CHECKPOINT), outputs=[TIMED], batch_seconds=2, window_seconds=1, overlap_seconds=0.25)

    def rows(recordings: Sequence[bytes | None], *after: raysp.Keep, keep_prefix: bool = False) -> list[dict]:
        audio = pa.array([{"bytes": one, "path": None} for one in recordings], AUDIO)
        steps = [raysp.Decode(keep_prefix=keep_prefix), *after, label]
        with raysp.Labeller(steps, id=None) as labeller:
            return labeller(pa.table({"audio": audio})).to_pylist()

    return rows


def test_the_outputs_are_those_of_the_samples_before_the_damage(labelled, spoken):
    num_samples = 180_000
    whole = spoken[:num_samples]
    recordings = [wav(8000), halved(flac(whole)), wav(40_000)]
    usual, found = labelled(recordings), labelled(recordings, keep_prefix=True)
    assert (found[0], found[2]) == (usual[0], usual[2])
    names = ("status", "error_type", "error_message")
    assert [found[1][name] for name in names] == [usual[1][name] for name in names]
    assert (usual[1]["status"], usual[1]["pred_text"], usual[1]["seconds"]) == ("error", None, None)
    samples = round(found[1]["seconds"] * RATE)
    assert num_samples // 4 < samples < num_samples
    [expected] = labelled([flac(whole[:samples])])
    assert expected["pred_text"]
    for name in ("seconds", "pred_text", "pred_words", "pred_chars"):
        assert found[1][name] == expected[name], name
    assert found[1]["pred_score"] == pytest.approx(expected["pred_score"], abs=5e-4)
