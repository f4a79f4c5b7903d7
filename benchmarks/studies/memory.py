"""Estimates of `raysp plan` for trainings compared with what the trainings then take: memory, commits and time.

    python -m benchmarks memory
    python -m benchmarks memory --only SEW-D --calibrate

Each case trains a model of random weights (512 channels, 384 wide, 6 layers) on noise of 2 to 10 seconds, or up to
`--longest`, for some steps, in a process of its own, whose peak resident set is that of a worker.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.tables import show, write_json
from benchmarks.training import LAYER_NORM, MIDDLE

RATE = 16_000
ROWS = 96
LETTERS = "abcdefghijklmnopqrstuvwxyz"
DECODER_TOKENS = 8000
TRAIN = """
import json, sys
from pathlib import Path
import raysp
from raysp.training.specs.recipe import load_recipe
recipe = load_recipe(sys.argv[1])
raysp.finetune(recipe)
lines = Path("/proc/self/status").read_text().splitlines()
peak = int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) * 1024
steps = sorted(Path(recipe.sink.url).glob(".raysp/steps/*.*/*"))
last = steps[-1].parent.name
num_bytes = sum(file.stat().st_size for file in steps if file.parent.name == last)
print(json.dumps([peak, num_bytes, raysp.estimate(recipe).speed.rtfx]))
"""
ESTIMATE = """
import dataclasses, json, sys
import raysp
from raysp.training.specs.recipe import load_recipe
found = raysp.estimate(load_recipe(sys.argv[1]), calibrate=sys.argv[2] == "True")
print(json.dumps(dataclasses.asdict(found)))
"""
RECIPE = """
import raysp
recipe = raysp.Finetune(
    raysp.Shards({folder!r} + "/in/*.parquet", text="text"),
    steps=[raysp.Decode()],
    objective={objective},
    schedule=raysp.Schedule(steps={steps}, checkpointing={checkpointing}),
    batching=raysp.Batching(seconds={seconds}, micro_batches=2),
    pool=raysp.Pool(1, cpus=1),
    sink=raysp.Checkpoint({folder!r} + "/out", every=2),
    ema={ema},
    device="cpu",
    dtype={dtype!r},
)
"""


@dataclass(frozen=True)
class Case:
    """A training."""

    name: str
    model: str
    flags: Mapping[str, object] = field(default_factory=dict)
    objective: str = ""
    """Further fields of the objective."""
    checkpointing: bool = False
    ema: float | None = None
    dtype: str = "float32"
    decoder: bool = False
    """Whether a text decoder of four layers writes the texts."""


SEW_D = {"squeeze_factor": 2, "conv_dim": (64, *(128,) * 4, *(256,) * 4, *(512,) * 4)}
FROZEN = "freeze='feature_encoder'"
CASES = (
    Case("UniSpeech, group norm", "UniSpeech"),
    Case("UniSpeech, group norm, frozen convolutions", "UniSpeech", objective=FROZEN),
    Case("UniSpeech, group norm, checkpointed", "UniSpeech", checkpointing=True),
    Case("UniSpeech, group norm, moving average", "UniSpeech", ema=0.999),
    Case("UniSpeech, group norm, LoRA", "UniSpeech", objective="lora=raysp.LoRA(8)"),
    Case("UniSpeech, group norm, bfloat16", "UniSpeech", dtype="bfloat16"),
    Case("UniSpeech, group norm, only the head", "UniSpeech", objective="freeze='base'"),
    Case("Wav2Vec2, layer norm", "Wav2Vec2", LAYER_NORM),
    Case("Wav2Vec2, layer norm, frozen convolutions", "Wav2Vec2", LAYER_NORM, FROZEN),
    Case("Wav2Vec2, layer norm, checkpointed", "Wav2Vec2", LAYER_NORM, checkpointing=True),
    Case("SEW-D", "SEWD", SEW_D),
    Case("SEW-D, checkpointed", "SEWD", SEW_D, checkpointing=True),
    Case("Wav2Vec2-BERT", "Wav2Vec2Bert"),
    Case("Wav2Vec2-BERT, checkpointed", "Wav2Vec2Bert", checkpointing=True),
    Case("UniSpeech and BART", "UniSpeech", decoder=True),
    Case("UniSpeech and BART, frozen encoder", "UniSpeech", objective="freeze='encoder'", decoder=True),
)


def write_rows(folder: Path, *, longest: float) -> None:
    """Write shards of noise of 2 seconds or more, with two words of letters a second."""
    random = np.random.default_rng(0)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    folder.mkdir()
    import soundfile

    for shard in range(2):
        rows = []
        for row in range(ROWS // 2):
            seconds = random.uniform(2, longest)
            file = io.BytesIO()
            soundfile.write(file, random.uniform(-0.3, 0.3, round(seconds * RATE)), RATE, format="WAV")
            text = " ".join("".join(random.choice([*LETTERS], 4)) for _ in range(round(seconds)))
            rows.append({"id": f"{shard}-{row}", "audio": {"bytes": file.getvalue(), "path": None}, "text": text})
        schema = pa.schema([("id", pa.string()), ("audio", kind), ("text", pa.string())])
        pq.write_table(pa.Table.from_pylist(rows, schema), folder / f"{shard}.parquet", row_group_size=8)


def write_checkpoint(case: Case, folder: Path) -> None:
    """Write an encoder of random weights without a head."""
    import torch

    import raysp.models

    torch.manual_seed(0)
    cls: Any = getattr(raysp.models, f"{case.model}Model")
    cls(cls.config_class(**{**MIDDLE, **case.flags})).save_pretrained(folder)
    if case.model == "Wav2Vec2Bert":
        raysp.models.SeamlessM4TFeatureExtractor().save_pretrained(folder)
    else:
        raysp.models.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)


def write_decoder(folder: Path) -> None:
    """Write a BART of random weights whose tokens are bytes."""
    import torch

    from raysp.models import BartConfig, BartForCausalLM

    folder.mkdir()
    characters = [chr(code) for code in range(33, 127)] + ["Ġ"]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *characters]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BartTokenizer"}))
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=DECODER_TOKENS,
        d_model=256,
        decoder_layers=4,
        decoder_attention_heads=4,
        decoder_ffn_dim=1024,
        max_position_embeddings=256,
        is_decoder=True,
        add_cross_attention=False,
    )
    BartForCausalLM(config).save_pretrained(folder)


def measure(case: Case, *, steps: int, longest: float, calibrate: bool) -> dict[str, object]:
    """Estimate and train, and return both; a micro-batch has at least two of the longest rows."""
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as name:
        folder = Path(name)
        write_rows(folder / "in", longest=longest)
        write_checkpoint(case, folder / "encoder")
        more = f", {case.objective}" if case.objective else ""
        objective = f"raysp.CTC({name + '/encoder'!r}, text=raysp.Text('lower'), vocabulary='build'{more})"
        if case.decoder:
            write_decoder(folder / "decoder")
            objective = f"raysp.Seq2Seq({name + '/encoder'!r}, decoder={name + '/decoder'!r}{more})"
        fields = {"checkpointing": case.checkpointing, "ema": case.ema, "dtype": case.dtype, "steps": steps}
        fields["seconds"] = 4 * longest
        (folder / "recipe.py").write_text(RECIPE.format(folder=name, objective=objective, **fields))
        found = printed(ESTIMATE, f"{folder}/recipe.py", str(calibrate))
        peak, num_bytes, rtfx = printed(TRAIN, f"{folder}/recipe.py")
    worker = found["memory"]["worker"]
    row: dict[str, object] = {
        "training": case.name,
        "memory, MB": f"{worker / 1e6:.0f}",
        "measured": f"{peak / 1e6:.0f}",
        "ratio": f"{worker / peak:.2f}",
        "commit, MB": f"{found['commit']['num_bytes'] / 1e6:.2f}",
        "written": f"{num_bytes / 1e6:.2f}",
    }
    if speed := found["speed"]:
        row |= {"calibrated, MB": f"{speed['memory_bytes'] / 1e6:.0f}", "RTFx": f"{speed['rtfx']:.2f}"}
        row |= {"run": f"{rtfx:.2f}"}
    return row


def printed(code: str, *arguments: str) -> Any:
    """Return what a program prints in its last line."""
    ran = subprocess.run([sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True)
    return json.loads(ran.stdout.splitlines()[-1])


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=6, help="steps of a training")
    parser.add_argument("--longest", type=float, default=10.0, help="seconds of the longest row")
    parser.add_argument("--only", default="", help="cases whose name holds this text")
    parser.add_argument("--calibrate", action="store_true", help="measure the speed first, in this process")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    rows = []
    for case in CASES:
        if args.only.lower() in case.name.lower():
            rows.append(measure(case, steps=args.steps, longest=args.longest, calibrate=args.calibrate))
            show(case.name, rows[-1:])
    show("Estimates of trainings, and the trainings", rows)
    if args.json:
        write_json(args.json, rows)
