"""Whether passes of a run are recorded as graphs of the device, and why not."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from raysp.devices import is_accelerator
from raysp.labelling.planning.certified import MEASURE, Certified
from raysp.models.summary import OWN

if TYPE_CHECKING:
    from raysp.models.summary import CheckpointSummary
    from raysp.specs.steps import Label


@dataclass(frozen=True)
class GraphUse:
    """Whether passes of recurring shapes run as graphs."""

    is_on: bool
    why: str

    def __str__(self) -> str:
        """Return a sentence on it."""
        how = "passes of recurring shapes run as graphs" if self.is_on else "passes run without graphs"
        return f"{how}: {self.why}"


def graph_use(
    label: "Label", summary: "CheckpointSummary", *, dtype: str, device: str, certified: Certified | None
) -> GraphUse | None:
    """Return whether a step's passes run as graphs; None on a CPU.

    Args:
        label: the step.
        summary: description of its checkpoint.
        dtype: resolved dtype.
        device: resolved device.
        certified: card of the device with its certificate; None: not known.
    """
    if not is_accelerator(device):
        return None
    if label.graphs == "never":
        return GraphUse(is_on=False, why="graphs='never'")
    if summary.backend != OWN:
        return GraphUse(is_on=False, why=f"only models of raysp have them, and {summary.backend} runs the checkpoint")
    if label.language_column is not None and not summary.writes_text:
        return GraphUse(is_on=False, why="weights are exchanged for the language of each row")
    found = None if certified is None else certified.certificate
    if found is None:
        return GraphUse(is_on=False, why=f"no certificate of the card is known ({MEASURE})")
    if not found.keeps_graphs(summary.architecture, dtype):
        why = f"the certificate of {found.date} does not show for {summary.architecture} in {dtype} that they keep bits"
        return GraphUse(is_on=False, why=why)
    return GraphUse(is_on=True, why=f"the certificate of {found.date} shows that they keep bits")
