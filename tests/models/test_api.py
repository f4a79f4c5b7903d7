"""Names, outputs and messages of the public classes of models, as programs for transformers use them."""

import pytest
import torch

from tests.models.oracles import random_model, transformers
from tests.models.parity import waves_and_mask


def test_outputs_read_by_position_name_and_attribute():
    model, (waves, _) = random_model(), waves_and_mask()
    output = model(waves)
    assert output[0] is output.logits is output["logits"]
    assert output.loss is None
    assert [*output] == ["logits"]
    assert len(output) == 1
    (logits,) = output.values()
    assert logits is output.logits
    plain = model(waves, return_dict=False, output_hidden_states=True)
    assert isinstance(plain, tuple)
    assert len(plain) == 2
    assert len(plain[1]) == 3
    with pytest.raises(KeyError):
        output["loss"]


def test_configuration_is_read_when_called():
    model, (waves, _) = random_model(), waves_and_mask()
    labels = torch.tensor([[5, 6]] * 4)
    by_mean = model(waves, labels=labels).loss
    model.config.ctc_loss_reduction = "sum"
    assert model(waves, labels=labels).loss > by_mean
    model.config.output_hidden_states = True
    assert model(waves).hidden_states is not None


def test_heads_are_not_pruned_and_the_error_says_what_to_do():
    with pytest.raises(
        NotImplementedError, match=r"UniSpeechForCTC: pruning of attention heads is not supported .* to 0"
    ):
        random_model().prune_heads({0: [1]})
    assert not hasattr(transformers.UniSpeechForCTC, "prune_heads")
