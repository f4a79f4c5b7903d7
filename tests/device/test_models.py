"""Programs with models on the stand-in device: processors, generation, losses, gradients and steps of optimizers."""

import numpy as np
import pytest
import torch

from raysp import models
from tests.corpora import CHECKPOINT
from tests.device.stand_in import NAME, counted

WAVE = (0.1 * np.random.default_rng(0).standard_normal((2, 16000))).astype(np.float32)


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
