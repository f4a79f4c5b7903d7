"""Read the text out of a CTC model's logits."""

from collections.abc import Sequence

import pyarrow as pa

from raysp.models.processors import Wav2Vec2CTCTokenizer
from raysp.ops.labelling import Forward
from raysp.text.ctc import greedy


class Transcribing:
    """Give text and score of every window.

    Args:
        schema: of the columns, text and score.
        tokenizer: turns ids into text; its padding token is the blank.
    """

    def __init__(self, schema: pa.Schema, tokenizer: Wav2Vec2CTCTokenizer) -> None:
        self.tokenizer = tokenizer
        self.blank = tokenizer.pad_token_id
        self.schema = schema

    def __call__(self, forward: Forward) -> list[Sequence[object]]:
        """Give the columns of `schema`, a value a window."""
        tokens = greedy(forward.logits_BTV, forward.num_frames_B, blank=self.blank)
        return [[self.tokenizer.decode_collapsed(ids) for ids in tokens.ids()], tokens.score_list()]

    def empty(self) -> tuple[object, ...]:
        """Give the values of a recording that is too short to hold a frame."""
        return "", None
