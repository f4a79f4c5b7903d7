"""The loss of CTC training: that of the original, of rows of any length."""

import numpy as np
import pytest
import torch
import transformers

from raysp.models.tokenizers import pieces
from raysp.training.data.micro_batches import MicroBatch
from tests.training.conftest import SMALL, micro_batch, small_model
from tests.training.criteria import ctc_criterion

UNDISTURBED = {"mask_time_prob": 0.0, "layerdrop": 0.0, "hidden_dropout": 0.0, "attention_dropout": 0.0}
UNDISTURBED |= {"feat_proj_dropout": 0.0, "activation_dropout": 0.0, "final_dropout": 0.0}


def test_loss_and_gradients_are_those_of_the_original(extractor, digits):
    """Whose padding leaks with group normalisation, so with layer normalisation."""
    fields = {**UNDISTURBED, "feat_extract_norm": "layer", "do_stable_layer_norm": True}
    model = small_model(**fields)
    theirs = transformers.Wav2Vec2ForCTC(
        transformers.Wav2Vec2Config(**{**SMALL, **fields, "ctc_loss_reduction": "mean"})
    ).train()
    theirs.load_state_dict(model.state_dict())
    batch = micro_batch(digits, 0, [0, 3, 5])
    losses = ctc_criterion(model, extractor)(batch)
    losses.total.backward()
    features = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)(
        [*batch.waves], sampling_rate=16_000, padding=True, return_tensors="pt"
    )
    width = max(map(len, batch.targets))
    labels = torch.tensor([[*target, *[-100] * (width - len(target))] for target in batch.targets])
    expected = theirs(**features, labels=labels).loss
    expected.backward()
    assert losses.total.item() / losses.count == pytest.approx(expected.item(), rel=1e-5)
    assert losses.rows_B.sum().item() == pytest.approx(losses.total.item(), rel=1e-6)
    for (name, mine), other in zip(model.named_parameters(), theirs.parameters(), strict=True):
        if other.grad is not None:
            torch.testing.assert_close(mine.grad / 3, other.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_integer_samples_are_those_of_floats(extractor, digits):
    model = small_model(**UNDISTURBED)
    batch = micro_batch(digits, 0, [1, 2])
    integers = [np.round(wave * 32767).astype(np.int16) for wave in batch.waves]
    floats = [wave.astype(np.float32) / 32768 for wave in integers]
    found = [
        ctc_criterion(model, extractor)(MicroBatch(0, batch.rows, waves, batch.targets)).total.item()
        for waves in (integers, floats, [integers[0], floats[1]])
    ]
    assert found[0] == found[1] == found[2]


def test_rows_with_more_labels_than_frames_count_as_zero(extractor, digits):
    model = small_model(**UNDISTURBED)
    wave, target = digits[0]
    losses = ctc_criterion(model, extractor)(MicroBatch(0, [0, 1], [wave, wave], [target * 100, target]))
    assert losses.rows_B[0].item() == 0
    assert losses.rows_B[1].item() > 0
    assert losses.count == 2


def test_pieces_of_words_scale_with_their_numbers(monkeypatch):
    monkeypatch.setattr(pieces, "MOST_WORDS", 10_000)
    many = {word: number * pieces.MOST_WORDS for word, number in {"aab": 3, "ab": 2}.items()}
    found = [pieces.learn_pieces(words, 10, ("p", "u")) for words in (many, {"aab": 3, "ab": 2})]
    assert pieces.merges_of(found[0]) == pieces.merges_of(found[1])
