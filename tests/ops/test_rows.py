"""Statuses of rows: through a table and back, with messages that a terminal and a file can hold."""

from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.ops.rows import MAX_MESSAGE, OK, ROW_SCHEMA, RowStatus, plain, row_statuses, statuses_table

messages = st.text(max_size=60) | st.text(alphabet="\x1b[\n\t\x9b\ud800a", max_size=20)
statuses = st.lists(
    st.tuples(
        st.integers(0, 2**40),
        st.none() | st.floats(0, 1e6),
        st.sampled_from([(OK, None), ("skip", "too_short"), ("fail", "corrupt_audio")]),
        messages,
    ),
    max_size=8,
)


@settings(deadline=None)
@given(statuses)
def test_statuses_are_the_same_after_a_trip_through_a_table(drawn):
    made = []
    for row, seconds, (kind, reason), message in drawn:
        row_status = RowStatus(row)
        row_status.seconds = seconds
        if reason:
            getattr(row_status, kind)(reason, message)
        made.append(row_status)
    table = statuses_table(made)
    assert table.schema == ROW_SCHEMA
    names = RowStatus.__slots__
    assert [[getattr(f, n) for n in names] for f in row_statuses(table)] == [
        [getattr(f, n) for n in names] for f in made
    ]


@given(messages | st.text(min_size=600, max_size=700))
def test_a_message_becomes_one_bounded_line_without_controls(message):
    found = plain(message)
    assert len(found) <= MAX_MESSAGE
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in found)
    assert found.encode("utf-8").decode() == found
    assert plain("a\nb\x1b[31m größer") == "a b [31m größer"
    assert plain("x" * 501) == "x" * 499 + "…"
