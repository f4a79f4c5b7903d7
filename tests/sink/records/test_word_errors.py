"""Word errors against references: counted when a shard is committed, kept in its receipt and footer."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.sink.receipts import TextColumns, WordErrors

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


def counted(references: list, hypotheses: list, statuses: list | None = None) -> WordErrors:
    found = WordErrors()
    table = {"r": references, "h": hypotheses, "status": statuses or ["ok"] * len(references)}
    found.count(pa.table(table), TextColumns("r", "h"))
    return found


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(texts, texts.map(lambda text: text or "")), max_size=12))
def test_they_are_the_edits_of_all_rows_over_the_words_of_all_references(pairs):
    found = WordErrors()
    for part in (pairs[:5], pairs[5:]):
        columns = {name: pa.array([pair[i] for pair in part], pa.string()) for i, name in enumerate("rh")}
        found.count(pa.table({**columns, "status": ["ok"] * len(part)}), TextColumns("r", "h"))
    judged = [(plain(r), plain(h)) for r, h in pairs if r is not None]
    assert (found.rows, found.words) == (len(judged), sum(len(r) for r, _ in judged))
    assert found.errors == sum(edits(r, h) for r, h in judged)


def test_each_kind_of_error_is_counted_and_words_for_an_empty_reference_are_insertions():
    found = counted(["a b c", "a b", "", "a"], ["a x", "a b c", "one two", "a"])
    assert found == WordErrors(4, words=6, substitutions=1, deletions=1, insertions=3)


def test_rows_without_a_label_are_counted_separately():
    found = counted(["a", "b", "c", None], ["a", None, None, "x"], ["ok", "error", "skipped", "ok"])
    assert found == WordErrors(1, unlabelled=2, skipped=1, words=1)


@pytest.mark.parametrize(
    ("text", "num_words"),
    [
        ("नमस्ते दुनिया, मैंने", 3),
        ("สวัสดีครับ", 1),
        ("مَرْحَبًا بِكُم", 2),
        ("Tiếng Viê\u0323t", 2),
        ("र्\u200dया क्\u200cष", 2),
        ("می\u200cخواهم", 2),
        ("Zei\u00adtung", 1),
    ],
)
def test_a_word_is_letters_with_their_marks_in_every_script(text, num_words):
    found = counted([text, text], [text, f"{text}."])
    assert (found.words, found.errors) == (2 * num_words, 0)
