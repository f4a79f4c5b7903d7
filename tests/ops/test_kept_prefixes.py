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


@pytest.mark.parametrize("num_samples", [24_000, 180_000])
def test_the_outputs_are_those_of_the_samples_before_the_damage(labelled, spoken, num_samples):
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


def test_recordings_without_decoded_samples_have_no_outputs(labelled):
    recordings = [wav(8000), b"garbage" * 100, b"", None, flac(np.zeros(30_000, np.int16))[:50]]
    found = labelled(recordings, keep_prefix=True)
    assert found == labelled(recordings)
    assert [row["status"] for row in found] == ["ok", *["error"] * 4]


def test_a_prefix_shorter_than_the_model_needs_has_no_outputs(labelled):
    raw = bytearray(wav(20_000, subtype="FLOAT"))
    raw[-4 * 19_900 : -4 * 19_900 + 4] = np.float32("nan").tobytes()
    [row] = labelled([bytes(raw)], keep_prefix=True)
    assert (row["status"], row["error_type"], row["pred_text"]) == ("error", "invalid_audio", None)
    assert row["seconds"] == 100 / RATE


def test_filters_by_length_leave_damaged_rows_errors(labelled, spoken):
    [row] = labelled([halved(flac(spoken))], raysp.Keep(max_seconds=3), keep_prefix=True)
    assert (row["status"], row["error_type"]) == ("error", "corrupt_audio")
    assert row["pred_text"]


@pytest.mark.slow
@pytest.mark.parametrize("rows", ["all", "ok"])
def test_a_run_counts_them_as_errors_and_verify_and_retry_hold(tmp_path, rows):
    table = pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 6)
    whole = [soundfile.read(io.BytesIO(one["bytes"]), dtype="int16") for one in table.column("audio").to_pylist()]
    records = table.to_pylist()
    for row, times in ((1, 1), (4, 4)):  # one window, and several
        file = io.BytesIO()
        soundfile.write(file, np.concatenate([samples for samples, _ in whole] * times), whole[0][1], format="FLAC")
        records[row]["audio"]["bytes"] = file.getvalue()[: len(file.getvalue()) * 3 // 4]
    write_shard(tmp_path / "in" / "a.parquet", table=table.from_pylist(records, table.schema), row_group_size=3)

    def run(name: str, *, keep_prefix: bool) -> dict[int, dict]:
        steps = [
            raysp.Decode(keep_prefix=keep_prefix),
            raysp.Label(
                str(DEMO / "unispeech-digits-ctc"),
                outputs=[raysp.Transcript(), raysp.Embedding()],
                window_seconds=2,
                overlap_seconds=0.5,
            ),
        ]
        sink = raysp.Parquet(str(tmp_path / name), rows=rows)
        pipeline = a_pipeline(f"{tmp_path}/in/*.parquet", sink, steps=steps, max_error_rate=1)
        raysp.run(pipeline, engine="here", progress=False)
        raysp.retry(pipeline.sink.url, pipeline=pipeline, engine="here", progress=False)
        return {row["row"]: row for row in pq.read_table(tmp_path / name / "a.parquet").to_pylist()}

    usual, found = run("usual", keep_prefix=False), run("kept", keep_prefix=True)
    assert found.keys() == usual.keys()
    for row, expected in usual.items():
        if expected["status"] == "ok":
            assert found[row] == expected
            continue
        assert row in (1, 4)
        assert (found[row]["status"], found[row]["error_type"]) == ("error", "corrupt_audio")
        assert expected["pred_text"] is None
        assert len(found[row]["pred_text"].split()) >= row
        assert len(found[row]["embedding"]) == len(usual[0]["embedding"])
    verified = raysp.verify(str(tmp_path / "kept"), sample=6, trust=True)
    assert list(verified.differences) == []
    status = raysp.status(str(tmp_path / "kept"))
    assert (status.ok, status.error, status.errors_by_type) == (4, 2, {"corrupt_audio": 2})
