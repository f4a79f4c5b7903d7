"""Passes of a model as graphs of a device: kernels that are recorded once, and run again by one launch.

A graph has the shapes of its inputs, so a pass is recorded when it has the shapes of an earlier one, as those over
windows of long recordings and over packs do. It reads and writes memory of its own: inputs are copied there, and
results from there, since outputs may read them after the next pass. Each graph is run once on the inputs of the pass
before it, and used if its results have the same bits. Whatever fails before that costs no row: the pass has run without
a graph.
"""

import logging
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from threading import Lock
from typing import Any, Generic, TypeAlias, TypeVar

import torch
from torch import Tensor

from raysp.crossing import fetch
from raysp.device_graphs import RECURRENCES, DeviceGraph, GraphMemory, counted
from raysp.devices import Held, allocated, holding, release_memory
from raysp.models.base.outputs import ModelOutput
from raysp.models.base.packs import EncodedPack, PackOutput, PackPass
from raysp.models.decoder.graphed_steps import GraphedSteps
from raysp.models.decoder.text_decoder import TextDecoder
from raysp.models.labelled_passes import ModelPass
from raysp.models.loading import LoadedCheckpoint

logger = logging.getLogger(__name__)

MOST_GRAPHS = 8
"""Graphs of a process: each holds its inputs and results; all share the memory between these."""

Found = TypeVar("Found")
"""Results: `ModelPass` of a batch, `PackPass` of a pack."""
Shapes: TypeAlias = tuple[torch.Size, torch.Size, torch.dtype, bool]


class RecordedPass(Generic[Found]):
    """A pass as a graph.

    Args:
        run: the pass of a model, as `LabellingModel.run` or `LoadedCheckpoint.run_whole`.
        inputs: tensors that it reads; the graph copies them.
        hidden_states: as for `run`.
        held: tensors that models keep on the device, which an earlier pass over such inputs took.
        memory: memory that it shares with other graphs.
    """

    def __init__(
        self,
        run: Callable[..., Found],
        inputs: tuple[Tensor, Tensor],
        *,
        hidden_states: bool,
        held: Held,
        memory: GraphMemory,
    ) -> None:
        self._inputs = [one.clone() for one in inputs]
        self._graph = DeviceGraph(lambda: run(*self._inputs, hidden_states=hidden_states), held, memory)

    def __call__(self, *inputs: Tensor) -> Found:
        """Run the graph over inputs of its shapes within the stream of the calling thread; return results to keep."""
        for own, one in zip(self._inputs, inputs, strict=True):
            own.copy_(one)
        self._graph.run()
        found: Found = _copied(self._graph.result)
        return found


class GraphedPasses(Generic[Found]):
    """Runs passes of a model, those of recurring shapes as graphs.

    Args:
        run: the pass of a model, as `LabellingModel.run` or `LoadedCheckpoint.run_whole`.
        device: the device, with the model, whose weights stay.
        steps: graphs of the text decoder, which stop with those of passes.
    """

    def __init__(self, run: Callable[..., Found], device: torch.device, steps: GraphedSteps | None = None) -> None:
        self._run, self._device, self.steps = run, device, steps
        self._memory = GraphMemory(device)
        self._seen: dict[Hashable, int] = {}
        self.graphs: dict[Shapes, RecordedPass[Found]] = {}
        self.why_not = ""
        """Reason why passes are no longer recorded; empty: they are."""
        self._lock = Lock()

    def __call__(
        self, waves: Tensor, num_samples: Tensor, *, hidden_states: bool, lengths: Sequence[int] | None = None
    ) -> Found:
        """Run the model over a batch, as `LabellingModel.run`; or over a pack, as `LoadedCheckpoint.run_whole`.

        Calls of several threads go to one stream, by which each has the memory of a graph for itself. The lengths of
        the rows of a pack are for passes without a graph.
        """
        shapes = (waves.shape, num_samples.shape, waves.dtype, hidden_states)
        on_host = {} if lengths is None else {"lengths": lengths}
        with self._lock:
            if (graph := self.graphs.get(shapes)) is not None:
                return graph(waves, num_samples)
            if not self._is_due(shapes):
                return self._run(waves, num_samples, hidden_states=hidden_states, **on_host)
            return self._recorded(shapes, waves, num_samples, on_host)

    @contextmanager
    def off(self) -> Iterator[None]:
        """Run the steps of texts that begin within the block without graphs, as those of passes that are measured."""
        if self.steps is not None:
            self.steps.is_on = False
        try:
            yield
        finally:
            if self.steps is not None:
                self.steps.is_on = True

    def stop(self, why: str) -> None:
        """Record and run no more graphs, and free their memory."""
        with self._lock:
            self._stop(why)
        if self.steps is not None:
            self.steps.stop(why)

    def _stop(self, why: str) -> None:
        if not self.why_not:
            logger.warning("passes run without graphs: %s", why)
        self.why_not = self.why_not or why
        self.graphs.clear()
        release_memory(self._device)

    def _is_due(self, shapes: Shapes) -> bool:
        """Count a pass; return whether it is to be recorded."""
        if self.why_not or len(self.graphs) == MOST_GRAPHS:
            return False
        return counted(self._seen, shapes) == RECURRENCES

    def _recorded(
        self, shapes: Shapes, waves: Tensor, num_samples: Tensor, on_host: Mapping[str, Sequence[int]]
    ) -> Found:
        """Return a pass that runs as ever, and record it."""
        held: Held = {}
        with holding(held):
            found = self._run(waves, num_samples, hidden_states=shapes[-1], **on_host)
        try:
            before = allocated(self._device)
            graph = RecordedPass(
                self._run, (waves, num_samples), hidden_states=shapes[-1], held=held, memory=self._memory
            )
            is_equal = have_equal_bits(found, graph(waves, num_samples))
        except Exception as error:  # a device refuses to record by any error, after which it still works
            self._stop(f"recording a pass of {_words(shapes)} failed: {type(error).__name__}: {error}")
            return found
        if is_equal:
            logger.info(
                "passes of %s are a graph, which takes %d bytes", _words(shapes), allocated(self._device) - before
            )
            self.graphs[shapes] = graph
        else:
            self._stop(f"a graph of a pass of {_words(shapes)} gave other values than its kernels one by one")
        return found


def graphs_of(loaded: LoadedCheckpoint) -> GraphedPasses[ModelPass]:
    """Return passes of a checkpoint as graphs; its text decoder, if it has one, takes its steps as graphs too."""
    decoder = getattr(loaded.model, "decoder", None)
    steps = GraphedSteps(loaded.device) if isinstance(decoder, TextDecoder) else None
    if isinstance(decoder, TextDecoder):
        decoder.graphed_steps = steps
    return GraphedPasses(loaded.run, loaded.device, steps)


def graphs_of_packs(loaded: LoadedCheckpoint) -> GraphedPasses[PackPass]:
    """Return passes of packs of a checkpoint as graphs."""
    return GraphedPasses(loaded.run_whole, loaded.device)


def _words(shapes: Shapes) -> str:
    *rows, samples = shapes[0]
    return f"{rows[0]} rows of {samples} samples" if rows else f"a pack of {samples} samples"


def _copied(found: Any) -> Any:  # noqa: ANN401 - of a batch or a pack
    """Return a pass with tensors of its own; what is one object stays one."""
    known: dict[int, Any] = {}

    def copied(value: Any) -> Any:  # noqa: ANN401 - any part of the results
        if id(value) not in known:
            known[id(value)] = _changed(value, copied)
        return known[id(value)]

    return copied(found)


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:  # noqa: ANN401 - any part of the results
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, ModelOutput | ModelPass | PackPass | EncodedPack | PackOutput):
        return replace(value, **{one.name: change(getattr(value, one.name)) for one in fields(value)})  # type: ignore[type-var, arg-type]
    if isinstance(value, Mapping):
        return {key: change(one) for key, one in value.items()}
    return type(value)(map(change, value)) if isinstance(value, tuple | list) else value


def _tensors(value: Any) -> Iterator[Tensor]:  # noqa: ANN401 - any part of the results
    """Yield the tensors of results, in their order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, ModelPass | PackPass | EncodedPack | PackOutput):
        for one in fields(value):
            yield from _tensors(getattr(value, one.name))
    elif isinstance(value, ModelOutput | tuple | list):
        for one in value:
            yield from _tensors(one)
    elif isinstance(value, Mapping):
        for one in value.values():
            yield from _tensors(one)


def have_equal_bits(found: Found, other: Found) -> bool:
    """Return whether all values of two passes are the same to the last bit, padding included; the host waits."""
    differ = [(_bits(one) != _bits(two)).any() for one, two in zip(_tensors(found), _tensors(other), strict=True)]
    [flags] = fetch(torch.stack(differ))
    return not flags.any()


def _bits(values: Tensor) -> Tensor:
    # As bytes: NaN differs from itself, and 0.0 equals -0.0.
    return values.contiguous().reshape(-1).view(torch.uint8)
