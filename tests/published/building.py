"""Lays a checkpoint out as it is published, with small random weights made by the classes of transformers."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from tests.models.oracles import transformers
from tests.published.layout import PICKLE, SAFETENSORS, Layout

WAVEFORM = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48, "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, "codevector_dim": 16, "proj_codevector_dim": 16,
    "num_codevectors_per_group": 8, "classifier_proj_size": 16, "tdnn_dim": [16] * 4 + [32], "xvector_output_dim": 16,
    "output_hidden_size": 32,
}  # fmt: skip
SMALL: dict[str, dict[str, Any]] = {
    "wav2vec2-bert": {key: value for key, value in WAVEFORM.items() if not key.startswith(("conv_dim", "num_conv"))},
}
OLD_NAMES = {
    "parametrizations.weight.original0": "weight_g",
    "parametrizations.weight.original1": "weight_v",
}
"""Names of weight norm before torch 2: those of all checkpoints that were saved or converted from such."""


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


def lay_out(layout: Layout, folder: Path) -> Path:
    """Write the files of a layout."""
    torch.manual_seed(0)
    from tests.published import written

    model = None
    if (write := getattr(written, layout.builds, None)) is None:
        model = _model(layout)
    else:
        write(folder, layout)
    for name in layout.files:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            continue
        if name == SAFETENSORS:
            safetensors.torch.save_file(renamed(model.state_dict()), path, metadata={"format": "pt"})
        elif name == PICKLE:
            torch.save(
                renamed(model.state_dict()) if model else safetensors.torch.load_file(folder / SAFETENSORS), path
            )
        else:
            path.write_text(_text(layout, name, model), encoding="utf-8")
    for path in folder.iterdir():
        if path.is_file() and path.name not in layout.files:
            path.unlink()
    return folder


def _model(layout: Layout) -> torch.nn.Module:
    """Make the weights, large enough that mistakes show."""
    model = made(layout.builds, layout.fields)
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():  # scales and variances stay positive
                tensor += 0.1 * (torch.rand_like(tensor) if bool((tensor == 1).all()) else torch.randn_like(tensor))
    return model.eval()


def class_named(name: str) -> Any:
    """Return a class of transformers, or the one that it has not."""
    return SpeechRegression if name == "SpeechRegression" else getattr(transformers, name)


def made(name: str, fields: Mapping[str, Any]) -> Any:
    """Return a small random model of a class."""
    cls = class_named(name)
    config = getattr(cls, "config_class", None) or transformers.Wav2Vec2Config
    known = {key: value for key, value in SMALL.get(config.model_type, WAVEFORM).items() if hasattr(config(), key)}
    return cls(config(**{**known, **fields}))


def renamed(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return copies of weights by their older names."""
    weights = {}
    for name, tensor in state.items():
        for new, old in OLD_NAMES.items():
            name = name.replace(new, old)
        weights[name] = tensor.clone()
    return weights


def _text(layout: Layout, name: str, model: torch.nn.Module) -> str:
    if name in layout.contents:
        return layout.contents[name]
    if name == "config.json":
        return json.dumps(_config(layout, model), indent=2)
    values = {
        "preprocessor_config.json": layout.front,
        "vocab.json": layout.vocab,
        "tokenizer_config.json": layout.tokenizer,
        "special_tokens_map.json": layout.special,
        "added_tokens.json": layout.added,
    }
    if name not in values:
        return "placeholder\n"
    return json.dumps(values[name], ensure_ascii=False)


def _config(layout: Layout, model: Any) -> dict[str, Any]:
    """Return config.json as an older transformers wrote it, with the keys that it had then."""
    values = json.loads(model.config.to_json_string(use_diff=False))
    values.pop("dtype", None)
    written = {
        "architectures": [layout.builds],
        "torch_dtype": "float32",
        "transformers_version": "4.17.0",
        **layout.written,
    }
    return {key: value for key, value in {**values, **written}.items() if value is not None or key not in written}
