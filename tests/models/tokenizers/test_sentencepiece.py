"""Tokenizers of a sentencepiece file give the ids of transformers, and of sentencepiece itself."""

import io
import json

import pytest
import sentencepiece
import transformers

from raysp import CheckpointError
from raysp.models import AutoTokenizer, TextTokenizer

MODEL_FILE = "sentencepiece.bpe.model"
CORPUS = [
    "Mr. Quilter is the apostle of the middle classes, and we are glad to welcome his gospel.",
    "Mr. Quilter ist der Apostel der Mittelschicht und wir freuen uns, sein Evangelium willkommen heißen zu können.",
    "le matin, un lapin a tué un chasseur; c'était un lapin qui avait un fusil",
    "one two three four five six seven eight nine zero",
] * 4
TEXTS = ["the apostle of the middle classes", "willkommen heißen zu können"]
SOURCE = {"MBartTokenizer": "en_XX", "MBart50Tokenizer": "fr_XX"}


def train(**options) -> bytes:
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=model, vocab_size=70, minloglevel=2, **options
    )
    return model.getvalue()


@pytest.fixture(scope="module")
def model() -> bytes:
    return train()


def written(folder, model, tokenizer="MBartTokenizer"):
    """Write the files of a tokenizer, and return their folder."""
    (folder / MODEL_FILE).write_bytes(model)
    config = {"tokenizer_class": tokenizer, "src_lang": SOURCE[tokenizer]}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(params=SOURCE)
def folder(request, model, tmp_path):
    return written(tmp_path, model, request.param)


def test_ids_special_tokens_and_texts_are_those_of_transformers(folder):
    ours = AutoTokenizer.from_pretrained(folder)
    theirs = getattr(transformers, ours.tokenizer_class).from_pretrained(folder)
    given = ours(TEXTS, padding=True)
    assert dict(given) == dict(theirs(TEXTS, padding=True))
    assert len(ours) == len(theirs)
    assert set(ours.all_special_ids) >= set(theirs.all_special_ids)
    for ids in given["input_ids"]:
        for skips in (True, False):
            assert ours.decode(ids, skip_special_tokens=skips) == theirs.decode(ids, skip_special_tokens=skips)
    assert ours.batch_decode(given["input_ids"], skip_special_tokens=True) == TEXTS


def test_a_saved_tokenizer_loads_in_both(folder, tmp_path):
    ours = AutoTokenizer.from_pretrained(folder)
    ours.save_pretrained(tmp_path / "saved")
    ids = ours(TEXTS[0])["input_ids"]
    assert AutoTokenizer.from_pretrained(tmp_path / "saved")(TEXTS[0])["input_ids"] == ids
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert theirs.decode(ids, skip_special_tokens=True) == TEXTS[0]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: data[:-40], "not a sentencepiece model"),
        (lambda data: train(model_type="bpe"), r"model_type is 2, expected 1 \(unigram\)"),
        (lambda data: train(unk_id=2, bos_id=0, eos_id=1), "the first pieces are"),
    ],
)
def test_files_that_are_no_such_model_are_refused(model, tmp_path, damage, message):
    with pytest.raises(CheckpointError, match=message):
        TextTokenizer.from_pretrained(written(tmp_path, damage(model)))
