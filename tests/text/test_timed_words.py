"""Words of a text with the times of its characters: subtitles of labels that have characters and no words."""

from pathlib import Path

import pysubs2

import raysp
from tests.corpora import labelled
from tests.exports import export_to

CHARS = list[dict[str, object]]


def chars(*texts: str) -> CHARS:
    """Return characters of one second each, every three seconds."""
    return [{"char": text, "start": 3.0 * n, "end": 3.0 * n + 1, "score": 0.5} for n, text in enumerate(texts)]


def cues(folder: Path, rows: dict[str, CHARS]) -> tuple[int, list[list[tuple[str, float, float]]]]:
    """Export texts with characters, and return the number of texts without times and the cues of each text.

    A cue is its text with its start and end in seconds. Words that are a second apart have a cue each.
    """
    columns = {"pred_text": [*rows], "pred_chars": [*rows.values()]}
    sink = labelled(folder, columns, [raysp.Transcript(chars=True)])
    quick = {"min_seconds": 0.0, "max_seconds": 3600.0, "max_chars_per_second": 1000.0}
    found = export_to("srt", str(sink), dest=f"{folder}/srt", **quick)
    files = [pysubs2.load(f"{folder}/srt/a/u{row}.srt") for row in range(len(rows))]
    return found.untimed, [[(one.plaintext, one.start / 1000, one.end / 1000) for one in file] for file in files]


WORDS = [
    ("ab c", chars("a", "b", "c"), [("ab", 0, 4), ("c", 6, 7)]),
    ("ab  c", chars("a", "b", " ", "c"), [("ab", 0, 4), ("c", 9, 10)]),
    ("one two", chars(" on", "e", " two"), [("one", 0, 4), ("two", 6, 7)]),
    (
        "a b c defghij",
        chars(" a", " b", " c", " defghij"),
        [("a", 0, 1), ("b", 3, 4), ("c", 6, 7), ("defghij", 9, 10)],
    ),
    ("one  two", chars("onet", "wo"), [("one", 0, 1), ("two", 3, 4)]),  # a piece of two words
    ("ab. c!", chars("ab", "c"), [("ab.", 0, 1), ("c!", 3, 4)]),  # added punctuation
]


def test_words_have_the_times_of_the_characters_that_begin_in_them(tmp_path):
    untimed, shown = cues(tmp_path, {text: written for text, written, _ in WORDS})
    assert (shown, untimed) == ([words for *_, words in WORDS], 0)


def test_a_text_that_differs_from_its_characters_keeps_all_words(tmp_path):
    _, shown = cues(tmp_path, {"a b cd": chars("xyz", "w"), "a bcd e fg": chars("a", "k", "lmn", "op")})
    assert shown[0] == [("a b", 0, 1), ("cd", 3, 4)]  # no character begins in b, which is shown after the word before
    assert shown[1] == [("a", 0, 1), ("bcd e", 3, 7), ("fg", 9, 10)]
