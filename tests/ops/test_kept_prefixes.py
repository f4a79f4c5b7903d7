"""Rows whose recording is damaged: error rows, on request with the outputs of the samples before the damage."""

import io
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

import raysp
from tests.corpora import AUDIO, CHECKPOINT, DEMO, a_pipeline, wav, write_shard

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


def test_a_prefix_that_is_empty_or_too_short_has_no_outputs_and_filters_by_length_leave_errors(labelled, spoken):
    short = bytearray(wav(20_000, subtype="FLOAT"))
    short[-4 * 19_900 : -4 * 19_900 + 4] = np.float32("nan").tobytes()
    recordings = [wav(8000), b"garbage" * 100, None, flac(np.zeros(30_000, np.int16))[:50], bytes(short)]
    found = labelled([*recordings, halved(flac(spoken))], raysp.Keep(max_seconds=3), keep_prefix=True)
    assert found[:4] == labelled(recordings[:4])
    assert [row["status"] for row in found] == ["ok", *["error"] * 5]
    names = ("error_type", "pred_text", "seconds")
    assert [found[4][name] for name in names] == ["invalid_audio", None, 100 / RATE]
    assert found[5]["error_type"] == "corrupt_audio"
    assert found[5]["pred_text"]


@pytest.mark.slow
def test_a_run_counts_them_as_errors_and_verify_and_retry_hold(tmp_path, spoken):
    good, damaged = wav(9_000), halved(flac(spoken))
    audio = pa.array([{"bytes": one, "path": None} for one in (good, damaged, good)], AUDIO)
    write_shard(tmp_path / "in" / "a.parquet", table=pa.table({"id": [*"abc"], "audio": audio}), row_group_size=2)
    outputs = [raysp.Transcript(), raysp.Embedding()]
    label = raysp.Label(str(CHECKPOINT), outputs=outputs, window_seconds=2, overlap_seconds=0.5)
    steps = [raysp.Decode(keep_prefix=True), label]
    sink = raysp.Parquet(str(tmp_path / "out"))
    pipeline = a_pipeline(f"{tmp_path}/in/*.parquet", sink, steps=steps, max_error_rate=1)
    raysp.run(pipeline, engine="here", progress=False)
    raysp.retry(sink.url, pipeline=pipeline, engine="here", progress=False)
    found = {row["row"]: row for row in pq.read_table(tmp_path / "out" / "a.parquet").to_pylist()}
    assert [*found] == [0, 1, 2]
    assert (found[1]["status"], found[1]["error_type"]) == ("error", "corrupt_audio")
    assert found[1]["pred_text"]
    assert len(found[1]["embedding"]) == len(found[0]["embedding"])
    assert list(raysp.verify(sink.url, sample=3, trust=True).differences) == []
    status = raysp.status(sink.url)
    assert (status.ok, status.error, status.errors_by_type) == (2, 1, {"corrupt_audio": 1})
