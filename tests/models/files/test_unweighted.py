"""Models without weights: what planning builds of a checkpoint to check it."""

import subprocess
import sys

import pytest
import torch

from raysp.models import UniSpeechForCTC, UniSpeechForSequenceClassification
from raysp.models.base.placing import is_without_weights, without_weights

CODE = """
import sys
import torch
from raysp.models import registry
from raysp.models.base.placing import without_weights

for model_type in {*registry.MODULES, *registry.DECODERS} - {registry.COMPOSITE}:
    for cls in registry.architectures_of(model_type).values():
        values = {"vocab_size": 32} if "CTC" in cls.__name__ else {}
        with without_weights():
            model = cls(cls.config_class(**values))
        assert all(one.device.type == "meta" for one in model.parameters()), cls
        slow = {"torch._dynamo", "torch._inductor", "sympy"}.intersection(sys.modules)
        assert not slow, (cls, slow)
print("all of them")
"""


@pytest.mark.drivers
@pytest.mark.slow
def test_no_architecture_without_weights_imports_the_compiler_of_torch():
    """Its import takes longer than all other checks of a checkpoint, in the plan and in each actor."""
    found = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert found.stdout == "all of them\n", found.stderr


def test_a_checkpoint_is_loaded_without_its_weights(tiny, monkeypatch):
    monkeypatch.setattr("safetensors.safe_open", None)  # so that reading weights fails
    torch.manual_seed(0)
    with without_weights():
        assert is_without_weights()
        model = UniSpeechForCTC.from_pretrained(tiny, dtype=torch.float32)
        other = UniSpeechForSequenceClassification.from_pretrained(tiny)
    assert not is_without_weights()
    assert all(one.is_meta and one.requires_grad for one in [*model.parameters(), *other.parameters()])
    assert {"classifier.weight", "classifier.bias", "projector.weight", "projector.bias"} == other.new_weights
    assert model.new_weights == frozenset()
    monkeypatch.undo()
    real = UniSpeechForCTC.from_pretrained(tiny)
    assert {name: one.shape for name, one in model.stored_weights().items()} == {
        name: one.shape for name, one in real.stored_weights().items()
    }
