"""The op of a labelling actor, which runs a model over blocks of windows."""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from raysp import tracebacks
from raysp.backends.finding import Backend
from raysp.crossing import Array, Fetching, Room, Sending
from raysp.devices import is_accelerator, is_out_of_memory, refuse_absent, refuse_lost
from raysp.errors import RunError
from raysp.models.base.placing import arithmetic, weights_dtype
from raysp.models.features.processors import as_float, fill
from raysp.models.labelled_passes import OWN, ComparingModel, LabellingModel, ModelPass, PreparingModel
from raysp.models.loading import LoadedCheckpoint, load_checkpoint
from raysp.ops.blocks import Batching, BlockOp, Figures, batching, cut_passes, passes_of_actor, windowing_of, would_wait
from raysp.ops.forward import Forward, Lengths, OutputOp, Rows, Selected, check_selected
from raysp.ops.host_passes import HostPasses
from raysp.ops.late_steps import (
    CARRIED,
    carried_values,
    check_columns,
    for_joining,
    is_ours,
    joined,
    labelled,
    row_of,
    timed_of,
)
from raysp.ops.pasts import PAST, Past
from raysp.ops.rows import (
    ERROR,
    OK,
    PLACE,
    Place,
    RowStatus,
    chosen,
    row_statuses,
    staged_places,
    statuses_table,
    values_of,
    waves_of,
    with_columns,
    with_labels,
)
from raysp.ops.step_ops import NO_COLUMNS, ColumnOp, FunctionError
from raysp.words import count

if TYPE_CHECKING:
    from raysp.ops.device_passes import DevicePasses

logger = logging.getLogger(__name__)

REGROWTH = 1.1
"""Growth per block of a budget reduced by out-of-memory: the cause may be temporary."""


@dataclass(frozen=True)
class Block:
    """A block during labelling; sequences have one value per window."""

    table: pa.Table
    statuses: list[RowStatus]
    waves: Sequence[np.ndarray]
    """Samples of each window; empty without audio."""
    names: Sequence[str]
    """Shard, row and number of the window."""
    parts: Sequence[tuple[int, int] | None]
    """First and end of the frames that each window of a longer row owns; None for a row that is one window."""
    places: Sequence[Place | None]
    """Places of windows that are cut at pauses."""
    pasts: Sequence[Past | None]
    """Samples before windows of longer rows."""
    source: Mapping[str, Sequence[object]]
    """Columns of the source that outputs read."""
    labels: list[tuple[object, ...] | None]
    """Values of the columns of outputs; None until they are computed."""
    pending: Sequence[int]
    """Windows that go through the model."""
    outputs: Sequence[OutputOp]


class Labelling(BlockOp):
    """Op that labels blocks with one checkpoint.

    `prepare` and `table` may run in other threads than `run`, for other blocks, so that the device never idles.

    Args:
        checkpoint: a model folder; or a loaded model, which is used as it is.
        outputs: returns the output ops for the loaded checkpoint.
        batch_seconds: padded seconds of audio per forward pass; unused where each pass has one window (`Batching`).
        dtype: dtype of weights and arithmetic; "tf32": only of arithmetic, with weights in float32.
        device: name of a torch device.
        backend: backend that loads the checkpoint; None: the models of raysp.
        window_seconds: length of the windows that decoding cuts longer rows into.
        overlap_seconds: overlap of neighbouring windows.
        added: columns that earlier steps add, passed on for ok rows.
        reads: source columns that outputs read.
        completing: ops that complete columns of outputs.
        threads: torch threads on CPUs, shared by concurrent passes; None: one pass at a time, with the number of
            threads of the calling thread.
        windows_alone: whether padding may change a label of the model, so that each window is a pass of its own.
    """

    def __init__(
        self,
        checkpoint: str | LabellingModel,
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
        windows_alone: bool = False,
    ) -> None:
        self.added = added
        self.reads = reads
        self.completing = completing
        refuse_absent(device)
        self.loaded: LabellingModel
        weights = weights_dtype(dtype)
        if not isinstance(checkpoint, str):
            self.loaded = checkpoint
        elif backend is None:
            self.loaded = load_checkpoint(Path(checkpoint), dtype=weights, device=device)
        else:
            self.loaded = backend.load(Path(checkpoint), dtype=weights, device=device)
        summary = self.loaded.summary
        self.dtype, self.device, self.where = dtype, device, self.loaded.device
        mode = batching(dtype=dtype, device=device, windows_alone=windows_alone)
        threads = None if is_accelerator(device) else threads
        self.at_once = passes_of_actor(threads, mode, is_own=summary.backend == OWN)
        self.is_alone = mode is Batching.ALONE
        self.one_by_one, self.lock = threading.Lock(), threading.Lock()
        self.ended = 0.0
        self.outputs = tuple(outputs(self.loaded))
        self.columns = [column for output in self.outputs for column in (*output.schema, *output.staged)]
        self.timed = timed_of(self.outputs)
        self.are_ours = [is_ours(output) for output in self.outputs]
        # Outputs of users are never called concurrently.
        self.turns: list[AbstractContextManager[object]] = [
            nullcontext() if is_own else self.one_by_one for is_own in self.are_ours
        ]
        self.has_users_code = bool(completing) or not all(self.are_ours)
        _refuse_clash(added, self.outputs)
        self.passes = self._passes(threads)
        self.blocks_in_flight = self.passes.blocks_in_flight
        """Number of concurrent calls of `run`."""
        self.layers = frozenset(layer for output in self.outputs for layer in output.layers)
        self.with_states = any(layer >= 0 for layer in self.layers)
        self.sample_rate = summary.sample_rate
        self.frames_a_hidden_frame = Fraction(summary.hidden_stride or summary.frame_stride, summary.frame_stride)
        self.budget = self.max_samples = round(batch_seconds * self.sample_rate)
        may_pad = not self.is_alone and self.budget >= summary.min_samples
        if may_pad and isinstance(self.loaded, ComparingModel):
            self.loaded.check_padding()
        self.windowing = windowing_of(summary, window_seconds=window_seconds, overlap_seconds=overlap_seconds)

    def _passes(self, threads: int | None) -> "HostPasses | DevicePasses":
        if not is_accelerator(self.device):
            # The last bits of half precision depend on the number of threads.
            has_one_thread = self.is_alone and self.loaded.summary.backend == OWN
            each = 1 if has_one_thread else None if threads is None else threads // self.at_once
            return HostPasses(self.at_once, in_threads=has_one_thread, threads=threads, threads_each=each)
        from raysp.ops.device_passes import BATCHES_A_BLOCK, IN_FLIGHT, LAUNCHED, DevicePasses

        # Batches that wait for other processes while the device continues.
        waiting = max((getattr(output, "concurrent_batches", 0) for output in self.outputs), default=0)
        return DevicePasses(
            self.where,
            launched=LAUNCHED + waiting,
            ending=1 + waiting,
            # Blocks take turns if code from outside raysp runs.
            blocks_in_flight=1 if self.has_users_code else IN_FLIGHT + -(-waiting // BATCHES_A_BLOCK),
        )

    def prepare(self, block: pa.Table, shard: str = "", *, names: Sequence[object] | None = None) -> Block:
        """Read a block, and decide which of its windows go through the model.

        Args:
            block: `ROW_SCHEMA`, `wave`, the added columns and columns that outputs read, with rows in any order.
            shard: name of the shard, which with the number of a row seeds random sampling.
            names: names of rows by their numbers, which seed random sampling instead.
        """
        statuses, places = row_statuses(block), values_of(block, PLACE, Place)
        waves = [w if w is not None else np.empty(0, np.float32) for w in waves_of(block)]
        labels: list[tuple[object, ...] | None] = [None] * len(statuses)
        is_ok = [row_status.status == OK for row_status in statuses]
        source = {
            name: [value if ok else None for value, ok in zip(carried_values(block, name), is_ok, strict=True)]
            for name in self.reads
        }
        pending: list[int] = []
        least = self.loaded.summary.min_samples
        for index, row_status in enumerate(statuses):
            is_short = len(waves[index]) < least
            if row_status.status == OK and is_short:
                row_status.skip("too_short", f"{count(len(waves[index]), 'sample')}; the model needs at least {least}")
                try:
                    labels[index] = self._whole([row_of(output, output.empty) for output in self.outputs])
                except FunctionError as error:
                    row_status.fail("step_failed", str(error))
            elif row_status.status == OK or (row_status.status == ERROR and not is_short):  # samples before damage
                pending.append(index)
        of_rows = [f"{shard}|{status.row}" if names is None else str(names[status.row]) for status in statuses]
        return Block(
            table=block,
            statuses=statuses,
            waves=waves,
            names=[f"{name}|{status.window}" for name, status in zip(of_rows, statuses, strict=True)],
            parts=[self._part(*of_window) for of_window in zip(statuses, waves, places, strict=True)],
            places=places,
            pasts=values_of(block, PAST, Past),
            source=source,
            labels=labels,
            pending=pending,
            outputs=self.outputs,
        )

    def _part(self, row_status: RowStatus, wave: np.ndarray, place: Place | None) -> tuple[int, int] | None:
        if place is not None:
            return place.first, place.end
        if not row_status.is_part:
            return None
        return self.windowing.owned_frames(row_status.window, len(wave), is_last=row_status.windows is not None)

    def run(self, block: Block) -> Figures:
        """Run the model over a block, and return its figures. At most `blocks_in_flight` calls overlap."""
        started = time.perf_counter()
        self.max_samples = min(self.budget, round(REGROWTH * self.max_samples))
        samples, padded = self._run(block)
        with self.lock:
            before, self.ended = self.ended, time.perf_counter()
            ended = self.ended
        return Figures(
            windows=len(block.pending),
            audio_seconds=samples / self.sample_rate,
            padded_seconds=padded / self.sample_rate,
            busy_seconds=ended - max(started, before),
        )

    def _run(self, block: Block) -> tuple[int, int]:
        """Run the model over a block, and return its samples, without and with padding."""
        pending, num_samples = block.pending, [len(block.waves[i]) for i in block.pending]
        costs = [max(samples, self.loaded.summary.padded_samples) for samples in num_samples]
        most = 0 if self.is_alone else self.max_samples
        passes = cut_passes(costs, most, self.at_once, of_one_length=not self.loaded.summary.takes_padding)
        batches = [Batch(self, block, [pending[i] for i in batch]) for batch in passes]
        padded = [batch.padded_samples for batch in batches]
        one_by_one = self.at_once > 1 and not self.is_alone and would_wait(padded, self.at_once)
        with arithmetic(dtype=self.dtype, device=self.device):
            self.passes(batches, one_by_one=one_by_one)
        return sum(num_samples), sum(padded)

    def table(self, block: Block) -> pa.Table:
        """Build the output table of a processed block, in the order of its windows.

        Instead of `wave` it has the added columns and the columns of all outputs, `schema` and `staged`.
        """
        statuses, labels = block.statuses, block.labels
        has_places = PLACE in block.table.column_names
        if has_places:
            labels = [
                self._joined(block, index, label)
                if label is not None and statuses[index].status == OK and not statuses[index].is_part
                else label
                for index, label in enumerate(labels)
            ]
        kept = [place if row_status.status == OK else None for place, row_status in enumerate(statuses)]
        table = with_columns(statuses_table(statuses), chosen(block.table, self.added, kept))
        table = with_columns(table, for_joining(block.table, statuses))
        if has_places:
            table = with_columns(table, staged_places(block.places))
        return labelled(table, self.columns, labels, timed=self.timed, completing=self.completing)

    def outputs_of(self, block: Block, index: int) -> Sequence[OutputOp]:
        """Return the ops of the row of a window."""
        return block.outputs

    def _joined(self, block: Block, index: int, label: tuple[object, ...]) -> tuple[object, ...] | None:
        """Join a row whose only window is a part of it, as `Joining` joins several windows."""
        place = block.places[index]
        if place is None:
            return label
        window = staged_places([place])
        for name in self.reads:
            window = window.append_column(f"{CARRIED}{name}", [[block.source[name][index]]])
        window = with_labels(window, self.columns, [label])
        by_output = joined(self.outputs_of(block, index), window, block.statuses[index])
        return None if by_output is None else self._whole(by_output)

    def _whole(self, by_output: Sequence[tuple[object, ...]]) -> tuple[object, ...]:
        """Return the values of a row that is one window, which stages none."""
        of_outputs = zip(self.outputs, by_output, strict=True)
        return tuple(value for output, values in of_outputs for value in (*values, *(None for _ in output.staged)))


class Batch:
    """One forward pass over windows of a block, in stages that different threads may run, one after another.

    Args:
        op: the op that labels the block.
        block: the block.
        windows: places of the windows in the block, the longest first.
    """

    def __init__(self, op: Labelling, block: Block, windows: Sequence[int]) -> None:
        self.op, self.block, self.windows = op, block, windows
        longest = max(len(block.waves[windows[0]]), op.loaded.summary.padded_samples)
        self.padded_samples = longest * len(windows)
        self._release()

    def _release(self) -> None:
        """Drop the tensors: a block keeps its batches until all have ended."""
        self.padded: Sending | None = None
        self.prepared: Mapping[str, Tensor] | None = None
        self.rows: Rows | None = None
        self.selected: list[Selected] = []
        self.fetching: Fetching | None = None

    @torch.inference_mode()
    def fill(self, room: Room | None = None) -> None:
        """Pad the samples, and start their copy to the device."""
        waves = [self.block.waves[i] for i in self.windows]
        self.padded = fill(waves, self.op.where, room)
        if isinstance(self.op.loaded, PreparingModel):
            self.prepared = self.op.loaded.prepare(waves)
        self.padded.start()

    @torch.inference_mode()
    def launch(self) -> None:
        """Start the pass, and the copy of the values that outputs select."""
        if self.exceeds_budget():  # reduced after an earlier batch
            raise MemoryError("the batch exceeds the budget, which lack of memory has reduced")
        forward = self.forward()
        self.rows = forward.rows
        self.selected = [{"finite": forward.finite(with_hidden=bool(self.op.layers))}]
        for output, turn, is_own in zip(self.block.outputs, self.op.turns, self.op.are_ours, strict=True):
            with turn:
                selected = output.select(forward)
            if not is_own:
                check_selected(output, selected)
            self.selected.append(selected)
        values = (value for selected in self.selected for value in selected.values())
        self.fetching = Fetching(*(value for value in values if isinstance(value, Tensor)))

    def forward(self) -> Forward:
        """Run the model over the batch, and return its results. On a GPU the pass may still be running."""
        assert self.padded is not None
        samples, num_samples_B = self.padded.tensors()
        block, loaded = self.block, self.op.loaded
        waves_BS, num_samples = as_float(samples), [len(block.waves[i]) for i in self.windows]
        run: Callable[..., ModelPass] = loaded.run
        if self.prepared is not None:
            run = partial(run, prepared=self.prepared)
        if isinstance(loaded, LoadedCheckpoint):
            run = partial(run, num_samples=num_samples)
        result = run(waves_BS, num_samples_B, hidden_states=self.op.with_states)
        frames = result.frames or [loaded.summary.num_frames(length) for length in num_samples]
        rows = Rows(
            lengths=Lengths(num_samples, frames, result.hidden_frames or frames),
            parts=[block.parts[i] for i in self.windows],
            names=[block.names[i] for i in self.windows],
            source={name: [values[i] for i in self.windows] for name, values in block.source.items()},
            speech=[block.places[i] for i in self.windows],
            pasts=[block.pasts[i] for i in self.windows],
            frames_a_hidden_frame=self.op.frames_a_hidden_frame,
        )
        return Forward(**vars(result), rows=rows, waves_BS=waves_BS, num_samples_B=num_samples_B)

    @torch.inference_mode()
    def finish(self) -> None:
        """Wait for the values, and store the labels."""
        assert self.fetching is not None
        assert self.rows is not None
        arrays, rows = iter(self.fetching.arrays()), self.rows
        [finite, *values] = [
            {name: next(arrays) if isinstance(value, Tensor) else value for name, value in selected.items()}
            for selected in self.selected
        ]
        self._release()
        columns: list[Sequence[object]] = []
        of_outputs = zip(self.block.outputs, self.op.turns, self.op.are_ours, values, strict=True)
        for output, turn, is_own, selected in of_outputs:
            with turn:
                made = output.columns(cast("Mapping[str, Array]", selected), rows)
            if not is_own:
                check_columns(output, [*output.schema, *output.staged], made, len(self.windows))
            rows.results.update(zip(output.schema.names, made, strict=False))
            columns += made
        for place, (index, is_finite) in enumerate(zip(self.windows, finite["finite"], strict=True)):
            if is_finite:
                self.block.labels[index] = tuple(column[place] for column in columns)
            else:
                self.block.statuses[index].fail_ok("model_output", "the model's output is not finite")

    def run(self, error: BaseException | None = None) -> None:
        """Label the batch in the calling thread; `error` is the error of an earlier stage.

        A batch that fails, or exceeds the budget, is halved, so that only rows at fault fail.
        """
        self._release()
        if error is not None:
            _refuse(error)
            error.with_traceback(None)  # which holds the tensors of the pass
        if self.exceeds_budget():
            self._halve()
            return
        try:
            self.fill()
            self.launch()
            self.finish()
            return
        except BaseException as raised:  # a model, an output or a user's output may raise any error
            _refuse(raised)
            if len(self.windows) == 1:
                tracebacks.note(raised)
            is_checked = isinstance(raised, FunctionError)
            why = str(raised) if is_checked else f"the model failed: {tracebacks.described(raised)}"
            failed = raised.with_traceback(None)  # which holds the tensors
        self._release()
        self._give_up(failed, why)

    def exceeds_budget(self) -> bool:
        """Return whether a batch of several windows exceeds the budget, which lack of memory may have reduced."""
        return len(self.windows) > 1 and self.padded_samples > self.op.max_samples

    def _halve(self) -> None:
        middle = len(self.windows) // 2
        for half in (self.windows[:middle], self.windows[middle:]):
            Batch(self.op, self.block, half).run()

    def _give_up(self, error: BaseException, why: str) -> None:
        """Halve a batch that failed; the row of a single window becomes an error row, with the reason `why`."""
        if len(self.windows) > 1:
            logger.warning("a batch of %d windows failed and is halved: %s", len(self.windows), tracebacks.named(error))
            if is_out_of_memory(error):
                self.op.max_samples = min(self.op.max_samples, self.padded_samples // 2)
            self._halve()
            return
        kind = "out_of_memory" if is_out_of_memory(error) else "step_failed"
        self.block.statuses[self.windows[0]].fail_ok(kind, why)


def _refuse(error: BaseException) -> None:
    """Raise if a batch cannot run again after an error."""
    tracebacks.raise_if_stopped(error)
    refuse_lost(error)


def _refuse_clash(added: pa.Schema, outputs: Sequence[OutputOp]) -> None:
    """Raise RunError if an added column has the name of a staged column."""
    for name in (name for output in outputs for name in output.staged.names):
        if name in added.names:
            raise RunError(f"a step adds the column {name!r}, a name that an output uses between steps; rename it")
