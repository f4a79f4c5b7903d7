"""Have a text decoder write what it makes of each recording."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pyarrow as pa
import torch
from torch import Tensor

from raysp.ops.labelling import Forward

SEED = "seed"
"""Among the options: what sampling is drawn from, with the row's place."""


ONE_TEXT = {"num_return_sequences": 1, "return_dict_in_generate": False, "output_scores": False}
"""Options that a label fixes, whatever a checkpoint says."""


class Writing:
    """Give the text of every window and the mean log-probability of its tokens.

    A window of a longer row leaves its text, and `join` puts those of all windows, which end at quiet points, together.

    Args:
        schema: of the columns: text and score.
        staged: of the columns of a window of a longer row: text, sum of log-probabilities, number of tokens.
        model: an encoder with a text decoder; None where only `join` is called.
        tokenizer: turns ids into text.
        options: of `generate`, and `seed`.
    """

    layers: tuple[int, ...] = ()

    def __init__(
        self,
        schema: pa.Schema,
        staged: pa.Schema,
        model: Any = None,  # noqa: ANN401 - any of them
        tokenizer: Any = None,  # noqa: ANN401 - any text tokenizer
        options: Mapping[str, object] | None = None,
    ) -> None:
        self.schema = schema
        self.staged = staged
        self.model = model
        self.tokenizer = tokenizer
        self.options = {**(options or {}), **ONE_TEXT}
        self.seed = self.options.pop(SEED, 0)

    def __call__(self, forward: Forward) -> list[Sequence[object]]:
        """Give the columns of `schema`, then those of `staged`, a value a window."""
        mask = forward.features.get("attention_mask")
        options = dict(self.options)
        if options.get("do_sample"):
            options["generators"] = [self._generator(place) for place in forward.places]
        ids_BL = self.model.generate(encoder_outputs=forward.encoded, attention_mask=mask, **options)
        log_probs_BL, emitted_BL = self._log_probs(forward, mask, ids_BL)
        texts = self.tokenizer.batch_decode(ids_BL, skip_special_tokens=True)
        rows = list(zip(forward.parts, texts, log_probs_BL.sum(1).tolist(), emitted_BL.sum(1).tolist(), strict=True))
        labels = [self._label(text, total, count) for _, text, total, count in rows]
        is_part = [part is not None for part in forward.parts]
        return [
            *([None if p else label[k] for p, label in zip(is_part, labels, strict=True)] for k in range(2)),
            *([row[k] if p else None for p, row in zip(is_part, rows, strict=True)] for k in (1, 2, 3)),
        ]

    def empty(self) -> tuple[object, ...]:
        """Give the values of a recording that is too short to hold a frame."""
        return ("", None)

    def join(self, windows: pa.Table) -> tuple[object, ...]:
        """Give text and score of one row, from those of its windows in their order."""
        texts, totals, counts = (cast("list[Any]", windows.column(name).to_pylist()) for name in self.staged.names)
        text = " ".join(stripped for one in texts if (stripped := one.strip()))
        return self._label(text, sum(totals), sum(counts))

    @staticmethod
    def _label(text: str, total: float, count: int) -> tuple[str, float | None]:
        return text.strip(), total / count if count else None

    def _generator(self, place: str) -> torch.Generator:
        digest = hashlib.blake2b(f"{self.seed}|{place}".encode(), digest_size=7).digest()
        return torch.Generator(self.model.device).manual_seed(int.from_bytes(digest, "little"))

    def _log_probs(self, forward: Forward, mask: Tensor | None, ids_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-probability of each token behind the start token, zero behind a text's end, and which count.

        One pass over the whole text costs little beside writing it, and gives beams, sampling and greedy one meaning.
        """
        logits_BLV = self.model(
            encoder_outputs=forward.encoded, attention_mask=mask, decoder_input_ids=ids_BL[:, :-1]
        ).logits
        chosen_BL1 = ids_BL[:, 1:, None]
        log_probs_BL = logits_BLV.float().log_softmax(-1).gather(-1, chosen_BL1)[:, :, 0]
        ends = self._ends().to(ids_BL.device)
        is_end_BL = torch.isin(ids_BL[:, 1:], ends)
        emitted_BL = (is_end_BL.int().cumsum(1) - is_end_BL.int()) == 0  # up to the first end, which counts
        return log_probs_BL.masked_fill(~emitted_BL, 0.0), emitted_BL

    def _ends(self) -> Tensor:
        """Return the ids after which a row holds nothing but padding."""
        config = self.model.generation_config
        end = self.options.get("eos_token_id", config.eos_token_id)
        ids = [] if end is None else list(end) if isinstance(end, list | tuple) else [end]
        pad = self.options.get("pad_token_id", config.pad_token_id)
        return torch.tensor([*ids, *([] if ids or pad is None else [pad])], dtype=torch.long)
