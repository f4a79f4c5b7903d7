"""Keep behind Label: rows are left out by their labels, whole rows and rows of several windows."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import PlanError, SpecError
from tests import kit
from tests.corpora import AUDIO, CHECKPOINT, a_pipeline, samples_of, write_shard

pytestmark = pytest.mark.lengthy

SCORE, SNR = -0.02, 15
KEEP = raysp.Keep(where=[("pred_score", ">", SCORE), ("signal.snr", ">", SNR)])
OUTPUTS = [raysp.Transcript(words=True), raysp.Signals()]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
    """Digits, a clean and a noisy row of several windows, and one that cannot be decoded."""
    words = [(32767 * samples_of(row["audio"])).astype(np.int16) for row in kit.digits(12)]
    long = np.concatenate([np.pad(word, (0, 2_000)) for word in words])
    noisy = long // 2 + np.random.default_rng(0).integers(-1_500, 1_500, len(long)).astype(np.int16)
    audio = [*(kit.sound(wave, 8_000) for wave in (*words, long, noisy)), b"broken"]
    ids = [*(f"digit {number}" for number in range(len(words))), "long", "noisy", "broken"]
    table = pa.table({"id": ids, "audio": pa.array([{"bytes": one, "path": None} for one in audio], AUDIO)})
    return str(write_shard(tmp_path_factory.mktemp("in") / "a.parquet", table=table, row_group_size=7))


def pipeline_of(source: str, sink: object, *filters: raysp.Keep) -> raysp.Pipeline:
    label = raysp.Label(str(CHECKPOINT), outputs=OUTPUTS, window_seconds=4, overlap_seconds=1)
    return a_pipeline(source, sink, steps=[raysp.Decode(), label, *filters], max_error_rate=1)


@pytest.mark.slow
def test_rows_that_meet_every_condition_keep_their_labels_and_others_lose_them(source, tmp_path):
    pipeline = pipeline_of(source, tmp_path / "out", KEEP)
    raysp.run(pipeline, engine="here", progress=False)
    found = {row["id"]: row for row in kit.rows(tmp_path / "out")}
    label = raysp.Labeller(pipeline_of(source, "not written").steps, row="row")
    rows = pq.read_table(source)
    rows = rows.append_column("row", pa.array(range(rows.num_rows)))
    unfiltered = {row["id"]: row for row in label(rows).to_pylist()}
    assert [*found] == [*unfiltered]
    messages = {}
    for name, row in unfiltered.items():
        if row["status"] != "ok" or (row["pred_score"] > SCORE and row["signal"]["snr"] > SNR):
            assert found[name] == row
            continue
        expected = ("skipped", "filtered", row["seconds"])
        assert tuple(found[name][column] for column in ("status", "error_type", "seconds")) == expected
        assert {found[name][column] for column in ("pred_text", "pred_score", "pred_words", "signal")} == {None}
        score, snr = (np.float32(one) for one in (row["pred_score"], row["signal"]["snr"]))
        of_snr, of_score = f"signal.snr is {snr!s}, expected > 15", f"pred_score is {score!s}, expected > -0.02"
        messages[name] = of_snr if score > SCORE else of_score  # the first condition that is not met
        assert found[name]["error_message"] == messages[name]
    assert {message.split()[0] for message in messages.values()} == {"pred_score", "signal.snr"}
    assert "noisy" in messages  # rows of several windows are judged whole
    assert raysp.verify(pipeline.sink.url, sample=20, trust=True).differences == ()
    columns = ["status", "error_type", "error_message", "pred_text", "signal"]
    alone = raysp.Labeller(pipeline.steps)(pq.read_table(source)).select(columns).to_pylist()
    assert alone == [{name: row[name] for name in columns} for row in found.values()]


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (("text", "==", "a"), r"steps\[2\] Keep after Label reads 'text', .* one of pred_text, pred_score, pred"),
        (("signal.snrs", ">", 1), r"steps\[2\] Keep: 'signal' has no field 'snrs'; expected one of loudness, peak, "),
        (("pred_text.a", ">", 1), r"no column is named 'pred_text.a', and 'pred_text' is a string; expected a struct"),
        (("signal.snr", ">", "a"), r"steps\[2\] Keep: Keep cannot compare 'signal.snr' > 'a', a column of float"),
    ],
)
def test_conditions_that_no_column_can_meet_are_refused_with_those_that_exist(source, tmp_path, where, message):
    with pytest.raises((SpecError, PlanError), match=message):
        raysp.plan(pipeline_of(source, tmp_path, raysp.Keep(where=[where])))
