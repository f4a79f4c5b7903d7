"""S4 without Ray: the code of a model's actor, fed with packed blocks from memory, against the bare model in turn.

Blocks are those that readers send: packed rows of int16 samples, of which some hours are sent again and again. Two
calls are in hand, as Ray makes them: a thread of the model runs one block while columns are made of the one before and
staged, which here means that they are written to memory as Arrow.
"""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pyarrow as pa

from benchmarks.gpu import bare, models, speech
from benchmarks.gpu.devices import seconds_of
from benchmarks.gpu.part import Case, Figures, Setting
from raysp.corpus.shards import Piece
from raysp.labelling.engine.workers.wire import pack, unpack
from raysp.ops.labelling import Labelling
from raysp.sink.layout import BlockName
from raysp.specs.outputs.transcript import Transcript

SECONDS = 130.0
MODELS = ("unispeech-large 315M", "fastconformer 110M", "wav2vec2-base 94M")
HOURS = {"unispeech-large 315M": 50.0, "fastconformer 110M": 100.0, "wav2vec2-base 94M": 60.0}
KEPT_HOURS = 4.0
"""Hours of audio in memory, in blocks that are sent again until the hours are over."""
BLOCK_SECONDS, BATCH_SECONDS = 2_000.0, 600.0
SMALL_HOURS, SMALL_BLOCK_SECONDS, SMALL_BATCH_SECONDS = 0.05, 60.0, 30.0
TURNS = 2
"""Turns of the bare model and of the actor, interleaved."""
CALLS = 2


def cases(setting: Setting) -> Iterator[Case]:
    """Yield a case for each model."""
    for name in MODELS[:1] if setting.few else MODELS:
        yield Case(name, partial(measure, name, setting))


def measure(name: str, setting: Setting) -> Figures:
    """Return the speed of the bare model and of the actor over the same rows."""
    loaded = models.make(name, setting.device, "bfloat16")
    hours = HOURS[name] if setting.is_gpu else SMALL_HOURS
    waves = speech.rows(speech.lengths_of(min(hours, KEPT_HOURS)))
    kept = bare.total_seconds(waves)
    budget = BATCH_SECONDS if setting.is_gpu else SMALL_BATCH_SECONDS
    actor = Actor(models.labelling(loaded, [Transcript()], budget, setting.device))
    blocks = packed(waves, BLOCK_SECONDS if setting.is_gpu else SMALL_BLOCK_SECONDS)
    again = max(1, round(hours * 3600 / kept / TURNS))
    bare.run(loaded, waves[:8], budget, setting.device)
    actor.label(blocks[:1])
    alone, whole = [], []
    for _ in range(TURNS):
        run = partial(bare.run, loaded, waves, budget, setting.device)
        alone.append(kept / seconds_of(run, setting.device))
        whole.append(kept * again / seconds_of(partial(actor.label, blocks * again), setting.device))
    actor.close()
    return {
        "S0 RTFx": float(np.mean(alone)),
        "S4 RTFx": float(np.mean(whole)),
        "S4/S0": float(np.mean(whole) / np.mean(alone)),
        "audio hours": TURNS * again * kept / 3600,
        "rows": actor.num_rows,
        "S0 turns": alone,
        "S4 turns": whole,
    }


def packed(waves: speech.Waves, block_seconds: float) -> list[pa.Table]:
    """Return blocks of rows of like length, as readers send them."""
    blocks: list[pa.Table] = []
    held: list[np.ndarray] = []
    for wave, following in itertools.pairwise([*sorted(waves, key=len, reverse=True), None]):
        held.append(wave)
        if following is None or bare.total_seconds([*held, following]) > block_seconds:
            piece = Piece(0, len(held))
            blocks.append(pack(BlockName("memory", piece, "0", "0", len(blocks), 0), speech.block_of(held)))
            held = []
    return blocks


class Actor:
    """The steps of `LabelActor` for a block: unpack, prepare, run on the thread of the model, table, stage."""

    def __init__(self, op: Labelling) -> None:
        self.op = op
        self.model = ThreadPoolExecutor(1)
        self.num_rows = 0

    def label(self, blocks: list[pa.Table]) -> None:
        """Label blocks, two in hand.

        Raises:
            RuntimeError: a row has no label.
        """
        with ThreadPoolExecutor(CALLS) as calls:
            for table in calls.map(self._block, blocks):
                failed = [error for error in table.column("error_message").to_pylist() if error is not None]
                if failed:
                    raise RuntimeError(f"{len(failed)} of {len(table)} rows failed: {failed[0]}")
                self.num_rows += len(table)

    def _block(self, block: pa.Table) -> pa.Table:
        unpacked = unpack(block)
        assert isinstance(unpacked, tuple), unpacked
        name, rows = unpacked
        given = self.op.prepare(rows, name.shard)
        self.model.submit(self.op.run, given).result()
        table = self.op.table(given)
        with pa.BufferOutputStream() as staged, pa.ipc.new_stream(staged, table.schema) as writer:
            writer.write_table(table)
        return table

    def close(self) -> None:
        """End the thread of the model."""
        self.model.shutdown()
