"""Rows whose recording is damaged: error rows, on request with the outputs of the samples before the damage."""

import numpy as np
import pyarrow as pa
import pytest

import raysp
from tests import kit
from tests.corpora import AUDIO, CHECKPOINT, samples_of, wav

RATE = 16_000
LABEL = {"batch_seconds": 2, "window_seconds": 1, "overlap_seconds": 0.25}


def labelled(*recordings: bytes, keep_prefix: bool = False) -> list[dict]:
    """Label recordings by windows of a second."""
    label = raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript(words=True, chars=True)], **LABEL)
    audio = pa.array([{"bytes": one, "path": None} for one in recordings], AUDIO)
    with raysp.Labeller([raysp.Decode(keep_prefix=keep_prefix), label], id=None) as labeller:
        return labeller(pa.table({"audio": audio})).to_pylist()


def test_the_outputs_are_those_of_the_samples_before_the_damage():
    words = np.concatenate([samples_of(row["audio"]) for row in kit.digits(40)])
    whole = np.repeat((32767 * words).astype(np.int16), 2)[:180_000]
    flac = kit.sound(whole, form="FLAC")
    recordings = [wav(8000), flac[: len(flac) // 2], wav(40_000)]
    usual, found = labelled(*recordings), labelled(*recordings, keep_prefix=True)
    assert (found[0], found[2]) == (usual[0], usual[2])
    names = ("status", "error_type", "error_message")
    assert [found[1][name] for name in names] == [usual[1][name] for name in names]
    assert (usual[1]["status"], usual[1]["pred_text"], usual[1]["seconds"]) == ("error", None, None)
    samples = round(found[1]["seconds"] * RATE)
    assert len(whole) // 4 < samples < len(whole)
    [expected] = labelled(kit.sound(whole[:samples], form="FLAC"))
    assert expected["pred_text"]
    for name in ("seconds", "pred_text", "pred_words", "pred_chars"):
        assert found[1][name] == expected[name], name
    assert found[1]["pred_score"] == pytest.approx(expected["pred_score"], abs=5e-4)
