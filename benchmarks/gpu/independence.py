"""Whether labels depend on the batch on this card: the evidence of its certificate.

Packs: rows alone in a pack and in other companies must have equal bits, as graphs too (`benchmarks.gpu.packed_rows`).
Graphs: passes over batches as graphs against the same ones kernel by kernel (`benchmarks.gpu.graphs`).
Rows: 200 rows alone, then in batches of two budgets; their texts and numbers are compared. Products: every matrix
product of the models' checkpoints, over the frames of a pack; 256 rows at 72 places of it must have equal bits.
`certificate.json` holds both, with card, driver and releases: `raysp.models.base.certificates` reads it.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.gpu import graphs, models, packed_rows, speech
from benchmarks.gpu.devices import describe
from benchmarks.gpu.part import Case, Figures, Setting
from benchmarks.tables import write_json
from raysp.models.base.arithmetic import arithmetic
from raysp.models.base.certificates import FORMAT, read_certificate
from raysp.models.features.waves import as_float, pad
from raysp.models.loading import LoadedCheckpoint
from raysp.specs.outputs.embedding import Embedding
from raysp.specs.outputs.transcript import Transcript

SECONDS = 95.0
DTYPES = ("float32", "bfloat16")
MODELS = ("wav2vec2-base 94M", "fastconformer 110M", "w2v-bert 600M")
NUM_ROWS, BUDGETS = 200, (60.0, 600.0)
SMALL_NUM_ROWS, SMALL_BUDGETS = 12, (8.0, 60.0)
FRAMES, SMALL_FRAMES = 30_208, 1_024
"""Frames of a pack: 604 s at 50 frames a second, in multiples of 256."""
SHIFTED_ROWS, SHIFTS, SMALL_SHIFTS = 256, 72, 6


def cases(setting: Setting) -> Iterator[Case]:
    """Yield the rows and the products in each dtype, then the certificate of both."""
    rows: dict[str, Figures] = {}
    products: list[dict[str, object]] = []
    names = MODELS[:1] if setting.few else MODELS
    for dtype in DTYPES:
        yield Case(f"rows {dtype}", partial(compare_rows, names, dtype, setting, rows))
    for dtype in DTYPES:
        yield Case(f"products {dtype}", partial(shift_products, names, dtype, setting, products))
    runs: list[dict[str, object]] = []
    packs: list[dict[str, object]] = []
    write = partial(write_certificate, names, setting, rows, products, runs, packs)
    yield Case("certificate", write)
    for name, dtype, make in packed_rows.made(setting):
        yield Case(f"packs {name} {dtype}", partial(packed_rows.compare, make, dtype, setting, packs, runs))
    yield Case("certificate with packs", write)
    for dtype in DTYPES:
        yield Case(f"graphs {dtype}", partial(graphs.compare, dtype, setting, runs))
    yield Case("certificate with graphs", write)


def compare_rows(names: tuple[str, ...], dtype: str, setting: Setting, found: dict[str, Figures]) -> Figures:
    """Compare the labels of rows alone with those in batches."""
    count, budgets = (NUM_ROWS, BUDGETS) if setting.is_gpu else (SMALL_NUM_ROWS, SMALL_BUDGETS)
    seconds = torch.linspace(0.5, 15 if setting.is_gpu else 3, count).tolist()
    block = speech.block_of(speech.rows(seconds))
    texts = numbers = compared = 0
    by_model: dict[str, object] = {}
    for name in names:
        loaded = models.make(name, setting.device, dtype)
        alone, *batched = (
            label(loaded, block, budget, setting.device) for budget in (1 / speech.RATE, *budgets)
        )  # of a budget of one sample: a row a pass
        pairs = [list(zip(alone, rows, strict=True)) for rows in batched]
        same = [[one["pred_text"] == other["pred_text"] for one, other in rows] for rows in pairs]
        equal = [[one == other for one, other in rows] for rows in pairs]
        by_model[name] = {"same texts": [sum(one) for one in same], "equal bits": [sum(one) for one in equal]}
        texts += sum(map(all, zip(*same, strict=True)))
        numbers += sum(map(all, zip(*equal, strict=True)))
        compared += len(alone)
    found[dtype] = {"rows": compared, "texts": texts, "bits": numbers}
    return {"same texts": texts / compared, "equal bits": numbers / compared, "rows": compared, "models": by_model}


def label(loaded: LoadedCheckpoint, block: Any, budget: float, device: str) -> list[dict[str, Any]]:
    """Return text, score and mean hidden state of rows in batches of a budget.

    Raises:
        RuntimeError: a row has none.
    """
    op = models.labelling(loaded, [Transcript(), Embedding()], budget, device)
    rows = op(block)[0].select(["pred_text", "pred_score", "embedding", "error_message"]).to_pylist()
    if failed := [row["error_message"] for row in rows if row["error_message"] is not None]:
        raise RuntimeError(f"{len(failed)} of {len(rows)} rows failed: {failed[0]}")
    return rows


def shift_products(names: tuple[str, ...], dtype: str, setting: Setting, found: list[dict[str, object]]) -> Figures:
    """Compare rows at many places within each product of the checkpoints."""
    sizes = set().union(*(products_of(models.make(name, setting.device, dtype), setting.device) for name in names))
    frames, shifts = (FRAMES, SHIFTS) if setting.is_gpu else (SMALL_FRAMES, SMALL_SHIFTS)
    made = [
        {
            "dtype": dtype,
            "frames": frames,
            "inner": inner,
            "columns": columns,
            "shifts": shifts,
            "unequal": unequal_shifts(frames, inner, columns, shifts, dtype, setting.device),
        }
        for inner, columns in sorted(sizes)
    ]
    found += made
    kept = sum(one["unequal"] == 0 for one in made)
    return {"products": len(made), "keep bits": kept, "share": kept / max(1, len(made)), "of": made}


class Products(TorchDispatchMode):
    """Records the sizes of matrix products of frames by weights: (inner, columns)."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: set[tuple[int, int]] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition(".")[0]
        if name in ("aten::mm", "aten::addmm"):
            self.sizes.add(tuple(args[-1].shape))
        if name == "aten::linear":
            self.sizes.add(tuple(args[1].shape[::-1]))
        return func(*args, **(kwargs or {}))


@torch.inference_mode()
def products_of(loaded: LoadedCheckpoint, device: str) -> set[tuple[int, int]]:
    """Return the sizes of the products of a pass."""
    samples, counts = pad(speech.rows([1.5, 2.0]))
    with Products() as products:
        loaded.run(as_float(samples.to(device)), counts.to(device), hidden_states=False)
    return products.sizes


@torch.inference_mode()
def unequal_shifts(frames: int, inner: int, columns: int, shifts: int, dtype: str, device: str) -> int:
    """Return at how many places of a pack rows have other bits than at its start."""
    random = torch.Generator().manual_seed(0)

    def made(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random).to(getattr(torch, dtype)).to(device)

    pack, weight, bias, rows = made(frames, inner), made(columns, inner), made(columns), made(SHIFTED_ROWS, inner)
    last = frames - SHIFTED_ROWS
    places = [0, *(1 + number * (last - 1) // (shifts - 1) for number in range(shifts))]  # even, odd, and the last
    results = []
    with arithmetic(dtype=dtype, device=device):
        for place in places:
            given = pack.clone()
            given[place : place + SHIFTED_ROWS] = rows
            results.append(torch.nn.functional.linear(given, weight, bias)[place : place + SHIFTED_ROWS].clone())
    first = results[0]
    return int(torch.stack([(one != first).any() for one in results[1:]]).sum().item())


def write_certificate(
    names: tuple[str, ...],
    setting: Setting,
    rows: dict[str, Figures],
    products: list[dict[str, object]],
    runs: list[dict[str, object]],
    packs: list[dict[str, object]],
) -> Figures:
    """Write the certificate, and read it as raysp does."""
    machine = describe(setting.device)
    file = setting.out / "certificate.json"
    identity = {key: machine.get(key) for key in ("driver", "torch", "cuda", "raysp")}
    write_json(
        file,
        {
            "format": FORMAT,
            "card": machine.get("card", setting.device),
            **identity,
            "date": datetime.now(UTC).date().isoformat(),
            "models": list(names),
            "rows": rows,
            "products": products,
            "graphs": runs,
            "packs": packs,
        },
    )
    certificate = read_certificate(file)
    return {
        **{f"rows {dtype}": certificate.keeps_rows(dtype) for dtype in DTYPES},
        **{f"products {dtype}": certificate.keeps_products(dtype) for dtype in DTYPES},
        **{f"packs {one.architecture} {one.dtype} {one.frames}": not one.unequal for one in certificate.packs},
        **{
            f"graphs {one.architecture} {one.dtype}{' in packs' if one.in_packs else ''}": not one.unequal
            for one in certificate.graphs
        },
    }
