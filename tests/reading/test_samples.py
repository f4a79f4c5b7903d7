"""Looking into finished label shards: first rows, and word errors against references."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.errors import PlanError
from raysp.reading.samples import WordErrors, first_rows, word_error_rate
from tests.corpora import write_shard

texts = st.none() | st.lists(st.sampled_from(["one", "Two", "it's", "three,", "-", "été"]), max_size=5).map(" ".join)


def edits(reference: list[str], hypothesis: list[str]) -> int:
    """Levenshtein's distance, as the textbook has it."""
    costs = list(range(len(hypothesis) + 1))
    for i, word in enumerate(reference, 1):
        before, costs[0] = costs[0], i
        for j, other in enumerate(hypothesis, 1):
            before, costs[j] = costs[j], min(costs[j] + 1, costs[j - 1] + 1, before + (word != other))
    return costs[-1]


def plain(text: str) -> list[str]:
    return [word for word in text.casefold().replace(",", "").replace("-", " ").split() if word]


class TestFirstRows:
    def test_rows_come_from_as_many_label_shards_as_it_takes(self, tmp_path):
        for name, rows in (("b", [3, 4]), ("a", [1, 2]), ("c/d", [5, 6])):
            write_shard(tmp_path / f"{name}.parquet", table=pa.table({"row": rows}))
        for count in range(1, 9):
            assert first_rows(str(tmp_path), count).column("row").to_pylist() == [1, 2, 3, 4, 5, 6][:count]

    def test_what_lies_under_raysp_is_no_label_shard(self, tmp_path):
        write_shard(tmp_path / ".raysp" / "errors" / "a.parquet", table=pa.table({"row": [9]}))
        write_shard(tmp_path / "a.parquet", table=pa.table({"row": [1]}))
        (tmp_path / "notes.txt").write_text("")
        assert first_rows(str(tmp_path), 5).column("row").to_pylist() == [1]

    def test_an_empty_label_shard_is_passed_over_and_a_column_of_nulls_fits_the_next(self, tmp_path):
        write_shard(tmp_path / "a.parquet", table=pa.table({"text": pa.array([], pa.string())}))
        write_shard(tmp_path / "b.parquet", table=pa.table({"text": pa.nulls(1)}))
        write_shard(tmp_path / "c.parquet", table=pa.table({"text": ["x"]}))
        assert first_rows(str(tmp_path), 5).column("text").to_pylist() == [None, "x"]

    def test_a_place_without_label_shards_is_refused(self, tmp_path):
        with pytest.raises(PlanError, match="found no label shard; is this the sink of a run"):
            first_rows(str(tmp_path), 5)


class TestWordErrorRate:
    @settings(deadline=None, max_examples=40)
    @given(st.lists(st.tuples(texts, texts), max_size=12))
    def test_it_is_the_edits_of_all_rows_over_the_words_of_all_references(self, tmp_path_factory, pairs):
        folder = tmp_path_factory.mktemp("labels")
        for index, part in enumerate((pairs[:5], pairs[5:])):
            columns = {name: pa.array([pair[i] for pair in part], pa.string()) for i, name in enumerate("rh")}
            write_shard(folder / f"{index}.parquet", table=pa.table(columns))
        judged = [(plain(r), plain(h)) for r, h in pairs if r is not None and h is not None and plain(r)]
        found = word_error_rate(str(folder), "r", "h")
        assert found == WordErrors(
            rows=len(judged), words=sum(len(r) for r, _ in judged), errors=sum(edits(r, h) for r, h in judged)
        )

    @pytest.mark.parametrize(("words", "errors", "rate"), [(0, 0, 0.0), (4, 1, 0.25), (2, 3, 1.5)])
    def test_the_rate_divides_errors_by_reference_words(self, words, errors, rate):
        assert WordErrors(1, words, errors).rate == rate

    def test_case_and_punctuation_count_for_nothing(self, tmp_path):
        table = pa.table({"r": ["It's one, two!", "ÉTÉ"], "h": ["it's ONE two", "été."]})
        write_shard(tmp_path / "a.parquet", table=table)
        assert word_error_rate(str(tmp_path), "r", "h") == WordErrors(2, 4, 0)
