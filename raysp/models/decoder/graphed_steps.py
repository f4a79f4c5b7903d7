"""Steps of a text decoder as graphs of a device: a token of each text by one launch.

A graph has the shapes of its step: texts, frames of the encoder, and tokens so far, so there is one for each length. It
reads a cache in memory of its own, with which the decoder goes on once a prompt is read, if an earlier batch had the
same shapes. So each step reads as many tokens as without a graph, by the same kernels, and has the same bits: each
graph is compared where it is recorded. Texts that leave a batch, and beams, take new memory: they go on without graphs.
"""

import logging
from collections.abc import Hashable
from threading import Lock
from typing import Protocol, TypeAlias

import torch
from torch import Tensor

from raysp.crossing import fetch
from raysp.device_graphs import RECURRENCES, DeviceGraph, GraphMemory, counted
from raysp.devices import Held, holding, release_memory
from raysp.models.decoder.cache import KeyValueCache

logger = logging.getLogger(__name__)

MOST_BATCHES = 2
"""Shapes of batches with memory of their own."""
MOST_STEPS = 256
"""Graphs of a shape of batch, one for each number of tokens."""

Shapes: TypeAlias = tuple[object, ...]


class StepsOfBatch(Protocol):
    """Decoder and cache during the generation of a batch, as graphs need them."""

    cache: KeyValueCache
    frames: Tensor | None

    def feed(self, tokens_RL: Tensor) -> Tensor:
        """Feed new tokens kernel by kernel; return the float32 logits_RV of the next one."""
        ...


class StepMemory:
    """Memory of the batches of one shape, and the graphs over it by the number of tokens before a step."""

    def __init__(self, batch: StepsOfBatch, tokens_R1: Tensor) -> None:
        self.tokens_R1 = tokens_R1.clone()
        self.frames = None if batch.frames is None else batch.frames.clone()
        self.layers = [[one.clone() for one in tensors] for tensors in tensors_of(batch.cache)]
        self.graphs: dict[int, DeviceGraph[Tensor]] = {}
        self.owner: StepsOfBatch | None = None
        """The batch whose cache it is; it sets None when it goes on with other memory, or ends."""

    def take(self, batch: StepsOfBatch) -> None:
        """Copy the cache of a batch, which goes on with this memory."""
        count = batch.cache.num_tokens
        for layer, own, given in zip(batch.cache.layers, self.layers, tensors_of(batch.cache), strict=True):
            both, cross_keys, cross_values = own
            both[..., :count, :].copy_(given[0][..., :count, :])
            cross_keys.copy_(given[1])
            cross_values.copy_(given[2])
            layer.both, (layer.keys, layer.values) = both, both
            layer.cross_keys, layer.cross_values = cross_keys, cross_values
        if self.frames is not None and batch.frames is not None:
            batch.frames = self.frames.copy_(batch.frames)
        self.owner = batch


def tensors_of(cache: KeyValueCache) -> list[list[Tensor]]:
    """Return keys with values, and those of frames, of each layer; none if a layer keeps them otherwise."""
    found = [(layer.both, layer.cross_keys, layer.cross_values) for layer in cache.layers]
    return [[one for one in tensors if one is not None] for tensors in found] if _is_whole(cache) else []


def _is_whole(cache: KeyValueCache) -> bool:
    return all(x is not None for one in cache.layers for x in (one.both, one.cross_keys, one.cross_values))


class GraphedSteps:
    """Runs steps of a decoder, those of recurring shapes as graphs.

    Args:
        device: the device, with the decoder, whose weights stay.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool = GraphMemory(device)
        self._seen: dict[Hashable, int] = {}
        self.memories: dict[Shapes, StepMemory] = {}
        self.why_not = ""
        """Reason why steps are no longer recorded; empty: they are."""
        self.is_on = True
        """Whether batches that begin are counted and may have graphs."""
        self._lock = Lock()

    def begin(self, batch: StepsOfBatch, tokens_R1: Tensor) -> StepMemory | None:
        """Return the memory with which a batch goes on after its prompt; None: its own."""
        if self.why_not or not self.is_on or not tensors_of(batch.cache):
            return None
        frames = None if batch.frames is None else batch.frames.shape
        shapes = (tokens_R1.shape, frames, *(one.shape for one in tensors_of(batch.cache)[0]))
        with self._lock:
            times, memory = counted(self._seen, shapes), self.memories.get(shapes)
            if memory is None and times >= RECURRENCES and len(self.memories) < MOST_BATCHES:
                memory = self.memories[shapes] = StepMemory(batch, tokens_R1)
            if memory is None or memory.owner is not None:
                return None
            memory.take(batch)
            return memory

    def step(self, batch: StepsOfBatch, memory: StepMemory, tokens_R1: Tensor) -> Tensor:
        """Feed a token of each text; return the float32 logits_RV of the next one."""
        count = batch.cache.num_tokens
        if (graph := memory.graphs.get(count)) is not None:
            return _run(graph, batch, memory, tokens_R1)
        if self.why_not or len(memory.graphs) == MOST_STEPS:
            return batch.feed(tokens_R1)
        return self._recorded(batch, memory, tokens_R1)

    def stop(self, why: str) -> None:
        """Record and run no more graphs in later batches, and free their memory."""
        if not self.why_not:
            logger.warning("steps of the text decoder run without graphs: %s", why)
        self.why_not = self.why_not or why
        self.memories.clear()
        release_memory(self._device)

    def _recorded(self, batch: StepsOfBatch, memory: StepMemory, tokens_R1: Tensor) -> Tensor:
        """Return the logits of a step that runs as ever, and record it."""
        count = batch.cache.num_tokens
        held: Held = {}
        with holding(held):
            logits_RV = batch.feed(tokens_R1)
        try:
            set_tokens(batch.cache, count)
            graph = DeviceGraph(lambda: batch.feed(memory.tokens_R1), held, self._pool)
            set_tokens(batch.cache, count)
            [is_equal] = fetch((_run(graph, batch, memory, tokens_R1) == logits_RV).all())
        except Exception as error:  # a device refuses to record by any error, after which it still works
            self.stop(f"recording a step of {len(tokens_R1)} texts failed: {type(error).__name__}: {error}")
            set_tokens(batch.cache, count + 1)
            return logits_RV
        if is_equal:
            memory.graphs[count] = graph
            return logits_RV
        self.stop(f"a graph of a step of {len(tokens_R1)} texts gave other values than its kernels one by one")
        set_tokens(batch.cache, count)
        return batch.feed(tokens_R1)  # writes keys and values once more


def set_tokens(cache: KeyValueCache, count: int) -> None:
    """Set the number of tokens of all layers."""
    for layer in cache.layers:
        layer.num_tokens = count


def _run(graph: DeviceGraph[Tensor], batch: StepsOfBatch, memory: StepMemory, tokens_R1: Tensor) -> Tensor:
    count = batch.cache.num_tokens
    memory.tokens_R1.copy_(tokens_R1)
    graph.run()
    set_tokens(batch.cache, count + 1)
    return graph.result.clone()
