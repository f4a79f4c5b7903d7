"""The cards of a run with their certificates, and whether passes run as graphs because of them.

Certificates are files `*.json` of the folder `RAYSP_CERTIFICATES`, or else of `certificates` in raysp's folder of the
user's cache. One counts for the card, the driver and the releases that it names. It allows graphs, and packs in half
precision (`raysp.labelling.planning.pack_use`).
"""

import contextlib
import os
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from raysp.checkpoints.user_cache import cache_folder
from raysp.cluster.cards import Card, card_of, cards_of_nodes
from raysp.devices import is_accelerator
from raysp.errors import PlanError, RunError
from raysp.models.base.certificates import Certificate, read_certificate
from raysp.models.summary import OWN
from raysp.specs.values import JsonValue
from raysp.words import count

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
    nodes: tuple[str, ...] = ()
    """Addresses of the nodes of the cluster that have the card; empty: this machine has it."""

    @property
    def name(self) -> str:
        """Its name within a sentence."""
        if not self.nodes:
            return "the card"
        more = f" and {len(self.nodes) - 1:,} more" if len(self.nodes) > 1 else ""
        return f"the card of node {self.nodes[0]}{more} ({self.card})"

    def words(self, dtype: str) -> str:
        """Return a sentence on the card and on what its certificate shows in a dtype."""
        found, where = self.certificate, f" on {count(len(self.nodes), 'node')}" if self.nodes else ""
        if found is None:
            why = "".join(f"; {one}" for one in self.unreadable)
            return f"{self.card}{where}: no certificate in {_folder()} ({MEASURE}){why}"
        return f"{self.card}{where}: certificate of {found.date}, {_shown(found, dtype)}"

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
        measured = sorted({(one.architecture, one.dtype, one.in_packs) for one in found.graphs})
        graphs: dict[str, JsonValue] = {
            " ".join(key) + (" in packs" if in_packs else ""): found.keeps_graphs(*key, in_packs=in_packs)
            for *key, in_packs in measured
        }
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
class Cards:
    """The kinds of cards that may run the model."""

    found: tuple[Certified, ...] = ()
    unknown: str = "the card is not known here"
    """Why a card is not known; empty: all are."""

    def shown_by(self, date: str) -> str:
        """Return the beginning of a sentence on what the certificates show; a single one is named by its date."""
        all_cards = f"certificates of all {len(self.found)} kinds of cards show"
        return f"the certificate of {date} shows" if len(self.found) == 1 else all_cards


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
    cards: Cards,
    in_packs: bool = False,
) -> GraphUse | None:
    """Return whether a step's passes run as graphs; None on a CPU.

    Args:
        label: the step.
        summary: description of its checkpoint.
        dtype: resolved dtype.
        device: resolved device.
        cards: cards of the device with their certificates.
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
    if cards.unknown:
        return GraphUse(is_on=False, why=f"{cards.unknown}; graphs need the certificate of each card")
    date = ""
    for one in cards.found:
        if (found := one.certificate) is None:
            return GraphUse(is_on=False, why=f"no certificate of {one.name} is known ({MEASURE})")
        if not found.keeps_graphs(summary.architecture, dtype, in_packs=in_packs):
            what = f"for {summary.architecture} in {dtype} that they keep bits{' in packs' if in_packs else ''}"
            of = f" of {one.name}" if one.nodes else ""
            return GraphUse(is_on=False, why=f"the certificate of {found.date}{of} does not show {what}")
        date = found.date
    what = GraphUse.what if not in_packs else "steps of texts" if summary.writes_text else "passes of packs"
    return GraphUse(is_on=True, why=f"{cards.shown_by(date)} that they keep bits", what=what)


def cards_here(device: str) -> Cards:
    """Return the card of a device of this machine."""
    card = card_of(device)
    return Cards() if card is None else Cards((certified(card),), "")


def cards_of_cluster(
    device: str, *, label: "Label", summary: "CheckpointSummary", dtype: str, takes_packs: bool
) -> Cards:
    """Return the cards of all nodes with a device, which are asked only if a certificate could change a run.

    Args:
        device: resolved device.
        label: the step.
        summary: description of its checkpoint.
        dtype: resolved dtype.
        takes_packs: whether windows may go in packs.
    """
    of_graphs = label.graphs != "never"
    if not any(
        takes_packs or (of_graphs and one.keeps_graphs(summary.architecture, dtype)) for one in _readable_certificates()
    ):
        return Cards(unknown=f"no certificate in {_folder()} could change it, so no node was asked ({MEASURE})")
    nodes: dict[Card, list[str]] = {}
    unknown = []
    for address, answer in cards_of_nodes(device):
        if isinstance(answer, Card):
            nodes.setdefault(answer, []).append(address)
        else:
            unknown.append(f"node {address} {answer}")
    if not nodes and not unknown:
        unknown = ["no node with a GPU is up that could be asked for its card (start one of each kind, then plan)"]
    found = (replace(certified(card), nodes=tuple(addresses)) for card, addresses in nodes.items())
    return Cards(tuple(found), "; ".join(unknown))


def refuse_other_card(device: str, relied_on: Collection[Card]) -> None:
    """Raise RunError if this node has another card than those whose certificates a plan relies on.

    Such a node of a cluster came up after the plan.
    """
    if (found := card_of(device)) not in relied_on:
        raise RunError(
            f"device={device!r}: found {found or 'no card that nvidia-smi names'}, expected "
            f"{' or '.join(map(str, relied_on))}, by whose certificates this run has packs or graphs. Run again, so "
            "that the plan asks this node too, or keep such nodes out of the cluster"
        )


def certified(card: Card) -> Certified:
    """Return a card with its certificates."""
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


def _readable_certificates() -> Iterator[Certificate]:
    """Yield the certificates of the folder, of any card."""
    for file in _files():
        with contextlib.suppress(PlanError):
            yield read_certificate(file)


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
