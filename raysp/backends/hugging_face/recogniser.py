"""Recognisers that are prompted through their processor of transformers, as labelling runs them.

Legend: B batch, S samples, K tokens that are written, V vocabulary.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from raysp.backends.hugging_face.collating import collated
from raysp.backends.hugging_face.decoded_texts import FIXED, StepScores, end_of, end_tokens
from raysp.backends.hugging_face.loaded_weights import load_weights, merge_adapter
from raysp.backends.hugging_face.padded_batches import check_pair
from raysp.backends.hugging_face.recogniser_families import TextRequest
from raysp.backends.hugging_face.recogniser_files import RecogniserFiles
from raysp.backends.hugging_face.text_options import search_options
from raysp.crossing import fetch, fetch_recordings
from raysp.models.base.outputs import ModelOutput
from raysp.models.labelled_passes import CheckpointSummary, ModelPass, Writer, Written


class Search(Protocol):
    """Greedy search of texts by a loaded model."""

    dtype: torch.dtype

    def __call__(
        self, waves: Sequence[np.ndarray], request: TextRequest, options: Mapping[str, Any]
    ) -> Iterable[tuple[Sequence[int], Sequence[float]]]:
        """Return the tokens of each recording, which may go on after its end, and their log-probabilities."""
        ...

    def first_scores(self, waves: Sequence[np.ndarray], request: TextRequest) -> np.ndarray:
        """Return scores of the first recording's first tokens, which are equal in any batch up to rounding."""
        ...


class TransformersSearch:
    """Search by `generate` of transformers.

    Args:
        files: the files of a checkpoint.
        dtype: dtype of weights and arithmetic.
        device: name of a torch device.
    """

    def __init__(self, files: RecogniserFiles, *, dtype: str, device: str) -> None:
        self.family, self.processor = files.kind.family, files.processor
        self.model = load_weights(files.folder, files.kind, dtype)
        if self.family.adapter:
            merge_adapter(files.folder, self.family.adapter, self.model)
        self.model = self.model.to(device).eval()
        self.device, self.dtype = torch.device(device), self.model.dtype
        self.input_dtype = torch.float32 if self.family.is_stream else self.dtype  # codecs of streams are float32
        self.steps = StepScores(self.model)
        frames = self.family.chunk_frames(files.kind.config)
        self.least_together = frames and frames * int(files.extractor.hop_length)

    def __call__(
        self, waves: Sequence[np.ndarray], request: TextRequest, options: Mapping[str, Any]
    ) -> Iterable[tuple[Sequence[int], Sequence[float]]]:
        """Return tokens and log-probabilities; see `Search`."""
        is_long = [len(wave) >= self.least_together for wave in waves]
        together = self._pass([wave for wave, shares in zip(waves, is_long, strict=True) if shares], request, options)
        return [
            next(together if shares else self._pass([wave], request, options))
            for wave, shares in zip(waves, is_long, strict=True)
        ]

    def _pass(
        self, waves: Sequence[np.ndarray], request: TextRequest, options: Mapping[str, Any]
    ) -> Iterator[tuple[Sequence[int], Sequence[float]]]:
        """Yield the tokens and log-probabilities of recordings that share a pass, which the first one begins."""
        self.steps.begin()
        ids_BL = self.model.generate(**self.inputs(waves, request), **options)
        log_probs_BK = self.steps.end(ids_BL[:, -1])
        ids_BK = ids_BL[:, ids_BL.shape[1] - log_probs_BK.shape[1] :]
        ids, log_probs = fetch(ids_BK, log_probs_BK)
        yield from zip(ids.tolist(), log_probs.tolist(), strict=True)

    def inputs(self, waves: Sequence[np.ndarray], request: TextRequest) -> dict[str, Any]:
        """Return the inputs of `generate` on the device."""
        rows = [self.family.inputs(self.processor, wave, request) for wave in waves]
        batch = collated(rows, self.processor.tokenizer.pad_token_id)
        return {
            name: value.to(self.device, self.input_dtype if value.is_floating_point() else value.dtype)
            if isinstance(value, Tensor)
            else value
            for name, value in batch.items()
        }

    @torch.inference_mode()
    def first_scores(self, waves: Sequence[np.ndarray], request: TextRequest) -> np.ndarray:
        """Return the logits of the first row at its first token (V,)."""
        self.steps.begin()
        self.model.generate(**self.inputs(waves, request), **FIXED, num_beams=1, max_new_tokens=1)
        [logits_V] = fetch(self.steps.logits()[0].float())
        return logits_V


class Recogniser:
    """A loaded recogniser.

    Args:
        files: the files of the checkpoint.
        summary: its description.
        search: the search of its texts.
        device: name of the torch device of the waveforms.
    """

    pair_seconds: ClassVar = (1.0, 2.6)
    """Seconds of the recordings that are compared alone and in a batch."""

    def __init__(self, files: RecogniserFiles, summary: CheckpointSummary, search: Search, *, device: str) -> None:
        self.files, self.summary, self.search = files, summary, search
        self.device, self.dtype = torch.device(device), search.dtype

    def run(self, waves_BS: Tensor, num_samples_B: Tensor, *, hidden_states: bool) -> ModelPass:
        """Return the recordings for the writers, each of which has a prompt of its own."""
        features = {"waves_BS": waves_BS, "num_samples_B": num_samples_B}
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
    ) -> Writer:
        """Return the text decoder with the options of a transcript."""
        request = TextRequest(language=language, task=task, prompt=prompt, keywords=keywords)
        return RecogniserWriter(self, request, options, detect=detect)

    def check_padding(self) -> None:
        """Compare a recording alone and in a padded batch, as `check_pair`."""
        request = TextRequest(language=self.files.kind.family.probed_language(self.summary.languages))
        check_pair(self.summary, self.dtype, lambda waves: self.search.first_scores(waves, request), self.pair_seconds)


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
        files = recogniser.files
        self.family, self.tokenizer = files.kind.family, files.processor.tokenizer
        self.options = search_options(files.kind, files.settings, options)
        self.ends = end_tokens(files.settings.get("eos_token_id"), self.options)
        self.begins = self.tokenizer.convert_tokens_to_ids(self.family.begins) if self.family.begins else None

    def __call__(
        self, encoded: ModelOutput | None, features: Mapping[str, Tensor], places: Sequence[str]
    ) -> Sequence[Written]:
        """Return the text of each window; see `raysp.models.labelled_passes.Writer`."""
        rows = self.recogniser.search(
            fetch_recordings(features["waves_BS"], features["num_samples_B"]), self.request, self.options
        )
        return [self._written(*row) for row in rows]

    def _written(self, ids: Sequence[int], log_probs: Sequence[float]) -> Written:
        """Return the text of the tokens of a row, up to the first that ends it."""
        end = end_of(ids, self.ends)
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
