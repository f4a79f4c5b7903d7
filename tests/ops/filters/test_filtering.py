"""Steps of a user's own: which rows go on, before and after decoding."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import RunError
from tests.corpora import AUDIO, a_pipeline, rows_table, wav, write_shard
from tests.user_specs import Short, Spoken


@pytest.mark.slow
def test_a_users_own_step_chooses_rows_before_and_after_decoding_by_seconds_when_they_are_known(tmp_path):
    audio = [wav(8000), wav(8000), wav(8000), wav(800), b"no audio", wav(20)]
    texts = ["a b c", "one", "one two", "a b c", "a b c", "a b c"]
    values = pa.array([{"bytes": one, "path": None} for one in audio], AUDIO)
    table = rows_table(6).set_column(1, "audio", values).set_column(2, "text", pa.array(texts))
    write_shard(tmp_path / "in" / "a.parquet", table=table)
    steps = [Spoken(min_words=2), raysp.Decode(), Spoken(min_words=3, most_per_second=10), a_pipeline().label]
    pipeline = a_pipeline(str(tmp_path / "in"), tmp_path / "out", steps=steps, max_error_rate=1)
    raysp.run(pipeline, engine="here", progress=False)
    labels = pq.read_table(tmp_path / "out" / "a.parquet").to_pylist()
    reasons = [None, "filtered", "filtered", "filtered", "unsupported_format", "filtered"]
    assert [row["error_type"] for row in labels] == reasons
    assert [row["error_message"] for row in labels[:4]] == [None, "1 words", "2 words", "spoken too fast"]
    assert raysp.verify(str(tmp_path / "out"), pipeline=pipeline).differences == ()


@pytest.mark.parametrize(
    ("result", "found", "is_behind"), [([None], "1 value for 2 rows", False), ([5, 5], "5 for 2 rows", True)]
)
def test_an_op_that_returns_other_values_is_named(tmp_path, result, found, is_behind):
    write_shard(tmp_path / "in" / "a.parquet", 2)
    steps = [raysp.Decode(), Short(result)] if is_behind else [Short(result), raysp.Decode()]
    pipeline = a_pipeline(str(tmp_path / "in"), tmp_path / "out", steps=[*steps, a_pipeline().label])
    with pytest.raises(RunError, match=rf"FirstAlone returned {found}; expected None or the reason"):
        raysp.run(pipeline, engine="here", progress=False)


def test_a_step_that_reads_the_audio_or_seconds_too_early_is_refused():
    with pytest.raises(raysp.SpecError, match="Spoken by seconds needs decoded audio: move it after Decode"):
        a_pipeline(steps=[Spoken(most_per_second=1), raysp.Decode(), a_pipeline().label])
    with pytest.raises(raysp.SpecError, match=r"steps\[1\] Spoken: it cannot use the audio column 'audio'"):
        a_pipeline(keep=[Spoken(column="audio")])
