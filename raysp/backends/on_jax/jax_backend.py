"""The backend `jax`: the Flax classes of raysp, on the devices of JAX.

Legend: B batch, S samples, L tokens, V vocabulary.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import jax
import numpy as np
import torch
from torch import Tensor

import raysp.models
from raysp.backends.own import OwnModels
from raysp.capabilities import Capability
from raysp.errors import CheckpointError
from raysp.models.base.outputs import CausalLMOutput, ModelOutput
from raysp.models.checking import CheckpointSummary, load_feature_extractor
from raysp.models.decoder.generation_config import SEED
from raysp.models.generation_checks import check_generation
from raysp.models.labelled_passes import ModelPass, Written
from raysp.models.tokenizers.named_tokenizers import read_tokenizer
from raysp.models.tokenizers.text import TextTokenizer

JAX = "jax"
ONE_TEXT = {"num_return_sequences": 1}
"""Option that is fixed for labels and overrides that of a checkpoint."""
GIVEN = (Capability.CTC, Capability.TEXT_DECODER)
"""Capabilities of the Flax classes."""
EXACT = "highest"
"""Precision of products in float32, which JAX rounds to TF32 on a GPU and to bfloat16 on a TPU otherwise."""
INPUTS = ("input_values", "input_features")


class JaxModels:
    """Backend of the Flax classes: CTC models, and encoders with text decoders."""

    def describe(self, folder: Path) -> CheckpointSummary:
        """Check a checkpoint and return its description.

        Raises:
            CheckpointError: as for the models of raysp, or there is no Flax class for it.
        """
        summary = OwnModels().describe(folder)
        gives = tuple(one for one in GIVEN if one in summary.gives)
        if not gives or not hasattr(raysp.models, f"Flax{summary.architecture}"):
            raise CheckpointError(
                f"{folder}: {summary.architecture} has no Flax class that gives texts, expected a CTC model or an "
                "encoder with a text decoder of docs/models.md; leave backend out"
            )
        return replace(summary, gives=gives, backend=JAX, has_layer_weights=False)

    def load(self, folder: Path, *, dtype: str, device: str) -> "JaxModel":
        """Load a checkpoint onto the default device of JAX.

        Raises:
            CheckpointError: its weights do not fit.
        """
        return JaxModel(self.describe(folder), dtype)

    def check_writing(
        self, checkpoint: CheckpointSummary, options: Mapping[str, object], *, language: str | None, task: str | None
    ) -> None:
        """Check the options of a transcript.

        Raises:
            CheckpointError: the checkpoint does not support one of them.
        """
        if language is not None or task is not None:
            raise CheckpointError(
                f"{checkpoint.path}: backend='jax' takes no language and task: use "
                "generate={'forced_bos_token_id': ...}, or leave backend out"
            )
        check_generation(checkpoint.path, options)


class JaxModel:
    """A loaded checkpoint. Features are computed by torch on the CPU, and the model runs where JAX does."""

    device = torch.device("cpu")

    def __init__(self, summary: CheckpointSummary, dtype: str) -> None:
        self.summary = summary
        self.dtype = getattr(torch, dtype)
        self.feature_extractor = load_feature_extractor(summary.path)
        flax_class = getattr(raysp.models, f"Flax{summary.architecture}")
        language = summary.language if summary.adapter else None  # by whose file the weights of it are replaced
        options = {"dtype": dtype, "strict": True, "target_lang": language}
        self.model: Any = flax_class.from_pretrained(summary.path, **options)
        self.model.params = jax.device_put(self.model.params)

    def run(self, waves_BS: Tensor, num_samples_B: Tensor, *, hidden_states: bool) -> ModelPass:
        """Run a CTC model; of a model that writes text, `writer` runs all."""
        features = self.feature_extractor.extract(waves_BS, num_samples_B)
        heads: dict[Capability, ModelOutput] = {}
        if not self.summary.writes_text:
            inputs = arrays_of(features)
            values = next(inputs[name] for name in INPUTS if name in inputs)
            with jax.default_matmul_precision(EXACT):
                logits = self.model(values, inputs.get("attention_mask")).logits
            heads[Capability.CTC] = CausalLMOutput(logits=torch.from_numpy(np.array(logits, np.float32)))
        frames = [self.summary.num_frames(length) for length in num_samples_B.tolist()]
        return ModelPass(heads=heads, num_frames_B=torch.tensor(frames), features=features)

    def writer(self, options: Mapping[str, object], *, language: str | None, task: str | None) -> "JaxWriter":
        """Return the text decoder with the options of a transcript."""
        return JaxWriter(self, options)


class JaxWriter:
    """Text decoder of a model."""

    def __init__(self, loaded: JaxModel, options: Mapping[str, object]) -> None:
        self.model = loaded.model
        self.tokenizer = cast("TextTokenizer", read_tokenizer(loaded.summary.path))
        self.options: dict[str, Any] = {**options, **ONE_TEXT}
        self.seed = self.options.pop(SEED, 0)

    def __call__(self, encoded: object, features: Mapping[str, Tensor], places: Sequence[str]) -> Sequence[Written]:
        """Return the text of each window; see `raysp.models.labelled_passes.Writer`."""
        inputs = arrays_of(features)
        keys = jax.vmap(jax.random.key)(np.array([self._seed_of(place) for place in places], np.uint32))
        with jax.default_matmul_precision(EXACT):
            output = self.model.generate(**inputs, **self.options, prng_key=keys)
        ids_BL = np.array(output.sequences)
        texts = self.tokenizer.batch_decode(torch.from_numpy(ids_BL).long(), skip_special_tokens=True)
        log_probs_BL, emitted_BL = self._emitted(ids_BL[:, 1:], np.array(output.log_probs)[:, 1:])
        totals, counts = log_probs_BL.sum(1).tolist(), emitted_BL.sum(1).tolist()
        return [Written(*one) for one in zip(texts, totals, counts, strict=True)]

    def _seed_of(self, place: str) -> int:
        return int.from_bytes(hashlib.blake2b(f"{self.seed}|{place}".encode(), digest_size=4).digest(), "little")

    def _emitted(self, ids_BL: np.ndarray, log_probs_BL: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return the log-probability of each token, zero after the end, and which tokens count."""
        is_end_BL = torch.isin(torch.from_numpy(ids_BL).long(), torch.tensor(self._ends(), dtype=torch.long))
        emitted_BL = (is_end_BL.int().cumsum(1) - is_end_BL.int()) == 0  # up to the first end, which counts
        return torch.from_numpy(log_probs_BL).masked_fill(~emitted_BL, 0.0), emitted_BL

    def _ends(self) -> list[int]:
        """Return the ids that end a text; only padding follows them."""
        config = self.model.generation_config
        end = self.options.get("eos_token_id", config.eos_token_id)
        ids = [] if end is None else list(end) if isinstance(end, list | tuple) else [end]
        pad = self.options.get("pad_token_id", config.pad_token_id)
        return [*ids, *([] if ids or pad is None else [pad])]


def arrays_of(features: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """Return features as arrays, under the names that Flax classes take."""
    return {name: value.numpy() for name, value in features.items() if name in (*INPUTS, "attention_mask")}
