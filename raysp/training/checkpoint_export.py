"""The trained checkpoint: a folder that raysp and transformers load, checked before it is published, with its card."""

import json
import shutil
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from raysp.capabilities import Capability
from raysp.checkpoints.hub import hub_id
from raysp.checkpoints.hub_api import front_matter, licence_of
from raysp.errors import CheckpointError, RunError
from raysp.models.base.modeling import Model
from raysp.models.base.placing import arithmetic
from raysp.models.encoder.encoder_heads import ForCTC
from raysp.models.encoder.languages import save_adapter
from raysp.models.features.parakeet_features import ParakeetProcessor
from raysp.models.features.processors import FeatureExtractor, Wav2Vec2Processor
from raysp.models.features.seamless import Wav2Vec2BertProcessor
from raysp.models.loading import load_feature_extractor
from raysp.models.tokenizers.named_tokenizers import TextOrCTCTokenizer, read_tokenizer
from raysp.sink import fault_injection
from raysp.sink.fencing import FencedStore
from raysp.sink.run_record import installed_version
from raysp.specs.values import JsonValue, to_json
from raysp.storage.store import explain, explained
from raysp.text.formats.safe_values import place_name
from raysp.training.finetune_result import FinetuneResult
from raysp.training.objectives.language_adapters import add_languages
from raysp.training.objectives.lora import merged_weights
from raysp.training.objectives.passes import evaluation_mode
from raysp.training.objectives.starting_model import NAMED_OUTPUTS
from raysp.training.preparing import Prepared
from raysp.training.sink import exports
from raysp.words import count, duration


def figures(prepared: Prepared, result: FinetuneResult) -> dict[str, JsonValue]:
    """Return the content of metrics.json."""
    best: JsonValue = {"metric": result.metric, "value": result.best, "step": result.best_step}
    return {
        **({} if result.best_step is None else {"best": best}),
        "steps": result.steps,
        "weights_of_step": result.steps if result.best_step is None else result.best_step,
        "epochs": result.epochs,
        "loss": result.loss,
        "rows": result.rows,
        "audio_seconds": round(float(prepared.corpus.durations.seconds.sum()), 3),
        "left_out": {**result.left_out},
        "fingerprint": result.fingerprint,
    }


def card(prepared: Prepared, result: FinetuneResult) -> str:
    """Return a README.md with the metadata that the Hugging Face hub reads."""
    plan, loss = prepared.plan, result.loss
    recipe, name = plan.recipe, f"`{place_name(plan.recipe.objective.checkpoint)}`"
    if recipe.objective.random_weights:
        origin, owners = f"with the configuration of {name} and random weights, trained", "its data"
        base_model = licence = None
    else:
        origin, owners = f"{name}, fine-tuned", "the checkpoint it began with and of its data"
        base_model = hub_id(recipe.objective.checkpoint)  # the hub refuses cards whose base model is a folder
        licence = licence_of(plan.checkpoint.path)
    steps, seconds = count(result.steps, "step"), duration(float(prepared.corpus.durations.seconds.sum()))
    final = f" The mean loss of the last steps is {loss:.4f}." if loss is not None else ""
    return f"""---
{front_matter(base_model=base_model, licence=licence, tags=prepared.task.TAGS)}
---

# {recipe.name or Path(recipe.sink.url).name}

{plan.checkpoint.architecture} {origin} by raysp {installed_version("raysp")}: {steps} over \
{count(result.rows, "row")}, {seconds} of audio \
from {", ".join(f"`{place_name(url)}`" for url in recipe.source.urls)}.{final}

Licence: {licence or f"that of {owners}, which is not stated here"}.

Fingerprint of the recipe: `{result.fingerprint}`. The recipe:

```json
{json.dumps(_with_place_names(to_json(recipe)), indent=1)}
```
"""


def _with_place_names(value: JsonValue) -> JsonValue:
    """Return a value of JSON in which local paths are names."""
    if isinstance(value, dict):
        return {key: _with_place_names(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_with_place_names(child) for child in value]
    return place_name(value) if isinstance(value, str) else value


CHECKED_SAMPLES = 32_000
"""Samples of the noise on which the stored model must give the logits of the trained one."""


def export(prepared: Prepared, store: FencedStore, model: Model, texts: Mapping[str, str], state: str) -> None:
    """Write a checkpoint, load it, compare its logits, and publish its files in the sink.

    LoRA is merged into the weights. Adapter layers that were trained for a language have a file of their own too,
    next to other languages' in the folder of the checkpoint that the training began with.

    Args:
        prepared: the training.
        store: the sink.
        model: the trained model; it is not changed.
        texts: contents of further files, such as README.md, by name.
        state: digest of the committed steps that the weights are of.

    Raises:
        RunError: the stored checkpoint does not give the logits of the model.
        StoreError: the sink or the temporary folder cannot be written.
    """
    source = prepared.plan.checkpoint.path
    feature_extractor = load_feature_extractor(source)
    language = model.target_lang if isinstance(model, ForCTC) else None
    with tempfile.TemporaryDirectory(prefix="raysp-export-") as name:
        folder = Path(name)
        try:
            model.save_pretrained(folder, state_dict=merged_weights(model))
            _save_processor(folder, feature_extractor, prepared.task.tokenizer)
            if language is not None:
                save_adapter(model, language, folder)
                add_languages(folder, source, language)
            for file, text in texts.items():
                (folder / file).write_text(text, encoding="utf-8")
        except CheckpointError:
            raise
        except OSError as error:
            raise explain(error, "write", folder) from error
        _check(model, folder, language)
        if prepared.task.tokenizer is not None:
            read_tokenizer(folder)  # raises if it cannot be read
        files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
        with fault_injection.passing("exported"):
            put = partial(_publish, store, folder)
            exports.publish(store, files, put, fingerprint=prepared.fingerprint, state=state)


def _save_processor(folder: Path, feature_extractor: FeatureExtractor, tokenizer: "TextOrCTCTokenizer | None") -> None:
    if tokenizer is None:
        feature_extractor.save_pretrained(folder)
        return
    kinds = (Wav2Vec2BertProcessor, ParakeetProcessor)
    of_kind = (kind for kind in kinds if isinstance(feature_extractor, kind.extractor_class))
    next(of_kind, Wav2Vec2Processor)(feature_extractor, tokenizer).save_pretrained(folder)


def _publish(store: FencedStore, folder: Path, name: str) -> None:
    with store.scratch() as scratch:
        with explained("write", f"{store.url}/{name}"):
            shutil.copyfile(folder / name, scratch)
        store.publish(scratch, name, replace=True)


def _check(model: Model, folder: Path, language: str | None) -> None:
    """Raise unless the checkpoint of a folder gives the logits of a model, with the adapter of a language if any."""
    options: dict[str, Any] = {**NAMED_OUTPUTS, **({} if language is None else {"target_lang": language})}
    loaded = type(model).from_pretrained(folder, dtype=torch.float32, device=model.device, strict=True, **options)
    waves_BS = torch.randn(1, CHECKED_SAMPLES, generator=torch.Generator().manual_seed(0)).to(model.device)
    features = load_feature_extractor(folder).extract(waves_BS, torch.tensor([CHECKED_SAMPLES]))
    config: Any = model.config
    if Capability.TEXT_DECODER in model.gives:
        features["decoder_input_ids"] = torch.tensor([[config.decoder_start_token_id]], device=model.device)
    if Capability.TRANSDUCER in model.gives:
        features["decoder_input_ids"] = torch.tensor([[config.blank_token_id]], device=model.device)
    with evaluation_mode(model), torch.inference_mode(), arithmetic(dtype="float32", device=str(model.device)):
        expected, actual = (network(**features)["logits"] for network in (model, loaded))
    if not torch.allclose(actual, expected, rtol=1e-4, atol=1e-4):
        raise RunError(
            "the exported checkpoint gives other outputs than the trained model (by "
            f"{(actual - expected).abs().max():g} at most); it was not published"
        )
