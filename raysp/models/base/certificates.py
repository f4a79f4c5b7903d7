"""Certificates of cards: measured evidence that labels do not depend on the batch there, written as JSON.

`python -m benchmarks gpu` measures and writes one. It holds for the card, the driver and the releases that it names.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysp import bounds
from raysp.errors import PlanError

FORMAT = 1
MOST_BYTES = 4_000_000
IDENTITY = ("card", "driver", "torch", "cuda")


@dataclass(frozen=True)
class Rows:
    """Rows that were labelled alone and in batches, in one dtype."""

    rows: int
    texts: int
    """Rows whose text was the same in all batches."""
    bits: int
    """Rows whose text and numbers were the same to the last bit."""


@dataclass(frozen=True)
class Product:
    """A product of frames by a weight, in which rows were shifted."""

    dtype: str
    frames: int
    """Rows of the product: frames of a pack."""
    inner: int
    columns: int
    shifts: int
    unequal: int
    """Shifts after which the rows had other bits."""


@dataclass(frozen=True)
class GraphRuns:
    """Passes of a model that ran kernel by kernel, and as a graph."""

    architecture: str
    """Class of the model, such as "UniSpeechForCTC"."""
    dtype: str
    rows: int
    """Rows of a pass; in packs, all rows."""
    frames: int
    """Frames of a row; in packs, of a pack."""
    passes: int
    unequal: int
    """Passes of which a value had other bits, or that could not be recorded; in packs, rows."""
    in_packs: bool = False
    """Whether passes were over packs, and steps of texts over their rows."""


@dataclass(frozen=True)
class PackRuns:
    """Rows that were labelled each alone in a pack, then with others, in other orders and at other places."""

    architecture: str
    """Class of the model."""
    shapes: str
    """Digest of what decides the shapes of its passes (`CheckpointSummary.shapes`)."""
    dtype: str
    frames: int
    """Frames of hidden states of each pack."""
    rows: int
    packs: int
    """Packs of several rows."""
    unequal: int
    """Rows of which a value had other bits than alone in a pack, in any pack, or than in packs of the first size that
    was measured for the model."""
    beams: int = 1
    """Texts of a row that a text decoder searched at once."""


@dataclass(frozen=True)
class Certificate:
    """Measurements on a card."""

    card: str
    driver: str | None
    torch: str
    cuda: str | None
    raysp: str
    date: str
    """Date of the measurement, as YYYY-MM-DD."""
    models: tuple[str, ...]
    rows: Mapping[str, Rows]
    """Measured rows by dtype."""
    products: tuple[Product, ...]
    graphs: tuple[GraphRuns, ...] = ()
    packs: tuple[PackRuns, ...] = ()

    def is_of(self, *, card: str, driver: str | None, torch: str, cuda: str | None) -> bool:
        """Return whether it was measured on this kind of card, with the same driver and releases."""
        return (self.card, self.driver, self.torch, self.cuda) == (card, driver, torch, cuda)

    def keeps_rows(self, dtype: str) -> bool:
        """Return whether every row had the same text in each batch."""
        found = self.rows.get(dtype)
        return found is not None and 0 < found.rows == found.texts

    def keeps_products(self, dtype: str, sizes: Collection[tuple[int, int]] = (), *, frames: int | None = None) -> bool:
        """Return whether rows had equal bits at all places of all measured products.

        Args:
            dtype: dtype of the products.
            sizes: (inner, columns) of the products of a checkpoint, which must have been measured.
            frames: frames of a pass (`MeasuredBudget.frames`): a product with another number of rows may run another
                kernel, and does not count; None: products of any number.
        """
        found = [one for one in self.products if one.dtype == dtype and frames in (None, one.frames)]
        measured = {(one.inner, one.columns) for one in found}
        return bool(found) and {*sizes} <= measured and not any(one.unequal for one in found)

    def keeps_graphs(self, architecture: str, dtype: str, *, in_packs: bool = False) -> bool:
        """Return whether all measured passes of an architecture, over batches or packs, had equal bits as graphs.

        Shapes of a run are others than the measured ones: each graph is compared once more where it is recorded.
        """
        key = (architecture, dtype, in_packs)
        found = [one for one in self.graphs if (one.architecture, one.dtype, one.in_packs) == key]
        return bool(found) and all(one.passes > 0 and not one.unequal for one in found)

    def pack_runs(self, architecture: str, dtype: str, shapes: str, beams: int = 1) -> tuple[PackRuns, ...]:
        """Return the measurements of packs for a class of models with these shapes, and a number of beams."""
        key = (architecture, dtype, shapes, beams)
        return tuple(one for one in self.packs if (one.architecture, one.dtype, one.shapes, one.beams) == key)

    def keeps_packs(self, architecture: str, dtype: str, shapes: str, beams: int = 1) -> tuple[int, ...]:
        """Return the frames of packs in which all rows had equal bits, in each of these sizes the same ones.

        A size does not count if rows of a product of as many frames had other bits at another place.
        """
        found = self.pack_runs(architecture, dtype, shapes, beams)
        shifted = {one.frames for one in self.products if one.dtype == dtype and one.unequal}
        sizes = {one.frames for one in found if one.rows > 0 < one.packs} - shifted
        return tuple(sorted(sizes - {one.frames for one in found if one.unequal}))


def read_certificate(path: str | Path) -> Certificate:
    """Read a certificate.

    Raises:
        PlanError: the file is missing, or holds no certificate of this format.
    """
    path = Path(path)
    try:
        found = bounds.parse_json(bounds.read_file(path, MOST_BYTES))
        return _certificate(found)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        reason = f"no field {error}" if isinstance(error, KeyError) else str(error)
        raise PlanError(
            f"{path}: {reason}; expected a certificate of format {FORMAT}, as `python -m benchmarks gpu` writes it: "
            "measure the card again"
        ) from None


def _certificate(found: Any) -> Certificate:  # noqa: ANN401 - whatever JSON holds
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"found format {found.get('format') if isinstance(found, dict) else found!r}")
    texts = {name: found[name] for name in ("card", "torch", "raysp", "date")}
    texts |= {name: found[name] for name in ("driver", "cuda") if found[name] is not None}
    if wrong := [name for name, value in texts.items() if not isinstance(value, str) or not value]:
        raise ValueError(f"{wrong[0]} is {found[wrong[0]]!r}, expected a text")
    rows = {str(dtype): Rows(**_counts(one, ("rows", "texts", "bits"))) for dtype, one in found["rows"].items()}
    sizes = ("frames", "inner", "columns", "shifts", "unequal")
    runs = ("rows", "frames", "passes", "unequal")
    return Certificate(
        **{name: found[name] for name in (*IDENTITY, "raysp", "date")},
        models=tuple(map(str, found["models"])),
        rows=rows,
        products=tuple(Product(str(one["dtype"]), **_counts(one, sizes)) for one in found["products"]),
        graphs=tuple(  # absent in older certificates
            GraphRuns(
                str(one["architecture"]),
                str(one["dtype"]),
                **_counts(one, runs),
                in_packs=_flag({"in_packs": False, **one}, "in_packs"),
            )
            for one in found.get("graphs", ())
        ),
        packs=tuple(  # absent in older certificates
            PackRuns(
                str(one["architecture"]),
                str(one["shapes"]),
                str(one["dtype"]),
                **_counts({"beams": 1, **one}, ("frames", "rows", "packs", "unequal", "beams")),
            )
            for one in found.get("packs", ())
        ),
    )


def _counts(found: Mapping[str, object], names: tuple[str, ...]) -> dict[str, int]:
    values: dict[str, int] = {}
    for name in names:
        value = found[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise ValueError(f"{name} is {value!r}, expected a count")
        values[name] = value
    return values


def _flag(found: Mapping[str, object], name: str) -> bool:
    value = found[name]
    if not isinstance(value, bool):
        raise ValueError(f"{name} is {value!r}, expected true or false")
    return value
