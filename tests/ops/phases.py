"""Forward passes made of tensors, and the columns that an output makes of one, as a labelling actor does it."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from raysp.capabilities import Capability
from raysp.crossing import fetch
from raysp.models.base.outputs import CausalLMOutput, ModelOutput
from raysp.ops.forward import Forward, Lengths, OutputOp, Rows


def columns_of(op: OutputOp, forward: Forward) -> list[Sequence[object]]:
    """Return the columns of an output."""
    arrays = {
        name: fetch(value)[0] if isinstance(value, torch.Tensor) else value
        for name, value in op.select(forward).items()
    }
    return op.columns(arrays, forward.rows)


def a_pass(
    frames: Sequence[int],
    parts: Sequence[tuple[int, int] | None] | None = None,
    *,
    heads: Mapping[Capability, ModelOutput] | None = None,
    encoded: ModelOutput | None = None,
    waves: Sequence[torch.Tensor] = (),
    hidden_frames: Sequence[int] | None = None,
    source: Mapping[str, Sequence[object]] | None = None,
    **of_rows: Any,
) -> Forward:
    """Return the results of a pass over windows with these numbers of frames."""
    num_samples = [len(wave) for wave in waves] or [0] * len(frames)
    rows = Rows(
        Lengths(num_samples, list(frames), list(hidden_frames or frames)),
        parts or [None] * len(frames),
        [""] * len(frames),
        source=source or {},
        **of_rows,
    )
    return Forward(
        rows,
        heads or {},
        encoded,
        torch.tensor(frames),
        waves_BS=torch.nn.utils.rnn.pad_sequence([*waves], batch_first=True) if waves else torch.empty(0, 0),
        num_samples_B=torch.tensor(num_samples),
    )


def ctc_forward(logits: torch.Tensor, num_frames: Sequence[int]) -> Forward:
    """Return the results of a CTC model over rows of one window each."""
    return a_pass(num_frames, heads={Capability.CTC: CausalLMOutput(logits=logits)})
