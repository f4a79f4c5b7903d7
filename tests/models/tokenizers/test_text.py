import numpy as np
import pytest
import torch

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
BART_SPECIAL = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def write_mbart(folder, **config):
    """An mBART tokenizer as transformers saves it: a tokenizer.json of unigrams."""
    vocab = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    vocab += [(piece, -3.0) for piece in ("▁the", "▁cat", "▁sat", "he", "llo", "s", "t", "a", "c", ".")]
    vocab += [(code, 0.0) for code in ("ar_AR", "en_XX", "de_DE")] + [("<mask>", 0.0)]
    transformers.MBartTokenizer(vocab=vocab, src_lang="en_XX", tgt_lang="de_DE", **config).save_pretrained(folder)


def write_gpt2(folder, **config):
    write_byte_tokenizer(folder, "GPT2Tokenizer", ["<|endoftext|>"], **config)


WRITERS = {
    "bert": (write_bert_tokenizer, {}),
    "bert cased": (write_bert_tokenizer, {"do_lower_case": False, "tokenize_chinese_chars": False}),
    "gpt2": (write_gpt2, {"pad_token": "<|endoftext|>"}),
    "bart prefix space": (
        lambda folder, **config: write_byte_tokenizer(folder, "BartTokenizer", BART_SPECIAL, **config),
        {"add_prefix_space": True},
    ),
    "mbart": (write_mbart, {}),
}


@pytest.fixture(scope="module", params=WRITERS)
def pair(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write, config = WRITERS[request.param]
    write(folder, **config)
    return transformers.AutoTokenizer.from_pretrained(folder), TextTokenizer.from_pretrained(folder)


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
        {"padding": "longest", "pad_to_multiple_of": 8},
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


FAULTS = [
    (lambda folder: None, "tokenizer_class is None, expected one of BartTokenizer, BertTokenizer"),
    (
        lambda folder: write_bert_tokenizer(folder, tokenizer_class="T5Tokenizer"),
        "class is 'T5Tokenizer', expected one",
    ),
    (
        lambda folder: write_bert_tokenizer(folder, cls_token="[START]"),
        r"special token '\[START\]' is not in the vocab",
    ),
    (
        lambda folder: write_bert_tokenizer(folder, tokenizer_class="PreTrainedTokenizer"),
        r"tokenizer\.json not found, which this tokenizer needs",
    ),
    (lambda folder: (folder / "merges.txt").write_text("#\nthree words here\n"), "merges.txt: a line is not a pair of"),
    (lambda folder: (folder / "merges.txt").unlink(), r"merges\.txt: not found, nor tokenizer\.json"),
    (lambda folder: (folder / "tokenizer.json").write_text("{}"), r"tokenizer\.json: not a tokenizer"),
]


@pytest.mark.parametrize(("damage", "message"), FAULTS)
def test_faults_of_files_are_named(tmp_path, damage, message):
    if "merges" in message or "not a tokenizer" in message:
        write_gpt2(tmp_path)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        TextTokenizer.from_pretrained(tmp_path)
