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
TEXTS = [
    "the apostle of the middle classes",
    "willkommen heißen zu können",
    "Ｆｕｌｌ ｗｉｄｔｈ, ﬁne, unseen: Ωλ 日",
    "a",
    "",
    "one  two",
]
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


def test_pieces_have_the_ids_and_scores_that_sentencepiece_gives_them(folder, model):
    oracle = sentencepiece.SentencePieceProcessor(model_proto=model)
    TextTokenizer.from_pretrained(folder).save_pretrained(folder / "saved")
    pieces = json.loads((folder / "saved" / "tokenizer.json").read_text())["model"]["vocab"]
    expected = [(oracle.id_to_piece(i), oracle.get_score(i)) for i in range(3, len(oracle))]
    assert [(piece, pytest.approx(score)) for piece, score in pieces[4 : len(oracle) + 1]] == expected


def test_texts_have_the_pieces_that_sentencepiece_cuts(folder, model):
    oracle = sentencepiece.SentencePieceProcessor(model_proto=model)
    ours = TextTokenizer.from_pretrained(folder)
    for text in [*TEXTS, "  leading and trailing  ", "tab\tand\nline"]:
        ids = [i + 1 if i > 2 else 3 for i in oracle.encode(text)]  # fairseq puts <pad> before the pieces
        assert ours.encode(text, add_special_tokens=False) == ids


def test_ids_special_tokens_and_texts_are_those_of_transformers(folder):
    ours = AutoTokenizer.from_pretrained(folder)
    theirs = getattr(transformers, ours.tokenizer_class).from_pretrained(folder)
    given = ours(TEXTS[:2], padding=True)
    assert dict(given) == dict(theirs(TEXTS[:2], padding=True))
    assert len(ours) == len(theirs)
    assert set(ours.all_special_ids) >= set(theirs.all_special_ids)
    for ids in given["input_ids"]:
        for skips in (True, False):
            assert ours.decode(ids, skip_special_tokens=skips) == theirs.decode(ids, skip_special_tokens=skips)
    assert ours.batch_decode(given["input_ids"], skip_special_tokens=True) == TEXTS[:2]


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
        (lambda data: b"\xff" * 40, "not a sentencepiece model"),
        (lambda data: b"", r"the first pieces are \[\]"),
        (lambda data: train(model_type="bpe"), r"model_type is 2, expected 1 \(unigram\)"),
        (lambda data: train(unk_id=2, bos_id=0, eos_id=1), "the first pieces are"),
    ],
)
def test_files_that_are_no_such_model_are_refused(model, tmp_path, damage, message):
    with pytest.raises(CheckpointError, match=message):
        TextTokenizer.from_pretrained(written(tmp_path, damage(model)))


def test_a_missing_file_and_an_unknown_language_are_named(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "src_lang": "english"}))
    with pytest.raises(CheckpointError, match="src_lang is 'english', expected one of ar_AR"):
        TextTokenizer.from_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    (folder / MODEL_FILE).unlink()
    with pytest.raises(CheckpointError, match=MODEL_FILE):
        TextTokenizer.from_pretrained(folder)
