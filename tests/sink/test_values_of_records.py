"""Values of records that no test of a verb distinguishes: words of any script, and names of what changed."""

import pyarrow as pa
import pytest

from raysp.sink.receipts import TextColumns, WordErrors
from raysp.sink.run_record import differences


def counted(references: list, hypotheses: list, statuses: list | None = None) -> WordErrors:
    found = WordErrors()
    table = {"r": references, "h": hypotheses, "status": statuses or ["ok"] * len(references)}
    found.count(pa.table(table), TextColumns("r", "h"))
    return found


def test_word_errors_are_counted_by_kind_and_rows_without_a_label_separately():
    found = counted(["a b c", "a b", "", "a"], ["a x", "a b c", "one two", "a"])
    assert found == WordErrors(4, words=6, substitutions=1, deletions=1, insertions=3)
    found = counted(["a", "b", "c", None], ["a", None, None, "x"], ["ok", "error", "skipped", "ok"])
    assert found == WordErrors(1, unlabelled=2, skipped=1, words=1)


@pytest.mark.parametrize(
    ("text", "num_words"),
    [
        ("नमस्ते दुनिया, मैंने", 3),
        ("مَرْحَبًا بِكُم", 2),
        ("Tiếng Viê\u0323t", 2),
        ("र्\u200dया क्\u200cष", 2),
        ("Zei\u00adtung", 1),
    ],
)
def test_a_word_is_letters_with_their_marks_in_every_script(text, num_words):
    found = counted([text, text], [text, f"{text}."])
    assert (found.words, found.errors) == (2 * num_words, 0)


def test_differences_name_dotted_keys_and_hashed_files():
    old = {"a": {"b": [1, {"c": 2}]}, "gone": 1, "same": [None], "code.rules.py": "ab", "code.gone.py": "ef"}
    new = {"a": {"b": [1, {"c": 3}, 4]}, "same": [None], "lm": "x.arpa", "code.rules.py": "cd", "code.new.py": "ef"}
    assert differences(old, {**new, "label_version": 3}) == (
        "`a.b.1.c` was 2, now 3",
        "`gone` was 1, now unset",
        "the code in `rules.py` changed",
        "the code in `gone.py` is no longer used",
        "`a.b.2` was unset, now 4",
        "`lm` was unset, now 'x.arpa'",
        "the code in `new.py` is new",
        "this version of raysp labels differently (label version was unset, now 3)",
    )
    assert differences(old, old) == ()
