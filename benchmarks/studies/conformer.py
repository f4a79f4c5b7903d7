"""SEW-D, Wav2Vec2-BERT, Parakeet, log-mels against transformers': the same random weights and batches, float32.

    python -m benchmarks conformer --only attention --repeats 3

Batches hold rows of similar length, `seconds`, the same for both libraries. Both run in turn, and the shortest time of
each counts: CPU time on one thread, else wall time. With one thread, the memory that a forward pass adds to a new
process is measured too. SEW-D is measured in three sizes: the defaults of its configuration, and those of the published
sew-d-tiny-100k and sew-d-mid-400k.
"""

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.tables import show, write_json

SAMPLE_RATE = 16000
Run = Callable[[], object]
Batch = Sequence[float]
"""Seconds of each row."""

SHORT, MIDDLE, LONG, WINDOW = (3.0, 2.8, 2.9, 2.6), (10.0, 9.6), (20.0, 19.2), (30.0,)
MIXED = (SHORT, MIDDLE, LONG, WINDOW)

Flags = Mapping[str, object]
TINY: Flags = {"hidden_size": 384, "num_attention_heads": 6, "intermediate_size": 1536}
MID: Flags = {"hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048, "num_hidden_layers": 24}


@dataclass(frozen=True)
class Case:
    """A function of both libraries and its batches."""

    name: str
    floor: float
    """Least ratio of their time to ours over all batches."""
    batches: Sequence[Batch]
    build: Callable[[Flags], Callable[[Batch], tuple[Run, Run]]]
    """Takes flags of the configuration and gives what makes theirs and ours for a batch."""
    flags: Flags = field(default_factory=dict)
    layers: str = ""
    """What is run whatever `--layers` says."""


def waves_of(seconds: Batch) -> tuple[Tensor, Tensor]:
    """Return noise (B, S) and its mask."""
    num_samples = torch.tensor([round(one * SAMPLE_RATE) for one in seconds])
    mask = torch.arange(int(num_samples.max())) < num_samples[:, None]
    return torch.randn(mask.shape, generator=torch.Generator().manual_seed(0)) * mask, mask.long()


def pair_of(name: str, flags: Flags) -> tuple[torch.nn.Module, torch.nn.Module]:
    """Return the model of transformers with random weights, and that of raysp with the same weights."""
    import transformers

    import raysp.models

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    cls, mine = getattr(transformers, name), getattr(raysp.models, name)
    theirs = cls(cls.config_class(**flags)).eval()
    ours = mine(mine.config_class(**flags)).eval()
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def sew_d(flags: Flags) -> Callable[[Batch], tuple[Run, Run]]:
    """Run whole models over waveforms."""
    theirs, ours = pair_of("SEWDModel", flags)

    def batch(seconds: Batch) -> tuple[Run, Run]:
        waves, mask = waves_of(seconds)
        return lambda: theirs(waves, attention_mask=mask), lambda: ours(waves, mask)

    return batch


def sew_d_attention(flags: Flags) -> Callable[[Batch], tuple[Run, Run]]:
    """Run the attention of one layer, projections included."""
    from raysp.models.base.row_layout import Layout
    from raysp.models.encoder.disentangled import Distances

    theirs, ours = pair_of("SEWDModel", {**flags, "num_hidden_layers": 1})
    their_encoder, our_encoder = theirs.encoder.encoder, ours.encoder.encoder

    def batch(seconds: Batch) -> tuple[Run, Run]:
        frames = ours.num_frames(round(max(seconds) * SAMPLE_RATE)) // 2
        hidden = torch.randn(len(seconds), frames, ours.config.hidden_size)
        options = {
            "attention_mask": torch.ones(len(seconds), 1, 1, frames, dtype=torch.long),
            "relative_pos": their_encoder.get_rel_pos(hidden),
            "rel_embeddings": their_encoder.get_rel_embedding(),
        }
        distances = Distances.of(ours.config, our_encoder._normalised_table(), frames)
        with torch.inference_mode():
            layout = Layout.of(hidden, None).packed(hidden)
        packed = layout.pack(hidden)
        their_part, our_part = (encoder.layer[0].attention.self for encoder in (their_encoder, our_encoder))
        return lambda: their_part(hidden, **options), lambda: our_part(packed, layout, distances, False)

    return batch


def wav2vec2_bert(flags: Flags) -> Callable[[Batch], tuple[Run, Run]]:
    """Run whole models over log-mel features; transformers with `scaled_dot_product_attention`."""
    theirs, ours = pair_of("Wav2Vec2BertModel", flags)
    theirs.set_attn_implementation("sdpa")

    def batch(seconds: Batch) -> tuple[Run, Run]:
        num_frames = torch.tensor([ours.num_frames(round(one * SAMPLE_RATE)) for one in seconds])
        mask = torch.arange(int(num_frames.max())) < num_frames[:, None]
        features = torch.randn(*mask.shape, 160)
        return lambda: theirs(features, attention_mask=mask.long()), lambda: ours(features, mask)

    return batch


def wav2vec2_bert_attention(flags: Flags) -> Callable[[Batch], tuple[Run, Run]]:
    """Run the attention of one layer, projections included."""
    theirs, ours = pair_of("Wav2Vec2BertModel", {**flags, "num_hidden_layers": 1})
    theirs.set_attn_implementation("sdpa")
    their_part, our_part = (model.encoder.layers[0].self_attn for model in (theirs, ours))

    def batch(seconds: Batch) -> tuple[Run, Run]:
        hidden = torch.randn(len(seconds), ours.num_frames(round(max(seconds) * SAMPLE_RATE)), 1024)
        positions = ours.encoder.positions(hidden)
        return lambda: their_part(hidden), lambda: our_part(hidden, None, positions, False)

    return batch


def parakeet(flags: Flags) -> Callable[[Batch], tuple[Run, Run]]:
    """Run whole encoders over log-mel features; transformers with `scaled_dot_product_attention`."""
    theirs, ours = pair_of("ParakeetEncoder", flags)
    theirs.set_attn_implementation("sdpa")

    def batch(seconds: Batch) -> tuple[Run, Run]:
        num_mels = torch.tensor([round(one * 100) for one in seconds])
        mask = torch.arange(int(num_mels.max())) < num_mels[:, None]
        features = torch.randn(*mask.shape, 80) * mask[:, :, None]
        return lambda: theirs(features, attention_mask=mask.long()), lambda: ours(features, mask)

    return batch


def log_mels(flags: Flags) -> Callable[[Batch], tuple[Run, Run]]:
    """Extract features of waveforms."""
    import transformers

    from raysp.models import SeamlessM4TFeatureExtractor

    theirs, ours = transformers.SeamlessM4TFeatureExtractor(), SeamlessM4TFeatureExtractor()

    def batch(seconds: Batch) -> tuple[Run, Run]:
        waves, mask = waves_of(seconds)
        num_samples = mask.sum(-1)
        rows = [np.asarray(wave[:count]) * 0.1 for wave, count in zip(waves, num_samples, strict=True)]
        return lambda: theirs(rows, sampling_rate=SAMPLE_RATE), lambda: ours.extract(waves, num_samples)

    return batch


ONE = "1"
CASES = (
    Case("sew-d", 1.5, MIXED, sew_d),
    Case("sew-d attention", 2.0, MIXED, sew_d_attention, layers=ONE),
    Case("sew-d tiny", 1.5, MIXED, sew_d, TINY),
    Case("sew-d tiny attention", 2.0, MIXED, sew_d_attention, TINY, ONE),
    Case("sew-d mid", 1.5, MIXED, sew_d, MID),
    Case("sew-d mid attention", 2.0, MIXED, sew_d_attention, MID, ONE),
    Case("wav2vec2-bert", 1.4, MIXED, wav2vec2_bert),
    Case("wav2vec2-bert attention", 2.5, (LONG, WINDOW), wav2vec2_bert_attention, layers=ONE),
    Case("parakeet", 1.4, MIXED, parakeet),
    Case("log-mels", 6.0, MIXED, log_mels, layers="none"),
)


def time_pair(theirs: Run, ours: Run, repeats: int) -> tuple[float, float]:
    """Return the shortest time of each in seconds, measured in turn: CPU time if one thread runs."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    found: tuple[list[float], list[float]] = ([], [])
    for repeat in range(repeats + 1):
        for run, taken in ((theirs, found[0]), (ours, found[1])):
            started = clock()
            run()
            if repeat > 0:
                taken.append(clock() - started)
    return min(found[0]), min(found[1])


def _peak(run: Run, connection: Connection) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    run()
    connection.send((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)


def peak_megabytes(run: Run) -> float:
    """Return the increase of peak memory caused by a run in a new process."""
    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_peak, args=(run, sending))
    process.start()
    peak = float(receiving.recv())
    process.join()
    return peak


def measure(case: Case, *, layers: int, repeats: int) -> list[dict[str, object]]:
    """Time one case on each of its batches and over all of them. 0 layers: those of the configuration."""
    make = case.build({**case.flags, "num_hidden_layers": layers} if layers else case.flags)
    ran = case.layers or str(layers or "all")
    rows, totals = [], [0.0, 0.0]
    with torch.inference_mode():
        for seconds in case.batches:
            theirs, ours = make(seconds)
            # A forked process has no more threads than one.
            memory = (peak_megabytes(theirs), peak_megabytes(ours)) if torch.get_num_threads() == 1 else None
            taken = time_pair(theirs, ours, repeats)
            totals = [total + one for total, one in zip(totals, taken, strict=True)]
            rows.append(row(case, ran, f"{len(seconds)} x {max(seconds):g}", taken, memory))
    return [*rows, row(case, ran, "all", totals, None)]


def row(
    case: Case, layers: str, seconds: str, taken: Sequence[float], memory: tuple[float, float] | None
) -> dict[str, object]:
    """Return a table row. The minimum ratio applies to all batches together."""
    ratio = taken[0] / taken[1]
    return {
        "case": case.name,
        "layers": layers,
        "seconds": seconds,
        "transformers ms": f"{1000 * taken[0]:.0f}",
        "raysp ms": f"{1000 * taken[1]:.0f}",
        "ratio": f"{ratio:.2f}",
        "transformers MB": "" if memory is None else f"{memory[0]:.0f}",
        "raysp MB": "" if memory is None else f"{memory[1]:.0f}",
        "": "" if seconds != "all" else (f"floor {case.floor:g}" + (", below" if ratio < case.floor else "")),
    }


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks conformer", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="cases with this in their names, such as 'attention'")
    parser.add_argument("--layers", type=int, default=0, help="layers of whole models; 0: those of the configuration")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--repeats", type=int, default=3, help="number of repeats")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    chosen = [case for case in CASES if args.only in case.name]
    if not chosen:
        raise SystemExit(f"--only {args.only!r}: no such case among {', '.join(case.name for case in CASES)}")
    figures = []
    for case in chosen:
        found = measure(case, layers=args.layers, repeats=args.repeats)
        show(case.name, found)
        figures += found
    if args.json:
        write_json(args.json, figures)


if __name__ == "__main__":
    main()
