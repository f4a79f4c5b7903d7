"""Recognisers of transformers that are prompted through their processor, as labelling runs them.

Legend: B batch, S samples, K tokens that are written, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from raysp.audio.waveforms import as_float32
from raysp.backends.hugging_face.collating import collated
from raysp.backends.hugging_face.decoded_texts import FIXED, StepScores
from raysp.backends.hugging_face.loaded_weights import load_weights
from raysp.backends.hugging_face.recogniser_families import TextRequest
from raysp.backends.hugging_face.recogniser_files import RecogniserFiles
from raysp.backends.hugging_face.recogniser_options import search_options
from raysp.crossing import fetch
from raysp.errors import CheckpointError
from raysp.models.base.outputs import ModelOutput
from raysp.models.labelled_passes import CheckpointSummary, ModelPass, Written

PAIR_SECONDS = (1.0, 2.6)
DIFFERENCES = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
"""Largest difference of logits alone and in a padded batch that is rounding, as a share of the largest logit."""


class Recogniser:
    """A loaded recogniser.

    Args:
        folder: the model folder.
        dtype: dtype of weights and arithmetic.
        device: name of a torch device.
    """

    def __init__(self, folder: Path, *, dtype: str, device: str) -> None:
        files = RecogniserFiles.read(folder)
        self.summary: CheckpointSummary = files.describe()
        self.kind, self.settings, self.processor = files.kind, files.settings, files.processor
        self.family = files.family
        self.model = load_weights(folder, self.kind, dtype).to(device).eval()
        self.device, self.dtype = torch.device(device), self.model.dtype
        self.steps = StepScores(self.model)

    def prepare(self, waves: Sequence[np.ndarray]) -> Mapping[str, Tensor]:
        """Return the recordings of a batch on the host, where the processor reads them."""
        rows = [torch.tensor(as_float32(wave)) for wave in waves]
        return {"waves_BS": pad_sequence(rows, batch_first=True), "num_samples_B": torch.tensor([*map(len, rows)])}

    def run(
        self,
        waves_BS: Tensor,
        num_samples_B: Tensor,
        *,
        hidden_states: bool,
        prepared: Mapping[str, Tensor] | None = None,
    ) -> ModelPass:
        """Return the recordings for the writers, each of which has a prompt of its own."""
        features = prepared or {"waves_BS": waves_BS, "num_samples_B": num_samples_B}
        frames_B = torch.div(num_samples_B, self.summary.frame_stride, rounding_mode="floor")
        return ModelPass(heads={}, num_frames_B=frames_B, features=features)

    def writer(
        self,
        options: Mapping[str, object],
        *,
        language: str | None,
        task: str | None,
        detect: bool = False,
        prompt: str | None = None,
        keywords: Sequence[str] = (),
    ) -> "RecogniserWriter":
        """Return the text decoder with the options of a transcript."""
        request = TextRequest(language=language, task=task, prompt=prompt, keywords=keywords)
        return RecogniserWriter(self, request, options, detect=detect)

    def inputs(self, waves: Sequence[np.ndarray], request: TextRequest) -> dict[str, Any]:
        """Return the inputs of `generate` on the device."""
        rows = [self.family.inputs(self.processor, wave, request) for wave in waves]
        batch = collated(rows, self.processor.tokenizer.pad_token_id)
        return {
            name: value.to(self.device, self.dtype if value.is_floating_point() else value.dtype)
            if isinstance(value, Tensor)
            else value
            for name, value in batch.items()
        }

    @torch.inference_mode()
    def check_padding(self) -> None:
        """Compare a short recording alone with the same beside a longer one.

        Raises:
            CheckpointError: logits differ by more than rounding.
        """
        generator, rate = np.random.default_rng(0), self.summary.sample_rate
        waves = [generator.standard_normal(round(s * rate)).astype(np.float32) * 0.1 for s in PAIR_SECONDS]
        request = TextRequest(language=self.family.probed_language(self.summary.languages))
        alone_KV, together_KV = (self._first_logits(some, request) for some in (waves[:1], waves))
        alone_V, together_V = fetch(alone_KV[0].float(), together_KV[0].float())
        difference = np.abs(alone_V - together_V).max()
        bound = DIFFERENCES.get(self.dtype, 1e-2) * max(1.0, np.abs(alone_V).max())
        if not difference <= bound:
            raise CheckpointError(
                f"{self.summary.path}: the logits of a recording differ by {difference:.2g} alone and in a padded "
                f"batch in {self.dtype}, expected at most {bound:.2g}; set batch_seconds=0.01, by which each window is "
                "a pass of its own"
            )

    def _first_logits(self, waves: Sequence[np.ndarray], request: TextRequest) -> Tensor:
        """Return the logits of the first row at its first tokens (1, V)."""
        self.steps.begin()
        self.model.generate(**self.inputs(waves, request), **FIXED, num_beams=1, max_new_tokens=1)
        return self.steps.logits()[:1]


class RecogniserWriter:
    """Text decoder of a recogniser, searched greedily.

    Args:
        recogniser: the model.
        request: options of the transcript.
        options: options of `generate`.
        detect: whether texts come with the probabilities of languages.
    """

    def __init__(
        self, recogniser: Recogniser, request: TextRequest, options: Mapping[str, object], *, detect: bool
    ) -> None:
        self.recogniser, self.request, self.detect = recogniser, request, detect
        self.family, self.tokenizer = recogniser.family, recogniser.processor.tokenizer
        self.options = search_options(recogniser.kind, recogniser.settings, options)
        ends = self.options.get("eos_token_id", recogniser.settings.get("eos_token_id"))
        self.ends = frozenset(ends if isinstance(ends, list | tuple) else [ends])
        self.begins = self.tokenizer.convert_tokens_to_ids(self.family.begins) if self.family.begins else None

    def __call__(
        self, encoded: ModelOutput | None, features: Mapping[str, Tensor], places: Sequence[str]
    ) -> Sequence[Written]:
        """Return the text of each window; see `raysp.models.labelled_passes.Writer`."""
        waves, lengths = fetch(features["waves_BS"], features["num_samples_B"])
        rows = [wave[:length] for wave, length in zip(waves, lengths.tolist(), strict=True)]
        steps = self.recogniser.steps
        steps.begin()
        ids_BL = self.recogniser.model.generate(**self.recogniser.inputs(rows, self.request), **self.options)
        log_probs_BK = steps.end(ids_BL[:, -1])
        ids_BK = ids_BL[:, ids_BL.shape[1] - log_probs_BK.shape[1] :]
        ids, log_probs = fetch(ids_BK, log_probs_BK)
        return [self._written(*row) for row in zip(ids.tolist(), log_probs.tolist(), strict=True)]

    def _written(self, ids: Sequence[int], log_probs: Sequence[float]) -> Written:
        """Return the text of the tokens of a row, up to the first that ends it."""
        end = next((place for place, token in enumerate(ids) if token in self.ends), len(ids))
        begin = ids.index(self.begins, 0, end) + 1 if self.begins in ids[:end] else 0
        text = self.family.text_of(self._decoded(ids[begin:end]))
        counted = log_probs[begin : end + 1]
        if not np.isfinite(counted).all():
            raise FloatingPointError("the probability of a token is not finite")
        languages = self._languages(ids[: max(0, begin - 1)], log_probs[: max(0, begin - 1)]) if self.detect else []
        return Written(text, sum(counted), len(counted), languages=languages)

    def _languages(self, head: Sequence[int], log_probs: Sequence[float]) -> list[float]:
        """Return the probability of the language that precedes a text, and 0 for all others."""
        assert self.family.language_of is not None
        language = self.family.language_of(self._decoded(head)) if head else None
        probability = float(np.exp(sum(log_probs)))
        return [probability if code == language else 0.0 for code in self.recogniser.summary.languages]

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))
