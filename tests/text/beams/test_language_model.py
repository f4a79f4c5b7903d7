"""N-gram models: ARPA files, their lookups against KenLM, and their weights in a search."""

import math
import random

import numpy as np
import pytest
import torch

from raysp import CheckpointError
from raysp.text.beams import arpa
from raysp.text.beams.language_model import Lexicon, NgramScores, Weights, WordModel
from raysp.text.beams.search import BeamSearch
from tests.text.beams.arpa_files import write_arpa
from tests.text.beams.exhaustive import ranked
from tests.text.beams.frames_of_logits import top_frames

WORDS = ["one", "two", "three", "four", "o", "é€x", "oh", "none"]


def sentences(seed: int, number: int = 60, words: list[str] = WORDS) -> list[list[str]]:
    draw = random.Random(seed)
    return [draw.choices(words, k=draw.randint(1, 7)) for _ in range(number)]


def scored(scores: NgramScores, ids: list[int]) -> list[float]:
    """Return the log-probability of each word of a sentence and of its end."""
    context, found = np.array(scores.start()), []
    for word in [*ids, scores.end]:
        log_prob, context = scores(context, np.array(word))
        found.append(float(log_prob))
    return found


@pytest.mark.parametrize("order", [2, 5])
def test_log_probabilities_are_those_of_kenlm(tmp_path, order):
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary

    path = write_arpa(tmp_path / "words.arpa", sentences(1), order)
    model = arpa.parse(path)
    vocabulary = [*WORDS, "never"]
    kenlm = KenLM(str(path), Dictionary(vocabulary))
    scores = NgramScores(model)
    ids = dict(zip(vocabulary, model.ids(vocabulary).tolist(), strict=True))
    for sentence in sentences(2, 40, vocabulary):
        state, expected = kenlm.start(False), []
        for word in sentence:
            state, log10 = kenlm.score(state, vocabulary.index(word))
            expected.append(log10)
        expected.append(kenlm.finish(state)[1])
        found = scored(scores, [ids[word] for word in sentence])
        assert found == pytest.approx([one * math.log(10) for one in expected], abs=1e-4)


GOOD = """\\data\\
ngram 1=4
ngram 2=2

\\1-grams:
-1.0\t<s>\t-0.3
-1.0\t</s>
-0.5\ta\t-0.2
-0.7\tb

\\2-grams:
-0.1\t<s> a
-0.2\ta b

\\end\\
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\\data\\", "hello", r"line 1: found 'hello'; expected \\data\\"),
        ("ngram 2=2", "ngram 3=2", r"line 3: found 'ngram 3=2'; expected 'ngram 2=' and a number"),
        ("-0.7\tb\n", "", r"line 9: found ''; expected one of 4 1-grams: a logarithm, 1 words and a backoff weight"),
        ("-0.7\tb\n", "-0.7\tb\n-0.7\tc\n", r"line 10: found '-0.7\\tc'; expected \\2-grams:"),
        ("-0.7\tb", "x\tb", r"line 9: found 'x\\tb'; expected numbers as the first value"),
        ("-0.7\tb", "0.7\tb", r"line 9: .* expected the logarithm of a probability, at most 0"),
        ("-0.7\tb", "-0.7\ta", r"line 9: .* expected each 1-gram once"),
        ("a b\n", "a c\n", r"line 13: .* expected words that are 1-grams, found 'c'"),
        ("a b\n", "<s> a\n", r"line 13: found '<s> a'; expected each n-gram once"),
        ("\\end\\", "", r"line 16: found ''; expected \\end\\ after the n-grams"),
        ("-1.0\t</s>", "-1.0\tc", r"no </s> among its 1-grams"),
    ],
)
def test_a_broken_file_is_refused_with_its_first_wrong_line(tmp_path, old, new, message):
    arpa.parse(written(tmp_path, GOOD))
    with pytest.raises(CheckpointError, match=message) as caught:
        arpa.parse(written(tmp_path, GOOD.replace(old, new)), "lm.arpa")
    assert str(caught.value).startswith("language model 'lm.arpa'")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_text_or_does_not_exist_is_refused(tmp_path):
    (tmp_path / "bad").write_bytes(b"\x1f\x8b\x00\x00")
    (tmp_path / "latin").write_bytes(GOOD.replace("\ta", "\té").encode("latin-1"))
    for name in ("bad", "latin", "missing"):
        with pytest.raises(CheckpointError, match=f"{name}': cannot be read .* expected an ARPA file in UTF-8"):
            arpa.parse(tmp_path / name)


def written(folder, text):
    path = folder / "lm.arpa"
    path.write_text(text)
    return path


# In a search

TOKENS = ["", "", "a", "b"]
BLANK, DELIMITER = 0, 1


@pytest.mark.parametrize(
    ("order", "known", "boundaries"),
    [(1, None, True), (3, ["a", "b", "not in the model"], True), (2, ["a", "b"], False)],
)
def test_scores_are_those_of_all_alignments_of_the_model_and_of_unknown_words(tmp_path, order, known, boundaries):
    texts = [["a"], ["ab", "b"], ["b", "a", "ab"], ["ab", "ab"]]
    scores = NgramScores(model := arpa.parse(write_arpa(tmp_path / "lm.arpa", texts, order)))
    heard = model.vocabulary() if known is None else known

    def weight(ids):
        words = "".join(" " if one == DELIMITER else TOKENS[one] for one in ids).split()
        context, total = np.array(scores.start() if boundaries else [-1]), 0.4 * len(words)
        for word in model.ids([*words, "</s>"]).tolist()[: None if boundaries else len(words)]:
            log_prob, context = scores(context, np.array(word))
            total += 0.7 * float(log_prob)
        return total + 0.7 * -3.0 * sum(word not in heard for word in words)

    logits = 1.5 * torch.randn(1, 5, 4, generator=torch.Generator().manual_seed(0))
    fusion = WordModel(scores, Lexicon(model, known), TOKENS, Weights(0.7, 0.4, -3.0, boundaries))
    search = BeamSearch(250, [fusion], delimiters=np.array([False, True, False, False]), least_log_prob=-math.inf)
    [found] = search(top_frames(logits, blank=BLANK), [5], best=15)
    expected = ranked(logits[0].tolist(), BLANK, weight)[:15]
    assert [tuple(one.ids.tolist()) for one in found] == [ids for ids, _ in expected]
    assert [one.score for one in found] == pytest.approx([score for _, score in expected], abs=1e-4)
