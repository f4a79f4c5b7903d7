"""Transcripts by beam search: columns, batches, longer rows, language models and hot words."""

import math

import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import raysp
from raysp.models import load_checkpoint
from tests.corpora import CHECKPOINT
from tests.ops.phases import columns_of
from tests.ops.test_transcribing import alone, check_joined, ctc_forward
from tests.text.beams.arpa_files import write_arpa

NUMBERS = ["ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE"]


@pytest.fixture(scope="module")
def loaded():
    return load_checkpoint(CHECKPOINT, dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    pairs = [[one, NUMBERS[(place + 1) % 10], one] for place, one in enumerate(NUMBERS)]
    return str(write_arpa(tmp_path_factory.mktemp("lm") / "words.arpa", pairs, 3))


@pytest.fixture(scope="module")
def everything(loaded, lm):
    output = raysp.Transcript(beams=6, nbest=3, words=True, chars=True, lm=lm, hot_words={"NINE": 1.0, "ONE TWO": 2.0})
    return output.op(loaded.summary, loaded)


def noisy(seed: int, rows: int, frames: int, size: float = 4.0) -> torch.Tensor:
    return size * torch.randn(rows, frames, 20, generator=torch.Generator().manual_seed(seed))


def test_rows_whose_text_is_that_of_greedy_decoding_have_its_scores_and_times_to_the_last_bit(loaded):
    greedy = raysp.Transcript(words=True, chars=True).op(loaded.summary, loaded)
    search = raysp.Transcript(words=True, chars=True, beams=8).op(loaded.summary, loaded)
    forward = ctc_forward(noisy(5, 20, 25, 6.0), torch.full((20,), 25), [None] * 20)
    theirs, ours = (list(zip(*columns_of(op, forward)[:4], strict=True)) for op in (greedy, search))
    same = [place for place in range(20) if ours[place][0] == theirs[place][0]]
    assert len(same) >= 5
    assert [ours[place] for place in same] == [theirs[place] for place in same]


def test_the_best_of_several_texts_is_the_text_and_all_differ(everything):
    forward = ctc_forward(noisy(1, 6, 40, 2.0), torch.full((6,), 40), [None] * 6)
    columns = dict(zip(everything.schema.names, columns_of(everything, forward), strict=False))
    assert everything.schema.names[-1] == "pred_nbest"
    for text, several in zip(columns["pred_text"], columns["pred_nbest"], strict=True):
        assert several[0]["text"] == text
        assert len({one["text"] for one in several}) == len(several) == 3
        assert [one["score"] for one in several] == sorted((one["score"] for one in several), reverse=True)


def test_the_column_of_several_texts_exists_only_if_asked_for_and_has_each_text_once(loaded):
    assert raysp.Transcript(beams=8).columns == ("pred_text", "pred_score")
    output = raysp.Transcript("mine", beams=8, nbest=2)
    op = output.op(loaded.summary, loaded)
    assert output.columns == ("mine_text", "mine_score", "mine_nbest") == tuple(op.schema.names)
    assert op.empty() == ("", None, [])
    kind = op.schema.field("mine_nbest").type
    assert kind == pa.list_(pa.struct([("text", pa.string()), ("score", pa.float32())]))
    [[text], _, [several], *_] = columns_of(op, ctc_forward(torch.zeros(1, 0, 20), torch.tensor([0]), [None]))
    assert (text, several) == ("", [{"text": "", "score": 0.0}])
    stretches = [[{"text": "", "score": -1.0}, {"text": "A", "score": -1.1}] for _ in range(2)]
    assert [one["text"] for one in raysp.Transcript(beams=4, nbest=4).op(loaded.summary, loaded)._best(stretches)] == [
        "",
        "A",
        "A A",
    ]


def test_a_row_in_a_batch_equals_the_row_alone_to_the_last_bit(everything):
    lengths = [30, 12, 0, 1, 29]
    logits = noisy(2, 5, 30, 1.5)
    for row, frames in enumerate(lengths):
        logits[row, frames:] = math.nan
    columns = columns_of(everything, ctc_forward(logits, torch.tensor(lengths), [None] * 5))
    for row, frames in enumerate(lengths):
        assert alone(everything, logits[row, :frames]) == [column[row] for column in columns[: len(everything.schema)]]


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10_000), st.integers(1, 40), st.sets(st.integers(0, 39)), st.integers(0, 4), st.integers(0, 4))
def test_any_row_in_one_window_equals_the_row_joined(everything, seed, frames, cuts, left, right):
    check_joined(everything, noisy(seed, 1, frames, 3.0)[0], cuts, left, right)


def unsure(op, *words: dict[str, float]) -> torch.Tensor:
    """Return logits of words of one length, of which each has a log-probability at every letter."""
    rows = []
    for word in words:
        [length] = {len(text) for text in word}
        for place in range(length):
            row = torch.full((20,), -12.0)
            for text, value in word.items():
                row[op.greedy.tokenizer.vocab[text[place]]] = value
            rows += [row, torch.full((20,), -12.0).index_fill(0, torch.tensor(op.blank), 0.0)]
        rows.append(torch.full((20,), -12.0).index_fill(0, torch.tensor(op.greedy.tokenizer.vocab["|"]), 0.0))
    return torch.stack(rows[:-1])


def test_a_language_model_chooses_the_words_that_it_knows(loaded, lm):
    search = raysp.Transcript(beams=8).op(loaded.summary, loaded)
    logits = unsure(search, {"FIVE": 0.0}, {"SIX": -0.4, "TWO": 0.0})
    assert alone(search, logits)[0].startswith("FIVE T")
    with_lm = raysp.Transcript(beams=8, lm=lm, lm_weight=1.0).op(loaded.summary, loaded)
    assert alone(with_lm, logits)[0] == "FIVE SIX"


def test_a_hot_word_is_chosen_over_a_likelier_one(loaded):
    logits = unsure(raysp.Transcript(beams=8).op(loaded.summary, loaded), {"SIX": -1.0, "TWO": 0.0})
    assert alone(raysp.Transcript(beams=8).op(loaded.summary, loaded), logits)[0] == "TWO"
    assert alone(raysp.Transcript(beams=8, hot_words={"SIX": 6.0}).op(loaded.summary, loaded), logits)[0] == "SIX"
    assert alone(raysp.Transcript(beams=8, hot_words={"SIXX": 6.0}).op(loaded.summary, loaded), logits)[0] == "TWO"
