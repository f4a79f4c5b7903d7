"""Exports of labels of each channel: a file, a tier or a field for each."""

import pytest
from praatio import textgrid as praat

import raysp
from raysp import PlanError
from tests.exports import export_to, exported
from tests.ops.channels.calls import TIMED, encoded, labelled, side


@pytest.fixture(scope="module")
def calls(tmp_path_factory):
    """A sink with a row of two channels and one of a single channel, and its rows."""
    folder = tmp_path_factory.mktemp("calls")
    first, second = side(0, [0, 0.5]), side(1, [0.3])
    outputs = [TIMED, raysp.Speech()]
    return folder, labelled(folder, [encoded([first, second]), encoded([second])], outputs=outputs)


@pytest.fixture
def export(calls, tmp_path):
    def to(name: str, **options: object) -> dict[str, bytes]:
        export_to(name, str(calls[0] / "out"), dest=str(tmp_path / "dest"), trust=True, **options)
        return exported(tmp_path / "dest")

    return to


def test_lines_of_words_and_speech_have_the_number_of_the_channel_from_one(calls, export, tmp_path):
    lines = [line.split() for line in export("ctm")["a.ctm"].decode().splitlines()]
    expected = [
        [row["id"], str(channel), word["word"]]
        for row in calls[1]
        for channel, words in enumerate(row["pred_words"], 1)
        for word in words
    ]
    assert [[one[0], one[1], one[4]] for one in lines] == expected
    assert {tuple(one[:2]) for one in expected} == {("u0", "1"), ("u0", "2"), ("u1", "1")}


def test_a_textgrid_has_tiers_of_each_channel(calls, export, tmp_path):
    assert sorted(export("textgrid")) == ["a/u0.TextGrid", "a/u1.TextGrid"]
    grid = praat.openTextgrid(str(tmp_path / "dest" / "a" / "u0.TextGrid"), includeEmptyIntervals=False)
    assert grid.tierNames == ("words 1", "chars 1", "words 2", "chars 2")
    assert " ".join(one.label for one in grid.getTier("words 2").entries) == calls[1][0]["pred_text"][1]


@pytest.mark.parametrize(
    ("to", "advice"), [("nemo", "export to jsonl or ctm"), ("clips", "label one channel by Decode")]
)
def test_formats_of_one_channel_are_refused_with_advice(export, to, advice):
    with pytest.raises(PlanError, match=advice):
        export(to)
