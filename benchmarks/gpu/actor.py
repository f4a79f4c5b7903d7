"""S4 without Ray: the code of a model's actor, fed with encoded recordings from memory, against the bare model in turn.

Recordings of an hour are decoded again and again by readers with a decoding process each, until the hours are over:
what a run does, but for storage, Ray and commits. As many blocks are in hand as in a run: threads of the model run
blocks while columns are made of the one before. Results are staged, which here means: written to memory as Arrow.
"""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa

from benchmarks.gpu import bare, encoded, models, speech
from benchmarks.gpu.devices import seconds_of
from benchmarks.gpu.part import Case, Figures, Setting
from benchmarks.inputs import bare_batches
from raysp.labelling.engine.calls_in_order import in_order
from raysp.ops.labelling import Labelling
from raysp.specs.outputs.transcript import Transcript

SECONDS = 130.0
HOURS = {"unispeech-large 315M": 50.0, "fastconformer 110M": 100.0, "wav2vec2-base 94M": 60.0}
KEPT_HOURS = 1.0
"""Hours of recordings in memory."""
BLOCK_SECONDS, BATCH_SECONDS = 2_000.0, 600.0
SMALL_HOURS, SMALL_KEPT_HOURS, SMALL_BLOCK_SECONDS, SMALL_BATCH_SECONDS = 0.05, 0.0125, 30.0, 15.0
BARE_TIMES = 4
"""Times that the bare model labels these recordings in a turn, so that its start does not count."""
TURNS = 2
"""Turns of the bare model and of the actor, interleaved."""
NEEDS = {"opus 48 kHz": (*encoded.BY_RAYSP, "av")}
"""Packages without which a format is not decoded as on machines with GPUs."""


def cases(setting: Setting) -> Iterator[Case]:
    """Yield a case for each model, and for the fastest one those of other formats."""
    usual = encoded.usual_kind()
    for name in [*HOURS][:1] if setting.few else HOURS:
        yield Case(name, partial(measure, name, usual, setting))
    for kind in () if setting.few else (one for one in encoded.KINDS if one != usual):
        yield Case(f"{name}, {kind}", partial(measure, name, kind, setting), NEEDS.get(kind, encoded.BY_RAYSP))


def measure(name: str, kind: str, setting: Setting) -> Figures:
    """Return the speed of the bare model and of the actor over the same rows."""
    loaded = models.make(name, setting.device, "bfloat16")
    hours, kept_hours = (HOURS[name], KEPT_HOURS) if setting.is_gpu else (SMALL_HOURS, SMALL_KEPT_HOURS)
    waves = speech.rows(speech.lengths_of(kept_hours))
    kept = bare.total_seconds(waves)
    budget = BATCH_SECONDS if setting.is_gpu else SMALL_BATCH_SECONDS
    actor = Actor(models.labelling(loaded, [Transcript()], budget, setting.device))
    readers = encoded.Readers(
        encoded.encode(waves, kind),
        encoded.num_readers(setting.device),
        actor.op.windowing,
        BLOCK_SECONDS if setting.is_gpu else SMALL_BLOCK_SECONDS,
    )
    again = max(1, round(hours * 3600 / kept / TURNS))
    passes = bare_batches.passes_of(loaded.device)
    bare.run(loaded, waves[:8], budget, passes)
    actor.label(readers.blocks(1))
    actor.num_rows, readers.waited = 0, 0.0
    alone, whole, started = [], [], 0.0
    times = BARE_TIMES if setting.is_gpu else 1
    for _ in range(TURNS):
        run = partial(bare.run, loaded, waves * times, budget, passes)
        alone.append(kept * times / seconds_of(run, setting.device))
        began = time.perf_counter()
        whole.append(kept * again / seconds_of(lambda: actor.label(readers.blocks(again)), setting.device))
        started += time.perf_counter() - began
    actor.close()
    return {
        "S0 RTFx": float(np.mean(alone)),
        "S4 RTFx": float(np.mean(whole)),
        "S4/S0": float(np.mean(whole) / np.mean(alone)),
        "audio hours": TURNS * again * kept / 3600,
        "rows": actor.num_rows,
        "format": kind,
        "readers": readers.number,
        "share of time without a block": readers.waited / started,
        "S0 turns": alone,
        "S4 turns": whole,
    }


class Actor:
    """The steps of `Model` for a block: prepare, run on a thread of the model, table; and its staging."""

    def __init__(self, op: Labelling) -> None:
        self.op = op
        self.model = ThreadPoolExecutor(op.blocks_in_hand)
        self.num_rows = 0

    def label(self, blocks: Iterable[pa.Table]) -> None:
        """Label blocks, several in hand.

        Raises:
            RuntimeError: a row has no label.
        """
        for table in in_order(self._block, blocks, 1 + self.op.blocks_in_hand):
            failed = [error for error in table.column("error_message").to_pylist() if error is not None]
            if failed:
                raise RuntimeError(f"{len(failed)} of {len(table)} rows failed: {failed[0]}")
            with pa.BufferOutputStream() as staged, pa.ipc.new_stream(staged, table.schema) as writer:
                writer.write_table(table)
            self.num_rows += len(table)

    def _block(self, block: pa.Table) -> pa.Table:
        given = self.op.prepare(block, "memory")
        self.model.submit(self.op.run, given).result()
        return self.op.table(given)

    def close(self) -> None:
        """End the threads of the model."""
        self.model.shutdown()
