"""The rows of a piece are sorted in bounded memory."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.sink.sorting import Sorter
from tests.sink import sinks


def windows_of(lengths: list[int]) -> pa.Table:
    """Make the windows of rows of so many windows each."""
    places = [(row, window) for row, count in enumerate(lengths) for window in range(count)]
    windows = [count if window == count - 1 else None for count in lengths for window in range(count)]
    numbers = {"window": [window for _, window in places], "windows": windows}
    table = sinks.results([row for row, _ in places])
    for name, values in numbers.items():
        table = table.append_column(name, pa.array(values, pa.int32()))
    return table


@pytest.mark.slow
@settings(deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=8),
    st.sampled_from([1, 1000, 10**6]),
    st.data(),
)
def test_windows_are_sorted_and_those_of_a_row_stay_together(tmp_path_factory, lengths, num_bytes, data):
    table = windows_of(lengths)
    order = data.draw(st.permutations(range(table.num_rows)))
    block_of = data.draw(st.lists(st.integers(0, 3), min_size=table.num_rows, max_size=table.num_rows))
    sorter = Sorter(lambda: tmp_path_factory.mktemp("scratch") / "runs", num_bytes)
    for block in sorted({*block_of}):
        sorter.add(table.take(pa.array([row for row in order if block_of[row] == block], pa.int64())))
    slices = list(sorter.slices())
    assert pa.concat_tables(slices).to_pylist() == table.to_pylist()
    assert len(slices) == {1: len(lengths), 1000: len(slices), 10**6: 1}[num_bytes]
