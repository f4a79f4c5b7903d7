"""Steps of a user's own: which rows go on, before and after decoding."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import RunError
from raysp.ops.filtering import RowOp, apply
from raysp.ops.rows import RowStatus
from tests.corpora import a_pipeline, rows_table, wav, write_shard
from tests.user_specs import EnoughWords, Spoken


@pytest.mark.slow
def test_a_users_own_step_chooses_rows_before_and_after_decoding(tmp_path):
    table = rows_table(4, audio=wav(8000)).set_column(2, "text", pa.array(["a b c", "one", "one two", None]))
    write_shard(tmp_path / "in" / "a.parquet", table=table)
    steps = [Spoken(min_words=2), raysp.Decode(), Spoken(min_words=3, most_per_second=100)]
    label = a_pipeline().label
    pipeline = a_pipeline(str(tmp_path / "in"), tmp_path / "out", steps=[*steps, label])
    raysp.run(pipeline, engine="here", progress=False)
    labels = pq.read_table(tmp_path / "out" / "a.parquet").select(["status", "error_type", "error_message"]).to_pylist()
    assert [tuple(row.values()) for row in labels] == [
        ("ok", None, None),
        ("skipped", "filtered", "1 words"),
        ("skipped", "filtered", "2 words"),
        ("skipped", "filtered", "0 words"),
    ]
    assert raysp.verify(str(tmp_path / "out"), pipeline=pipeline).differences == ()


def test_a_row_is_judged_by_its_seconds_when_they_are_known():
    statuses = [RowStatus(row) for row in range(3)]
    statuses[0].seconds, statuses[1].seconds = 0.1, 1.0
    apply(EnoughWords(Spoken(most_per_second=5)), statuses, pa.table({"text": ["a", "a", "a"]}))
    assert [one.error_message for one in statuses] == ["spoken too fast", None, None]


def test_an_op_that_returns_too_few_values_is_named():
    class Short(RowOp):
        def __call__(self, rows):
            return [None]

    with pytest.raises(RunError, match=r"Short returned 1 value for 2 rows; expected None or the reason"):
        apply(Short(), [RowStatus(0), RowStatus(1)], pa.table({"a": [1, 2]}))


def test_a_step_that_reads_the_audio_or_seconds_too_early_is_refused():
    with pytest.raises(raysp.SpecError, match="Spoken by seconds needs decoded audio: move it after Decode"):
        a_pipeline(steps=[Spoken(most_per_second=1), raysp.Decode(), a_pipeline().label])
    with pytest.raises(raysp.SpecError, match=r"steps\[1\] Spoken: it cannot use the audio column 'audio'"):
        a_pipeline(keep=[Spoken(column="audio")])
