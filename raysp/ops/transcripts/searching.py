"""Transcripts by beam search over the frames of CTC models; times of words and characters as for greedy decoding."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
import torch

from raysp.capabilities import Capability
from raysp.checkpoints.language_models import NamedModel, open_model
from raysp.crossing import Array
from raysp.devices import is_accelerator
from raysp.errors import CheckpointError
from raysp.models.tokenizers.named_tokenizers import CTCTokenizer
from raysp.ops.forward import Forward, OutputOp, Rows, Selected
from raysp.ops.rows import stretches
from raysp.ops.transcribing import (
    StretchText,
    flat,
    frames_of_whole_rows,
    in_a_row,
    list_lengths,
    owned_values,
)
from raysp.ops.transcripts.search_processes import MOST_TOGETHER, packed, processes
from raysp.ops.transcripts.searched_texts import SearchedTexts, SearchSettings, once, token_texts
from raysp.text.beams.search import TopFrames
from raysp.text.beams.tokens import misfit, unwritable
from raysp.text.beams.top_frames import top_tokens

VALUES_AT_ONCE = 2**24
"""Logits processed at once, which takes several copies as 64-bit integers."""


class Searching(OutputOp):
    """Op for the best texts of each recording.

    The best tokens of each frame are selected on the device of the logits and cross to the host, where the texts are
    searched: with a GPU, by other processes. For a window of a longer row the op stages the best tokens of each frame
    that the window owns. `join` searches over the frames of all windows, with the same arithmetic.

    Args:
        settings: settings of the search; the schema of `greedy` may end with the column of n-best texts.
        device: device of the logits.
    """

    def __init__(self, settings: SearchSettings, device: torch.device | str = "cpu") -> None:
        self.greedy, self.nbest = settings.greedy, settings.nbest
        self.schema: pa.Schema = self.greedy.schema
        self.staged: pa.Schema = self.greedy.staged
        self.blank = self.greedy.blank
        self.texts = SearchedTexts(settings)
        self.uses_processes = is_accelerator(device)
        if self.uses_processes:
            self._packed = packed(settings)
            processes().start()

    @property
    def concurrent_batches(self) -> int:
        """Number of batches whose texts are searched by other processes at once."""
        return MOST_TOGETHER * processes().most if self.uses_processes else 0

    def select(self, forward: Forward) -> Selected:
        logits_BTV = forward.heads[Capability.CTC].logits
        parts = torch.split(logits_BTV, max(1, VALUES_AT_ONCE // logits_BTV.shape[-1]), dim=1)
        tops = [top_tokens(part, blank=self.blank) for part in parts]
        joined = tops[0] if len(tops) == 1 else [torch.cat(parts, dim=1) for parts in zip(*tops, strict=True)]
        return dict(zip(("blanks", "ids", "log_probs"), joined, strict=True))

    def columns(self, arrays: Mapping[str, Array], rows: Rows) -> list[Sequence[object]]:
        frames = TopFrames(**arrays)
        # The text of a single part is unused, so its frames are masked out.
        num_frames = frames_of_whole_rows(rows)
        is_remote = self.uses_processes and any(num_frames)
        texts = processes().search(self._packed, frames, num_frames) if is_remote else None
        texts = texts or self.texts(frames, num_frames)
        # Staged for each frame: its tokens, and the log-probabilities of the blank and of these tokens.
        log_probs = np.concatenate([frames.blanks[..., None], frames.log_probs], -1)
        staged = [owned_values(values, rows) for values in (frames.ids, log_probs)]
        return [*map(rows.whole, texts.columns), *staged]

    def empty(self) -> tuple[object, ...]:
        return self.greedy.empty()

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        parts = [self._of_stretch(*stretch) for stretch in stretches(windows, self._num_frames(windows))]
        spans = len(self.schema) - (self.nbest > 1)
        joined = in_a_row(parts, spans)
        return joined if self.nbest == 1 else (*joined, self._best([cast("Any", part.columns[-1]) for part in parts]))

    def _num_frames(self, windows: pa.Table) -> list[int]:
        """Return the number of frames of each window: a frame stages one more log-probability than tokens."""
        ids, log_probs = (list_lengths(windows, name) for name in self.staged.names)
        return [num_log_probs - num_ids for num_log_probs, num_ids in zip(log_probs, ids, strict=True)]

    def _of_stretch(self, stretch: pa.Table, frame: int) -> StretchText:
        ids, log_probs = (flat(stretch.column(name)) for name in self.staged.names)
        num_frames = len(log_probs) - len(ids)
        log_probs = log_probs.reshape(num_frames, -1)
        tokens = ids.reshape(num_frames, -1) if num_frames else np.zeros((0, 1), np.int32)
        values = log_probs if num_frames else np.zeros((0, 2), np.float32)
        columns, counts = self.texts(TopFrames(values[None, :, 0], tokens[None], values[None, :, 1:]), [num_frames])
        row = tuple(column[0] for column in columns)
        return StretchText(row, int(counts[0]), frame * self.greedy.frame_seconds)

    def _best(self, parts: Sequence[Sequence[dict[str, Any]]]) -> list[dict[str, object]]:
        """Return the best texts of a row: combinations of one text of each stretch."""
        best: list[tuple[str, float]] = [("", 0.0)]
        for texts in filter(None, parts):
            both = [
                (" ".join(filter(None, (text, following["text"]))), score + following["score"])
                for text, score in best
                for following in texts
            ]
            best = list(once(sorted(both, key=lambda scored: -scored[1])).items())[: self.nbest]
        return [{"text": text, "score": score} for text, score in best]


def check_settings(tokenizer: CTCTokenizer, vocab_size: int, *, lm: str | None, hot_words: Mapping[str, float]) -> None:
    """Check that a language model and hot words can be used with the tokens of a checkpoint.

    Raises:
        CheckpointError: the language model is damaged, or the tokens cannot spell its words or a hot word.
    """
    tokens = token_texts(tokenizer, vocab_size)
    if (text := unwritable(hot_words, tokens)) is not None:
        raise CheckpointError(
            f"hot_words: the checkpoint cannot write {text!r}; {tokens.described}: give hot words as they appear in "
            "its texts"
        )
    if lm is None:
        return
    named = NamedModel.at(lm)
    model = open_model(named.file)
    if why := misfit(named.words() or model.vocabulary(), tokens):
        raise CheckpointError(f"language model {str(named.file)!r} {why}")
