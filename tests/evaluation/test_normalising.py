"""Named normalisations of both texts."""

import sys
from types import ModuleType

import pytest

from raysp.errors import SpecError
from raysp.evaluation import normalising
from raysp.evaluation.normalising import normalisation
from raysp.text.normalisation import TextRules

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


def test_rules_are_described_for_reports():
    assert normalisation("letters").description == "lower case; letters, digits and apostrophes within words"
    assert normalisation(TextRules("upper")).description == "case='upper', keep='all'"


def test_an_unknown_name_is_refused_with_those_that_exist():
    with pytest.raises(SpecError, match="'whisper', expected one of none, lower, letters, whisper-english, whisper-b"):
        normalisation("whisper")


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
    monkeypatch.setattr(normalising.metadata, "version", lambda _: "0.1.2")
    found = normalisation("whisper-basic")
    assert (found("A, B "), found.description) == ("a b", "BasicTextNormalizer of whisper-normalizer 0.1.2")
