"""Recognisers that are prompted through their processor of transformers, as labelling runs them.

Legend: B batch, S samples, K tokens that are written, V vocabulary.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

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


class Tokens(NamedTuple):
    """Tokens of a recording, which may go on after the end of its text, and their log-probabilities."""

    ids: Sequence[int]
    log_probs: Sequence[float]
    frames: Sequence[int] = ()
    """Frame of each token of a transducer."""
    seconds: float = 0.0
    """Seconds of the recording of a transducer."""


class Search(Protocol):
    """Greedy search of texts by a loaded model."""

    dtype: torch.dtype

    def __call__(
        self, waves: Sequence[np.ndarray], request: TextRequest, options: Mapping[str, Any]
    ) -> Iterable[Tokens]:
        """Return the tokens of each recording."""
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
    ) -> Iterable[Tokens]:
        """Return the tokens of each recording; see `Search`."""
        is_long = [len(wave) >= self.least_together for wave in waves]
        together = self._pass([wave for wave, shares in zip(waves, is_long, strict=True) if shares], request, options)
        return [
            next(together if shares else self._pass([wave], request, options))
            for wave, shares in zip(waves, is_long, strict=True)
        ]

    def _pass(self, waves: Sequence[np.ndarray], request: TextRequest, options: Mapping[str, Any]) -> Iterator[Tokens]:
        """Yield the tokens of recordings that share a pass, which the first one begins."""
        self.steps.begin()
        ids_BL = self.model.generate(**self.inputs(waves, request), **options)
        log_probs_BK = self.steps.end(ids_BL[:, -1])
        ids_BK = ids_BL[:, ids_BL.shape[1] - log_probs_BK.shape[1] :]
        yield from map(Tokens, *(values.tolist() for values in fetch(ids_BK, log_probs_BK)))

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


def finite(log_probs: Sequence[float]) -> Sequence[float]:
    """Return log-probabilities of tokens, or raise FloatingPointError if one is not finite."""
    if not np.isfinite(log_probs).all():
        raise FloatingPointError("the probability of a token is not finite")
    return log_probs


class RecogniserWriter:
    """Text decoder of a recogniser, searched greedily.

    Args:
        recogniser: the model.
        options: options of `generate`.
        words: whether texts come with the times of their words.
        detect: whether texts come with the probabilities of languages.
        request: options of the transcript.
    """

    def __init__(
        self,
        recogniser: "Recogniser",
        options: Mapping[str, object],
        *,
        words: bool = False,
        detect: bool = False,
        **request: Any,  # noqa: ANN401 - of `TextRequest`
    ) -> None:
        self.recogniser, self.request, self.words, self.detect = recogniser, TextRequest(**request), words, detect
        files = recogniser.files
        self.family, self.tokenizer = files.kind.family, files.processor.tokenizer
        self.options = search_options(files.kind, files.settings, options)
        self.ends = end_tokens(files.settings.get("eos_token_id"), self.options)
        self.begins = self.tokenizer.convert_tokens_to_ids(self.family.begins) if self.family.begins else None

    def __call__(
        self, encoded: ModelOutput | None, features: Mapping[str, Tensor], places: Sequence[str]
    ) -> Sequence[Written]:
        """Return the text of each window; see `raysp.models.labelled_passes.Writer`."""
        waves = fetch_recordings(features["waves_BS"], features["num_samples_B"])
        return [self.written(row) for row in self.recogniser.search(waves, self.request, self.options)]

    def written(self, row: Tokens) -> Written:
        """Return the text of the tokens of a row, up to the first that ends it."""
        ids, log_probs = row.ids, row.log_probs
        end = end_of(ids, self.ends)
        begin = ids.index(self.begins, 0, end) + 1 if self.begins in ids[:end] else 0
        text = self.family.text_of(self._decoded(ids[begin:end]))
        counted = finite(log_probs[begin : end + 1])
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


class Recogniser:
    """A loaded recogniser.

    Args:
        files: the files of the checkpoint.
        summary: its description.
        search: the search of its texts.
        device: name of the torch device of the waveforms.
    """

    writer_class: ClassVar[type[RecogniserWriter]] = RecogniserWriter
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

    def writer(self, options: Mapping[str, object], **request: Any) -> Writer:  # noqa: ANN401
        """Return the text decoder with the options of a transcript."""
        return self.writer_class(self, options, **request)

    def check_padding(self) -> None:
        """Compare a recording alone and in a padded batch, as `check_pair`."""
        request = TextRequest(language=self.files.kind.family.probed_language(self.summary.languages))
        check_pair(self, lambda waves: self.search.first_scores(waves, request), self.pair_seconds)
