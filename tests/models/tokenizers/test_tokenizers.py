"""Tokenizers of each kind against those of transformers: ids, texts, attributes, files; and what is refused."""

import copy
import io
import json
import pickle

import numpy as np
import pytest
import sentencepiece
import torch

from raysp import CheckpointError
from raysp.models import AutoTokenizer, TextTokenizer, Wav2Vec2PhonemeCTCTokenizer
from tests.models.oracles import transformers
from tests.models.tokenizers.phonemes import write_tokenizer
from tests.models.tokenizers.text_tokenizers import write_bert_tokenizer, write_byte_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore")
TEXTS = [
    "The cat sat on the mat.",
    "hello  world, unlikely!",
    "",
    " I'm un-catting… ÉCOLE 漢字 \u00a0tab\tnew\nline",
    "don't [MASK] </s> <mask> he said",
    "zzz 42",
]
LETTERS = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *"ONETW"])}
MODEL_FILE = "sentencepiece.bpe.model"


def sentencepiece_model(**options) -> bytes:
    model = io.BytesIO()
    corpus = [*TEXTS, "one two three four five six seven eight nine zero", "le lapin a tué un chasseur"] * 4
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_writer=model, vocab_size=70, minloglevel=2, **options
    )
    return model.getvalue()


def write_config(folder, **config):
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_letters(folder):
    (folder / "vocab.json").write_text(json.dumps(LETTERS))
    write_config(folder, tokenizer_class="Wav2Vec2CTCTokenizer")


def write_phonemes(folder, **config):
    write_tokenizer(folder, do_phonemize=False, phonemizer_lang="it", **config)


def write_gpt2(folder, **config):
    write_byte_tokenizer(folder, "GPT2Tokenizer", ["<|endoftext|>"], **config)


def write_bart(folder):
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    write_byte_tokenizer(folder, "BartTokenizer", special, add_prefix_space=True)


def write_mbart(folder):
    """An mBART tokenizer as transformers saves it: a tokenizer.json of unigrams."""
    vocab = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocab += [(piece, -3.0) for piece in ("▁the", "▁cat", "▁sat", "he", "llo", "s", "t", "a", "c", ".")]
    vocab += [(code, 0.0) for code in ("ar_AR", "en_XX", "de_DE")] + [("<mask>", 0.0)]
    transformers.MBartTokenizer(vocab=vocab, src_lang="en_XX", tgt_lang="de_DE").save_pretrained(folder)


def write_pieces(folder, name="MBart50Tokenizer", **options):
    (folder / MODEL_FILE).write_bytes(sentencepiece_model(**options))
    write_config(folder, tokenizer_class=name, src_lang="en_XX")


WRITERS = {
    "letters": write_letters,
    "phonemes": write_phonemes,
    "phonemes and words": lambda folder: write_phonemes(folder, words=True),
    "BERT": write_bert_tokenizer,
    "BERT, cased": lambda folder: write_bert_tokenizer(folder, do_lower_case=False, tokenize_chinese_chars=False),
    "GPT-2": lambda folder: write_gpt2(folder, pad_token="<|endoftext|>"),
    "BART": write_bart,
    "mBART": write_mbart,
    "mBART of sentencepiece": lambda folder: write_pieces(folder, "MBartTokenizer"),
    "mBART-50 of sentencepiece": write_pieces,
}


@pytest.fixture(scope="module", params=WRITERS)
def folder(request, tmp_path_factory):
    WRITERS[request.param](made := tmp_path_factory.mktemp("tokenizer"))
    return made


@pytest.fixture(scope="module")
def pair(folder):
    """Their tokenizer and ours."""
    name = json.loads((folder / "tokenizer_config.json").read_text())["tokenizer_class"]
    return getattr(transformers, name).from_pretrained(folder), AutoTokenizer.from_pretrained(folder)


def plain(values):
    return {name: value.tolist() if hasattr(value, "tolist") else value for name, value in values.items()}


PADDINGS = [
    {"padding": "longest", "pad_to_multiple_of": 8},
    {"max_length": 6},
    {"truncation": True, "max_length": 6, "padding": "max_length"},
    {"padding": True, "return_tensors": "pt"},
    {"padding": True, "return_tensors": "np", "return_attention_mask": False},
]


def test_ids_equal_theirs(folder, pair):
    theirs, ours = pair
    # Theirs does not normalise "…" as sentencepiece does, and keeps a space before "</s>" in a text.
    texts = TEXTS if not (folder / MODEL_FILE).is_file() else [text for text in TEXTS if text.isascii()][:3]
    for text in texts:
        assert plain(ours(text)) == plain(theirs(text))
        assert ours(text, add_special_tokens=False)["input_ids"] == theirs(text, add_special_tokens=False)["input_ids"]
        assert ours.encode(text) == theirs.encode(text)
        assert ours.tokenize(text) == theirs.tokenize(text)
    for options in ({}, *PADDINGS):
        assert plain(ours(texts, **options)) == plain(theirs(texts, **options))
        kind = {"pt": torch.Tensor, "np": np.ndarray}.get(options.get("return_tensors"), list)
        assert isinstance(ours(TEXTS, **options)["input_ids"], kind)


def test_texts_of_ids_equal_theirs(pair):
    theirs, ours = pair
    rows = [theirs(text)["input_ids"] for text in TEXTS] + [list(range(4, len(theirs), 7))]
    for skip in (True, False) if not isinstance(ours, Wav2Vec2PhonemeCTCTokenizer) else (False,):
        for clean in (None, True, False):
            options = {"skip_special_tokens": skip, "clean_up_tokenization_spaces": clean}
            for ids in filter(None, rows):
                assert ours.decode(ids, **options) == theirs.decode(ids, **options)
                assert ours.decode(torch.tensor(ids), **options) == theirs.decode(ids, **options)
            assert ours.batch_decode(rows[:1], **options) == theirs.batch_decode(rows[:1], **options)


def test_settings_are_kept_in_files_and_copies(folder, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", truncation_side="left", model_max_length=9)
    tokenizer.save_pretrained(tmp_path / "saved")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    theirs.save_pretrained(tmp_path / "theirs")
    saved, again = (AutoTokenizer.from_pretrained(tmp_path / name) for name in ("saved", "theirs"))
    ids = tokenizer.encode("ONE TWO")
    for one in (saved, again, theirs, copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert (one.padding_side, one.truncation_side, one.model_max_length) == ("left", "left", 9)
        assert one.get_vocab() == tokenizer.get_vocab()
        assert one.decode(ids) == tokenizer.decode(ids)
    texts = ["the cat sat on the mat", "a cat"]
    for options in ({"truncation": True}, {"padding": True}):
        assert plain(tokenizer(texts, **options)) == plain(theirs(texts, **options))
    if isinstance(tokenizer, Wav2Vec2PhonemeCTCTokenizer):
        assert type(again) is type(tokenizer)
        for name in ("phonemizer_lang", "do_phonemize", "phone_delimiter_token", "word_delimiter_token"):
            assert getattr(again, name) == getattr(tokenizer, name)
    with pytest.raises(TypeError, match="repo_id given without push_to_hub=True"):
        tokenizer.save_pretrained(tmp_path / "other", repo_id="owner/name")


def bert_of(**config):
    return lambda folder: write_bert_tokenizer(folder, **config)


def gpt2_with(name, text):
    return lambda folder: (write_gpt2(folder), (folder / name).write_text(text))


def cut(folder):
    write_pieces(folder)
    (folder / MODEL_FILE).write_bytes((folder / MODEL_FILE).read_bytes()[:-40])


FAULTS = [
    (lambda folder: None, "tokenizer_class is None, expected one of BartTokenizer, BertTokenizer"),
    (bert_of(tokenizer_class="T5Tokenizer"), "class is 'T5Tokenizer', expected one"),
    (bert_of(cls_token="[START]"), r"special token '\[START\]' is not in the vocab"),
    (bert_of(tokenizer_class="PreTrainedTokenizer"), r"tokenizer\.json not found, which this tokenizer needs"),
    (gpt2_with("merges.txt", "#\nthree words here\n"), "merges.txt: a line is not a pair of"),
    (lambda folder: (write_gpt2(folder), (folder / "merges.txt").unlink()), r"merges\.txt: not found, nor tokenizer\."),
    (gpt2_with("tokenizer.json", "{}"), r"tokenizer\.json: not a tokenizer"),
    (cut, "not a sentencepiece model"),
    (lambda folder: write_pieces(folder, model_type="bpe"), r"model_type is 2, expected 1 \(unigram\)"),
    (lambda folder: write_pieces(folder, unk_id=2, bos_id=0, eos_id=1), "the first pieces are"),
]


@pytest.mark.parametrize(("write", "message"), FAULTS)
def test_faults_of_files_are_named(tmp_path, write, message):
    write(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        TextTokenizer.from_pretrained(tmp_path)
