"""Transducers of transformers: their networks, the search of raysp, and texts with the times of words.

Legend: B batch, R rows of a step, T frames, K frames of a step, S steps, N tokens of a row, J width of the joint
network, V vocabulary.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from raysp.backends.hugging_face.recogniser import Recogniser, RecogniserWriter, Tokens, TransformersSearch, finite
from raysp.backends.hugging_face.recogniser_families import TextRequest
from raysp.backends.hugging_face.recogniser_files import RecogniserFiles
from raysp.crossing import fetch
from raysp.models.decoder.transducing import Path, Rules, State, search
from raysp.models.labelled_passes import TimedWord, Written
from raysp.text.times import shared_frames
from raysp.text.token_words import WITHOUT_SPACES, words_of_tokens

SPACE = "▁"
"""First character of the tokens that begin a word."""


class TransducerSearch(TransformersSearch):
    """Search over the frames of a transducer's encoder, with its prediction network and joint network."""

    def __init__(self, files: RecogniserFiles, *, dtype: str, device: str) -> None:
        super().__init__(files, dtype=dtype, device=device)
        config = files.kind.config
        self.rate: int = files.extractor.sampling_rate
        self.rules = Rules(config.blank_token_id, config.vocab_size, (), config.max_symbols_per_step)

    def encoded(self, waves: Sequence[np.ndarray], request: TextRequest) -> tuple[Tensor, Tensor]:
        """Return the frames of the encoder (B, T, J), projected to the joint network, and their number (B,)."""
        output = self.model.get_audio_features(**self.inputs(waves, request))
        return output.pooler_output, output.attention_mask.sum(-1)

    @torch.inference_mode()
    def path(self, waves: Sequence[np.ndarray], request: TextRequest) -> Path:
        """Return the most probable token of each step."""
        return search(self, *self.encoded(waves, request), self.rules)

    def __call__(
        self, waves: Sequence[np.ndarray], request: TextRequest, options: Mapping[str, Any]
    ) -> Iterable[Tokens]:
        """Return the token of each step of each recording, and the blank where there is none."""
        path = self.path(waves, request)
        steps = (values.tolist() for values in fetch(path.tokens_BS, path.scores_BS, path.frames_BS))
        return map(Tokens, *steps, [len(wave) / self.rate for wave in waves])

    def predict(self, tokens_R: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Return predicted_RJ for one more token of each row, and the state of the prediction network."""
        decoder = self.model.decoder
        hidden_R1J, after = decoder.lstm(decoder.embedding(tokens_R)[:, None], state)
        return decoder.decoder_projector(hidden_R1J)[:, 0], after

    def join(self, frames_RKJ: Tensor, predicted_RJ: Tensor) -> Tensor:
        """Return logits (R, K, V)."""
        logits_RKV: Tensor = self.model.joint(predicted_RJ[:, None], frames_RKJ)
        return logits_RKV

    @torch.inference_mode()
    def first_scores(self, waves: Sequence[np.ndarray], request: TextRequest) -> np.ndarray:
        """Return all values of the frames of the first row."""
        frames_BTJ, num_frames_B = self.encoded(waves, request)
        frames_TJ, num_frames = fetch(frames_BTJ[0].float(), num_frames_B[0])
        return frames_TJ[:num_frames].ravel()


class TransducerWriter(RecogniserWriter):
    """Text decoder of a transducer, searched greedily; see `RecogniserWriter`."""

    def __init__(self, transducer: Recogniser, options: Mapping[str, object], **request: Any) -> None:  # noqa: ANN401
        super().__init__(transducer, options, **request)
        files, config = transducer.files, transducer.files.kind.config
        self.processor, extractor = files.processor, files.extractor
        self.frame_seconds = extractor.hop_length * config.encoder_config.subsampling_factor / extractor.sampling_rate
        self.no_text = [config.blank_token_id, *files.special_ids]
        self.has_spaces = (self.request.language or "").partition("-")[0] not in WITHOUT_SPACES

    def written(self, row: Tokens) -> Written:
        """Return the text of the steps of a row."""
        languages = self._languages(row.ids, row.log_probs) if self.detect else []
        is_text_S = ~np.isin(row.ids, self.no_text)
        columns = (row.ids, row.frames, finite(row.log_probs))
        ids, frames_N, scores_N = (np.array(values)[is_text_S] for values in columns)
        starts_N, ends_N = shared_frames(frames_N, frames_N + 1)
        spoken = words_of_tokens(ids.tolist(), self._spaced, has_spaces=self.has_spaces) if self.words else []
        words = []
        for text, first, end in spoken:
            start, last = np.minimum([starts_N[first], ends_N[end - 1]], row.seconds / self.frame_seconds)
            score = float(np.exp(scores_N[first:end]).mean())
            words.append(TimedWord(text, start * self.frame_seconds, last * self.frame_seconds, score))
        return Written(self._decoded(ids.tolist()).strip(), float(scores_N.sum()), len(ids), words, languages)

    def _languages(self, head: Sequence[int], log_probs: Sequence[float]) -> list[float]:
        """Return the probability of each language by the token that names it, and 0 for all others."""
        assert self.family.language_of is not None
        names = map(self.family.language_of, self.processor.tokenizer.convert_ids_to_tokens(head))
        named = dict(zip(names, np.exp(log_probs).tolist(), strict=True))
        return [named.get(code, 0.0) for code in self.recogniser.summary.languages]

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self.processor.decode(ids, skip_special_tokens=True))

    def _spaced(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, with the space that precedes it."""
        begins_word = self.processor.tokenizer.convert_ids_to_tokens(ids[0]).startswith(SPACE)
        return f"{' ' * begins_word}{self._decoded(ids)}"


class Transducer(Recogniser):
    """A loaded transducer."""

    writer_class: ClassVar = TransducerWriter
    pair_seconds: ClassVar = (1.0, 10.0)  # the end of the padding is farther away than the context of the encoder
