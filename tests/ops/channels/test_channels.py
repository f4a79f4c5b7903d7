"""Channels: each has the label that it has as a recording of its own, and a row holds them all."""

import numpy as np
import pytest

from tests.ops.channels.calls import RATE, Row, Wave, encoded, labelled, of_one_length, side

pytestmark = pytest.mark.lengthy

OF_ROWS = ("id", "row", "seconds", "status", "error_type", "error_message")
MOST_CHANNELS = 16
WINDOWS = {"window_seconds": 1, "overlap_seconds": 0.25}


def outputs_of(row: Row) -> Row:
    return {name: value for name, value in row.items() if name not in OF_ROWS}


@pytest.fixture(scope="module")
def calls() -> list[list[Wave]]:
    """Rows of one to three channels: sides of calls with different texts and pauses, and one that is too short."""
    first, second, third = side(0, [0, 0.5, 0.2]), side(1, [1.2, 0.1]), side(2, [0])
    rows = [[first, second], [third], [second[: 3 * RATE // 2], third, first], [first[:100], third[:100]]]
    return [of_one_length(row) for row in rows]


@pytest.mark.slow
def test_a_channel_without_speech_has_nulls_and_a_row_is_skipped_if_all_are(tmp_path, calls):
    spoken, silence = calls[0][0], np.zeros_like(calls[0][0])
    rows = [encoded(row) for row in ([silence, spoken], [spoken, silence], [silence, silence], [silence])]
    found = labelled(tmp_path, rows, windows="speech", **WINDOWS)
    assert [(row["status"], row["error_type"]) for row in found] == [("ok", None)] * 2 + [("skipped", "no_speech")] * 2
    first, second = found[0]["pred_text"], found[1]["pred_text"]
    assert first == second[::-1]
    assert [text is None for text in first] == [True, False]
    assert [words is None for words in found[0]["pred_words"]] == [True, False]
    assert outputs_of(found[2]) == dict.fromkeys(outputs_of(found[2]))
    assert [row["seconds"] for row in found] == [len(spoken) / RATE] * 4


def test_too_many_channels_and_an_error_of_one_are_errors_that_name_them(tmp_path, calls):
    most, more = ([calls[1][0][:2000]] * count for count in (MOST_CHANNELS, MOST_CHANNELS + 1))
    first, broken = (one / np.float32(32768) for one in calls[0])
    broken[-5] = np.nan
    found = labelled(tmp_path, [encoded(most), encoded(more), encoded([first, broken], "FLOAT")])
    assert len(found[0]["pred_text"]) == MOST_CHANNELS
    assert [row["error_type"] for row in found[1:]] == ["invalid_audio"] * 2
    assert found[1]["error_message"].startswith("17 channels; channel='each' labels at most 16: choose one by Decode(")
    assert found[2]["error_message"].startswith("channel 1 of 2: WAV FLOAT: NaN")
    assert outputs_of(found[2]) == dict.fromkeys(outputs_of(found[2]))
