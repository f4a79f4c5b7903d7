"""Several heads over one encoder: checkpoints whose config.json names several classes in `architectures`.

Such a checkpoint holds the encoder's weights once. The first class is the model; transformers loads any of the classes
from it and ignores the weights of the others.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raysp.errors import CheckpointError
from raysp.models.base.modeling import Model
from raysp.models.base.outputs import ModelOutput
from raysp.models.files.comparison import short
from raysp.models.files.weights import write_tensors

Encode = Callable[..., ModelOutput]

PER_HEAD_FIELDS = ("architectures", "dtype")  # fields of a configuration that may differ between heads


def with_encoder_of(model: Model, head: Model) -> Model:
    """Replace a head's encoder by a model's; return the head, on the model's device."""
    setattr(head, head.base_model_prefix, model.base_model)
    return head.to(model.device).eval()


class _Replaced:
    """`encode` of an encoder that several threads replace, each for itself."""

    def __init__(self, own: Encode) -> None:
        self.own = own
        self.of_threads: dict[int, Encode] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> ModelOutput:  # noqa: ANN401 - as for encode
        return self.of_threads.get(threading.get_ident(), self.own)(*args, **kwargs)


_replacing = threading.Lock()


@contextlib.contextmanager
def _encode_replaced(encoder: Model, make: Callable[[Encode], Encode]) -> Iterator[None]:
    """Replace the `encode` of an encoder within the block, in this thread; `make` is given the one before."""
    attributes, thread = vars(encoder), threading.get_ident()
    with _replacing:
        replaced: _Replaced = attributes.setdefault("encode", _Replaced(encoder.encode))  # type: ignore[arg-type]
        before = replaced.of_threads.get(thread)
        replaced.of_threads[thread] = make(before or replaced.own)
    try:
        yield
    finally:
        with _replacing:
            if before is None:
                del replaced.of_threads[thread]
            else:
                replaced.of_threads[thread] = before
            if not replaced.of_threads:
                del attributes["encode"]  # restores the method of the class


@contextlib.contextmanager
def encoded_by(model: Model) -> Iterator[list[ModelOutput]]:
    """Collect the outputs of a model's encoder within the block, so that several heads share one pass.

    Several threads may run one model in such blocks at once; each collects its own outputs.
    """
    outputs: list[ModelOutput] = []

    def make(encode: Encode) -> Encode:
        def observed(*args: Any, **kwargs: Any) -> ModelOutput:  # noqa: ANN401 - as for encode
            output = encode(*args, **kwargs)
            outputs.append(output)
            return output

        return observed

    with _encode_replaced(model.speech_encoder, make):
        yield outputs


@contextlib.contextmanager
def encoded_before(model: Model, encoded: ModelOutput) -> Iterator[None]:
    """Replay an encoder's output inside the block, so that a further head needs no second pass."""

    def replayed(*_: object, states: Any = None, **__: object) -> ModelOutput:  # noqa: ANN401 - as for encode
        if states is not None:
            for hidden_BTH in encoded["hidden_states"]:
                states.append(hidden_BTH)
        return encoded

    with _encode_replaced(model.speech_encoder, lambda _: replayed):
        yield


def save_heads(models: Sequence[Model], folder: str | Path, *, shard_bytes: int = 5 * 10**9) -> None:
    """Write heads trained over one frozen encoder as one checkpoint.

    Args:
        models: Models of one architecture, such as a UniSpeechForCTC and a UniSpeechForSequenceClassification.
        folder: Receives config.json and safetensors; processor and tokenizer are saved separately.
        shard_bytes: Largest size of a file of weights.

    Raises:
        CheckpointError: Encoders or configurations differ, or two heads have weights of the same name.
    """
    first = models[0]
    _check_encoders(models)
    weights: dict[str, Tensor] = dict(first.stored_weights())
    for model in models[1:]:
        head = {name: value for name, value in model.stored_weights().items() if not _is_of_encoder(model, name)}
        refuse_shared_names([*weights], [*head])
        weights.update(head)
    config = type(first.config).from_dict(_merged_fields(models))
    config.architectures = [type(model).__name__ for model in models]
    config.dtype = str(first.dtype).removeprefix("torch.")
    config.save_pretrained(folder)
    write_tensors(Path(folder), weights, shard_bytes)


def refuse_shared_names(one: Sequence[str], other: Sequence[str]) -> None:
    """Raise CheckpointError if two heads have weights of the same name."""
    if shared := sorted({*one} & {*other}):
        raise CheckpointError(
            f"two heads have weights of the same name, {short(shared)}: a checkpoint holds one such head and a CTC head"
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
                f"the encoders of {type(model).__name__} and {type(first).__name__} differ: {short(differing)}: "
                "train the second head over the frozen encoder of the first"
            )


def _same(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and one.shape == other.shape and torch.equal(one, other.to(one.device))


def _merged_fields(models: Sequence[Model]) -> dict[str, Any]:
    """Return each field with the value that differs from the default, if any."""
    merged: dict[str, Any] = models[0].config.to_dict()
    defaults: Mapping[str, Any] = type(models[0].config)().to_dict()
    for model in models[1:]:
        for name, value in model.config.to_dict().items():
            if name in PER_HEAD_FIELDS or value in (merged.get(name), defaults.get(name)):
                continue
            if merged.get(name) != defaults.get(name):
                raise CheckpointError(f"configurations differ in {name}: {merged[name]!r} and {value!r}: set one value")
            merged[name] = value
    return merged
