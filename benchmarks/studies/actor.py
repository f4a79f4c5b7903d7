"""Host work of a model actor: a stand-in on a device of its own, with all else that an actor does for a block.

    python -m benchmarks actor
    python -m benchmarks actor --hours 20 --speed 5000,20000 --in-hand 0,2

The stand-in takes 1/SPEED of the padded audio's duration for features, encoder and head, without the host's cores, and
gives the logits of real speech. Padding, texts, columns, counts and staging are those of a run.
"""

import argparse
import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import torch

from benchmarks.inputs.checkpoints import BUNDLED
from benchmarks.inputs.corpus import DEMO_DIGITS, read_utterances
from benchmarks.tables import show, write_json
from raysp.models.base.outputs import Wav2Vec2BaseModelOutput

if TYPE_CHECKING:
    from raysp.labelling.engine.model import Model

SAMPLE_RATE = 16_000
BATCH_SECONDS, BLOCK_SECONDS = 600.0, 4_000.0
"""Those of a GPU."""


class StandIn:
    """A model on a device of its own: a pass takes its time, and other threads have the cores meanwhile."""

    def __init__(self, model: torch.nn.Module, speech: np.ndarray, speed: float) -> None:
        self.speed = speed
        with torch.inference_mode():
            self.output = model.base_model(torch.from_numpy(speech)[None].float() / 32768)
            self.logits = model.lm_head(self.output.last_hidden_state)

    def encode(self, model: torch.nn.Module, input_values: torch.Tensor, *args: object, **kwargs: object) -> object:
        """Return the hidden states of the first seconds of real speech for every row."""
        rows, samples = input_values.shape
        time.sleep(rows * samples / SAMPLE_RATE / self.speed)
        hidden = self.output.last_hidden_state[:, : samples // 320].expand(rows, -1, -1)
        return Wav2Vec2BaseModelOutput(last_hidden_state=hidden, extract_features=hidden)

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return the logits of those hidden states."""
        return self.logits[:, : hidden.shape[1]].expand(len(hidden), -1, -1)


def speech_of(seconds: int) -> np.ndarray:
    """Return real speech, int16 at `SAMPLE_RATE`."""
    waves = [one.samples for of in read_utterances(DEMO_DIGITS, SAMPLE_RATE).values() for one in of]
    return np.resize(np.concatenate(waves), seconds * SAMPLE_RATE).astype(np.int16)


def blocks_of(speech: np.ndarray, hours: float) -> list[pa.Table]:
    """Return blocks of rows of 1 to 30 s, 12 s on average."""
    from raysp.ops.rows import RowStatus, statuses_table, with_waves

    random = np.random.default_rng(0)
    found, left, first = [], hours * 3600, 0
    while left > 0 or len(found) < 2:  # the first one warms up
        seconds = random.beta(1.4, 2.3, int(BLOCK_SECONDS / 12)) * 29 + 1
        left -= seconds.sum()
        waves = [speech[: int(one * SAMPLE_RATE)] for one in seconds]
        end = first + len(waves)
        statuses = [RowStatus(row) for row in range(first, end)]
        for status, wave in zip(statuses, waves, strict=True):
            status.seconds = len(wave) / SAMPLE_RATE
        found.append(with_waves(statuses_table(statuses), waves))
        first = end
    return found


def measure(blocks: list[pa.Table], speech: np.ndarray, speed: float, in_hand: int) -> dict[str, float]:
    """Label and stage blocks as an actor does.

    `in_hand`: batches between launch and labels; 0: one after another in one thread, as on a CPU.
    """
    import raysp
    from raysp.cluster.resources import Resources
    from raysp.corpus.shards import Piece, Shard
    from raysp.labelling.engine.job import Job, LabelledPiece, PieceTodo
    from raysp.labelling.engine.model import Model
    from raysp.labelling.engine.piece import label_piece
    from raysp.labelling.planning.opening import make_plan
    from raysp.labelling.planning.run_plan import Opened

    warm_up, *rest = blocks
    piece = Piece(len(warm_up), sum(map(len, blocks)))
    shard = Shard("stand-in.parquet", "stand-in", 0, "", piece.end, "0" * 16, (piece,))
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as folder:
        label = raysp.Label(
            str(BUNDLED), outputs=[raysp.Transcript()], batch_seconds=BATCH_SECONDS, pool=raysp.Pool(cpus=1)
        )
        pipeline = raysp.Pipeline(raysp.Shards(DEMO_DIGITS), steps=[raysp.Decode(), label], sink=raysp.Parquet(folder))
        plan = make_plan(Opened.of(pipeline, Resources(cpus=2)))
        job = Job.of(plan)
        [model] = Model.of(job)
        loaded = model.op.loaded.model
        stand_in = StandIn(loaded, speech, speed)
        if in_hand:
            _use_as_device(model, in_hand)
        features = model.op.loaded.feature_extractor
        with (
            patch.object(type(loaded.base_model), "encode", lambda *args, **kwargs: stand_in.encode(*args, **kwargs)),
            patch.object(loaded.lm_head, "forward", stand_in.head),
            patch.object(features, "extract", lambda waves, _: {"input_values": waves}, create=True),
            patch("raysp.ops.labelling.as_float", lambda waves: waves),
        ):
            model(warm_up, shard.name)
            started, cpu = time.perf_counter(), time.process_time()
            todo = PieceTodo(shard, piece, piece)
            *_, labelled = label_piece(job, [model], todo, lambda _: iter(rest), plan.sink.store, "stand-in")
            seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        model.close()
    if not isinstance(labelled, LabelledPiece):
        raise SystemExit(f"nothing is staged: {labelled}")
    audio = labelled.receipt.counts.audio_seconds
    return {"rtfx": audio / seconds, "cpu_seconds_per_audio_hour": cpu / audio * 3600, "audio_hours": audio / 3600}


def _use_as_device(model: "Model", launched: int) -> None:
    """Let batches of a model on a CPU go through it as through a device."""
    from raysp.labelling.engine.model import Slots
    from raysp.ops.device_passes import DevicePasses

    model.close()
    model.op.passes = passes = DevicePasses(torch.device("cpu"), launched=launched)
    model.op.blocks_in_flight = passes.blocks_in_flight
    model._threads, model.slots = ThreadPoolExecutor(model.op.blocks_in_flight), Slots(model.op.blocks_in_flight)


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks actor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hours", type=float, default=20, help="hours of audio a repeat")
    parser.add_argument("--speed", default="5000", help="times real time of the device, several")
    parser.add_argument("--in-hand", default="0,2", help="batches between launch and labels, several; 0: one thread")
    parser.add_argument("--repeats", type=int, default=3, help="number of repeats, interleaved")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    speech = speech_of(30)
    blocks = blocks_of(speech, args.hours)
    cases = [(float(speed), int(number)) for speed in args.speed.split(",") for number in args.in_hand.split(",")]
    found: dict[tuple[float, int], list[dict[str, float]]] = {case: [] for case in cases}
    for _ in range(args.repeats):
        for case in cases:
            found[case].append(measure(blocks, speech, *case))
    rows = [row(*case, ones) for case, ones in found.items()]
    show(f"One actor on {os.cpu_count()} cores, {args.hours:g} h of audio, median (min-max) of {args.repeats}", rows)
    if args.json:
        write_json(args.json, {f"{speed:g}, {number}": ones for (speed, number), ones in found.items()})


def row(speed: float, in_hand: int, ones: list[dict[str, float]]) -> dict[str, object]:
    """Return the table row of a case."""
    rtfx = [one["rtfx"] for one in ones]
    return {
        "device, times real time": f"{speed:g}",
        "batches in hand": in_hand,
        "actor, times real time": f"{statistics.median(rtfx):.0f} ({min(rtfx):.0f}-{max(rtfx):.0f})",
        "share of the device": f"{statistics.median(rtfx) / speed:.2f}",
        "CPU s/audio h": f"{statistics.median(one['cpu_seconds_per_audio_hour'] for one in ones):.2f}",
    }


if __name__ == "__main__":
    main()
