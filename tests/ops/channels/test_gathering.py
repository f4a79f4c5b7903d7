"""Rows of the labelled rows of their channels: which outcome they have, and when lists."""

import pyarrow as pa
import pytest

from raysp.ops.channels import MOST_CHANNELS, gather
from raysp.ops.rows import RowStatus, statuses_table

NO_SPEECH = ("skipped", "no_speech", "none")
SHORT = ("skipped", "too_short", "1 sample")
CORRUPT = ("error", "corrupt_audio", "damaged")
NAN = ("error", "invalid_audio", "NaN")
MODEL = ("error", "step_failed", "the model failed")
MAP = ("error", "step_failed", "Map failed")
OK = ("ok", None, None)


def channel(number: int, outcome: tuple[str, str | None, str | None]) -> RowStatus:
    made = RowStatus(number)
    made.status, made.error_type, made.error_message = outcome
    made.seconds = None if outcome in (CORRUPT, NAN) else 2.0
    return made


def gathered(*rows: list[tuple[str, str | None, str | None]]) -> list[dict[str, object]]:
    statuses = [
        channel(place * MOST_CHANNELS + number, outcome)
        for place, row in enumerate(rows)
        for number, outcome in enumerate(row)
    ]
    table = statuses_table(statuses)
    texts = [f"{one.row}" if one.status == "ok" else "" if one.error_type == "too_short" else None for one in statuses]
    table = table.append_column("pred_text", pa.array(texts, pa.string()))
    table = table.append_column("length", pa.array([3 if one.status == "ok" else None for one in statuses], pa.int32()))
    return gather(table, pa.schema([("length", pa.int32())]), ["pred_text"]).to_pylist()


@pytest.mark.parametrize(
    ("channels", "outcome", "texts"),
    [
        ([NO_SPEECH, OK], OK, [None, "1"]),
        ([NO_SPEECH, NO_SPEECH], NO_SPEECH, None),
        ([NO_SPEECH, SHORT], SHORT, None),
        ([MODEL, CORRUPT], CORRUPT, None),
        ([NO_SPEECH, NAN], (*NAN[:2], "channel 1 of 2: NaN"), None),
        ([NAN, NAN], (*NAN[:2], "channel 0 of 2: NaN"), None),
        ([OK, MODEL, MODEL], (*MODEL[:2], "channel 1 of 3: the model failed"), None),
        ([MAP, MAP], MAP, None),
    ],
)
def test_the_outcome_and_the_lists_of_a_row(channels, outcome, texts):
    [row] = gathered(channels)
    assert (row["status"], row["error_type"], row["error_message"]) == outcome
    assert row["pred_text"] == texts
    assert row["length"] == (3 if outcome == OK else None)
    assert row["seconds"] == (None if outcome[1] in (CORRUPT[1], NAN[1]) else 2.0)


def test_rows_keep_their_numbers_and_their_order():
    rows = gathered([OK, OK], [CORRUPT], [SHORT, SHORT], [NO_SPEECH, OK, OK])
    assert [row["row"] for row in rows] == [0, 1, 2, 3]
    assert [row["pred_text"] for row in rows] == [["0", "1"], None, ["", ""], [None, "49", "50"]]
    assert [(row["window"], row["windows"]) for row in rows] == [(0, 1)] * 4
