"""Cost of a language for each row: adapters that are exchanged between batches, against one language for all rows.

    python -m benchmarks languages
    python -m benchmarks languages --languages 20 --rows 500 --layers 4 --hidden-size 128

The same rows in random order go through the model in one language, and each in its own. Runs of both are interleaved,
and compared in CPU time, of the model and its columns alone: decoding is the same. Weights are random.
"""

import argparse
import io
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import torch

import raysp
from benchmarks.tables import show, write_json
from raysp.labelling import assembly
from raysp.models import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC
from raysp.ops.labelling import Labelling

RATE = 16_000
SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "|")
LETTERS = 40


def names_of(languages: int) -> list[str]:
    """Return names of languages."""
    return [f"l{number:02d}" for number in range(languages)]


def make(folder: Path, languages: Sequence[str], *, layers: int, hidden_size: int) -> Path:
    """Write a checkpoint with random weights and the layout of MMS."""
    vocabulary = {token: number for number, token in enumerate([*SPECIAL, *map(chr, range(0x400, 0x400 + LETTERS))])}
    config = Wav2Vec2Config(
        vocab_size=len(vocabulary),
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden_size // 64),
        intermediate_size=4 * hidden_size,
        conv_dim=(hidden_size,) * 7,
        feat_extract_norm="layer",
        conv_bias=True,
        do_stable_layer_norm=True,
        adapter_attn_dim=16,
    )
    torch.manual_seed(0)
    model = Wav2Vec2ForCTC(config)
    for language in reversed(languages):
        model.init_adapter_layers()
        model.save_adapter(folder, language)
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(dict.fromkeys(languages, vocabulary)))
    tokenizer = {"tokenizer_class": "Wav2Vec2CTCTokenizer", "target_lang": languages[0]}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    return folder


def write_rows(path: Path, languages: Sequence[str], rows: int, seconds: tuple[float, float]) -> None:
    """Write a shard of noise, so many rows of each language in random order."""
    rng = np.random.default_rng(0)
    given = rng.permutation(np.repeat(languages, rows)).tolist()
    audio = []
    for low_high in [seconds] * len(given):
        file = io.BytesIO()
        soundfile.write(file, 0.1 * rng.standard_normal(int(RATE * rng.uniform(*low_high))), RATE, format="WAV")
        audio.append({"bytes": file.getvalue(), "path": None})
    pq.write_table(pa.table({"id": list(map(str, range(len(given)))), "audio": audio, "lang": given}), path)


class Job:
    """A model, and decoded blocks of all rows."""

    def __init__(self, checkpoint: Path, rows: Path, language: "str | raysp.Column", threads: int) -> None:
        label = raysp.Label(str(checkpoint), outputs=[raysp.Transcript(language=language)], device="cpu")
        source = raysp.Shards(str(rows))
        plan = raysp.plan(
            raysp.Pipeline(source, steps=[raysp.Decode(), label], sink=raysp.Parquet(f"{rows.parent}/out"))
        )
        decoding = assembly.decoding(plan.pipeline, plan.settings, plan.corpus.shards[0])
        self.blocks = list(decoding(pq.read_table(rows), 0))
        self.op: Labelling = assembly.labelling(plan.pipeline, plan.settings, threads=threads)

    def run(self) -> float:
        """Label all blocks, and return the CPU seconds."""
        began = time.process_time()
        for block in self.blocks:
            self.op(block)
        return time.process_time() - began


def measure(
    *,
    languages: int = 20,
    rows: int = 500,
    layers: int = 4,
    hidden_size: int = 128,
    repeats: int = 5,
    threads: int = 1,
    seconds: tuple[float, float] = (0.5, 2.0),
) -> Mapping[str, object]:
    """Return the CPU seconds of both jobs, and their ratio: the median of interleaved runs."""
    names = names_of(languages)
    with tempfile.TemporaryDirectory() as name:
        folder, shard = Path(name), Path(name, "rows.parquet")
        checkpoint = make(folder / "checkpoint", names, layers=layers, hidden_size=hidden_size)
        write_rows(shard, names, rows, seconds)
        jobs = [Job(checkpoint, shard, one, threads) for one in (names[0], raysp.Column("lang"))]
        for job in jobs:
            job.run()  # the first passes allocate memory, and read the adapters
        times = [[job.run() for job in jobs] for _ in range(repeats)]
    one, each = (median(run[place] for run in times) for place in (0, 1))
    ratios = sorted(run[1] / run[0] for run in times)
    return {
        "languages": languages,
        "rows of each": rows,
        "blocks": len(jobs[1].blocks),
        "one language, CPU s": round(one, 2),
        "by row, CPU s": round(each, 2),
        "ratio": round(median(ratios), 4),
        "ratios": f"{ratios[0]:.3f} to {ratios[-1]:.3f}",
    }


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks languages", description=__doc__)
    parser.add_argument("--languages", type=int, default=20, help="number of languages")
    parser.add_argument("--rows", type=int, default=500, help="rows of each language")
    parser.add_argument("--layers", type=int, default=4, help="layers of the model")
    parser.add_argument("--hidden-size", type=int, default=128, help="width of the model")
    parser.add_argument("--repeats", type=int, default=5, help="runs of each job")
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    parser.add_argument("--json", type=Path, help="file for the figures")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    sizes = {"layers": args.layers, "hidden_size": args.hidden_size}
    found = measure(languages=args.languages, rows=args.rows, repeats=args.repeats, threads=args.threads, **sizes)
    show("A language for each row", [found])
    if args.json is not None:
        write_json(args.json, found)


if __name__ == "__main__":
    main()
