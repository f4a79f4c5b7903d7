"""Attributes and methods of tokenizers, extractors, processors and configurations, against those of transformers."""

import copy
import json
import pickle
import re
from pathlib import Path

import pytest

import raysp.models
from raysp.models import AutoTokenizer
from tests.models.oracles import transformers
from tests.models.tokenizers.text_tokenizers import write_bert_tokenizer, write_byte_tokenizer

DIGITS = Path(__file__).parents[3] / "pipelines" / "demo" / "unispeech-digits-ctc"


NOT_RETURNED = {
    "return_overflowing_tokens": "cut the ids of the whole text",
    "return_offsets_mapping": "of a text tokenizer, tokenizer.backend.encode(text).offsets has them",
    "return_special_tokens_mask": "compare the ids with tokenizer.all_special_ids",
    "return_length": "count the input_ids",
    "stride": "cut the ids of the whole text",
}


OF_ALL = {
    "special tokens": lambda it: (it.special_tokens_map, it.all_special_tokens, it.all_special_ids, len(it)),
    "added_tokens_decoder": lambda it: {i: (t.content, t.special) for i, t in it.added_tokens_decoder.items()},
    "convert_tokens_to_ids": lambda it: it.convert_tokens_to_ids(it.convert_ids_to_tokens([5, 7, 6])),
    "padding_side of a call": lambda it: dict(it(["ONE ONE", "E"], padding=True, padding_side="left")),
    "pad, labels": lambda it: dict(it.pad([{"input_ids": [5, 6], "labels": 1}, {"input_ids": [7], "labels": 0}])),
    "pad, masks": lambda it: dict(it.pad([{"input_ids": [5, 6], "attention_mask": [1, 0]}], padding="max_length",
                                         max_length=4, padding_side="left", verbose=False)),
    "add_special_tokens": lambda it: (it.add_special_tokens({"pad_token": "<q>"}), it.pad_token, len(it)),
    "a new special token": lambda it: (it.add_special_tokens({"extra_special_tokens": ["<x>"]}), it.encode("ONE<x>")),
    "an id assigned": lambda it: (setattr(it, "pad_token_id", 5), it.pad_token, it.pad_token_id),
    "an empty text": lambda it: [it(text, add_special_tokens=False, return_tensors=kind)["input_ids"].dtype
                                 for text in ("", ["", ""]) for kind in ("np", "pt")],
    "cut from the left": lambda it: (setattr(it, "truncation_side", "left"),
                                     it.encode("ONE TWO", max_length=3, truncation=True)),
    "model_max_length": lambda it: (setattr(it, "model_max_length", 2), it.encode("ONE TWO", truncation=True)),
}  # fmt: skip


@pytest.fixture(scope="module", params=["CTC", "phonemes", "BERT", "GPT-2"])
def folder(request, tmp_path_factory):
    made = tmp_path_factory.mktemp("tokenizer")
    if request.param == "CTC":
        return DIGITS
    if request.param == "phonemes":
        vocabulary = ["<pad>", "<s>", "</s>", "<unk>", "|", "O", "N", "E", "TWO", "ONE"]
        (made / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(vocabulary)}))
        named = {"tokenizer_class": "Wav2Vec2PhonemeCTCTokenizer", "do_phonemize": False, "word_delimiter_token": "|"}
        (made / "tokenizer_config.json").write_text(json.dumps(named))
    elif request.param == "BERT":
        write_bert_tokenizer(made)
    else:
        write_byte_tokenizer(made, "GPT2Tokenizer", ["<|endoftext|>"], pad_token="<|endoftext|>")
    return made


def values_of(libraries, folder, read):
    """Return the value that each library gives."""
    return [read(library.AutoTokenizer.from_pretrained(folder)) for library in libraries]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", OF_ALL)
def test_tokenizers_have_the_values_of_transformers(folder, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found, expected = values_of((raysp.models, transformers), folder, OF_ALL[name])
    assert found == expected


def test_settings_are_kept_in_files_and_copies(folder, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left", truncation_side="left", model_max_length=9)
    tokenizer.save_pretrained(tmp_path / "saved")
    read = AutoTokenizer.from_pretrained(tmp_path / "saved")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    for one in (read, theirs, copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert (one.padding_side, one.truncation_side, one.model_max_length) == ("left", "left", 9)
        assert one.get_vocab() == tokenizer.get_vocab()
    with pytest.raises(TypeError, match="repo_id given without push_to_hub=True"):
        tokenizer.save_pretrained(tmp_path / "other", repo_id="owner/name")


def test_what_tokenizers_have_not_is_refused_with_the_way_out(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with pytest.raises(AttributeError, match=r"has no 'all_special_token' \(did you mean 'all_special_tokens'\?\)"):
        tokenizer.all_special_token  # noqa: B018
    for name, way_out in NOT_RETURNED.items():
        refusal = f"^{name} given, which tokenizers of raysp do not return: omit it; {re.escape(way_out)}"
        with pytest.raises(ValueError, match=refusal):
            tokenizer("ONE", **{name: True})
    with pytest.raises(ValueError, match="rows have input_values, expected input_ids"):
        tokenizer.pad({"input_values": [[0.0]]})
    with pytest.raises(ValueError, match="pad given, expected names among "):
        tokenizer.add_special_tokens({"pad": "<pad>"})
