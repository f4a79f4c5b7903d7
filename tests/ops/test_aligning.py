"""Times of given texts: columns of rows, and of longer rows from their windows."""

from dataclasses import replace

import pyarrow as pa
import pytest
import torch

import raysp
from raysp import SpecError
from raysp.models import load_checkpoint
from raysp.ops.late_steps import CARRIED
from tests.corpora import CHECKPOINT
from tests.ops.phases import columns_of
from tests.ops.test_transcribing import ctc_forward, forward_of, logits_of

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


def noisy(num_rows: int, num_frames: int, seed: int = 0):
    """Return frames of a model that is sure of nothing."""
    logits = 3 * torch.randn(num_rows, num_frames, 20, generator=torch.Generator().manual_seed(seed))
    return ctc_forward(logits, torch.full((num_rows,), num_frames), [None] * num_rows)


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
        pytest.param(" \n", (None, 0, [], []), id="white space"),
        pytest.param("one " * 50, (None, 0, None, None), id="longer than the recording"),
        pytest.param("3", (None, 1, [UNPLACED], [{"char": "3", **NO_TIMES}]), id="no known character"),
    ],
)
def test_rows_without_a_path_have_no_score(op, transcribing, text, expected):
    beside, row = rows_of(op, forward_of(transcribing, "ONE", "TWO"), ["one", text])
    assert tuple(row[name] for name in COLUMNS) == expected
    assert beside["words"][0]["word"] == "one"


def test_a_row_in_a_batch_equals_the_row_alone(op):
    texts = ["one two", None, "three one one", "", "nine"]
    frames = [60, 20, 41, 3, 9]
    forward = ctc_forward(logits_of(noisy(5, 60)), torch.tensor(frames), [None] * 5)
    together = rows_of(op, forward, texts)
    for row, (text, num_frames) in enumerate(zip(texts, frames, strict=True)):
        logits = logits_of(forward)[row : row + 1, :num_frames]
        alone = ctc_forward(logits, torch.tensor([num_frames]), [None])
        assert rows_of(op, alone, [text]) == [together[row]]


@pytest.mark.parametrize("text", ["one two three four five six seven", "", None, "one " * 100, "Nine, nine - X!"])
@pytest.mark.parametrize("option", [{}, {"wildcard": True}, {"unknown": "wildcard"}], ids=str)
def test_windows_of_a_longer_row_join_to_the_values_of_the_whole_row(loaded, text, option):
    spec = raysp.Align("said", chars=True, **option)
    op = spec.op(loaded.summary, loaded)
    whole = noisy(1, 120)
    logits = logits_of(whole)
    # Windows of 50 frames from every 35th one, of which the middle of each overlap is the joint.
    windows = [(0, 0, 43), (35, 8, 43), (70, 8, 50)]
    batch = torch.stack([logits[0, start : start + 50] for start, _, _ in windows])
    forward = ctc_forward(batch, torch.tensor([50] * 3), [(first, end) for _, first, end in windows])
    rows = rows_of(op, forward, [text] * 3)
    assert all(row[name] is None for row in rows for name in COLUMNS)
    [staged] = op.staged
    table = pa.table(
        {
            staged.name: pa.array([row["staged"] for row in rows], staged.type),
            f"{CARRIED}said": pa.array([None, None, text], pa.string()),
        }
    )
    [expected] = rows_of(op, whole, [text])
    joined = dict(zip(COLUMNS, spec.op(loaded.summary).join(table), strict=True))
    assert joined == {name: expected[name] for name in COLUMNS}


def test_a_part_of_what_is_said_lies_at_its_place_with_a_wildcard(loaded, transcribing):
    spoken = forward_of(transcribing, "ONE TWO THREE FOUR FIVE")
    *_, words, _, _, _ = columns_of(transcribing, spoken)
    [row] = rows_of(raysp.Align("said", chars=True, wildcard=True).op(loaded.summary, loaded), spoken, ["two four"])
    expected = [{**words[0][place], "word": words[0][place]["word"].lower()} for place in (1, 3)]
    assert row["words"] == expected
    assert row["score"] == pytest.approx(0, abs=1e-6)


@pytest.fixture(scope="module")
def with_wildcards(loaded):
    return raysp.Align("said", chars=True, unknown="wildcard").op(loaded.summary, loaded)


def test_a_word_of_figures_has_its_place_and_no_score(with_wildcards, transcribing):
    spoken = forward_of(transcribing, "ONE TWO FIVE SIX")
    _, _, [[one, two, five, six]], *_ = columns_of(transcribing, spoken)
    [row] = rows_of(with_wildcards, spoken, ["One 25, six!"])
    assert row["score"] == pytest.approx(0, abs=1e-6)
    assert row["skipped"] == 4
    assert [word["word"] for word in row["words"]] == ["One", "25,", "six!"]
    assert row["words"][1] == {"word": "25,", "start": two["start"], "end": five["end"], "score": None}
    for word, expected in zip(row["words"][::2], (one, six), strict=True):
        assert {**word, "word": ""} == {**expected, "word": ""}
    assert [letter for letter in row["chars"] if letter["char"] in "25,"] == [
        {"char": "25", "start": two["start"], "end": five["end"], "score": None},
        {"char": ",", "start": None, "end": None, "score": None},
    ]


def test_a_wrong_text_scores_below_the_right_one(op, transcribing):
    texts = ["one two three", "one six three", "one three", "one two two three"]
    rows = rows_of(op, forward_of(transcribing, *["ONE TWO THREE"] * 4), texts)
    assert rows[0]["score"] == pytest.approx(0, abs=1e-6)
    assert all(row["score"] < -5 for row in rows[1:])


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
