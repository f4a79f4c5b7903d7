"""Counts of left-out rows and of their parts, in words."""

from raysp.verbs.export.destination import by_reason


def test_parts_of_rows_are_counted_by_their_name_and_all_else_as_rows():
    left_out = {"clip_too_short": 1, "utterance_too_long": 2, "region_too_long": 3, "no_region": 4, "filtered": 1}
    assert by_reason(left_out) == (
        "1 clip (clip_too_short), 2 utterances (utterance_too_long), 3 regions (region_too_long), 4 rows (no_region), "
        "1 row (filtered)"
    )
