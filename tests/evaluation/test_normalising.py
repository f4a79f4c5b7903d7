"""Named normalisations of both texts."""

import sys
from types import ModuleType

import jiwer
import pytest

from raysp import SpecError
from raysp.evaluation.recognition import compare_texts
from raysp.text import error_rates
from raysp.text.error_rates import TextRules, normalisation

TEXT = "  Don\u2019t  STOP, cafe\u0301! "


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("none", "Don\u2019t STOP, caf\u00e9!"),
        ("lower", "don\u2019t stop, caf\u00e9!"),
        ("letters", "don't stop caf\u00e9"),
        (TextRules("upper", "letters"), "DON'T STOP CAF\u00c9"),
    ],
)
def test_texts_by_name_and_by_rules(name, expected):
    assert normalisation(name)(TEXT) == expected


def test_whisper_without_its_package_is_refused_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "whisper_normalizer", None)
    with pytest.raises(SpecError, match=r"not installed; pip install 'raysp\[whisper-normalizer\]'"):
        normalisation("whisper-english")


def test_whisper_is_the_class_of_its_package_with_the_version(monkeypatch):
    class BasicTextNormalizer:
        def __call__(self, text: str) -> str:
            return text.lower().replace(",", " ")

    module = ModuleType("whisper_normalizer.basic")
    module.BasicTextNormalizer = BasicTextNormalizer
    monkeypatch.setitem(sys.modules, "whisper_normalizer", ModuleType("whisper_normalizer"))
    monkeypatch.setitem(sys.modules, "whisper_normalizer.basic", module)
    monkeypatch.setattr(error_rates.metadata, "version", lambda _: "0.1.2")
    found = normalisation("whisper-basic")
    assert (found("A, B "), found.description) == ("a b", "BasicTextNormalizer of whisper-normalizer 0.1.2")


def test_rates_with_the_real_package_are_those_of_jiwer_with_it():
    reason = "whisper-normalizer is not installed: only its stand-in is tested"
    english = pytest.importorskip("whisper_normalizer.english", reason=reason).EnglishTextNormalizer()
    basic = pytest.importorskip("whisper_normalizer.basic", reason=reason).BasicTextNormalizer()
    references = ["Mr. Park paid twenty-five dollars, didn't he?", "The colour of the caf\u00e9 [noise] is grey."]
    hypotheses = ["mister park paid $25 did not he", "the color of cafe is gray"]
    for name, package in (("whisper-english", english), ("whisper-basic", basic)):
        found = normalisation(name)
        ours, theirs = (
            jiwer.wer([function(one) for one in references], [function(one) for one in hypotheses])
            for function in (found, package)
        )
        assert ours == theirs
        assert compare_texts(references, hypotheses, normalise=name).scores.metrics["wer"].value == pytest.approx(ours)
    assert normalisation("whisper-english")(references[0]) == "mister park paid $25 did not he"


@pytest.mark.parametrize("name", ["lower-tr", "letters-tr", "letters-az"])
def test_a_name_may_end_with_the_language_of_its_case_rules(name):
    rules = normalisation(name)
    assert rules.name == name
    assert rules("İZMİR IĞDIR") == rules("izmir ığdır") == "izmir ığdır"


def test_a_language_is_added_once_and_only_where_case_is_changed():
    names = [error_rates.in_language(name, "tr") for name in ("letters", "letters-az", "none")]
    assert names == ["letters-tr", "letters-az", "none"]
    assert error_rates.in_language("letters", None) == "letters"
    with pytest.raises(SpecError, match="found the normalisation 'none-tr'"):
        normalisation("none-tr")
