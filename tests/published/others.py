"""Weights of published checkpoints whose classes are not those of transformers."""

from typing import Any

import torch

from tests.models.oracles import transformers


class _Head(torch.nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()
        self.dense = torch.nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = torch.nn.Linear(config.hidden_size, config.num_labels)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        return self.out_proj(torch.tanh(self.dense(pooled)))


class SpeechRegression(transformers.Wav2Vec2PreTrainedModel):
    """Numbers from the mean of frames: dense, tanh, out_proj."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.wav2vec2 = transformers.Wav2Vec2Model(config)
        self.classifier = _Head(config)
        self.post_init()

    def forward(self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None, **_: Any) -> Any:
        hidden = self.wav2vec2(input_values, attention_mask=attention_mask).last_hidden_state
        return transformers.modeling_outputs.SequenceClassifierOutput(logits=self.classifier(hidden.mean(1)))
