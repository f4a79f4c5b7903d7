"""Times of given texts: columns of rows, and of longer rows from their windows."""

from dataclasses import replace

import pytest

import raysp
from raysp import SpecError
from raysp.models import load_checkpoint
from tests.corpora import CHECKPOINT
from tests.ops.phases import columns_of
from tests.ops.test_transcribing import forward_of

SPEC = raysp.Align("said", chars=True)
COLUMNS = ("score", "skipped", "words", "chars")
NO_TIMES = {"start": None, "end": None, "score": None}
UNPLACED = {"word": "3", **NO_TIMES}


@pytest.fixture(scope="module")
def loaded():
    return load_checkpoint(CHECKPOINT, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def op(loaded):
    return SPEC.op(loaded.summary, loaded)


@pytest.fixture(scope="module")
def transcribing(loaded):
    return raysp.Transcript(words=True, chars=True).op(loaded.summary, loaded)


def rows_of(op, forward, texts) -> list[dict]:
    """Return the columns of each row; `staged` is the last one."""
    forward = replace(forward, rows=replace(forward.rows, source={"said": texts}))
    return [dict(zip((*COLUMNS, "staged"), row, strict=True)) for row in zip(*columns_of(op, forward), strict=True)]


def test_a_text_that_the_model_hears_has_the_times_and_scores_of_the_transcript(op, transcribing):
    forward = forward_of(transcribing, "ONE TWO", "THREE")
    texts, _, words, chars, *_ = columns_of(transcribing, forward)
    for row, text, expected, letters in zip(
        rows_of(op, forward, ["one, Two!", "Three"]), texts, words, chars, strict=True
    ):
        assert row["score"] == pytest.approx(0, abs=1e-6)
        assert [word["word"].strip(",!").upper() for word in row["words"]] == text.split()
        for found, one in zip(row["words"], expected, strict=True):
            assert {**found, "word": ""} == {**one, "word": ""}
        known = [letter for letter in row["chars"] if letter["start"] is not None]
        assert [(one["char"].upper(), one["start"], one["end"], one["score"]) for one in known] == [
            (one["char"], one["start"], one["end"], one["score"]) for one in letters
        ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(None, (None, None, None, None), id="null"),
        pytest.param("", (None, 0, [], []), id="empty"),
        pytest.param("one " * 50, (None, 0, None, None), id="longer than the recording"),
        pytest.param("3", (None, 1, [UNPLACED], [{"char": "3", **NO_TIMES}]), id="no known character"),
    ],
)
def test_rows_without_a_path_have_no_score(op, transcribing, text, expected):
    beside, row = rows_of(op, forward_of(transcribing, "ONE", "TWO"), ["one", text])
    assert tuple(row[name] for name in COLUMNS) == expected
    assert beside["words"][0]["word"] == "one"


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (lambda: [raysp.Align()], r"needs a column of the source, .* or of='pred'; found none"),
        (lambda: [raysp.Align("a", of="pred")], r"found text='a' and of='pred'"),
        (lambda: [raysp.Align(of="pred"), raysp.Transcript()], r"outputs.0 Align\(of='pred'\) .* found none there"),
        (lambda: [raysp.Transcript("a"), raysp.Align(of="pred")], r"found 'a' there. Put Transcript\('pred'\)"),
    ],
)
def test_a_text_that_is_not_there_is_refused(outputs, message):
    with pytest.raises(SpecError, match=message):
        raysp.Label("model", outputs=outputs())
