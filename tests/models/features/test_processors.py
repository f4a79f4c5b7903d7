import json

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.models import Wav2Vec2CTCTokenizer, Wav2Vec2Processor
from tests.models.oracles import save_checkpoint

TOKENS = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'", "<laugh>"]
VOCAB = {token: index for index, token in enumerate(TOKENS)}


def both_tokenizers(tmp_path, vocab=VOCAB, **options):
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps(vocab))
    return Wav2Vec2CTCTokenizer(path, **options), transformers.Wav2Vec2CTCTokenizer(str(path), **options)


@pytest.fixture(scope="module", params=[False, True], ids=["as they are", "lower case"])
def tokenizers(request, tmp_path_factory):
    return both_tokenizers(tmp_path_factory.mktemp("tokenizer"), do_lower_case=request.param)


def waves():
    generator = np.random.default_rng(0)
    return [(generator.normal(0.1, 0.3, n)).astype(np.float32) for n in (900, 1600, 401)]


@settings(max_examples=200, deadline=None)
@given(
    ids=st.lists(st.sampled_from([0, 0, 0, 1, 2, 3, 4, 4, 5, 6, 7, 31, 32, 40]), max_size=40),
    options=st.fixed_dictionaries({"skip_special_tokens": st.booleans(), "group_tokens": st.booleans()}),
    parts=st.lists(st.sampled_from([*TOKENS, " ", "  ", "a", "é", "<pa", "ABC D"]), max_size=12),
)
def test_decoding_and_encoding_equal_theirs(tokenizers, ids, options, parts):
    ours, theirs = tokenizers
    assert ours.decode(ids, **options) == theirs.decode(ids, **options)
    assert ours("".join(parts)).input_ids == theirs("".join(parts))["input_ids"]


def test_a_processor_takes_audio_text_or_both(tmp_path):
    source = save_checkpoint(tmp_path / "checkpoint")
    ours = Wav2Vec2Processor.from_pretrained(source)
    theirs = transformers.Wav2Vec2Processor.from_pretrained(source)
    for padding in (
        {"padding": True},
        {"audio_kwargs": {"padding": True}, "text_kwargs": {"padding": "max_length", "max_length": 9}},
        {"common_kwargs": {"padding": True}, "audio_kwargs": {"return_attention_mask": True}},
    ):
        named = {"text": ["A", "BC", "D A"], "sampling_rate": 16000, "return_tensors": "pt", **padding}
        mine, other = ours(waves(), **named), theirs(waves(), **named)
        assert mine.keys() == other.keys()
        for name in mine:
            torch.testing.assert_close(mine[name], other[name])
    moved = mine.to("cpu", torch.bfloat16)
    assert (moved.input_values.dtype, moved.attention_mask.dtype) == (torch.bfloat16, torch.int32)
    with pytest.raises(TypeError, match="multiple values for keyword argument 'padding'"):
        ours(waves(), padding=True, audio_kwargs={"padding": False})
    labels = [{"input_ids": [5]}, {"input_ids": [6, 7]}, {"input_ids": [8]}]
    padded = ours.pad([{"input_values": wave} for wave in waves()], labels=labels, return_tensors="pt")
    assert (padded.input_values.shape, padded.labels.shape) == ((3, 1600), (3, 2))
    assert ours.batch_decode([[5, 5, 0, 5]]) == [ours.decode([5, 5, 0, 5])] == ["AA"]
    with pytest.raises(ValueError, match="neither audio nor text"):
        ours()
