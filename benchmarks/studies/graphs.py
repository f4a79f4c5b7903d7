"""Launches of a batch kernel by kernel and with its pass as a graph, on the stand-in device.

    python -m benchmarks graphs
    python -m benchmarks graphs --packs

Models have the layers of published ones and less width. A batch of two rows goes through the op of labelling with a
greedy transcript: its pass, and what becomes columns. Counts are of the third batch of one shape, without and with its
pass as a graph; labels of both are compared. Attention is one kernel, as on a GPU. For a text decoder, launches are
those of a token, search included. A launch takes the host about 5 us (docs/decisions/046).

With `--packs`, launches of a pack of one row and of three rows against those of a batch, and with its pass as a graph.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
import torch.nn.functional as F

from benchmarks.gpu import models, speech
from benchmarks.tables import show
from raysp import models as classes
from raysp.device_graphs import RECURRENCES
from raysp.models.decoder.graphed_steps import GraphedSteps
from raysp.ops.labelling import Labelling
from raysp.ops.passes.graphed_passes import GraphedPasses
from raysp.specs.outputs.transcript import Transcript
from tests.device import stand_in
from tests.device.stand_in import NAME, Counts, counted

SECONDS = 1.5
LAUNCH_MICROSECONDS = 5


def model_of(name: str) -> models.LoadedCheckpoint:
    """Return a narrow model with the layers of a published one."""
    (cls, config, extractor), (_, published, _) = (models.PUBLISHED[name](is_small) for is_small in (True, False))
    of, like = (getattr(one, "encoder_config", one) for one in (config, published))
    of.num_hidden_layers = like.num_hidden_layers
    return models.loaded(cls, config, extractor, models._tokenizer(config), NAME, "bfloat16")


def last_batch(op: Labelling) -> tuple[Counts, list[dict[str, Any]]]:
    """Return the counts and labels of the last of some batches of one shape."""
    for seed in range(RECURRENCES + 1):
        block = speech.block_of(speech.rows([SECONDS, SECONDS], seed))
        with counted() as counts:
            labels = op(block)[0].to_pylist()
    return counts, labels


@contextmanager
def attention_of_one_kernel() -> Iterator[None]:
    """Count an attention as one launch: the stand-in computes it by several operations."""
    attend = F.scaled_dot_product_attention

    def counted_once(*given: Any, **options: Any) -> torch.Tensor:
        with stand_in._uncounted():
            found = attend(*given, **options)
        stand_in._note("launches_at", "attention")
        return found

    with mock.patch.object(F, "scaled_dot_product_attention", counted_once):
        yield


def measure(name: str) -> dict[str, object]:
    """Return the launches of a batch of a model both ways."""
    loaded = model_of(name)
    plain, graphed = (models.labelling(loaded, [Transcript()], 2 * SECONDS, NAME) for _ in range(2))
    graphed.graphs = GraphedPasses(loaded.run, loaded.device)
    (before, expected), (after, labels) = last_batch(plain), last_batch(graphed)
    assert graphed.graphs.graphs, graphed.graphs.why_not
    of_graph = sum(number for place, number in after.launches_at.items() if "graphed_passes" in place)
    return {
        "model": name,
        "layers": len(getattr(loaded.model.speech_encoder, "layers", ())) or None,
        "launches before": before.launches,
        "after": after.launches,
        "of pass, copies": of_graph,
        "host ms before": round(before.launches * LAUNCH_MICROSECONDS / 1000, 2),
        "host ms after": round(after.launches * LAUNCH_MICROSECONDS / 1000, 2),
        "waits": sum(after.waits.values()),
        "same labels": labels == expected,
    }


def measure_packs(name: str) -> dict[str, object]:
    """Return the launches of a batch and of packs of a model, of rows in any number, and with the pass as a graph."""
    loaded = model_of(name)

    def launches(rows: int, **options: bool) -> int:
        op = models.labelling(loaded, [Transcript()], 6 * SECONDS, NAME, **options)
        for seed in range(RECURRENCES + 1):  # constants are made by the first one
            block = speech.block_of(speech.rows([SECONDS] * rows, seed))
            with counted() as counts:
                op(block)
        assert op.grouping.in_packs == options["certified"]
        assert op.graphs is None or op.graphs.graphs, op.graphs.why_not
        return counts.launches

    batch, one, three = launches(3, certified=False), *(launches(rows, certified=True) for rows in (1, 3))
    graphed = launches(3, certified=True, graphs=True)
    ratio, milliseconds = round(three / batch, 2), round(three * LAUNCH_MICROSECONDS / 1000, 2)
    found = {"model": name, "batch": batch, "pack of 1 row": one, "of 3 rows": three, "of a batch": ratio}
    return {**found, "host ms": milliseconds, "as a graph": graphed}


def _bart() -> Any:
    sizes = {"d_model": 64, "decoder_layers": 12, "decoder_attention_heads": 4, "decoder_ffn_dim": 96}
    return classes.BartForCausalLM(classes.BartConfig(vocab_size=500, **sizes))


def _bert() -> Any:
    sizes = {"hidden_size": 64, "num_hidden_layers": 12, "num_attention_heads": 4, "intermediate_size": 96}
    config = classes.BertConfig(vocab_size=500, is_decoder=True, add_cross_attention=True, **sizes)
    return classes.BertLMHeadModel(config)


DECODERS: dict[str, Callable[[], Any]] = {"BART, 12 layers": _bart, "BERT, 12 layers": _bert}


@torch.inference_mode()
def launches_of_texts(decoder: Any, seed: int, tokens: int) -> Counts:
    """Return the counts of a batch of texts of so many tokens."""
    frames = torch.randn(4, 9, 64, generator=torch.Generator().manual_seed(seed)).to(torch.bfloat16).to(NAME)
    start = torch.full((4, 1), 2).to(NAME)
    lengths = {"max_new_tokens": tokens, "min_new_tokens": tokens, "eos_token_id": 2, "pad_token_id": 1}
    with counted() as counts:
        decoder.generate(start, encoder_hidden_states=frames, **lengths)
    return counts


def measure_steps(kind: str) -> dict[str, object]:
    """Return the launches of a token of a text decoder both ways."""
    torch.manual_seed(0)
    decoder = DECODERS[kind]().init_weights().to(torch.bfloat16).to(NAME).eval()

    def a_token() -> float:
        """Return what a longer text has more, in the third batch of each length."""
        long, short = ([launches_of_texts(decoder, seed, tokens) for seed in range(3)][-1] for tokens in (9, 5))
        return (long.launches - short.launches) / 4

    before = a_token()
    decoder.graphed_steps = GraphedSteps(torch.device(NAME))
    after = a_token()
    assert decoder.graphed_steps.memories, decoder.graphed_steps.why_not
    milliseconds = {f"host ms {when}": round(n * LAUNCH_MICROSECONDS / 1000, 2) for when, n in _both(before, after)}
    return {"decoder": kind, "launches before": before, "after": after, **milliseconds}


def _both(before: float, after: float) -> list[tuple[str, float]]:
    return [("before", before), ("after", after)]


def main(argv: list[str] | None = None) -> None:
    """Count from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks graphs", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", choices=models.MODELS, help="one model")
    parser.add_argument("--packs", action="store_true", help="packs in place of graphs")
    args = parser.parse_args(argv)
    stand_in.install()
    torch.set_num_threads(1)  # small operations
    with attention_of_one_kernel():
        if args.packs:
            names = [args.only] if args.only else models.MODELS
            show("Launches of a pack", [measure_packs(name) for name in names])
            return
        show("Launches of a batch", [measure(name) for name in ([args.only] if args.only else models.MODELS)])
        if not args.only:
            show("Launches of a token", [measure_steps(kind) for kind in DECODERS])
