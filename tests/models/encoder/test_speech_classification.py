"""The head of `Wav2Vec2ForSpeechClassification`, as published: equal to a plain PyTorch model over theirs."""

import json

import pytest
import safetensors.torch
import torch

from raysp import CheckpointError
from raysp.models import (
    HubertForSpeechClassification,
    Wav2Vec2ForSpeechClassification,
    check_checkpoint,
    load_checkpoint,
)
from tests.models.oracles import make_oracle
from tests.models.parity import assert_close

NUMBERS = ["arousal", "dominance", "valence"]
CLASSES = {"Wav2Vec2": Wav2Vec2ForSpeechClassification, "Hubert": HubertForSpeechClassification}
LENGTHS = torch.tensor([3000, 2000])


class Reference(torch.nn.Module):
    """The published model in plain PyTorch: an encoder of theirs, and pooled frames through two layers."""

    def __init__(self, family, mode, num_labels=3, **flags):
        super().__init__()
        self.encoder = make_oracle(f"{family}Model", **flags)
        self.classifier = torch.nn.Module()
        self.classifier.dense = torch.nn.Linear(32, 32)
        self.classifier.out_proj = torch.nn.Linear(32, num_labels)
        self.prefix, self.mode, self.config = family.lower(), mode, self.encoder.config

    def forward(self, waves):
        hidden = self.encoder(waves).last_hidden_state
        pooled = {"mean": hidden.mean(1), "sum": hidden.sum(1), "max": hidden.max(1).values}[self.mode]
        return self.classifier.out_proj(torch.tanh(self.classifier.dense(pooled)))

    def save(self, folder, family, names=NUMBERS, **changes):
        """Write the files of the published layout."""
        labels = {str(number): name for number, name in enumerate(names)}
        values = {
            **json.loads(self.config.to_json_string(use_diff=False)), "id2label": labels,
            "label2id": {name: int(number) for number, name in labels.items()},
            "architectures": [f"{family}ForSpeechClassification"], "finetuning_task": "wav2vec2_reg",
            "pooling_mode": self.mode, "problem_type": "regression", **changes,
        }  # fmt: skip
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps({key: one for key, one in values.items() if one is not ...}))
        (folder / "vocab.json").write_text("{}")
        front = {
            "do_normalize": True, "feature_extractor_type": "Wav2Vec2FeatureExtractor", "feature_size": 1,
            "padding_side": "right", "padding_value": 0.0, "return_attention_mask": True, "sampling_rate": 16000,
        }  # fmt: skip
        (folder / "preprocessor_config.json").write_text(json.dumps(front))
        tensors = {}
        for name, value in self.state_dict().items():
            name = name.replace("encoder.", f"{self.prefix}.", 1) if name.startswith("encoder.") else name
            for new, old in {"original0": "weight_g", "original1": "weight_v"}.items():
                name = name.replace(f"parametrizations.weight.{new}", old)
            tensors[name] = value.clone()
        safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder


def waves():
    return torch.randn(2, 3000, generator=torch.Generator().manual_seed(0))


def normalised(samples):
    return (samples - samples.mean()) / (samples.var(unbiased=False) + 1e-7).sqrt()


@pytest.mark.parametrize("family", CLASSES)
@pytest.mark.parametrize("mode", ["mean", "sum", "max"])
def test_numbers_equal_those_of_a_plain_model_and_of_each_row_alone(tmp_path, family, mode):
    reference = Reference(family, mode)
    reference.save(tmp_path, family)
    loaded = load_checkpoint(tmp_path)
    assert type(loaded.model) is CLASSES[family]
    assert not loaded.model.new_weights
    with torch.inference_mode():
        assert_close(loaded.model(waves()).logits, reference(waves()))
        padded = waves() * (torch.arange(3000) < LENGTHS[:, None])
        run = loaded.run(padded, LENGTHS, hidden_states=False)
        for row, length in enumerate(LENGTHS.tolist()):
            alone = reference(normalised(padded[row, :length])[None])[0]
            assert_close(next(iter(run.heads.values())).logits[row], alone)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling_mode": "median"}, "pooling_mode is 'median', expected one of mean, sum, max"),
        ({"add_adapter": True}, "does not support add_adapter"),
        ({"architectures": ["Wav2Vec2ForSequenceClassification"]}, r"missing projector.*unexpected classifier\.dense"),
        ({"architectures": ["HubertForSpeechClassification"]}, "expected a list with one of"),
    ],
)
def test_a_layout_that_is_not_certain_is_refused_with_the_names(tmp_path, changes, message):
    Reference("Wav2Vec2", "mean").save(tmp_path, "Wav2Vec2", **changes)
    with pytest.raises(CheckpointError, match=message):
        check_checkpoint(tmp_path)
