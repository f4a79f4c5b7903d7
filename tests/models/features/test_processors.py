import json

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.models import Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor, Wav2Vec2Processor
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


@pytest.mark.parametrize(
    ("is_masked", "options"),
    [
        (False, {"padding": "longest", "pad_to_multiple_of": 128}),
        (True, {"padding": "max_length", "max_length": 1000, "truncation": True, "pad_to_multiple_of": 64}),
        (True, {"padding": False}),
    ],
)
@pytest.mark.parametrize("do_normalize", [True, False])
def test_features_equal_theirs(do_normalize, is_masked, options):
    flags = {"do_normalize": do_normalize, "return_attention_mask": is_masked, "padding_value": 0.5}
    ours = Wav2Vec2FeatureExtractor(**flags)(waves(), sampling_rate=16000, **options)
    theirs = transformers.Wav2Vec2FeatureExtractor(**flags)(waves(), sampling_rate=16000, **options)
    assert ours.keys() == theirs.keys()
    for name in ours:
        for mine, other in zip(ours[name], theirs[name], strict=True):
            assert mine.dtype == other.dtype
            np.testing.assert_allclose(mine, other, atol=1e-6)


def test_wrong_calls_say_what_was_expected():
    extractor = Wav2Vec2FeatureExtractor()
    with pytest.raises(ValueError, match="sampling_rate is 8000, this checkpoint expects 16000"):
        extractor(waves(), sampling_rate=8000)
    with pytest.raises(ValueError, match=r"expected \(T,\) or \(B, T\)"):
        extractor(np.zeros((1, 2, 100)))
    with pytest.raises(ValueError, match=r"rows of lengths .* cannot form a tensor: pass padding=True"):
        extractor(waves(), return_tensors="pt")
    with pytest.raises(AttributeError, match="no entry 'labels', expected one of: input_values"):
        _ = extractor(waves()[0]).labels


def test_extract_equals_each_row_alone():
    extractor, theirs = Wav2Vec2FeatureExtractor(), transformers.Wav2Vec2FeatureExtractor()
    rows = [torch.from_numpy(wave) for wave in waves()]
    num_samples = torch.tensor([len(row) for row in rows])
    features = extractor.extract(torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), num_samples)
    assert torch.equal(features["attention_mask"].sum(1), num_samples)
    for row, values in zip(rows, features["input_values"], strict=True):
        alone = extractor.extract(row[None], torch.tensor([len(row)]))["input_values"][0]
        assert torch.equal(values[: len(row)], alone)
        assert not values[len(row) :].any()
        expected = theirs(row.numpy(), sampling_rate=16000, return_tensors="pt").input_values[0]
        torch.testing.assert_close(alone, expected, atol=2e-6, rtol=1e-6)


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
