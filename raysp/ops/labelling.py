"""The op of a labelling actor, which runs a model over blocks of windows."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
import torch

from raysp import tracebacks
from raysp.backends.finding import Backend
from raysp.crossing import Room, Sending, Steps, Together
from raysp.devices import is_accelerator, is_out_of_memory, refuse_absent, refuse_lost
from raysp.errors import RunError
from raysp.models.base.outputs import NoOutput
from raysp.models.base.placing import arithmetic, weights_dtype
from raysp.models.features.processors import as_float, fill
from raysp.models.labelled_passes import OWN, LabellingModel, Lengths, ModelPass, PreparingModel
from raysp.models.loading import LoadedCheckpoint, load_checkpoint
from raysp.ops.blocks import Batching, batching, cut_passes, passes_of_actor, windowing_of, would_wait
from raysp.ops.forward import BlockInHand as BlockInHand
from raysp.ops.forward import Figures as Figures
from raysp.ops.forward import Forward as Forward
from raysp.ops.forward import HostPasses
from raysp.ops.forward import LayerFrames as LayerFrames
from raysp.ops.forward import OutputOp as OutputOp
from raysp.ops.forward import highest_memory as highest_memory
from raysp.ops.late_steps import (
    CARRIED,
    carried_values,
    completed,
    for_joining,
    is_ours,
    joined,
    source_columns,
    timed_of,
)
from raysp.ops.rows import (
    ERROR,
    OK,
    PLACE,
    RowStatus,
    places_of,
    row_statuses,
    staged_places,
    statuses_table,
    waves_of,
    with_labels,
)
from raysp.ops.step_ops import NO_COLUMNS, ColumnOp, beside, chosen
from raysp.text.times import within_recordings
from raysp.words import count

if TYPE_CHECKING:
    from raysp.ops.forward import Passes

logger = logging.getLogger(__name__)

REGROWTH = 1.1
"""Growth per block of a budget reduced by out-of-memory: the cause may be temporary."""


class Labelling:
    """Op that labels blocks with one checkpoint.

    `prepare` and `table` may run in other threads than `run`, for other blocks: a device need not wait for them.

    Args:
        checkpoint: a model folder.
        outputs: returns the output ops for the loaded checkpoint.
        batch_seconds: padded seconds of audio per forward pass; not where each pass has one window (`Batching`).
        dtype: dtype of weights and arithmetic; "tf32": of arithmetic, with weights in float32.
        device: name of a torch device.
        backend: backend that loads the checkpoint; None: the models of raysp.
        window_seconds: length of the windows that decoding cuts longer rows into.
        overlap_seconds: overlap of neighbouring windows.
        added: columns that earlier steps add, passed on for rows that are ok.
        reads: source columns that outputs read.
        completing: ops that complete columns of outputs.
        threads: torch threads on CPUs, shared by passes that run at once; None: one pass at a time, with the number of
            threads that the calling thread has.
    """

    def __init__(
        self,
        checkpoint: str,
        outputs: Callable[[LabellingModel], Sequence[OutputOp]],
        *,
        batch_seconds: float,
        dtype: str = "float32",
        device: str = "cpu",
        backend: Backend | None = None,
        window_seconds: float = 30,
        overlap_seconds: float = 5,
        added: pa.Schema = NO_COLUMNS,
        reads: Sequence[str] = (),
        completing: Sequence[ColumnOp] = (),
        threads: int | None = None,
    ) -> None:
        self.added = added
        self.reads = reads
        self.completing = completing
        refuse_absent(device)
        self.loaded: LabellingModel
        weights = weights_dtype(dtype)
        if backend is None:
            self.loaded = load_checkpoint(Path(checkpoint), dtype=weights, device=device)
        else:
            self.loaded = backend.load(Path(checkpoint), dtype=weights, device=device)
        summary = self.loaded.summary
        self.dtype, self.device = dtype, device
        found = batching(dtype=dtype, device=device)
        threads = None if is_accelerator(device) else threads
        self.at_once = passes_of_actor(threads, found, is_own=summary.backend == OWN)
        self.is_alone = found is Batching.ALONE
        self.of_one_length = not summary.takes_padding
        self.one_by_one, self.lock = threading.Lock(), threading.Lock()
        self.ended = 0.0
        self.outputs = tuple(outputs(self.loaded))
        self.timed = timed_of(self.outputs)
        self.has_users_code = bool(completing) or not all(map(is_ours, self.outputs))
        _refuse_clash(added, self.outputs)
        self.passes = self._passes(threads)
        self.layers = frozenset(layer for output in self.outputs for layer in output.layers)
        self.with_states = any(layer >= 0 for layer in self.layers)
        self.sample_rate = summary.sample_rate
        self.budget = self.max_samples = round(batch_seconds * self.sample_rate)
        self.windowing = windowing_of(summary, window_seconds=window_seconds, overlap_seconds=overlap_seconds)

    def _passes(self, threads: int | None) -> "Passes":
        if not is_accelerator(self.device):
            # The last bits of half precision depend on the number of threads.
            has_one_thread = self.is_alone and self.loaded.summary.backend == OWN
            each = 1 if has_one_thread else None if threads is None else threads // self.at_once
            return HostPasses(self.at_once, in_threads=has_one_thread, threads=threads, threads_each=each)
        from raysp.ops.device_passes import BATCHES_A_BLOCK, BLOCKS_IN_HAND, LAUNCHED, DevicePasses

        # Batches that wait for other processes while the device goes on.
        beside = max((getattr(output, "batches_beside", 0) for output in self.outputs), default=0)
        return DevicePasses(
            self.loaded.device,
            launched=LAUNCHED + beside,
            ending=1 + beside,
            # Blocks take turns if code from outside raysp runs.
            blocks_in_hand=1 if self.has_users_code else BLOCKS_IN_HAND + -(-beside // BATCHES_A_BLOCK),
        )

    @property
    def blocks_in_hand(self) -> int:
        """Blocks over which `run` may run at once, from as many threads."""
        return self.passes.blocks_in_hand

    def __call__(
        self, block: pa.Table, shard: str = "", *, names: Sequence[object] | None = None
    ) -> tuple[pa.Table, Figures]:
        """Label the windows of a block: `prepare`, `run` and `table`."""
        given = self.prepare(block, shard, names=names)
        figures = self.run(given)
        return self.table(given), figures

    def prepare(self, block: pa.Table, shard: str = "", *, names: Sequence[object] | None = None) -> BlockInHand:
        """Read a block, and decide which of its windows go through the model.

        Args:
            block: `ROW_SCHEMA`, `wave`, the added columns and those that outputs read, in any order of rows.
            shard: name of the shard, which with the number of a row seeds random sampling.
            names: names of rows by their numbers, which seed random sampling in their place.
        """
        statuses = row_statuses(block)
        waves = [w if w is not None else np.empty(0, np.float32) for w in waves_of(block)]
        labels: list[tuple[object, ...] | None] = [None] * len(statuses)
        is_ok = [one.status == OK for one in statuses]
        columns = {
            name: [value if ok else None for value, ok in zip(carried_values(block, name), is_ok, strict=True)]
            for name in self.reads
        }
        pending: list[int] = []
        for index, row_status in enumerate(statuses):
            is_short = len(waves[index]) < self.loaded.summary.min_samples
            if row_status.status == OK and is_short:
                least = self.loaded.summary.min_samples
                row_status.skip("too_short", f"{count(len(waves[index]), 'sample')}; the model needs at least {least}")
                labels[index] = tuple(
                    value for one in self.outputs for value in (*one.empty(), *(None for _ in one.staged))
                )
            elif row_status.status == OK or (row_status.status == ERROR and not is_short):  # samples before damage
                pending.append(index)
        places = places_of(block)
        return BlockInHand(block, shard, names, statuses, waves, columns, places, pending, labels, self.outputs)

    def run(self, given: BlockInHand) -> Figures:
        """Run the model over a block, and return its figures. At most `blocks_in_hand` calls overlap."""
        started = time.perf_counter()
        self.max_samples = min(self.budget, round(REGROWTH * self.max_samples))
        samples, padded = self._run(given)
        with self.lock:
            before, self.ended = self.ended, time.perf_counter()
            ended = self.ended
        return Figures(
            len(given.pending),
            samples / self.sample_rate,
            padded / self.sample_rate,
            ended - max(started, before),
            highest_memory(self.device),
        )

    def _run(self, given: BlockInHand) -> tuple[int, int]:
        """Run the model over a block, and return its samples, without and with padding."""
        pending = given.pending
        costs = [self._cost(given.waves[i]) for i in pending]
        most = 0 if self.is_alone else self.max_samples
        passes = cut_passes(costs, most, self.at_once, of_one_length=self.of_one_length)
        batches = [[pending[i] for i in batch] for batch in passes]
        padded = [costs[batch[0]] * len(batch) for batch in passes]
        one_by_one = self.at_once > 1 and not self.is_alone and would_wait(padded, self.at_once)
        with arithmetic(dtype=self.dtype, device=self.device):
            self.passes([OneBatch(self, chosen, given) for chosen in batches], one_by_one=one_by_one)
        return sum(len(given.waves[i]) for i in pending), sum(padded)

    def table(self, given: BlockInHand) -> pa.Table:
        """Return the windows of a block that ran, in the same order.

        They have the added columns and those of all outputs, `schema` and `staged`, in place of `wave`.
        """
        statuses, labels = given.statuses, given.labels
        if PLACE in given.block.column_names:
            labels = [
                self._joined(given, index, label)
                if label is not None and statuses[index].status == OK and not statuses[index].is_part
                else label
                for index, label in enumerate(labels)
            ]
        kept = [place if one.status == OK else None for place, one in enumerate(statuses)]
        table = beside(statuses_table(statuses), chosen(given.block, self.added, kept))
        table = beside(table, for_joining(source_columns(given.block), statuses))
        if PLACE in given.block.column_names:
            table = beside(table, staged_places(given.windows_at))
        columns = (column for output in self.outputs for column in (*output.schema, *output.staged))
        return completed(self.completing, within_recordings(with_labels(table, columns, labels), self.timed))

    def label(self, chosen: Sequence[int], given: BlockInHand) -> None:
        """Label one batch. A batch that fails, or exceeds the budget, is halved, so that only rows at fault fail."""
        if self.exceeds_budget(chosen, given):
            self._halve(chosen, given)
            return
        try:
            batch = OneBatch(self, chosen, given)
            batch.fill()
            batch.launch()
            batch.finish()
            return
        except BaseException as error:  # a model, an output or a user's output may raise any error
            tracebacks.raise_if_stopped(error)
            refuse_lost(error)
            why = tracebacks.described(error)
            if len(chosen) == 1:
                tracebacks.note(error)
            failed = error.with_traceback(None)  # which holds the tensors of the pass
        self._failed(chosen, given, failed, why)

    def exceeds_budget(self, chosen: Sequence[int], given: BlockInHand) -> bool:
        """Return whether a batch of several windows exceeds the budget, which lack of memory may have reduced."""
        return len(chosen) > 1 and self._padded(chosen, given) > self.max_samples

    def _padded(self, chosen: Sequence[int], given: BlockInHand) -> int:
        """Return the padded samples of a batch, of which the first window is the longest."""
        return self._cost(given.waves[chosen[0]]) * len(chosen)

    def _failed(self, chosen: Sequence[int], given: BlockInHand, error: BaseException, why: str) -> None:
        """Halve a batch that failed; the row of a single window becomes an error row, with the reason `why`."""
        if len(chosen) > 1:
            logger.warning("a batch of %d windows failed and is halved: %s", len(chosen), tracebacks.named(error))
            if is_out_of_memory(error):
                self.max_samples = min(self.max_samples, self._padded(chosen, given) // 2)
            self._halve(chosen, given)
            return
        kind = "out_of_memory" if is_out_of_memory(error) else "step_failed"
        _fail(given.statuses[chosen[0]], kind, f"the model failed: {why}")

    def store(
        self, chosen: Sequence[int], given: BlockInHand, finite: Sequence[bool], columns: Sequence[Sequence[object]]
    ) -> None:
        """Store the labels of a batch."""
        for place, index in enumerate(chosen):
            if finite[place]:
                given.labels[index] = tuple(column[place] for column in columns)
            else:
                _fail(given.statuses[index], "model_output", "the model's output is not finite")

    def _cost(self, wave: np.ndarray) -> int:
        """Return the number of samples that a window costs the model."""
        return max(len(wave), self.loaded.summary.padded_samples)

    def _halve(self, chosen: Sequence[int], given: BlockInHand) -> None:
        for half in (chosen[: len(chosen) // 2], chosen[len(chosen) // 2 :]):
            self.label(half, given)

    def _part(self, given: BlockInHand, index: int) -> tuple[int, int] | None:
        row_status, place = given.statuses[index], given.windows_at[index]
        if place is not None:
            return place.first, place.end
        if not row_status.is_part:
            return None
        num_samples, is_last = len(given.waves[index]), row_status.windows is not None
        return self.windowing.owned_frames(row_status.window, num_samples, is_last=is_last)

    def columns(self, forward: Forward, outputs: Sequence[OutputOp]) -> "Together[list[Sequence[object]]]":
        """Return whether the values of windows are finite, then the columns of each output, on their way."""
        return Together(
            [self._finite(forward), *(self._steps(outputs, place, forward) for place in range(len(outputs)))]
        )

    def _finite(self, forward: Forward) -> Steps[list[Sequence[object]]]:
        """Return whether the values of each window are finite."""
        [finite_B] = yield [forward.finite(with_hidden=bool(self.layers))]
        return [finite_B.tolist()]

    def ready(self, waves: Sequence[np.ndarray]) -> Callable[..., ModelPass]:
        """Return the pass of the model over a batch, after the work on the host that it needs."""
        if not isinstance(self.loaded, PreparingModel):
            return self.loaded.run
        return partial(self.loaded.run, prepared=self.loaded.prepare(waves))

    def forward(
        self, run: Callable[..., ModelPass], padded: Sending, chosen: Sequence[int], given: BlockInHand
    ) -> Forward:
        """Run the model over a batch, and return its results.

        On a GPU the pass need not be over when this returns.
        """
        samples, num_samples_B = padded.tensors()
        waves_BS = as_float(samples)
        found = run(waves_BS, num_samples_B, hidden_states=self.with_states)
        encoded = NoOutput() if found.encoded is None else found.encoded
        output = next(iter(found.heads.values()), encoded)
        return Forward(
            output=output,
            encoded=encoded,
            num_frames_B=found.num_frames_B,
            parts=[self._part(given, i) for i in chosen],
            features=found.features,
            places=[given.place(i) for i in chosen],
            hidden_frames_B=found.num_frames_B if found.hidden_frames_B is None else found.hidden_frames_B,
            frames_a_hidden_frame=found.frames_a_hidden_frame,
            of_heads={one: head for one, head in found.heads.items() if head is not output},
            columns={name: [values[i] for i in chosen] for name, values in given.columns.items()},
            waves_BS=waves_BS,
            num_samples_B=num_samples_B,
            speech=[given.windows_at[i] for i in chosen],
            known_lengths=self._lengths([len(given.waves[i]) for i in chosen]),
        )

    def _lengths(self, num_samples: Sequence[int]) -> Lengths | None:
        """Return the lengths of a batch, of which the models of raysp know those of frames."""
        if not isinstance(self.loaded, LoadedCheckpoint):
            return None
        return Lengths(num_samples, *self.loaded.num_frames(num_samples))

    def _steps(self, outputs: Sequence[OutputOp], place: int, forward: Forward) -> Steps[list[Sequence[object]]]:
        """Return the columns of an output; one without steps begins when those before it have their columns.

        An op from outside raysp is never called twice at once.
        """
        output, before = outputs[place], [name for one in outputs[:place] for name in one.schema.names]
        if is_ours(output) and hasattr(output, "steps"):
            values = yield from output.steps(forward)
        else:
            yield []  # on a GPU it may wait for values: not in the thread that launches
            while any(name not in forward.results for name in before):
                yield []
            with nullcontext() if is_ours(output) else self.one_by_one:
                values = output(forward)
        forward.results.update(zip(output.schema.names, values, strict=False))
        return list(values)

    def _joined(self, given: BlockInHand, index: int, label: tuple[object, ...]) -> tuple[object, ...] | None:
        """Return the values of a row whose only window is a part of it, as `joining` does for several."""
        place = given.windows_at[index]
        if place is None:
            return label
        window = staged_places([place])
        for name in self.reads:
            window = window.append_column(f"{CARRIED}{name}", [[given.columns[name][index]]])
        columns = [column for output in self.outputs for column in (*output.schema, *output.staged)]
        window = with_labels(window, columns, [label])
        found = joined(given.outputs, window, given.statuses[index])
        if found is None:
            return None
        return tuple(
            value
            for output, values in zip(self.outputs, found, strict=True)
            for value in (*values, *(None for _ in output.staged))
        )


class OneBatch:
    """A batch of a block, in the stages of `Batch`."""

    def __init__(self, op: Labelling, chosen: Sequence[int], given: BlockInHand) -> None:
        self.op, self.chosen, self.given = op, chosen, given
        self.padded: Sending | None = None
        self.run_model: Callable[..., ModelPass] | None = None
        self.columns: Together[list[Sequence[object]]] | None = None

    @torch.inference_mode()
    def fill(self, room: Room | None = None) -> None:
        """Pad the samples, and start their copy to the device."""
        waves = [self.given.waves[i] for i in self.chosen]
        self.padded, self.run_model = fill(waves, self.op.loaded.device, room), self.op.ready(waves)
        self.padded.start()

    @torch.inference_mode()
    def launch(self) -> None:
        """Start the pass, and the copy of its results."""
        if self.op.exceeds_budget(self.chosen, self.given):  # since a batch before it did
            raise MemoryError("the batch exceeds the budget, which lack of memory has reduced")
        assert self.run_model is not None
        assert self.padded is not None
        forward = self.op.forward(self.run_model, self.padded, self.chosen, self.given)
        self.columns = self.op.columns(forward, self.given.outputs)

    @torch.inference_mode()
    def finish(self) -> None:
        """Wait for the results, and store the labels."""
        assert self.columns is not None
        [finite], *outputs = self.columns.results()
        self.release()
        columns = [column for output in outputs for column in output]
        self.op.store(self.chosen, self.given, cast("list[bool]", finite), columns)

    def release(self) -> None:
        """Drop the tensors: a block holds its batches until all of them have ended."""
        self.columns = self.padded = self.run_model = None

    def run(self, error: BaseException | None = None) -> None:
        """Label the batch, or its halves, in the calling thread."""
        self.release()
        if error is not None:
            tracebacks.raise_if_stopped(error)
            refuse_lost(error)
            error.with_traceback(None)  # which holds the tensors of the pass
        self.op.label(self.chosen, self.given)


def _refuse_clash(added: pa.Schema, outputs: Sequence[OutputOp]) -> None:
    """Raise RunError if an added column has the name of a column that an output stages for windows of longer rows."""
    for name in (name for output in outputs for name in output.staged.names):
        if name in added.names:
            raise RunError(f"a step adds the column {name!r}, a name that an output uses between steps; rename it")


def _fail(row_status: RowStatus, error_type: str, message: str) -> None:
    """Mark a row as an error row; one that is damaged keeps its error."""
    if row_status.status == OK:
        row_status.fail(error_type, message)
