"""The card of a run on this machine with its certificate, and whether passes run as graphs because of it.

Certificates are files `*.json` of the folder `RAYSP_CERTIFICATES`, or else of `certificates` in raysp's folder of the
user's cache. One counts for the card, the driver and the releases that it names. It allows graphs, and packs in half
precision (`raysp.labelling.planning.pack_use`).
"""

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from raysp.checkpoints.user_cache import cache_folder
from raysp.cluster.cards import Card, card_of
from raysp.devices import is_accelerator
from raysp.errors import PlanError
from raysp.models.base.certificates import Certificate, read_certificate
from raysp.models.summary import OWN
from raysp.specs.values import JsonValue

if TYPE_CHECKING:
    from raysp.models.summary import CheckpointSummary
    from raysp.specs.steps import Label

FOLDER = "RAYSP_CERTIFICATES"
MEASURE = "`python -m benchmarks gpu`, from a checkout of raysp, measures one"


@dataclass(frozen=True)
class Certified:
    """A card, and the newest of its certificates."""

    card: Card
    certificate: Certificate | None
    older: tuple[Certificate, ...] = ()
    """Further certificates of the card, the newest first."""
    unreadable: tuple[str, ...] = ()
    """Files of the folder that are not certificates, with the reason."""

    def words(self, dtype: str) -> str:
        """Return a sentence on the card and on what its certificate shows in a dtype."""
        found = self.certificate
        if found is None:
            why = "".join(f"; {one}" for one in self.unreadable)
            return f"{self.card}: no certificate in {_folder()} ({MEASURE}){why}"
        return f"{self.card}: certificate of {found.date}, {_shown(found, dtype)}"

    def of_packs(self, architecture: str, dtype: str, shapes: str, beams: int = 1) -> Certificate | None:
        """Return the newest certificate for packs of a class of models, with these shapes and number of beams."""
        known = (() if self.certificate is None else (self.certificate,)) + self.older
        return next((one for one in known if one.pack_runs(architecture, dtype, shapes, beams)), None)

    def record(self) -> dict[str, JsonValue]:
        """Return its fields for the record of a run."""
        card: dict[str, JsonValue] = {**asdict(self.card)}
        if (found := self.certificate) is None:
            return {**card, "certificate": None}
        rows: dict[str, JsonValue] = {dtype: asdict(one) for dtype, one in found.rows.items()}
        kept = {dtype: found.keeps_products(dtype) for dtype in {one.dtype for one in found.products}}
        products: dict[str, JsonValue] = {**dict(sorted(kept.items()))}
        measured = sorted({(one.architecture, one.dtype) for one in found.graphs})
        graphs: dict[str, JsonValue] = {" ".join(one): found.keeps_graphs(*one) for one in measured}
        of_packs = {(one.architecture, one.dtype, one.shapes, one.beams) for one in found.packs}
        packs: dict[str, JsonValue] = {
            " ".join(key[:3]) + (f" {key[3]} beams" if key[3] > 1 else ""): list(found.keeps_packs(*key))
            for key in sorted(of_packs)
        }
        of_it: dict[str, JsonValue] = {
            "date": found.date,
            "raysp": found.raysp,
            "rows": rows,
            "keeps_products": products,
            **({"keeps_graphs": graphs} if graphs else {}),
            **({"keeps_packs": packs} if packs else {}),
        }
        return {**card, "certificate": of_it}


@dataclass(frozen=True)
class GraphUse:
    """Whether passes of recurring shapes run as graphs."""

    is_on: bool
    why: str
    what: str = "passes of recurring shapes"

    def __str__(self) -> str:
        """Return a sentence on it."""
        how = f"{self.what} run as graphs" if self.is_on else "passes run without graphs"
        return f"{how}: {self.why}"


def graph_use(
    label: "Label",
    summary: "CheckpointSummary",
    *,
    dtype: str,
    device: str,
    certified: Certified | None,
    in_packs: bool = False,
) -> GraphUse | None:
    """Return whether a step's passes run as graphs; None on a CPU.

    Args:
        label: the step.
        summary: description of its checkpoint.
        dtype: resolved dtype.
        device: resolved device.
        certified: card of the device with its certificate; None: not known.
        in_packs: whether windows go in packs.
    """
    if not is_accelerator(device):
        return None
    if label.graphs == "never":
        return GraphUse(is_on=False, why="graphs='never'")
    if summary.backend != OWN:
        return GraphUse(is_on=False, why=f"only models of raysp have them, and {summary.backend} runs the checkpoint")
    if label.language_column is not None and not summary.writes_text:
        return GraphUse(is_on=False, why="weights are exchanged for the language of each row")
    if in_packs and not summary.writes_text:
        return GraphUse(is_on=False, why="windows go in packs, each of other rows, so that no pass recurs")
    found = None if certified is None else certified.certificate
    if found is None:
        return GraphUse(is_on=False, why=f"no certificate of the card is known ({MEASURE})")
    if not found.keeps_graphs(summary.architecture, dtype):
        why = f"the certificate of {found.date} does not show for {summary.architecture} in {dtype} that they keep bits"
        return GraphUse(is_on=False, why=why)
    what = "steps of texts" if in_packs else GraphUse.what
    return GraphUse(is_on=True, why=f"the certificate of {found.date} shows that they keep bits", what=what)


def certified(device: str) -> Certified | None:
    """Return the card of a device of this machine with its certificate; None for a CPU, or if it is unknown."""
    card = card_of(device)
    if card is None:
        return None
    found, unreadable = [], []
    for file in _files():
        try:
            one = read_certificate(file)
        except PlanError as error:
            unreadable.append(str(error))
            continue
        if one.is_of(**asdict(card)):
            found.append(one)
    found.sort(key=lambda one: one.date, reverse=True)
    return Certified(card, found[0] if found else None, tuple(found[1:]), tuple(unreadable))


def _folder() -> Path:
    return Path(os.environ.get(FOLDER) or cache_folder() / "certificates")


def _files() -> Iterator[Path]:
    try:
        yield from sorted(_folder().glob("*.json"))
    except (OSError, RuntimeError):  # RuntimeError: there is no folder of the user
        return


def _shown(found: Certificate, dtype: str) -> str:
    rows, products = found.rows.get(dtype), [one for one in found.products if one.dtype == dtype]
    texts = f"{rows.texts} of {rows.rows} rows had one text in all batches" if rows else "rows were not measured"
    equal = sum(not one.unequal for one in products)
    bits = (
        f"{equal} of {len(products)} products kept the bits of shifted rows" if products else "no product was measured"
    )
    return f"in {dtype} {texts}, and {bits}"
