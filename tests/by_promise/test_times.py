"""Times of words, characters, segments and speech lie in their recording, in order, and marks lengthen no word."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import raysp
from raysp.models import (
    SeamlessM4TFeatureExtractor,
    Wav2Vec2BertConfig,
    Wav2Vec2BertForCTC,
    Wav2Vec2BertProcessor,
    Wav2Vec2CTCTokenizer,
)
from tests.models.tokenizers.small import fields_of
from tests.models.tokenizers.word_pieces import save_transducer

RATE = 16_000
SECONDS = (0.31, 0.75, 1.11, 2.03, 5.01)
"""Durations of which none ends with a frame of 40 or 80 ms; the last two have several windows."""
TEXT = 'ab. "ba" aba.'
LETTERS = ["<pad>", "<s>", "</s>", "<unk>", "|", "a", "b", ".", '"']


def recordings() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [(0.06 * random.standard_normal(round(RATE * one))).astype(np.float32) for one in SECONDS]


def labels(checkpoint: Path, *outputs: object, **columns: list[str]) -> list[dict[str, object]]:
    label = raysp.Label(
        str(checkpoint), outputs=[*outputs], window_seconds=2, overlap_seconds=0.5, device="cpu", dtype="float32"
    )
    with raysp.Labeller([raysp.Decode(), label]) as labeller:
        rows = labeller.arrays(recordings(), RATE, columns=columns).to_pylist()
    assert {row["status"] for row in rows} == {"ok"}
    return rows


@pytest.fixture(scope="module")
def letters(tmp_path_factory) -> Path:
    """A checkpoint of random weights with a frame every 40 ms, whose vocabulary has marks."""
    folder = tmp_path_factory.mktemp("letters")
    (folder / "vocab.json").write_text(json.dumps({one: place for place, one in enumerate(LETTERS)}))
    torch.manual_seed(1)
    fields = {"vocab_size": len(LETTERS), "add_adapter": True, "num_adapter_layers": 1, "initializer_range": 0.5}
    fields |= {"feature_projection_input_dim": 160, "output_hidden_size": 32, "pad_token_id": 0}
    model = Wav2Vec2BertForCTC(Wav2Vec2BertConfig(**fields_of("Wav2Vec2Bert", fields)))
    model.lm_head.bias.data[1:4] -= 100  # no special tokens
    model.save_pretrained(folder)
    tokenizer = Wav2Vec2CTCTokenizer(str(folder / "vocab.json"))
    Wav2Vec2BertProcessor(SeamlessM4TFeatureExtractor(), tokenizer).save_pretrained(folder)
    return folder


def assert_in_order(row: dict[str, object], name: str) -> None:
    spans = [one for one in row[name] if one["start"] is not None]
    assert all(0 <= one["start"] <= one["end"] <= row["seconds"] for one in spans), (name, row["seconds"], spans)
    assert all(before["start"] <= one["start"] for before, one in pairwise(spans)), (name, spans)


def assert_apart(row: dict[str, object], name: str) -> None:
    spans = [one for one in row[name] if one["start"] is not None]
    assert all(before["end"] <= one["start"] + 1e-9 for before, one in pairwise(spans)), (name, spans)


@pytest.mark.parametrize(("kind", "seed"), [("TDT", 0), ("RNNT", 0)])
def test_words_of_transducers_do_not_overlap_and_end_with_the_recording(tmp_path, kind, seed):
    save_transducer(tmp_path, kind, seed)
    rows = labels(tmp_path, raysp.Transcript(words=True, chars=True))
    for row, name in ((row, name) for row in rows for name in ("pred_words", "pred_chars")):
        assert_in_order(row, name)
        assert_apart(row, name)
    assert sum(len(row["pred_words"]) for row in rows) > 20
    marks = [one for row in rows for one in row["pred_chars"] if one["char"] == "."]
    assert marks or kind == "RNNT"
    assert all(one["start"] == one["end"] for one in marks)


def test_words_of_ctc_end_with_the_recording_and_with_their_last_letter(letters):
    outputs = [raysp.Transcript(words=True, chars=True), raysp.Align("text", chars=True), raysp.Speech()]
    rows = labels(letters, *outputs, text=[TEXT] * len(SECONDS))
    names = ("pred_words", "pred_chars", "aligned_words", "aligned_chars", "pred_speech")
    for row, name in ((row, name) for row in rows for name in names if row[name] is not None):
        assert_in_order(row, name)
        assert_apart(row, name)
    chars = [one for row in rows for one in row["aligned_chars"] or () if one["start"] is not None]
    assert {one["char"] for one in chars} == {"a", "b", ".", '"'}
    assert all((one["start"] == one["end"]) == (one["char"] in '."') for one in chars)
    long = rows[-1]
    assert [one["word"] for one in long["aligned_words"]] == TEXT.split()
    letter = [one for one in long["aligned_chars"] if one["char"] in "ab"]
    ends = [letter[place]["end"] for place in (1, 3, 6)]
    starts = [letter[place]["start"] for place in (0, 2, 4)]
    assert [one["start"] for one in long["aligned_words"]] == starts
    assert [one["end"] for one in long["aligned_words"]] == ends
