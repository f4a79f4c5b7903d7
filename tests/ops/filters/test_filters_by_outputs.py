"""Keep behind Label: rows are left out by their labels, whole rows and rows of several windows, in any batch."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

import raysp
from benchmarks.inputs.corpus import read_utterances
from raysp import PlanError, SpecError, plan, status, verify
from tests.corpora import AUDIO, CHECKPOINT, DEMO, a_pipeline, wav, write_shard

pytestmark = pytest.mark.lengthy

SCORE, SNR = -0.02, 15
KEEP = raysp.Keep(where=[("pred_score", ">", SCORE), ("signal.snr", ">", SNR)])
OUTPUTS = [raysp.Transcript(words=True), raysp.Signals(), raysp.Embedding()]


"""Fields of `signal` that are measured in the recording alone."""
LABELS = ("pred_text", "pred_score", "pred_words", "signal", "embedding", "length")


def length_of(rows: pa.Table) -> dict[str, list[int]]:
    return {"length": [len(one) for one in rows.column("id").to_pylist()]}


def file_of(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, 16_000, format="FLAC")
    return file.getvalue()


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
    """Digits, a clean and a noisy row of several windows, one too short, one that cannot be decoded."""
    speakers = read_utterances(str(DEMO / "audio" / "*.parquet"), 16_000).values()
    words = [one.samples for utterances in speakers for one in utterances[:5]]
    pause = np.zeros(4_000, np.int16)
    long = np.concatenate([part for word in words for part in (word, pause)])
    noise = np.random.default_rng(0).integers(-1_500, 1_500, len(long)).astype(np.int16)
    audio = {
        **{f"digit {number}": file_of(word) for number, word in enumerate(words)},
        "long": file_of(long),
        "noisy": file_of(long // 2 + noise),
        "too short": wav(100),
        "broken": b"broken",
    }
    table = pa.table(
        {"id": [*audio], "audio": pa.array([{"bytes": one, "path": None} for one in audio.values()], AUDIO)}
    )
    return str(write_shard(tmp_path_factory.mktemp("in") / "a.parquet", table=table, row_group_size=7))


def pipeline_of(source: str, sink: object, *filters: raysp.Keep, **label: object) -> raysp.Pipeline:
    adding = raysp.Map(length_of, adds={"length": "int32"}, reads=["id"])
    fields = {"outputs": OUTPUTS, "window_seconds": 4, "overlap_seconds": 1, **label}
    steps = [adding, raysp.Decode(), raysp.Label(str(CHECKPOINT), **fields), *filters]
    return a_pipeline(source, sink, steps=steps, max_error_rate=1)


def read(sink: Path) -> dict[str, dict[str, object]]:
    return {row["id"]: row for row in pq.read_table(sink / "a.parquet").to_pylist()}


@pytest.fixture(scope="module")
def unfiltered(source, tmp_path_factory) -> dict[str, dict[str, object]]:
    sink = tmp_path_factory.mktemp("unfiltered")
    raysp.run(pipeline_of(source, sink), engine="here", progress=False)
    return read(sink)


@pytest.fixture(scope="module")
def filtered(source, tmp_path_factory) -> Path:
    sink = tmp_path_factory.mktemp("filtered")
    raysp.run(pipeline_of(source, sink, KEEP), engine="here", progress=False)
    return sink


def passes(row: dict[str, object]) -> bool:
    return row["pred_score"] is not None and row["pred_score"] > SCORE and row["signal"]["snr"] > SNR


@pytest.mark.slow
def test_rows_that_meet_every_condition_keep_their_labels_and_others_lose_them(filtered, unfiltered):
    found = read(filtered)
    assert [*found] == [*unfiltered]
    wanted = {name for name, row in unfiltered.items() if passes(row)}
    assert {name: found[name] for name in wanted} == {name: unfiltered[name] for name in wanted}
    left_out = {name for name, row in unfiltered.items() if row["status"] == "ok"} - wanted
    assert len(wanted) > 2
    assert len(left_out) > 2
    for name in left_out:
        row = found[name]
        assert (row["status"], row["error_type"], row["seconds"]) == (
            "skipped",
            "filtered",
            unfiltered[name]["seconds"],
        )
        assert {row[column] for column in LABELS} == {None}
    assert found["too short"] == unfiltered["too short"]
    assert found["broken"] == unfiltered["broken"]


def test_rows_of_several_windows_are_judged_whole(filtered, unfiltered):
    assert unfiltered["long"]["seconds"] > 8
    assert unfiltered["noisy"]["signal"]["snr"] < SNR < unfiltered["long"]["signal"]["snr"]
    assert read(filtered)["noisy"]["status"] == "skipped"


def test_the_message_has_the_first_condition_that_is_not_met_with_the_value(filtered, unfiltered):
    found = {name: row["error_message"] for name, row in read(filtered).items() if row["error_type"] == "filtered"}
    expected = {}
    for name in found:
        score, snr = (np.float32(one) for one in (unfiltered[name]["pred_score"], unfiltered[name]["signal"]["snr"]))
        is_sure = score > SCORE
        expected[name] = (
            f"signal.snr is {snr!s}, expected > 15" if is_sure else f"pred_score is {score!s}, expected > -0.02"
        )
    assert found == expected
    assert {message.split()[0] for message in found.values()} == {"pred_score", "signal.snr"}


@pytest.mark.slow
def test_a_sink_with_filtered_rows_is_whole_and_counts_them(filtered):
    skipped = sum(row["error_type"] == "filtered" for row in read(filtered).values())
    found = status(str(filtered))
    assert found.errors_by_type == {"filtered": skipped, "too_short": 1, "unsupported_format": 1}
    checked = verify(str(filtered), sample=20, trust=True)
    assert (checked.differences, checked.sampled_equal) == ((), checked.sampled)


@pytest.mark.slow
def test_a_labeller_leaves_out_the_same_rows(source, filtered):
    steps = pipeline_of(source, "out", KEEP).steps
    found = raysp.Labeller(steps)(pq.read_table(source)).to_pylist()
    columns = ("status", "error_type", "error_message", "pred_text", "signal")
    assert [[row[name] for name in columns] for row in found] == [
        [row[name] for name in columns] for row in read(filtered).values()
    ]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (
            ("text", "==", "a"),
            r"steps\[3\] Keep behind Label reads 'text', .* one of length, pred_text, pred_score, pred",
        ),
        (("signal.snrs", ">", 1), r"steps\[3\] Keep: 'signal' has no field 'snrs'; expected one of loudness, peak, "),
        (("pred_text.a", ">", 1), r"no column is named 'pred_text.a', and 'pred_text' is a string; expected a struct"),
        (("signal.snr", ">", "a"), r"steps\[3\] Keep: Keep cannot compare 'signal.snr' > 'a', a column of float"),
    ],
)
def test_conditions_that_no_column_can_meet_are_refused_with_those_that_exist(source, tmp_path, where, message):
    with pytest.raises((SpecError, PlanError), match=message):
        plan(pipeline_of(source, tmp_path, raysp.Keep(where=[where])))
