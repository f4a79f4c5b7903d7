import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from raysp import CheckpointError
from raysp.models import AutoTokenizer, TextTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor
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
    "bert accents": (write_bert, {"strip_accents": False}),
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
        {"max_length": 6, "truncation": False},
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


def test_one_text_as_a_tensor_is_a_batch_of_one(pair):
    theirs, ours = pair
    found = ours(TEXTS[0], return_tensors="pt")
    assert torch.equal(found.input_ids, theirs(TEXTS[0], return_tensors="pt").input_ids)
    assert found.to("cpu").input_ids.shape[0] == 1


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


@settings(max_examples=15, deadline=None)
@given(text=st.text(max_size=30))
def test_any_text_gives_their_ids(text):
    for theirs, ours in _all_pairs():
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]


_PAIRS = []


def _all_pairs():
    return _PAIRS


@pytest.fixture(autouse=True, scope="module")
def _pairs_for_any_text(tmp_path_factory):
    for name in ("bert", "gpt2", "bart"):
        folder = tmp_path_factory.mktemp("any")
        write, config = WRITERS[name]
        write(folder, **config)
        _PAIRS.append((theirs_of(folder), TextTokenizer.from_pretrained(folder)))
    yield
    _PAIRS.clear()


def test_special_tokens_and_sizes_equal_theirs(pair):
    theirs, ours = pair
    for name in ("bos", "eos", "unk", "sep", "pad", "cls", "mask"):
        assert getattr(ours, f"{name}_token") == getattr(theirs, f"{name}_token")
        assert getattr(ours, f"{name}_token_id") == getattr(theirs, f"{name}_token_id")
    assert set(theirs.all_special_ids) <= set(ours.all_special_ids)
    assert (len(ours), ours.vocab_size) == (len(theirs), theirs.vocab_size)
    assert ours.get_vocab() == theirs.get_vocab()
    tokens = theirs.convert_ids_to_tokens([0, 1, 2])
    assert ours.convert_ids_to_tokens([0, 1, 2]) == tokens
    assert ours.convert_tokens_to_ids(tokens) == [0, 1, 2]
    assert ours.convert_tokens_to_ids("no such token") == theirs.convert_tokens_to_ids("no such token")
    assert list(ours.model_input_names) == list(theirs.model_input_names)
    with pytest.raises(AttributeError, match="TextTokenizer has no 'missing'"):
        _ = ours.missing


def test_tokenizers_go_both_ways(pair, tmp_path):
    """What theirs saved is read here, and what is saved here is read there and gives the same ids."""
    theirs, ours = pair
    theirs.save_pretrained(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    for folder in (tmp_path / "theirs", tmp_path / "ours"):
        again, here = theirs_of(folder), AutoTokenizer.from_pretrained(folder)
        assert isinstance(here, TextTokenizer)
        for text in TEXTS:
            assert here(text)["input_ids"] == again(text)["input_ids"] == theirs(text)["input_ids"]
        assert here.pad_token == theirs.pad_token
        assert here.padding_side == "right"


def test_limits_and_sides_are_read(tmp_path):
    write_bert(tmp_path, model_max_length=7, padding_side="left")
    theirs, ours = theirs_of(tmp_path), TextTokenizer.from_pretrained(tmp_path)
    same(ours(TEXTS, truncation=True, padding=True), theirs(TEXTS, truncation=True, padding=True))
    assert ours.model_max_length == 7
    rows = [{"input_ids": [1, 2, 3]}, {"input_ids": [4]}]
    same(ours.pad(rows, return_tensors="pt"), theirs.pad(rows, return_tensors="pt"))


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


def test_settings_stored_in_a_file_have_no_effect_unless_requested(tmp_path):
    write_bert(tmp_path)
    TextTokenizer.from_pretrained(tmp_path).save_pretrained(tmp_path)
    backend = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    backend.enable_truncation(4)
    backend.enable_padding(length=50)
    backend.save(str(tmp_path / "tokenizer.json"))
    found = TextTokenizer.from_pretrained(tmp_path)(TEXTS[0])["input_ids"]
    assert 4 < len(found) < 50


def test_any_tokenizer_of_the_library_is_read_from_its_file(tmp_path):
    backend = Tokenizer(models.WordLevel({"a": 0, "b": 1, "<unk>": 2}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.Fuse()
    backend.save(str(tmp_path / "tokenizer.json"))
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": {"content": "<unk>"}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    ours = AutoTokenizer.from_pretrained(tmp_path)
    assert ours("a b c")["input_ids"] == [0, 1, 2]
    assert ours.unk_token_id == 2


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


def test_the_class_is_found_by_the_model_where_no_file_names_it(tmp_path):
    write_bert(tmp_path)
    (tmp_path / "tokenizer_config.json").unlink()
    config = {"model_type": "speech-encoder-decoder", "decoder": {"model_type": "bert"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    ours = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(ours, TextTokenizer)
    assert ours.tokenizer_class == "BertTokenizer"


def test_a_processor_takes_a_text_tokenizer(tmp_path):
    write_bert(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    processor = Wav2Vec2Processor(Wav2Vec2FeatureExtractor(return_attention_mask=True), tokenizer)
    processor.save_pretrained(tmp_path)
    again = Wav2Vec2Processor.from_pretrained(tmp_path)
    batch = again([np.zeros(500), np.ones(300)], text=TEXTS[:2], padding=True, return_tensors="pt")
    assert list(batch) == ["input_values", "attention_mask", "labels"]
    assert batch.labels.shape[0] == 2
    texts = again.batch_decode(batch.labels, skip_special_tokens=True)
    assert texts == tokenizer.batch_decode(batch.labels, skip_special_tokens=True)
    assert again(text=TEXTS[0])["input_ids"] == tokenizer(TEXTS[0])["input_ids"]
    padded = again.pad({"input_values": [np.zeros(5)]}, labels={"input_ids": [[1, 2], [3]]})
    assert padded["labels"] == [[1, 2], [3, tokenizer.pad_token_id]]
