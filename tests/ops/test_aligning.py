"""Times of given texts: columns of rows, and of longer rows from their windows."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import raysp
from raysp import SpecError
from raysp.models import load_checkpoint
from raysp.ops.late_steps import CARRIED
from tests.corpora import AUDIO, CHECKPOINT, a_pipeline, write_shard
from tests.ops.phases import columns_of
from tests.ops.test_pauses import spoken
from tests.ops.test_transcribing import ctc_forward, forward_of, logits_of

SPEC = raysp.Align("said", chars=True)
COLUMNS = ("score", "skipped", "words", "chars")


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


@pytest.mark.parametrize("heard", [" ONE TWO", "ONE TWO ", "  ONE   TWO  "])
def test_separators_that_no_text_has_change_no_score(op, transcribing, heard):
    forward = forward_of(transcribing, heard)
    [text], _, [words], *_ = columns_of(transcribing, forward)
    [row] = rows_of(op, forward, [text])
    assert text.split() == ["ONE", "TWO"]
    assert row["score"] == pytest.approx(0, abs=1e-6)
    assert row["words"] == words


def test_characters_without_a_token_are_counted_and_words_of_them_have_no_times(op, transcribing):
    [row] = rows_of(op, forward_of(transcribing, "ONE TWO"), ["– one, two 3"])
    assert row["skipped"] == 3
    assert [(word["word"], word["start"] is None, word["score"] is None) for word in row["words"]] == [
        ("–", True, True),
        ("one,", False, False),
        ("two", False, False),
        ("3", True, True),
    ]
    assert "".join(letter["char"] for letter in row["chars"]) == "–one,two3"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(None, (None, None, None, None), id="null"),
        pytest.param("", (None, 0, [], []), id="empty"),
        pytest.param(" \n", (None, 0, [], []), id="white space"),
        pytest.param("one " * 50, (None, 0, None, None), id="longer than the recording"),
    ],
)
def test_rows_without_a_path_have_no_score(op, transcribing, text, expected):
    beside, row = rows_of(op, forward_of(transcribing, "ONE", "TWO"), ["one", text])
    assert tuple(row[name] for name in COLUMNS) == expected
    assert beside["words"][0]["word"] == "one"


def test_a_text_without_a_known_character_keeps_its_words(op, transcribing):
    [row] = rows_of(op, forward_of(transcribing, "ONE"), ["12 3"])
    assert (row["score"], row["skipped"]) == (None, 3)
    assert [word["word"] for word in row["words"]] == ["12", "3"]


def test_a_row_in_a_batch_equals_the_row_alone(op):
    texts = ["one two", None, "three one one", "", "nine"]
    frames = [60, 20, 41, 3, 9]
    forward = ctc_forward(logits_of(noisy(5, 60)), torch.tensor(frames), [None] * 5)
    together = rows_of(op, forward, texts)
    for row, (text, num_frames) in enumerate(zip(texts, frames, strict=True)):
        logits = logits_of(forward)[row : row + 1, :num_frames]
        alone = ctc_forward(logits, torch.tensor([num_frames]), [None])
        assert rows_of(op, alone, [text]) == [together[row]]


@pytest.mark.parametrize(
    "text", ["one two three four five six seven", "nine", "", "12", None, "one " * 100, "Nine, nine - X!"]
)
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


def test_a_word_with_a_figure_has_the_score_of_its_letters(with_wildcards, transcribing):
    spoken = forward_of(transcribing, "ONE SIXTH")
    [row] = rows_of(with_wildcards, spoken, ["one 6th"])
    letters = [letter["score"] for letter in row["chars"] if letter["char"] in "th"]
    assert row["words"][1]["score"] == pytest.approx(np.mean(letters))
    assert row["score"] == pytest.approx(0, abs=1e-6)


def test_a_text_of_wildcards_alone_has_times_and_no_score(with_wildcards, transcribing):
    [row] = rows_of(with_wildcards, forward_of(transcribing, "ONE TWO"), ["1 2"])
    assert (row["score"], row["skipped"]) == (None, 2)
    assert [word["start"] is not None and word["score"] is None for word in row["words"]] == [True, True]


def test_a_wrong_text_scores_below_the_right_one(op, transcribing):
    texts = ["one two three", "one six three", "one three", "one two two three"]
    rows = rows_of(op, forward_of(transcribing, *["ONE TWO THREE"] * 4), texts)
    assert rows[0]["score"] == pytest.approx(0, abs=1e-6)
    assert all(row["score"] < -5 for row in rows[1:])


def test_a_checkpoint_whose_vocabulary_has_a_token_beyond_its_head_never_aligns_it(loaded):
    from raysp.ops.aligning import Aligning

    small = Aligning(
        SPEC.schema(loaded.summary),
        pa.schema([("aligned_frames", pa.list_(pa.float32()))]),
        loaded.text_tokenizer,
        column="said",
        vocab_size=10,
        frame_seconds=0.02,
    )
    forward = ctc_forward(torch.zeros(1, 20, 10), torch.tensor([20]), [None])
    [row] = rows_of(small, forward, ["zoe"])
    assert row["skipped"] == 2


class TestOfWhatTheStepWrites:
    """Texts of a Transcript, of the same step or of an earlier one."""

    @pytest.mark.slow
    @pytest.mark.parametrize("windows", ["even", "speech"])
    def test_it_gives_the_times_of_the_transcript(self, tmp_path, windows):
        outputs = [
            raysp.Transcript(words=True),
            raysp.Align(of="pred"),
            raysp.Align("text", name="given"),
        ]
        for row, places in self.labelled(tmp_path, CHECKPOINT, outputs, windows):
            assert [one["word"] for one in row["aligned_words"]] == row["pred_text"].split()
            assert -0.2 < row["aligned_score"] <= 0
            for edge in ("start", "end"):
                found, expected = ([one[edge] for one in row[f"{of}_words"]] for of in ("aligned", "pred"))
                assert found == pytest.approx(expected, abs=0.05)
            assert [one["start"] for one in row["given_words"]] == pytest.approx(places, abs=0.3)

    @staticmethod
    def labelled(folder, checkpoint, outputs, windows, times=()) -> list[tuple[dict, list[float]]]:
        """Label a recording of one window and one of several; return the rows with the starts of their words."""
        made = [spoken([0.5, 0.3, 0.2]), spoken([0.2, 0.3, 2, 0.2, 3, 0.3, 0.2, 2])]
        audio = pa.array([{"bytes": one, "path": None} for one, _ in made], AUDIO)
        texts = [" ".join(word for word, _ in words) for _, words in made]
        write_shard(folder / "in" / "a.parquet", table=pa.table({"id": ["a", "b"], "audio": audio, "text": texts}))
        cut = {"window_seconds": 6, "overlap_seconds": 1, "windows": windows}
        steps = [raysp.Label(str(checkpoint), outputs=outputs, **cut)]
        steps += [raysp.Label(str(CHECKPOINT), outputs=times, **cut)] if times else []
        source = raysp.Shards(str(folder / "in"), text="text")
        raysp.run(
            a_pipeline(source, str(folder / "out"), steps=[raysp.Decode(), *steps]), engine="here", progress=False
        )
        rows = pq.read_table(folder / "out" / "a.parquet").to_pylist()
        return [(row, [start for _, start in words]) for row, (_, words) in zip(rows, made, strict=True)]

    @pytest.mark.parametrize(
        ("outputs", "message"),
        [
            (lambda: [raysp.Align()], r"needs a column of the source, .* or of='pred'; found none"),
            (lambda: [raysp.Align("a", of="pred")], r"found text='a' and of='pred'"),
            (lambda: [raysp.Align(of="pred"), raysp.Transcript()], r"outputs.0 Align\(of='pred'\) .* found none there"),
            (lambda: [raysp.Transcript("a"), raysp.Align(of="pred")], r"found 'a' there. Put Transcript\('pred'\)"),
        ],
    )
    def test_a_text_that_is_not_there_is_refused(self, outputs, message):
        with pytest.raises(SpecError, match=message):
            raysp.Label("model", outputs=outputs())
