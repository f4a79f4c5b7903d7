"""Word errors against references: counted when a shard is committed, kept in its receipt and footer."""

import pyarrow as pa
import pytest

from raysp.sink.receipts import TextColumns, WordErrors


def counted(references: list, hypotheses: list, statuses: list | None = None) -> WordErrors:
    found = WordErrors()
    table = {"r": references, "h": hypotheses, "status": statuses or ["ok"] * len(references)}
    found.count(pa.table(table), TextColumns("r", "h"))
    return found


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
