"""Several heads over one encoder: checkpoints whose config.json names several classes in `architectures`.

Such a checkpoint is one file of weights, those of the encoder once. The first class is the model; transformers loads
any of them from it, as it leaves out what belongs to the others.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raysp.errors import CheckpointError
from raysp.models.base.modeling import Model
from raysp.models.base.outputs import ModelOutput
from raysp.models.files.weights import short, write_tensors

OF_EACH_CLASS = ("architectures", "dtype")  # fields of a configuration that may differ between heads


def with_encoder_of(model: Model, head: Model) -> Model:
    """Put a model's encoder in place of a head's own; returns the head, on the model's device."""
    setattr(head, head.base_model_prefix, model.base_model)
    return head.to(model.device).eval()


@contextlib.contextmanager
def encoded_before(model: Model, encoded: ModelOutput) -> Iterator[None]:
    """Let a model's encoder give what it gave before, while the block lasts."""
    encoder: Any = model.speech_encoder

    def replayed(*_: object, states: Any = None, **__: object) -> ModelOutput:  # noqa: ANN401 - as for encode
        if states is not None:
            for hidden_BTH in encoded["hidden_states"]:
                states.append(hidden_BTH)
        return encoded

    encoder.encode = replayed
    try:
        yield
    finally:
        del encoder.encode  # the class's own is seen again


def save_heads(models: Sequence[Model], folder: str | Path, *, shard_bytes: int = 5 * 10**9) -> None:
    """Write heads that were trained over one frozen encoder as one checkpoint.

    Args:
        models: Of one kind, such as a UniSpeechForCTC and a UniSpeechForSequenceClassification.
        folder: Where config.json and safetensors go; processor and tokenizer are saved by themselves.
        shard_bytes: Most bytes of a file of weights.

    Raises:
        CheckpointError: Encoders or configurations differ, or two heads have weights of one name.
    """
    first = models[0]
    _check_encoders(models)
    weights: dict[str, Tensor] = dict(first.stored_weights())
    for model in models[1:]:
        head = {name: value for name, value in model.stored_weights().items() if not _is_of_encoder(model, name)}
        refuse_shared_names([*weights], [*head])
        weights.update(head)
    config = type(first.config).from_dict(_joined_fields(models))
    config.architectures = [type(model).__name__ for model in models]
    config.dtype = str(first.dtype).removeprefix("torch.")
    config.save_pretrained(folder)
    write_tensors(Path(folder), weights, shard_bytes)


def refuse_shared_names(one: Sequence[str], other: Sequence[str]) -> None:
    """Raise CheckpointError where two heads have weights of one name."""
    if shared := sorted({*one} & {*other}):
        raise CheckpointError(
            f"two heads have weights of one name, {short(shared)}: a checkpoint holds one of them, and a CTC head"
        )


def _is_of_encoder(model: Model, name: str) -> bool:
    return name.startswith(model.base_model_prefix + ".")


def _check_encoders(models: Sequence[Model]) -> None:
    first, expected = models[0], models[0].base_model.state_dict()
    for model in models[1:]:
        found = model.base_model.state_dict() if type(model.base_model) is type(first.base_model) else {}
        differing = [name for name, value in expected.items() if not _same(found.get(name), value)]
        if differing or found.keys() != expected.keys():
            raise CheckpointError(
                f"the encoder of {type(model).__name__} is not that of {type(first).__name__}: {short(differing)} "
                "differ: train the second head over the first one's encoder, frozen"
            )


def _same(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and one.shape == other.shape and torch.equal(one, other.to(one.device))


def _joined_fields(models: Sequence[Model]) -> dict[str, Any]:
    """Take of each field what one of the configurations has in place of the default."""
    joined: dict[str, Any] = models[0].config.to_dict()
    defaults: Mapping[str, Any] = type(models[0].config)().to_dict()
    for model in models[1:]:
        for name, value in model.config.to_dict().items():
            if name in OF_EACH_CLASS or value in (joined.get(name), defaults.get(name)):
                continue
            if joined.get(name) != defaults.get(name):
                raise CheckpointError(f"configurations differ in {name}: {joined[name]!r} and {value!r}; make them one")
            joined[name] = value
    return joined
