"""Programs with models on the stand-in device: processors, generation, losses, gradients and steps of optimizers."""

import numpy as np
import pytest
import torch

from raysp import models
from raysp.models import AutoModelForCTC, AutoProcessor
from tests.corpora import CHECKPOINT
from tests.device.stand_in import NAME, counted

WAVE = (0.1 * np.random.default_rng(0).standard_normal((2, 16000))).astype(np.float32)


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(CHECKPOINT)


def test_texts_of_ids_on_the_device(processor):
    model = AutoModelForCTC.from_pretrained(CHECKPOINT)
    inputs = processor(list(WAVE), sampling_rate=16000, return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = model(**inputs).logits.argmax(-1)
        ids = model.to(NAME)(**inputs.to(NAME)).logits.argmax(-1)
    with counted() as counts:
        texts = processor.batch_decode(ids)
    assert texts == processor.batch_decode(expected)
    assert processor.decode(ids[0]) == texts[0]
    assert sum(counts.waits.values()) == 1, counts.waits


@pytest.mark.parametrize("lengths", [(16000, 16000), (16000, 9000)])
def test_rows_of_one_length_have_no_mask(lengths):
    """The device would have to be asked; the host has the lengths."""
    loaded = models.load_checkpoint(CHECKPOINT, device=NAME)
    assert {parameter.device.type for parameter in loaded.model.parameters()} == {NAME}
    waves, counts_of_rows = torch.from_numpy(WAVE).to(NAME), torch.tensor(lengths).to(NAME)
    with torch.inference_mode(), counted() as counts:
        found = loaded.run(waves, counts_of_rows, hidden_states=False, num_samples=lengths)
    layout = found.features["attention_mask"]
    assert (layout.mask is None) == (len({*lengths}) == 1)
    assert (found.frames, counts.waits) == ([49, 49] if lengths[1] == 16000 else [49, 27], {})
