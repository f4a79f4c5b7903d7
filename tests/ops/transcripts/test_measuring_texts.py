"""Signals of texts in rows: from which columns they come, and which are null."""

import pyarrow as pa
import pytest

import raysp
from raysp.ops.measuring import windows_with_text
from raysp.ops.measuring_texts import TextColumns, TextMeasuring
from raysp.specs.outputs.signals import LEVELS

SIGNALS = raysp.Signals()
STAGED = SIGNALS.schema(None)
SCHEMA = SIGNALS.completed(STAGED)
SPEECH = [{"start": 0.0, "end": 6.0}]


def measured(signals: dict[str, object] | None = None, schema: pa.Schema = SCHEMA, **row: object) -> dict[str, object]:
    """Return the completed columns of a row, with the names of its columns as those of the outputs."""
    op_fields = {name: row.pop(name) for name in ("expected", "phrases") if name in row}
    of_recording = {**dict.fromkeys(LEVELS, 0.5), "speech": SPEECH, **(signals or {})}
    table = pa.table(
        {
            "signal": pa.array([of_recording], STAGED[0].type),
            **{name: pa.nulls(1, schema.field(name).type) for name in schema.names[1:]},
            "seconds": [8.0],
            **{name: pa.array([value]) for name, value in row.items()},
        }
    )
    op = TextMeasuring(schema, columns=TextColumns(**{name: name for name in row}), language=op_fields.get("expected"))
    return pa.table(
        {name: pa.array(values, schema.field(name).type) for name, values in op(table).items()}
    ).to_pylist()[0]


def words(*spans: tuple[float | None, float | None]) -> list[dict[str, float | None]]:
    return [{"start": start, "end": end} for start, end in spans]


def test_rates_and_words_are_those_of_the_text():
    found = measured(text="one two one two")["signal"]
    assert [found[name] for name in ("words_per_second", "chars_per_second")] == [0.5, 1.5]
    assert [found[name] for name in ("repetition", "repeats")] == [2, 2]
    assert [found[name] for name in ("unique_words", "longest_word", "longest_ratio")] == [0.5, 3, 1]
    assert found["speech_share"] == 0.5
    assert [found[name] for name in ("unread", "unread_share", "script_share")] == [None] * 3


def test_speech_comes_from_its_own_output_if_there_is_one():
    found = measured(text="one", speech=[{"start": 1.0, "end": 3.0}], words=words((1, 1.5)))["signal"]
    assert found["speech_share"] == 0.25
    assert found["unread"] == pytest.approx(1)
    assert measured(text="one", words=words((1, 1.5)))["signal"]["unread"] == pytest.approx(4)
    assert measured(text="one 2", words=words((1, 5.5), (None, None)))["signal"]["unread"] == pytest.approx(0.75)


def test_windows_without_a_text_are_unread_where_words_have_no_times():
    windows = pa.table({"seconds": [2.0, 3.0, 3.0], "pred_part": ["one ", " ", "two"]})
    assert windows_with_text(windows) == [{"start": 0.0, "end": 2.0}, {"start": 5.0, "end": 8.0}]
    assert windows_with_text(windows.drop_columns(["pred_part"])) is None
    found = measured({"read": windows_with_text(windows)}, text="one two")["signal"]
    assert found["unread"] == pytest.approx(2.25)  # of 3 s, with what words cover beyond their times
    everywhere = [{"start": 0.0, "end": 8.0}]
    assert measured({"read": everywhere}, text="one two")["signal"]["unread"] is None
