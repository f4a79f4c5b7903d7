"""Cost of further outputs besides the text: the label step of an actor with one output and with several.

    python -m benchmarks outputs --repeats 5

Text alone, then text with regions of speech (`raysp[speech]`), with a mean embedding, classes, both, and both with an
inner layer's embedding; one pass of the encoder serves all of them. Then text with signals, and with words, embedding,
classes and signals. Measured in turn on one thread, by shortest CPU time; blocks are those of a run over joined digits.

Question of docs/evidence/performance.md, "Models": what do outputs besides the text cost?
"""

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from benchmarks.inputs import checkpoints, corpus
from benchmarks.tables import show, write_json
from raysp import Classes, Embedding, Signals, Speech, Transcript
from raysp.audio import decode
from raysp.models import UniSpeechForCTC, UniSpeechForSequenceClassification, save_heads
from raysp.models.encoder.encoder_heads import with_encoder_of
from raysp.models.loading import check_checkpoint
from raysp.ops.labelling import Labelling
from raysp.ops.rows import RowStatus, statuses_table, with_waves
from raysp.specs.steps import Output

WAYS: Mapping[str, Sequence[Output]] = {
    "text": [Transcript()],
    "text, speech": [Transcript(), Speech()],
    "text, embedding": [Transcript(), Embedding()],
    "text, classes": [Transcript(), Classes()],
    "text, embedding, classes": [Transcript(), Embedding(), Classes()],
    "text, embedding of layer 1, classes": [Transcript(), Embedding(layer=1), Classes()],
    "text, signals": [Transcript(), Signals()],
    "text, words, embedding, classes, signals": [Transcript(words=True), Embedding(), Classes(), Signals()],
}
SPEECH_CEILING = 1.10
"""Of the CPU time of text and regions of speech over that of text alone."""
CEILING = 1.15
"""Of the CPU time of text and all others over that of text alone."""
BLOCK_SECONDS = 120


def with_classes(folder: Path) -> Path:
    """Add a second head with random weights to a CTC checkpoint."""
    torch.manual_seed(0)
    model = UniSpeechForCTC.from_pretrained(folder)
    config = type(model.config).from_dict({**model.config.to_dict(), "id2label": {0: "a", 1: "b", 2: "c"}})
    head = UniSpeechForSequenceClassification(config).init_weights()
    save_heads([model, with_encoder_of(model, head)], folder)
    return folder


def blocks(minutes: float, folder: Path) -> list[pa.Table]:
    """Return blocks of windows, longest first, as decoding makes them."""
    shards = corpus.build(folder, "test-like", minutes=minutes, seed=0, shards=1)
    audio = [row["bytes"] for shard in shards for row in pq.read_table(shard).column("audio").to_pylist()]
    waves = sorted((decode(one, sample_rate=16_000) for one in audio), key=len, reverse=True)
    cuts = np.cumsum([len(wave) for wave in waves]) // (BLOCK_SECONDS * 16_000)
    found = []
    for number in np.unique(cuts):
        chosen = [wave for wave, cut in zip(waves, cuts, strict=True) if cut == number]
        statuses = [RowStatus(row) for row in range(len(chosen))]
        for status, wave in zip(statuses, chosen, strict=True):
            status.seconds = len(wave) / 16_000
        found.append(with_waves(statuses_table(statuses), chosen))
    return found


def measure(checkpoint: Path, tables: Sequence[pa.Table], *, repeats: int, batch_seconds: float) -> dict[str, float]:
    """Return the shortest CPU time of each set of outputs over all blocks, in seconds."""
    summary = check_checkpoint(checkpoint)
    steps = {
        way: Labelling(
            str(checkpoint),
            lambda loaded, outputs=outputs: [output.op(loaded.summary, loaded) for output in outputs],  # type: ignore[misc]
            batch_seconds=batch_seconds,
            completing=[op for one in outputs if (op := one.row_op(outputs, summary)) is not None],
        )
        for way, outputs in WAYS.items()
    }
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for repeat in range(repeats + 1):
        for way, step in steps.items():
            started = time.process_time()
            for table in tables:
                step(table)
            if repeat > 0:
                taken[way].append(time.process_time() - started)
    return {way: min(seconds) for way, seconds in taken.items()}


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks outputs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=4, help="minutes of audio")
    parser.add_argument("--layers", type=int, default=12, help="number of layers")
    parser.add_argument("--hidden-size", type=int, default=768, help="width of the model")
    parser.add_argument("--batch-seconds", type=float, default=15, help="padded seconds per batch")
    parser.add_argument("--repeats", type=int, default=3, help="number of repeats")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = checkpoints.make(Path(name) / "model", layers=args.layers, hidden_size=args.hidden_size)
        tables = blocks(args.minutes, Path(name))
        found = measure(with_classes(folder), tables, repeats=args.repeats, batch_seconds=args.batch_seconds)
    rows = [
        {"outputs": way, "CPU s": f"{seconds:.2f}", "of text alone": f"{seconds / found['text']:.3f}"}
        for way, seconds in found.items()
    ]
    wanted = f"at most {CEILING} wanted, with speech {SPEECH_CEILING}"
    show(f"{args.layers} x {args.hidden_size}, {args.minutes:g} minutes, {wanted}", rows)
    if args.json:
        write_json(args.json, found)
