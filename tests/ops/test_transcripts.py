"""Transcripts and times of given texts: greedy and searched ones, and texts without a path."""

import raysp
from tests.corpora import CHECKPOINT, digits_table, label_arrays, samples_of
from tests.golden.checkpoints import phonemes
from tests.ops.test_precision import noise

NO_TIMES = {"start": None, "end": None, "score": None}


def test_rows_without_a_path_have_no_score():
    expected = {
        "one": None,
        None: (None, None, None, None),
        "": (None, 0, [], []),
        "one " * 50: (None, 0, None, None),
        "3": (None, 1, [{"word": "3", **NO_TIMES}], [{"char": "3", **NO_TIMES}]),
    }
    waves = [samples_of(one["bytes"]) for one in digits_table(5).column("audio").to_pylist()]
    output, on_cpu = raysp.Align("said", chars=True), {"dtype": "float32", "device": "cpu"}
    first, *others = label_arrays(CHECKPOINT, output, waves, {"said": [*expected]}, 8_000, **on_cpu)
    assert first["aligned_words"][0]["word"] == "one"
    names = ("aligned_score", "aligned_skipped", "aligned_words", "aligned_chars")
    assert [tuple(row[name] for name in names) for row in others] == [*expected.values()][1:]


def test_given_phonemes_are_aligned_unknown_ones_are_counted_and_letters_are_an_error(tmp_path):
    phonemes()(tmp_path)
    texts = {"said": ["l xx ɛ ʔ tʃ", "hello there"]}
    found, refused = label_arrays(tmp_path, raysp.Align("said", chars=True), noise([1.0, 2.0]), texts)
    assert found["aligned_skipped"] == 2
    assert [one["start"] is None for one in found["aligned_words"]] == [False, True, False, True, False]
    known = [one["start"] for one in found["aligned_chars"] if one["start"] is not None]
    assert (known, len(known)) == (sorted({*known}), 3)
    assert refused["error_type"] == "step_failed"
    assert "'hello there' has none of the checkpoint's phonemes; expected phonemes sep" in refused["error_message"]
