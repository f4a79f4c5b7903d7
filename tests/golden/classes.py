"""Golden outputs of the public model classes, in the configurations of classes.json, with weights by name.

Of each: the rows of a padded batch without their padding, hidden states and attention weights, the loss, generated
tokens. Numbers are divided by the largest of their tensor; of many, some are recorded with projections.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

import raysp.models
import tests.models.flax.conftest  # noqa: F401 - sets the flags of XLA before JAX is imported
from tests.golden.checkpoints import fill
from tests.golden.recorded import Result, projected

TABLE = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
FIELDS, VARIANTS = TABLE["fields"], TABLE["variants"]
SAMPLES, FRAMES, TOKENS = (1500, 1000, 700), (40, 25, 17), (7, 5, 3)
"""Lengths of the rows of a batch. X-vectors need fifteen frames."""
NUM_FEATURES, HIDDEN_SIZE, NUM_CLASSES, FIRST_LETTER, MOST_NUMBERS = 16, 16, 3, 4, 64
SPEECH_TO_TEXT, TRANSDUCERS = "SpeechEncoderDecoderModel", ("ForRNNT", "ForTDT")
CROSSED, FLAX_TEXT = "crossed", "FlaxAutoModelForCausalLM"
"""Configurations of text decoders that attend to frames; the class whose configurations have names of torch classes."""
OF_ROWS = ("input_values", "input_features", "input_ids", "attention_mask")
GREEDY = {"max_new_tokens": 8}
SEARCHES = {"greedy": GREEDY, "beams": {**GREEDY, "num_beams": 3, "no_repeat_ngram_size": 2, "length_penalty": 0.7}}

Inputs = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Outputs:
    """Outputs of a class for each of its configurations."""

    name: str
    tolerance: ClassVar[float] = 3e-5

    @property
    def missing(self) -> str:
        """Reason why the case cannot run here; empty if it can."""
        try:
            getattr(raysp.models, self.name)
        except ImportError as error:
            return str(error)
        return ""

    def run(self, folder: Path) -> Result:
        """Write and load each configuration in a folder, and return its outputs."""
        cls, rows = getattr(raysp.models, self.name), []
        for place, (variant, fields) in enumerate(VARIANTS[self.name].items()):
            torch_cls = getattr(raysp.models, variant if self.name == FLAX_TEXT else self.name.removeprefix("Flax"))
            torch_cls(_config(torch_cls, variant, fields)).save_pretrained(path := folder / str(place))
            fill(path, layers=1.5)
            model, inputs = torch_cls.from_pretrained(path, strict=True).eval(), _inputs(torch_cls.__name__, variant)
            made = _outputs(model, inputs) if cls is torch_cls else _flax(cls.from_pretrained(path), model, inputs)
            rows += [{"id": f"{variant}: {name}", **_row(name, value)} for name, value in made]
        return {"variants": [*VARIANTS[self.name]]}, rows


HEADS = ("ForCausalLM", "LMHeadModel", "ForCTC", "Classification", "XVector", "ForPreTraining")
"""Endings of the names of classes that give a loss, besides SPEECH_TO_TEXT."""
TRAINED = [
    name for name in VARIANTS if name == SPEECH_TO_TEXT or (name.endswith(HEADS) and not name.startswith("Flax"))
]
CLASSES = {f"{'heads' if name in TRAINED else 'encoders'}/{name}": Outputs(name) for name in VARIANTS}


def public_classes() -> set[str]:
    """Return the names of the public classes of models."""
    names = {name for name in dir(raysp.models) if name[:1].isupper()}
    flax = {name for name in names if name.startswith("Flax")}
    modules = {name for name in names - flax if issubclass(getattr(raysp.models, name), torch.nn.Module)}
    return modules | {name for name in flax if name.endswith(("Model", FLAX_TEXT)) and name != "FlaxAutoModel"}


def _config(cls: Any, variant: str, fields: Mapping[str, Any]) -> Any:
    usual = FIELDS[cls.config_class.__name__]
    if cls.__name__ != SPEECH_TO_TEXT:
        deep = {name: {**usual[name], **fields[name]} for name in fields if isinstance(fields[name], dict)}
        return cls.config_class(**{**usual, **fields, **deep})
    names = zip([f"{prefix}Config" for prefix in variant.split()], ("encoder", "decoder"), strict=True)
    parts = [getattr(raysp.models, name)(**{**FIELDS[name], **fields.get(part, {})}) for name, part in names]
    return cls.config_class.from_encoder_decoder_configs(*parts, **usual)


def _inputs(name: str, variant: str) -> Inputs:
    """Return a padded batch with its mask, and tokens of texts for classes that read them."""
    drawn = np.random.default_rng(7)
    tokens = torch.from_numpy(drawn.integers(FIRST_LETTER, 11, (len(TOKENS), max(TOKENS))))
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        frames = {
            "encoder_hidden_states": _numbers(drawn, 3, 6, HIDDEN_SIZE),
            "encoder_attention_mask": _mask((6, 3, 4)),
        }
        return {"input_ids": tokens, "attention_mask": _mask(TOKENS), **(frames if variant in (CROSSED, name) else {})}
    if (variant if name == SPEECH_TO_TEXT else name).startswith(("Parakeet", "Wav2Vec2Bert")):
        mask = _mask(FRAMES)
        inputs = {
            "input_features": _numbers(drawn, *mask.shape, NUM_FEATURES) * mask[:, :, None],
            "attention_mask": mask,
        }
    else:
        mask = _mask(SAMPLES)
        inputs = {"input_values": _numbers(drawn, *mask.shape) * mask, "attention_mask": mask}
    return {**inputs, "decoder_input_ids": tokens} if name.endswith((SPEECH_TO_TEXT, *TRANSDUCERS)) else inputs


def _numbers(drawn: np.random.Generator, *shape: int) -> torch.Tensor:
    return torch.from_numpy(drawn.standard_normal(shape).astype(np.float32))


def _mask(lengths: tuple[int, ...]) -> torch.Tensor:
    return (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()


def _outputs(model: Any, inputs: Inputs) -> Iterator[tuple[str, Any]]:
    with torch.no_grad():
        output = model(**inputs)
        yield from _valid(output, model, inputs)
        if type(model).__name__.endswith("ForCTC"):
            yield "ids", output.logits.argmax(-1)  # the blank behind the end of a row
        unpadded = {name: value[:1] for name, value in inputs.items() if "mask" not in name}
        states = model(**unpadded, output_hidden_states=True, output_attentions=True)
        for name in states.keys():  # noqa: SIM118 - not a mapping
            if name.endswith(("states", "attentions")) and isinstance(states[name], tuple):
                yield name, torch.cat([layer.flatten() for layer in states[name]])
        yield from _tokens(model, inputs)
        if type(model).__name__ in TRAINED:
            yield "loss", model(**inputs, **_labels(model, inputs, output)).loss


def _flax(model: Any, sister: Any, inputs: Inputs) -> Iterator[tuple[str, Any]]:
    arrays = [value.numpy() for value in inputs.values()]
    of_frames = dict(zip([*inputs][2:], arrays[2:], strict=True))  # or of texts
    with torch.no_grad():
        yield from _valid(model(*arrays[:2], **of_frames), sister, inputs)
    if type(sister).__name__ == SPEECH_TO_TEXT:
        yield "greedy", model.generate(*arrays[:2], **GREEDY).sequences


def _valid(output: Any, model: Any, inputs: Inputs) -> Iterator[tuple[str, Any]]:
    """Return the tensors of an output, without what follows the ends of rows: `model` runs each of them alone."""
    rows = []
    for row, end in enumerate(inputs["attention_mask"].sum(-1).tolist()):
        alone = {name: value[row : row + 1] for name, value in inputs.items()}
        rows.append(model(**{name: value[:, :end] if name in OF_ROWS else value for name, value in alone.items()}))
    for name in output.keys():  # noqa: SIM118 - not a mapping
        if not hasattr(output[name], "shape") or name == "attention_mask":
            continue
        value = np.asarray(output[name])
        if value.ndim > 2:
            value = np.concatenate([value[row, : alone[name].shape[1]].ravel() for row, alone in enumerate(rows)])
        yield name, value


def _labels(model: Any, inputs: Inputs, output: Any) -> dict[str, torch.Tensor]:
    """Return the arguments that give a loss."""
    name, rows = type(model).__name__, len(SAMPLES)
    if "input_ids" in inputs:
        return {"labels": inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, -100)}
    if name.endswith("ForCTC"):
        return {"labels": torch.tensor([[5, 4, 9, 9, 6], [4, 7, -100, -100, -100], [8, 5, 4, -100, -100]])}
    if name == SPEECH_TO_TEXT:
        return {"labels": inputs["decoder_input_ids"].roll(-1, 1)}
    if name.endswith("ForPreTraining"):
        num_frames = output.projected_states.shape[1]
        masked = (torch.arange(num_frames) % 3 == 0) & (torch.arange(num_frames) < torch.tensor([[35], [20], [14]]))
        others = np.random.default_rng(5).integers(0, 14, (rows, num_frames, model.config.num_negatives))
        negatives = torch.from_numpy(others) + num_frames * torch.arange(rows)[:, None, None]
        return {"mask_time_indices": masked, "sampled_negative_indices": negatives}
    if name.endswith("FrameClassification"):
        classes = (torch.arange(output.logits.shape[1]) // 4 % NUM_CLASSES).expand(rows, -1)
        return {"labels": torch.nn.functional.one_hot(classes, NUM_CLASSES)}
    if model.config.problem_type == "multi_label_classification":
        return {"labels": torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])}
    return {"labels": torch.tensor([0.5, -1.0, 2.0] if model.config.num_labels == 1 else [2, 0, 1])}


def _tokens(model: Any, inputs: Inputs) -> Iterator[tuple[str, Any]]:
    """Return generated tokens, for classes that write texts."""
    name, spoken = type(model).__name__, {key: value for key, value in inputs.items() if key != "decoder_input_ids"}
    if name.endswith(TRANSDUCERS):
        yield from ((key, value) for key, value in vars(model.generate(**spoken)).items() if torch.is_tensor(value))
    elif name == SPEECH_TO_TEXT:
        yield from ((kind, model.generate(**spoken, **options)) for kind, options in SEARCHES.items())
    elif "input_ids" in inputs:
        starts = {
            "input_ids": inputs["input_ids"][:, :3],
            "attention_mask": torch.tensor([[1, 1, 1], [0, 1, 1], [0, 0, 1]]),
        }
        yield from ((kind, model.generate(**{**inputs, **starts}, **options)) for kind, options in SEARCHES.items())


def _row(name: str, value: Any) -> dict[str, Any]:
    """Return the recorded form of a tensor."""
    array = np.asarray(value)
    if not np.issubdtype(array.dtype, np.floating):
        return {"values": array.tolist()}
    numbers, scale = array.astype(np.float64).ravel(), float(np.abs(array).max()) or 1.0
    row = {"scale": float(f"{scale:.7g}"), "values": [round(number, 6) for number in (numbers / scale).tolist()]}
    if len(numbers) <= MOST_NUMBERS:
        return row
    chosen = np.random.default_rng(0).choice(len(numbers), MOST_NUMBERS, replace=False)
    return {**row, "values": [row["values"][place] for place in chosen], "all": projected(numbers / scale)}
