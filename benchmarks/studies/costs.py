"""What a batch of published models costs a device, counted without one, and how fast an H100 could be by it.

    python -m benchmarks costs --seconds 10 30
    python -m benchmarks costs --packs

Models of published size run in bfloat16 on the stand-in device of the tests, with tensors of torch's `meta` device,
which have shapes and no values, over a batch of the seconds that labelling takes by default. Every operation but views
is a launch. It takes the longer of its arithmetic and its memory traffic, at rates that plain PyTorch reaches on large
operands, and no less than the shortest kernel. What a pass and its copies take on the device, and the host for its
launches, goes through a simulation of streams: copies in, passes and results on streams of their own, three batches in
hand. Real kernels are slower for small or odd shapes, so the speeds are upper bounds. "beams" are texts by 8 beams, a
language model and hot words, searched by other processes at the CPU times that `--search-ms` gives for a batch of 50
frames a second, and for two together, which wait for a process (measured by `python -m benchmarks beams --search`); the
figure is their time over that of greedy texts. With `--packs` they are packs of rows of each length, without beams.
"""

import argparse
import functools
import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, cast
from unittest import mock

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from torch.utils.flop_counter import flop_registry

from benchmarks.gpu.models import LARGE, LAYER_NORM, PUBLISHED
from benchmarks.tables import show, write_json
from raysp import models
from raysp.capabilities import Capability
from raysp.models.encoder import conformer, packed_attention, relative_attention
from raysp.models.encoder.packed_attention import BLOCK_FRAMES
from raysp.models.features import log_mels
from raysp.models.kernels.pack_sizes import most_rows, places_of_rows, slot_frames, whole_parts
from raysp.models.loading import LoadedCheckpoint
from raysp.ops.budget import GPU_BATCH_SECONDS, GPU_TEXT_SECONDS
from raysp.ops.transcripts.search_processes import MOST_PROCESSES, MOST_TOGETHER
from raysp.text.beams.top_frames import top_tokens
from raysp.text.greedy_ctc import best_frames
from tests.device.stand_in import NAME, OnDevice, install

BATCHES = 1000
BYTES_OF_A_FRAME = 4 + 16 * 8 + 1
"""Of the best tokens of a frame."""
OF_VALUES = log_mels._constants
RATE = 16_000
DECODER = "encoder-decoder"
COHORTS = "encoder-decoder, cohorts"
"""With texts as those of packs are written; the encoder takes a batch."""
DECODERS = (DECODER, COHORTS)
NAMES = (*PUBLISHED, *DECODERS)
HALF_FLOPS, FLOAT_FLOPS = 600e12, 45e12
ATTENTION_FLOPS = 180e12
"""Of the memory-efficient kernel, which half precision takes with and without a mask (`raysp.models.base.arithmetic`),
and assumed of that with a bias within it."""
BYTES_PER_SECOND = 2.6e12
SHORTEST_KERNEL = 2.5e-6
LAUNCH_SECONDS = 5e-6  # of the host
COPY_BYTES_PER_SECOND = 25e9  # pinned
WITHOUT_KERNEL = {
    f"aten.{name}"
    for name in (
        "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "detach", "detach_", "lift_fresh",
        "_local_scalar_dense", "_unsafe_view",
    )
}  # fmt: skip
GOALS = {
    ("unispeech-large 315M", 10): 9_000,
    ("w2v-bert 600M", 30): 5_000,
    ("fastconformer 110M", 10): 30_000,
    ("parakeet 600M", 10): 18_000,
    **{(name, 10): 7_000 for name in DECODERS},
}


@dataclass
class Costs:
    """What a batch costs."""

    launches: int = 0
    flops: float = 0.0
    moved_bytes: float = 0.0
    device_seconds: float = 0.0
    waits: int = 0
    copies: int = 0
    bytes_out: int = 0
    by_op: Counter[str] = field(default_factory=Counter)
    """Seconds of the device."""
    bytes_by_op: Counter[str] = field(default_factory=Counter)
    launches_by_op: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, flops: float, moved: float, rate: float) -> None:
        """Add a launch."""
        seconds = max(SHORTEST_KERNEL, flops / rate, moved / BYTES_PER_SECOND)
        self.launches += 1
        self.flops += flops
        self.moved_bytes += moved
        self.device_seconds += seconds
        self.by_op[name] += seconds
        self.bytes_by_op[name] += moved
        self.launches_by_op[name] += 1


def _num_bytes(x: torch.Tensor) -> int:
    """Return the bytes of a tensor; values that stand at several places count once."""
    return x.itemsize * int(torch.Size(n for n, step in zip(x.shape, x.stride(), strict=True) if step).numel())


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, list | tuple):
        for one in values:
            yield from _tensors(one)


class _Operations(TorchDispatchMode):
    """Run and count operations over tensors without values; a value that the host reads is 0."""

    def __init__(self, costs: Costs) -> None:
        super().__init__()
        self.costs = costs

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = f"{func.namespace}.{func._overloadpacket.__name__}"
        given, options = tree_map_only(OnDevice, lambda one: one.inner, (args, dict(kwargs or {})))
        ours = [one for one in _tensors([*args, *(kwargs or {}).values()]) if isinstance(one, OnDevice)]
        target = options.get("device")
        if not ours and (target is None or torch.device(target).type != NAME):
            return func(*args, **(kwargs or {}))
        if name in ("aten._to_copy", "aten.copy_") and not all(isinstance(x, OnDevice) for x in _tensors(args)):
            return self._crossing(args, options)
        if name == "aten._local_scalar_dense":
            self.costs.waits += 1
            return 0
        if target is not None:
            if torch.device(target).type == "cpu":
                return self._crossing(args, options)
            options["device"] = "meta"
        given = tree_map_only(torch.Tensor, lambda one: one if one.is_meta or not one.dim() else one.to("meta"), given)
        result = func(*given, **options)
        self._count(func, name, given, options, result)
        same = {id(one.inner): one for one in ours}
        return tree_map_only(torch.Tensor, lambda one: same[id(one)] if id(one) in same else OnDevice(one), result)

    def _crossing(self, args: Any, options: Any) -> Any:
        """Copy between the host and the device."""
        source = args[-2] if len(args) > 2 else args[-1]
        if isinstance(source, OnDevice):  # to the host
            if len(args) > 1:
                return args[0].zero_()
            return torch.zeros(source.shape, dtype=options.get("dtype") or source.dtype)
        if len(args) > 1:
            return args[0]
        return OnDevice(torch.empty_like(source, dtype=options.get("dtype"), device="meta"))

    def _count(self, func: Any, name: str, given: Any, options: Any, result: Any) -> None:
        if name in WITHOUT_KERNEL or func.is_view:
            return
        counts = flop_registry.get(func._overloadpacket)
        flops = float(counts(*given, **options, out_val=result)) if counts else 0.0
        read = [*_tensors([*given, *options.values()])]
        if name == "aten.embedding":  # of the table the rows that are looked up
            read = [given[1], result]
        is_half = any(x.is_floating_point() and x.itemsize == 2 for x in read)
        moved = sum(map(_num_bytes, (*read, *_tensors(result))))
        self.costs.add(name, flops, moved, HALF_FLOPS if is_half else FLOAT_FLOPS)


class _Attention(TorchFunctionMode):
    """Count attention as one kernel, with so many products of places a head, or those of all places."""

    def __init__(self, costs: Costs, products: int | None) -> None:
        super().__init__()
        self.costs, self.products = costs, products

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = kwargs or {}
        if func is not F.scaled_dot_product_attention or not isinstance(args[0], OnDevice):
            return func(*args, **given)
        q, k, v, *rest = args
        mask = rest[0] if rest else given.get("attn_mask")
        return self.attended("plain", q, k, v, *([] if mask is None else [mask]))

    def attended(
        self, name: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *more: torch.Tensor
    ) -> torch.Tensor:
        """Return a result without values, laid out as kernels of GPUs do."""
        batch, heads, num_queries, _ = q.shape
        made = q.new_empty(batch, num_queries, heads, v.shape[-1]).transpose(1, 2)
        products = self.products or num_queries * k.shape[2]
        flops = 4.0 * batch * heads * products * q.shape[3]
        moved = sum(map(_num_bytes, (q, k, v, made, *more)))
        self.costs.add(f"{name} attention", flops, moved, ATTENTION_FLOPS)
        return made

    def flex(
        self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, score_mod: Any, scale: float, **_of_blocks: Any
    ) -> torch.Tensor:
        """Stand for `flex_attention`, which also reads what `score_mod` has from outside."""
        outside = (one.cell_contents for one in score_mod.__closure__) if score_mod else ()
        return self.attended("flex", q, k, v, *(one for one in outside if isinstance(one, torch.Tensor)))


@contextmanager
def counted(products: int | None = None) -> Iterator[Costs]:
    """Count what happens to tensors without values within the block; `products` is for attention of packs."""
    costs = Costs()
    attention = _Attention(costs, products)
    kernel = mock.patch.object(relative_attention, "kernel_of", return_value=attention.flex)
    plain, with_adapter = (
        mock.patch.object(one, "kernel_of_rows", return_value=attention.flex) for one in (packed_attention, conformer)
    )
    filters = mock.patch.object(log_mels, "_constants", _filters)
    with kernel, plain, with_adapter, filters, _Operations(costs), attention:
        yield costs


@functools.cache
def _filters(*arguments: Any) -> Any:
    """Return the constants of log-mels, whose sizes depend on values."""
    with torch.utils._python_dispatch._disable_current_modes():
        made = OF_VALUES(*arguments[:-1], torch.device("cpu"))
        return tree_map_only(torch.Tensor, lambda one: OnDevice(one.to("meta")), made)


@dataclass(frozen=True)
class Batch:
    """A batch of rows of nearly one length."""

    rows: int
    seconds: float

    @classmethod
    def of(cls, model: str, seconds: float) -> Self:
        """Return a batch of a model as labelling makes it, of rows of a length."""
        whole = GPU_TEXT_SECONDS if model in DECODERS else GPU_BATCH_SECONDS
        return cls(round(whole / seconds), seconds)

    @property
    def whole_seconds(self) -> float:
        """Seconds of audio."""
        return self.rows * self.seconds

    def waves(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return int16 samples and their numbers, without values."""
        samples = round(self.seconds * RATE)
        shapes = (((self.rows, samples), torch.int16), ((self.rows,), torch.int64))
        waves, num_samples = (OnDevice(torch.empty(shape, dtype=dtype, device="meta")) for shape, dtype in shapes)
        return waves, num_samples


def _made(name: str) -> tuple[Any, Any]:
    """Return a model of published size without memory, and its feature extractor."""
    if name in DECODERS:
        encoder = models.Wav2Vec2Config(**LARGE, **LAYER_NORM)
        sizes = {"d_model": 1024, "decoder_layers": 12, "decoder_attention_heads": 16, "decoder_ffn_dim": 4096}
        decoder = models.BartConfig(vocab_size=50265, is_decoder=True, add_cross_attention=True, **sizes)
        start = {"decoder_start_token_id": 2, "pad_token_id": 1, "eos_token_id": 2}
        config = models.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder, **start)
        cls: Any = models.SpeechEncoderDecoderModel
        extractor: Any = models.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    else:
        cls, config, extractor = PUBLISHED[name](False)
    with torch.device("meta"):
        model = cls(config).to(torch.bfloat16).eval()
    for module in model.modules():
        for kind in (module._parameters, module._buffers):
            kind.update({key: _there(one) for key, one in kind.items()})
    return model, extractor


def _there(one: torch.Tensor | None) -> Any:
    """Return a weight, a parameter as one, on the stand-in device."""
    if one is None:
        return None
    found = OnDevice(one.detach())
    return torch.nn.Parameter(found, requires_grad=False) if isinstance(one, torch.nn.Parameter) else found


def batch_costs(name: str, batch: Batch, *, beams: bool = False, tokens: int = 25) -> Costs:
    """Return what a batch costs: features, pass, and the values that cross back."""
    install()
    model, extractor = _made(name)

    def results() -> list[torch.Tensor]:
        waves, num_samples = batch.waves()
        features = extractor.extract(waves.float() / 32768, num_samples)
        if name in DECODERS:
            return (_texts if name == DECODER else _texts_of_cohorts)(model, features, tokens)
        return _frames(model, features, num_samples, beams)

    return _costs(results)


def _costs(results: Callable[[], list[torch.Tensor]], products: int | None = None) -> Costs:
    """Return what a pass and the one copy of its results cost, after a pass that makes constants."""
    for _ in range(2):
        with torch.no_grad(), counted(products) as costs:
            found = results()
            costs.copies += 1
            costs.waits += 1
            costs.bytes_out += sum(map(_num_bytes, found))
    return costs


def pack_costs(name: str, seconds: float) -> tuple[Costs, Batch]:
    """Return what a pack costs that is full of rows of a length, and these rows."""
    install()
    model, extractor = _made(name)
    stride, a_row = model.hidden_stride, slot_frames(round(seconds * RATE), model.hidden_stride)
    frames = whole_parts(slot_frames(round(GPU_BATCH_SECONDS * RATE), stride))
    loaded = LoadedCheckpoint(cast(Any, None), model, extractor, None)
    batch = Batch(min(most_rows(frames), frames // a_row), seconds)
    shapes = (((frames * stride,), torch.int16), ((places_of_rows(batch.rows, frames),), torch.int64))
    products = batch.rows * (-(-a_row // BLOCK_FRAMES) * BLOCK_FRAMES) ** 2  # a row's queries read its keys in blocks

    def results() -> list[torch.Tensor]:
        samples, num_samples = (OnDevice(torch.empty(shape, dtype=dtype, device="meta")) for shape, dtype in shapes)
        found = loaded.run_whole(samples.float() / 32768, num_samples, hidden_states=False)
        return _results(found.heads[Capability.CTC].output.logits, beams=False)

    # Views of tensors without values cannot be made in inference mode.
    with mock.patch.multiple(torch.inference_mode, __enter__=lambda _: None, __exit__=lambda *_: None):
        return _costs(results, products), batch


def decoding_costs(batch: Batch, tokens: int = 25, name: str = DECODER) -> Costs:
    """Return the costs of an encoder-decoder, of whose steps the device waits for the launches if they take longer."""
    costs, first = batch_costs(name, batch, tokens=tokens), batch_costs(name, batch, tokens=1)
    steps = costs.device_seconds - first.device_seconds
    costs.device_seconds += max(0.0, (costs.launches - first.launches) * LAUNCH_SECONDS - steps)
    costs.launches = first.launches  # those that run ahead of the device
    return costs


def _frames(model: Any, features: Any, num_samples: torch.Tensor, beams: bool) -> list[torch.Tensor]:
    """Return the results of a CTC model for the host."""
    return _results(model(**features).logits, beams=beams)


def _results(logits: torch.Tensor, *, beams: bool) -> list[torch.Tensor]:
    finite = torch.isfinite(logits).all(-1)
    if beams:
        return [*top_tokens(logits, blank=0), finite]
    found = best_frames(logits)
    return [found.ids.int(), found.log_probs, finite]


def _texts(model: Any, features: Any, tokens: int) -> list[torch.Tensor]:
    """Return the tokens of a greedy text."""
    encoded = model.speech_encoder(**features)
    mask = features.get("attention_mask")
    return [model.generate(encoder_outputs=encoded, attention_mask=mask, max_new_tokens=tokens, eos_token_id=None)]


def _texts_of_cohorts(model: Any, features: Any, tokens: int) -> list[torch.Tensor]:
    """Return the tokens of greedy texts that are written in cohorts, as those of packs are."""
    frames = model.speech_encoder(**features).last_hidden_state
    texts = model.generate_cohorts(frames.split(1), max_new_tokens=tokens, eos_token_id=None)
    return [one for of_cohort in texts for one in (of_cohort.ids_RT, of_cohort.log_probs_RN)]


@dataclass(frozen=True)
class Host:
    """Work of the host for a batch, in seconds."""

    pad: float = 3e-3
    launches: float = 0.0
    texts: float = 3e-3
    search: float = 0.0
    """Of a process beside the device; 0: texts are made by a thread of this process."""
    search_two: float = 0.0
    """Of two batches together."""


def simulated(
    device: float, host: Host, *, copy_in: float, copy_out: float, in_hand: int, processes: int, batches: int = BATCHES
) -> float:
    """Return the seconds of so many batches.

    A batch is padded, copied, launched, run, copied back and written. Padding, launching and writing take turns on the
    interpreter's lock. Each stream does its work in order. A process searches up to two batches that wait for it.
    """
    lock, copies, passes, results = 0.0, 0.0, 0.0, 0.0
    waiting: list[int] = []
    idle = processes
    ready: list[tuple[float, int, int, str]] = []
    order = itertools.count()

    def at(time: float, batch: int, step: str) -> None:
        heapq.heappush(ready, (time, next(order), batch, step))

    def serve(now: float) -> int:
        """Start searches of waiting batches in idle processes; return how many processes they take."""
        taken = 0
        while waiting and taken < idle:
            together = [waiting.pop(0) for _ in range(min(MOST_TOGETHER, len(waiting)))]
            end = now + (host.search if len(together) == 1 else host.search_two)
            at(end, -1, "free")
            for one in together:
                at(end, one, "write")
            taken += 1
        return taken

    at(0.0, 0, "pad")
    last_padded, ended = -1, 0
    copied = [0.0] * batches
    last = 0.0
    while ready:
        now, _, batch, step = heapq.heappop(ready)
        if step == "pad":
            lock = max(lock, now) + host.pad
            copies = max(copies, lock) + copy_in
            copied[batch] = copies
            at(lock, batch, "launch")
            last_padded = batch
            if batch + 1 < min(batches, ended + in_hand):  # one thread pads
                at(lock, batch + 1, "pad")
        elif step == "launch":
            start = max(lock, now)
            lock = start + host.launches
            # The device begins with the first launch, and ends neither before the last one nor before its own time.
            passes = max(max(passes, start, copied[batch]) + device, lock)
            results = max(results, passes) + copy_out
            at(results, batch, "search" if host.search else "write")
        elif step == "search":
            waiting.append(batch)
            idle -= serve(now)
        elif step == "free":
            idle += 1
            idle -= serve(now)
        else:
            lock = max(lock, now) + host.texts
            last = lock
            ended += 1
            if last_padded + 1 == ended + in_hand - 1 < batches:  # it waited for this one
                at(lock, last_padded + 1, "pad")
    return last


def times_real_time(
    costs: Costs, batch: Batch, *, in_hand: int = 3, search: tuple[float, float] = (0.0, 0.0), processes: int = 0
) -> float:
    """Return the seconds of audio a second, of batches that follow each other without a gap between blocks."""
    one, two = search
    texts = 2e-3 if one else 3e-3  # without the columns, which the other processes make
    host = Host(launches=costs.launches * LAUNCH_SECONDS, texts=texts, search=one, search_two=two)
    copies = (batch.whole_seconds * RATE * 2 / COPY_BYTES_PER_SECOND, costs.bytes_out / COPY_BYTES_PER_SECOND)
    in_all = in_hand + MOST_TOGETHER * processes
    seconds = simulated(
        costs.device_seconds, host, copy_in=copies[0], copy_out=copies[1], in_hand=in_all, processes=processes
    )
    return BATCHES * batch.whole_seconds / seconds


def row(name: str, batch: Batch, *, search: tuple[float, float], cores: int) -> dict[str, Any]:
    """Return the costs and the speeds of a model over rows of a length."""
    is_decoder = name in DECODERS
    costs = decoding_costs(batch, name=name) if is_decoder else batch_costs(name, batch)
    found = figures(name, costs, batch)
    if not is_decoder:
        with_beams = batch_costs(name, batch, beams=True)
        frames = with_beams.bytes_out / BYTES_OF_A_FRAME / (batch.whole_seconds * 50)
        processes = min(MOST_PROCESSES, cores - 1)
        of_batch = (frames * search[0], frames * search[1])
        speed = times_real_time(with_beams, batch, search=of_batch, processes=processes)
        found["beams"] = round(times_real_time(costs, batch) / speed, 2)
    return found


def figures(name: str, costs: Costs, batch: Batch) -> dict[str, Any]:
    """Return the costs of a batch or of a pack, and the speed by them."""
    return {
        "model": name,
        "rows of": f"{batch.seconds:g} s",
        "launches": sum(costs.launches_by_op.values()),
        "waits": costs.waits,
        "copies out": costs.copies,
        "GB": round(costs.moved_bytes / 1e9, 1),
        "device ms": round(1e3 * costs.device_seconds, 1),
        "device alone": round(batch.whole_seconds / costs.device_seconds),
        "simulated": round(times_real_time(costs, batch)),
        "goal": GOALS.get((name, round(batch.seconds)), ""),
    }


def main(argv: list[str] | None = None) -> None:
    """Count from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks costs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="model", help=f"models; all by default: {', '.join(NAMES)}")
    parser.add_argument("--seconds", nargs="+", type=float, default=[10.0, 30.0], help="lengths of rows")
    parser.add_argument(
        "--search-ms",
        type=float,
        nargs=2,
        default=[300.0, 410.0],
        metavar=("ONE", "TWO"),
        help="CPU time of a search over 600 s, 50 frames a second, and over two batches together",
    )
    parser.add_argument("--cores", type=int, default=16, help="cores of the host")
    parser.add_argument("--packs", action="store_true", help="packs in place of batches, of models without a decoder")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    cases = itertools.product(args.names or (PUBLISHED if args.packs else NAMES), args.seconds)
    if args.packs:
        rows = [figures(name, *pack_costs(name, seconds)) for name, seconds in cases]
    else:
        search = (args.search_ms[0] / 1e3, args.search_ms[1] / 1e3)
        rows = [row(name, Batch.of(name, seconds), search=search, cores=args.cores) for name, seconds in cases]
    show(f"A {'pack' if args.packs else 'batch'} in bfloat16; times real time", rows)
    if args.json:
        write_json(args.json, rows)


if __name__ == "__main__":
    main()
