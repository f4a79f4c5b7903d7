"""A step of every objective and family: the loss and the gradients of the original."""

import pytest
import torch

from tests.training.criteria import classify_criterion, ctc_criterion, seq2seq_criterion, speakers_criterion
from tests.training.objectives.originals import (
    CTC,
    LENGTHS,
    assert_step_equals,
    class_of,
    decoder_pair,
    extractor_of,
    model_pair,
    padded,
    random_batch,
)

TEXTS = [[4, 5, 6, 6, 9], [7], [8, 5, 4]]


def rows_of(targets):
    """Return rows of one length: padding has a part in outputs and losses of the original."""
    return random_batch(targets, (LENGTHS[0],) * 3)


ENCODERS = ("wav2vec2 layer", "sew-d", "wav2vec2-bert")
"""With waves and with features, and with positions in the attention."""


@pytest.mark.parametrize("encoder", ENCODERS)
def test_ctc_steps_equal_theirs(encoder):
    theirs, mine = model_pair(encoder, class_of(encoder, "ForCTC"), **CTC)
    objective = ctc_criterion(mine, extractor_of(encoder))
    assert_step_equals(objective, rows_of(TEXTS), theirs, lambda **of: theirs(**of, labels=padded(TEXTS)).loss)


@pytest.mark.parametrize(
    ("encoder", "fields"), [("wav2vec2-bert", {}), ("wav2vec2 layer", {"use_weighted_layer_sum": True})]
)
def test_steps_of_classes_equal_theirs(encoder, fields):
    theirs, mine = model_pair(encoder, class_of(encoder, "ForSequenceClassification"), num_labels=5, **fields)
    labels = torch.tensor([4, 0, 4])
    objective = classify_criterion(mine, extractor_of(encoder))
    assert_step_equals(objective, rows_of([[4], [0], [4]]), theirs, lambda **of: theirs(**of, labels=labels).loss)


@pytest.mark.parametrize("encoder", ["wav2vec2 layer", "wav2vec2-bert"])
def test_steps_of_speakers_equal_theirs(encoder):
    """With the margin of the original."""
    theirs, mine = model_pair(encoder, class_of(encoder, "ForXVector"), num_labels=5)
    labels = torch.tensor([4, 0, 4])
    objective = speakers_criterion(mine, extractor_of(encoder), margin=0.4, margin_warmup=0.0)
    assert_step_equals(objective, rows_of([[4], [0], [4]]), theirs, lambda **of: theirs(**of, labels=labels).loss)


@pytest.mark.parametrize(
    ("encoder", "decoder"), [*zip(ENCODERS, ("bert", "gpt2", "bart"), strict=True), ("wav2vec2 layer", "mbart")]
)
def test_steps_of_encoders_with_decoders_equal_theirs(encoder, decoder):
    theirs, mine = decoder_pair(encoder, decoder)
    objective = seq2seq_criterion(mine, extractor_of(encoder), smoothing=0.0)
    assert_step_equals(objective, rows_of(TEXTS), theirs, lambda **of: theirs(**of, labels=padded(TEXTS)).loss)


def test_label_smoothing_equals_theirs():
    from transformers.trainer_pt_utils import LabelSmoother

    theirs, mine = decoder_pair("wav2vec2 layer", "bart")
    objective = seq2seq_criterion(mine, extractor_of("wav2vec2 layer"), smoothing=0.1)
    labels = padded(TEXTS)
    assert_step_equals(
        objective,
        rows_of(TEXTS),
        theirs,
        lambda **of: LabelSmoother(0.1)(theirs(**of, labels=labels), labels),
    )
