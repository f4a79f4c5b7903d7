"""Whether windows go through a model in packs on an accelerator in half precision, by a certificate of equal bits.

A certificate covers the class of the model, the shapes of its passes, the dtype and frames of packs. Sizes of packs
that it lists give equal bits, so that the size of a run is not part of the label: it is chosen among them.
"""

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from raysp.devices import is_accelerator
from raysp.labelling.planning.certified import Cards
from raysp.ops.blocks import pack_frames
from raysp.ops.precision import Batching, batching_of
from raysp.sink.run_record import Resolved

if TYPE_CHECKING:
    from raysp.models.summary import CheckpointSummary
    from raysp.specs.steps import Label

TO_MEASURE = "`python -m benchmarks gpu --checkpoint FOLDER`, from a checkout of raysp, measures it"


@dataclass(frozen=True)
class PackUse:
    """Whether windows go through the model in packs of one size."""

    why: str
    frames: int = 0
    """Frames of hidden states of a pack; 0: windows go in batches."""
    seconds: float = 0.0
    """`frames` in seconds of audio."""

    @property
    def is_on(self) -> bool:
        """Whether windows go in packs."""
        return self.frames > 0

    def __str__(self) -> str:
        """Return a sentence on it."""
        how = f"packs of {self.frames:,} frames" if self.is_on else "batches of the recorded budget"
        return f"windows go in {how}: {self.why}"


def pack_use(
    label: "Label",
    summary: "CheckpointSummary",
    *,
    dtype: str,
    device: str,
    cards: Cards,
    seconds: float,
    before: Resolved | None = None,
) -> PackUse | None:
    """Return whether a step's windows go in packs; None where no certificate could change how they go.

    Args:
        label: the step.
        summary: description of its checkpoint.
        dtype: resolved dtype.
        device: resolved device.
        cards: cards of the device with their certificates.
        seconds: most seconds of a pack, if the step does not give them.
        before: values resolved by the sink's first plan.
    """
    if not takes_packs(label, summary, dtype=dtype, device=device):
        return None
    if before is not None and not before.in_packs:
        return PackUse("so the labels of this sink were made; another sink may have packs")
    if cards.unknown:
        return PackUse(f"{cards.unknown}; packs need a certificate of each card")
    kept: list[tuple[int, ...]] = []
    date = ""
    beams_of_outputs = sorted({one.beams_of(summary) for one in label.outputs} or {1})
    for card, beams in itertools.product(cards.found, beams_of_outputs):
        key = (summary.architecture, dtype, summary.shapes, beams)
        what = f"packs of this checkpoint in {dtype}" + (f" with {beams} beams" if beams > 1 else "")
        found = card.of_packs(*key)
        if found is None:
            return PackUse(f"no certificate of {card.name} has {what} ({TO_MEASURE})")
        date = found.date
        kept.append(found.keeps_packs(*key))
        if not kept[-1]:
            on = f" on {card.name}" if card.nodes else ""
            return PackUse(f"the certificate of {date} shows that in {what} a row's bits depend on the other rows{on}")
    by, of_all = cards.shown_by(date), tuple(sorted(set(kept[0]).intersection(*kept)))
    frames = _size(label, summary, of_all, seconds)
    if frames is None:
        sizes = _listed(of_all) or "no number in common of"
        return PackUse(f"{by} equal bits in packs of {sizes} frames, {_other_size(label, summary, seconds)}")
    one = frames * summary.hidden_stride / summary.sample_rate
    on = "this card" if len(cards.found) == 1 else "any of them"
    return PackUse(f"{by} that a label does not depend on the other windows of a pack on {on}", frames, one)


def takes_packs(label: "Label", summary: "CheckpointSummary", *, dtype: str, device: str) -> bool:
    """Return whether windows may go in packs on a device, if certificates show equal bits."""
    best = batching_of(summary, dtype=dtype, device=device, exact=label.exact, certified=True)
    return is_accelerator(device) and best is Batching.PACKED


def _size(label: "Label", summary: "CheckpointSummary", kept: tuple[int, ...], seconds: float) -> int | None:
    """Return the frames that the step gives, or the most that its windows and the seconds allow; None: not shown."""
    least, most = (_frames(label, summary, given) for given in (0, seconds))
    if label.batch_seconds is not None:
        least = most = _frames(label, summary, label.batch_seconds)
    return max((frames for frames in kept if least <= frames <= most), default=None)


def _frames(label: "Label", summary: "CheckpointSummary", seconds: float) -> int:
    return pack_frames(summary, batch_seconds=seconds, window_seconds=label.window_seconds)


def _other_size(label: "Label", summary: "CheckpointSummary", seconds: float) -> str:
    if label.batch_seconds is None:
        return f"and memory allows {_frames(label, summary, seconds):,}, with windows of {label.window_seconds:g} s"
    found = _frames(label, summary, label.batch_seconds)
    return f"and batch_seconds={label.batch_seconds:g} asks for {found:,}: leave it out"


def _listed(numbers: tuple[int, ...]) -> str:
    return " or ".join(f"{one:,}" for one in numbers)
