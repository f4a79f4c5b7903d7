"""A step of every objective and family: the loss and the gradients of the original."""

import pytest

from raysp.training.ctc import CTCObjective
from raysp.training.seq2seq import Seq2SeqObjective
from tests.training.originals import (
    CLASSES,
    CTC,
    assert_step_equals,
    decoder_pair,
    extractor_of,
    model_pair,
    padded,
    random_batch,
)

TEXTS = [[4, 5, 6, 6, 9], [7], [8, 5, 4]]


def of_head(head: str):
    return pytest.mark.parametrize(("encoder", "name"), [one for one in CLASSES if one[1].endswith(head)])


@of_head("ForCTC")
def test_ctc_steps_equal_theirs(encoder, name):
    theirs, mine = model_pair(encoder, name, **CTC)
    objective = CTCObjective(mine, extractor_of(encoder))
    assert_step_equals(objective, random_batch(TEXTS), theirs, lambda **of: theirs(**of, labels=padded(TEXTS)).loss)


@pytest.mark.parametrize("decoder", ["bert", "gpt2", "bart", "mbart"])
@pytest.mark.parametrize("encoder", ["wav2vec2 layer", "sew-d", "wav2vec2-bert"])
def test_steps_of_encoders_with_decoders_equal_theirs(encoder, decoder):
    theirs, mine = decoder_pair(encoder, decoder)
    objective = Seq2SeqObjective(mine, extractor_of(encoder), smoothing=0.0)
    assert_step_equals(objective, random_batch(TEXTS), theirs, lambda **of: theirs(**of, labels=padded(TEXTS)).loss)


def test_label_smoothing_equals_theirs():
    from transformers.trainer_pt_utils import LabelSmoother

    theirs, mine = decoder_pair("wav2vec2 layer", "bart")
    objective = Seq2SeqObjective(mine, extractor_of("wav2vec2 layer"), smoothing=0.1)
    labels = padded(TEXTS)
    assert_step_equals(
        objective,
        random_batch(TEXTS),
        theirs,
        lambda **of: LabelSmoother(0.1)(theirs(**of, labels=labels), labels),
    )
