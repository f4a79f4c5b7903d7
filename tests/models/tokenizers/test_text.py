import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models

from raysp import CheckpointError
from raysp.models import TextTokenizer
from tests.models.oracles import transformers
from tests.models.tokenizers.text_tokenizers import write_bert_tokenizer, write_byte_tokenizer

TEXTS = [
    "The cat sat on the mat.",
    "hello  world, unlikely!",
    "",
    " I'm un-catting… ÉCOLE 漢字 \u00a0tab\tnew\nline",
    "don't [MASK] </s> <mask> he said",
    "zzz 42",
]
GPT2_SPECIAL = ["<|endoftext|>"]
BART_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def write_bert(folder, **config):
    write_bert_tokenizer(folder, **config)


def write_gpt2(folder, **config):
    write_byte_tokenizer(folder, "GPT2Tokenizer", GPT2_SPECIAL, **config)


def write_bart(folder, **config):
    write_byte_tokenizer(folder, "BartTokenizer", BART_SPECIAL, **config)


def write_mbart(folder, **config):
    """An mBART tokenizer as transformers saves it: a tokenizer.json of unigrams."""
    vocab = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocab += [(piece, -3.0) for piece in ("▁the", "▁cat", "▁sat", "he", "llo", "s", "t", "a", "c", ".")]
    vocab += [(code, 0.0) for code in ("ar_AR", "en_XX", "de_DE")] + [("<mask>", 0.0)]
    transformers.MBartTokenizer(vocab=vocab, src_lang="en_XX", tgt_lang="de_DE", **config).save_pretrained(folder)


WRITERS = {
    "bert": (write_bert, {}),
    "bert cased": (write_bert, {"do_lower_case": False, "tokenize_chinese_chars": False}),
    "gpt2": (write_gpt2, {"pad_token": "<|endoftext|>"}),
    "gpt2 prefix space": (write_gpt2, {"add_prefix_space": True, "pad_token": "<|endoftext|>"}),
    "bart": (write_bart, {}),
    "bart prefix space": (write_bart, {"add_prefix_space": True}),
    "mbart": (write_mbart, {}),
}


def theirs_of(folder):
    return transformers.AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module", params=WRITERS)
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write, config = WRITERS[request.param]
    write(folder, **config)
    return theirs_of(folder), TextTokenizer.from_pretrained(folder)


def same(ours, theirs):
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        value = value.tolist() if hasattr(value, "tolist") else value
        mine = ours[name].tolist() if hasattr(ours[name], "tolist") else ours[name]
        assert mine == value, name


def test_ids_equal_theirs(pair):
    theirs, ours = pair
    for text in TEXTS:
        same(ours(text), theirs(text))
        same(ours(text, add_special_tokens=False), theirs(text, add_special_tokens=False))
        assert ours.encode(text) == theirs.encode(text)
        assert ours.tokenize(text) == theirs.tokenize(text)
    same(ours(TEXTS), theirs(TEXTS))


@pytest.mark.parametrize(
    "options",
    [
        {"padding": True},
        {"padding": "longest", "pad_to_multiple_of": 8},
        {"padding": "max_length", "max_length": 60},
        {"truncation": True, "max_length": 6},
        {"max_length": 6},
        {"truncation": True, "max_length": 6, "padding": "max_length"},
        {"padding": True, "return_tensors": "pt"},
        {"padding": True, "return_tensors": "np", "return_attention_mask": False},
    ],
)
def test_padding_and_truncation_equal_theirs(pair, options):
    theirs, ours = pair
    same(ours(TEXTS, **options), theirs(TEXTS, **options))
    kind = {"pt": torch.Tensor, "np": np.ndarray}.get(options.get("return_tensors"), list)
    assert isinstance(ours(TEXTS, **options)["input_ids"], kind)


def test_texts_of_ids_equal_theirs(pair):
    theirs, ours = pair
    rows = [theirs(text)["input_ids"] for text in TEXTS] + [list(range(0, len(theirs), 7))]
    for skip in (True, False):
        for clean in (None, True, False):
            options = {"skip_special_tokens": skip, "clean_up_tokenization_spaces": clean}
            for ids in rows:
                assert ours.decode(ids, **options) == theirs.decode(ids, **options)
                assert ours.decode(torch.tensor(ids), **options) == theirs.decode(ids, **options)
            assert ours.batch_decode(rows, **options) == theirs.batch_decode(rows, **options)


def test_padding_needs_its_token(tmp_path):
    write_gpt2(tmp_path)
    ours = TextTokenizer.from_pretrained(tmp_path)
    assert ours.pad_token is None
    assert ours.pad_token_id is None
    with pytest.raises(ValueError, match=r"texts differ in length and there is no pad_token: set tokenizer\.pad_token"):
        ours(TEXTS, padding=True)
    ours.pad_token = ours.eos_token
    assert ours(TEXTS, padding=True, return_tensors="pt").input_ids.shape[0] == len(TEXTS)
    ours.pad_token = "<new>"
    assert ours.pad_token_id == len(ours) - 1


def test_faults_of_files_are_named(tmp_path):
    with pytest.raises(CheckpointError, match="tokenizer_class is None, expected one of BartTokenizer, BertTokenizer"):
        TextTokenizer.from_pretrained(tmp_path)
    write_bert(tmp_path, tokenizer_class="T5Tokenizer")
    with pytest.raises(CheckpointError, match="tokenizer_class is 'T5Tokenizer', expected one of"):
        TextTokenizer.from_pretrained(tmp_path)
    write_bert(tmp_path, cls_token="[START]")
    with pytest.raises(CheckpointError, match=r"special token '\[START\]' is not in the vocabulary"):
        TextTokenizer.from_pretrained(tmp_path)
    write_bert(tmp_path, tokenizer_class="PreTrainedTokenizer")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json not found, which this tokenizer needs"):
        TextTokenizer.from_pretrained(tmp_path)
    write_gpt2(tmp_path)
    (tmp_path / "merges.txt").write_text("#version: 0.2\nthree words here\n")
    with pytest.raises(CheckpointError, match=r"merges\.txt: a line is not a pair of tokens"):
        TextTokenizer.from_pretrained(tmp_path)
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(CheckpointError, match=r"merges\.txt: not found, nor tokenizer\.json"):
        TextTokenizer.from_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: not a tokenizer"):
        TextTokenizer.from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="other_token given, expected names among bos_token, eos_token"):
        TextTokenizer(Tokenizer(models.BPE()), other_token="x")
