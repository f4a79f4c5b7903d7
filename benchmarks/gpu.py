"""Are labels right on a GPU, do they depend on the batch, and how fast are models there?

    python -m benchmarks gpu                       on a machine with a GPU, in at most ten minutes
    python -m benchmarks gpu --device stand-in     on the stand-in device of the tests, with small models

It needs torch, numpy, safetensors, tokenizers and pyarrow alone: no Ray, no network and no virtual environment. Each
case is written to OUT/gpu.json as it ends; cases that do not fit into --minutes are left out.
"""

import argparse
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from benchmarks.tables import show, write_json
from benchmarks.timing import timed

NEEDED = ("torch", "numpy", "safetensors", "tokenizers", "pyarrow")
DEVICES = {"cuda": "cuda", "cpu": "cpu", "stand-in": "standin"}
NO_GPU = "no CUDA device found, nothing was measured: run this on a machine with one, or try it with --device stand-in"
DEMO = Path(__file__).parents[1] / "pipelines" / "demo"
CHECKPOINT = DEMO / "unispeech-digits-ctc"
RATE = 16_000
TOLERANCE = 2e-3
LENGTHS = (0.8, 2.2, 1.5, 3.1, 0.4, 2.9, 0.02)
"""Seconds of rows: of less and of more than a window, and one without a frame."""
FEW = ("SEWDForCTC", "ParakeetForCTC", "greedy", "beams with a language model", "greedy generation")
RANDOM = ("sampling",)
"""Outputs by chance: a generator of another device has other numbers."""
LETTERS = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'")
LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
LAYER_NORM = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}
SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
POSITIONS = {"num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
GOALS = {"unispeech-large 315M": 9_000, "w2v-bert 600M": 5_000, "fastconformer 110M": 30_000}
"""Times real time of the bare model with rows of 10 s on an H100."""

Figures = Mapping[str, object]
Made = tuple[Any, Any, Any]
"""Class of a model, its configuration, and its feature extractor."""


class Case(NamedTuple):
    """One measurement."""

    name: str
    run: Callable[[], Figures]
    needs: str = ""
    """Package without which it is left out."""


def cases(device: str, folder: Path, *, few: bool) -> Iterator[Case]:
    """Yield the measurements, the most important first."""
    from tests.device.class_cases import CASES as CLASSES
    from tests.device.output_cases import ARPA
    from tests.device.output_cases import CASES as OUTPUTS

    (folder / "lm.arpa").write_text(ARPA)
    for name, outputs in CLASSES.items():
        if not few or name in FEW:
            yield Case(f"class {name}", partial(of_class, name, outputs, folder, device))
    for name in OUTPUTS:
        if not few or name in FEW:
            needs = "silero_vad" if name == "speech" else ""
            yield Case(f"output {name}", partial(of_output, name, folder, device), needs)
    for name in [*PUBLISHED][:1] if few else PUBLISHED:
        for dtype in ("float32", "bfloat16"):
            yield Case(f"equal texts, {name}, {dtype}", partial(equal_texts, name, dtype, device))
    for name in [*PUBLISHED][:1] if few else PUBLISHED:
        yield Case(f"speed, {name}", partial(speed, name, device))


def of_class(name: str, outputs: Sequence[Any], folder: Path, device: str) -> Figures:
    """Compare the labels of a class of models with those of the CPU."""
    import numpy as np

    random = np.random.default_rng(1)
    waves = [(1600 * random.standard_normal(round(RATE * one))).astype(np.int16) for one in LENGTHS]
    return compared(_checkpoint(name, folder), outputs, waves, None, device)


def of_output(name: str, folder: Path, device: str) -> Figures:
    """Compare the labels of an output on real speech: ten digits, and nine of them in one recording."""
    import numpy as np

    from tests.device.output_cases import CASES, with_files

    checkpoint, outputs = CASES[name]
    outputs = [with_files(output, {"demo": CHECKPOINT}, str(folder / "lm.arpa")) for output in outputs]
    waves, texts = zip(*digits()[:10], strict=True)
    waves, texts = (*waves, np.concatenate(waves[:9])), (*texts, " ".join(texts[:9]))
    at = CHECKPOINT if checkpoint == "demo" else _checkpoint(checkpoint, folder)
    return compared(at, outputs, waves, texts, device, is_random=name in RANDOM)


def compared(
    checkpoint: Path,
    outputs: Sequence[Any],
    waves: Sequence[Any],
    texts: Sequence[str] | None,
    device: str,
    *,
    is_random: bool = False,
) -> Figures:
    """Return whether the labels of a device are those of the CPU, and how many rows have one in bfloat16."""
    from tests.device.output_cases import labelling

    found, expected, half = (
        labelling(checkpoint, outputs, *on)(block_of(waves, texts))[0].to_pylist()
        for on in ((device, "float32"), ("cpu", "float32"), (device, "bfloat16"))
    )
    differing = [] if is_random else [*differences(found, expected)]
    return {
        "same": not differing and [row["status"] for row in found] == [row["status"] for row in expected],
        "rows": sum(row["status"] == "ok" for row in found),
        "rows in bfloat16": sum(row["status"] == "ok" for row in half),
        **({"differs": differing[0]} if differing else {}),
        "errors": sorted({str(row["error_message"]) for row in (*found, *half) if row["error_message"]}),
    }


def differences(found: Any, expected: Any, at: str = "") -> Iterator[str]:
    """Yield the places where labels differ by more than `TOLERANCE`."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in {**found, **expected}:
            yield from differences(found.get(key), expected.get(key), f"{at}.{key}")
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for number, pair in enumerate(zip(found, expected, strict=True)):
            yield from differences(*pair, f"{at}[{number}]")
    elif isinstance(found, float) and isinstance(expected, float):
        if abs(found - expected) > TOLERANCE * max(1.0, abs(expected)) or (found != found) != (expected != expected):
            yield f"{at}: {found} and {expected}"
    elif found != expected:
        yield f"{at}: {found!r} and {expected!r}"[:200]


def equal_texts(name: str, dtype: str, device: str) -> Figures:
    """Compare the texts and numbers of rows alone with those in batches of two budgets."""
    import torch

    from raysp.specs.outputs.embedding import Embedding
    from raysp.specs.outputs.transcript import Transcript

    count, longest, budgets = (200, 15.0, (60.0, 600.0)) if device == "cuda" else (8, 3.0, (8.0, 60.0))
    block = block_of(rows_of(torch.linspace(0.5, longest, count).tolist()))
    loaded = random_model(name, device, dtype)
    alone, *batched = (
        labelled(labelling_of(loaded, [Transcript(), Embedding()], budget, device), block)
        for budget in (1 / RATE, *budgets)
    )  # a budget of one sample: a row a pass
    is_text = [
        all(one["pred_text"] == row["pred_text"] for one in same) for row, *same in zip(alone, *batched, strict=True)
    ]
    is_equal = [all(one == row for one in same) for row, *same in zip(alone, *batched, strict=True)]
    return {"equal texts": sum(is_text) / count, "equal bits": sum(is_equal) / count, "rows": count}


def speed(model: str, device: str) -> Figures:
    """Return times real time of the bare model and of the op of an actor, over rows of 10 s and of 1 to 30 s."""
    import numpy as np

    from benchmarks.programs import bare_batches
    from raysp.devices import synchronize
    from raysp.ops.blocks import cut_batches
    from raysp.specs.outputs.transcript import Transcript

    is_gpu = device == "cuda"
    loaded = random_model(model, device, "bfloat16")
    passes = bare_batches.passes_of(loaded.device)
    budget, count = (600.0, 720) if is_gpu else (12.0, 4)
    lengths = np.random.default_rng(0).beta(1.4, 2.3, count) * (29 if is_gpu else 2) + 1
    found: dict[str, object] = {}
    for kind, seconds in (("10 s", [10.0 if is_gpu else 1.0] * count), ("1 to 30 s", lengths.round(2).tolist())):
        waves = rows_of(seconds)
        batches = [[waves[i] for i in cut] for cut in cut_batches([len(one) for one in waves], round(budget * RATE))]
        bare = partial(bare_batches.run, loaded, batches, passes)
        op = partial(labelled, labelling_of(loaded, [Transcript()], budget, device), block_of(waves))
        ways = {
            "bare": lambda bare=bare: (bare(), synchronize(device)),
            "op": lambda op=op: (op(), synchronize(device)),
        }
        for name, times in timed(ways, 4 if is_gpu else 1).items():
            found[f"{name} RTFx, {kind}"] = sum(seconds) / min(taken.wall for taken in times)
    return {**found, "goal of bare, 10 s": GOALS.get(model, "")}


def labelled(op: Any, block: Any) -> list[dict[str, Any]]:
    """Return the labels of a block.

    Raises:
        RuntimeError: a row has none.
    """
    rows: list[dict[str, Any]] = op(block)[0].to_pylist()
    if failed := [row["error_message"] for row in rows if row["error_message"] is not None]:
        raise RuntimeError(f"{len(failed)} of {len(rows)} rows failed: {failed[0]}")
    return rows


def digits() -> Sequence[tuple[Any, str]]:
    """Return spoken digits of the demo, int16 at `RATE`, with their texts; WAV is read without soundfile."""
    import io
    import wave

    import numpy as np
    import pyarrow.parquet as pq

    found = []
    for row in pq.read_table(min((DEMO / "audio").glob("*.parquet")), columns=["audio", "text"]).to_pylist():
        with wave.open(io.BytesIO(row["audio"]["bytes"])) as file:
            rate, samples = file.getframerate(), np.frombuffer(file.readframes(file.getnframes()), "<i2")
        times = np.arange(len(samples) * RATE // rate) * (rate / RATE)
        found.append((np.interp(times, np.arange(len(samples)), samples).astype(np.int16), row["text"]))
    return found


def rows_of(lengths: Sequence[float]) -> list[Any]:
    """Return rows of speech of so many seconds each, from different places of it."""
    import numpy as np

    speech = np.resize(np.concatenate([samples for samples, _ in digits()]), (int(max(lengths)) + 120) * RATE)
    starts = np.random.default_rng(0).integers(0, 100 * RATE, len(lengths))
    return [speech[at : at + round(one * RATE)] for at, one in zip(starts, lengths, strict=True)]


def block_of(waves: Sequence[Any], texts: Sequence[str] | None = None) -> Any:
    """Return rows as decoding hands them to a model."""
    import pyarrow as pa

    from raysp.ops.late_steps import CARRIED
    from raysp.ops.rows import RowStatus, statuses_table, with_waves

    statuses = [RowStatus(row) for row in range(len(waves))]
    for status, samples in zip(statuses, waves, strict=True):
        status.seconds = len(samples) / RATE
    block = with_waves(statuses_table(statuses), waves)
    return block if texts is None else block.append_column(f"{CARRIED}text", pa.array(texts))


def _checkpoint(name: str, folder: Path) -> Path:
    from tests.device.class_cases import make_checkpoint

    made = folder / name.replace(" ", "-") / "checkpoint"
    if not made.exists():
        make_checkpoint(name, made)
    return made


def _of_waves(name: str, sizes: Mapping[str, Any], layers: int) -> Callable[[bool], Made]:
    def make(is_small: bool) -> Made:
        from raysp import models

        small = {**sizes, **SMALL, **POSITIONS, "conv_dim": (32,) * layers}
        config = getattr(models, f"{name}Config")(**(small if is_small else sizes))
        return getattr(models, f"{name}ForCTC"), config, models.Wav2Vec2FeatureExtractor(return_attention_mask=True)

    return make


def _bert(is_small: bool) -> Made:
    from raysp import models

    sizes: dict[str, Any] = {**SMALL, "output_hidden_size": 64} if is_small else {}
    config = models.Wav2Vec2BertConfig(vocab_size=len(LETTERS), **sizes)
    return models.Wav2Vec2BertForCTC, config, models.SeamlessM4TFeatureExtractor()


def _fast_conformer(is_small: bool) -> Made:
    from raysp import models

    sizes = {"hidden_size": 512, "num_hidden_layers": 17, "intermediate_size": 2048}
    encoder = models.ParakeetEncoderConfig(**({**SMALL, "subsampling_conv_channels": 16} if is_small else sizes))
    config = models.ParakeetCTCConfig(encoder_config=encoder, vocab_size=65, pad_token_id=64)
    return models.ParakeetForCTC, config, models.ParakeetFeatureExtractor(feature_size=encoder.num_mel_bins)


PUBLISHED: Mapping[str, Callable[[bool], Made]] = {
    "wav2vec2-base 94M": _of_waves("Wav2Vec2", {}, 7),
    "unispeech-large 315M": _of_waves("UniSpeech", {**LARGE, **LAYER_NORM}, 7),
    "w2v-bert 600M": _bert,
    "fastconformer 110M": _fast_conformer,
    "sew-d 94M": _of_waves("SEWD", {}, 13),
}
"""Models of published sizes."""


def random_model(name: str, device: str, dtype: str) -> Any:
    """Return a model with random weights as one that was loaded from a checkpoint, small unless it is for a card."""
    import torch

    from raysp import models
    from raysp.models.labelled_passes import CheckpointSummary
    from raysp.models.loading import LoadedCheckpoint

    cls, config, extractor = PUBLISHED[name](device != "cuda")
    torch.manual_seed(0)
    # Parameters that are on the stand-in already keep their dtype, so its models are made on the CPU.
    with torch.device("cuda" if device == "cuda" else "cpu"):
        model = cls(config).init_weights()
    model = model.to(getattr(torch, dtype)).to(device).eval()
    summary = CheckpointSummary(
        path=Path("random"),
        model_type=config.model_type,
        architecture=cls.__name__,
        num_parameters=sum(one.numel() for one in model.parameters()),
        sample_rate=RATE,
        vocab_size=config.vocab_size,
        min_samples=model.min_samples,
        frame_stride=model.frame_stride,
        gives=tuple(model.gives),
        receptive_samples=model.receptive_samples,
        hidden_stride=model.hidden_stride,
        output_size=model.output_size,
    )
    names = [*LETTERS, *(f"<{number}>" for number in range(len(LETTERS), config.vocab_size))]
    return LoadedCheckpoint(
        summary, model, extractor, models.Wav2Vec2CTCTokenizer({one: number for number, one in enumerate(names)})
    )


class InMemory:
    """A backend whose checkpoint is a model that is there already."""

    def __init__(self, loaded: Any) -> None:
        self.loaded = loaded

    def load(self, folder: Path, **_: object) -> Any:
        """Return the model."""
        return self.loaded


def labelling_of(loaded: Any, outputs: Sequence[Any], batch_seconds: float, device: str) -> Any:
    """Return the op that labels blocks with a model, as an actor of a run has it."""
    from raysp.ops.labelling import Labelling

    return Labelling(
        "random",
        lambda one: [output.op(one.summary, one) for output in outputs],
        batch_seconds=batch_seconds,
        dtype=str(loaded.dtype).removeprefix("torch."),
        device=device,
        backend=InMemory(loaded),  # type: ignore[arg-type]
    )


def is_installed(name: str) -> bool:
    """Return whether a package is there."""
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # a finder refuses it, or a stand-in stands there
        return False


def make_importable() -> None:
    """Let the specs of raysp be imported without pydantic, as dataclasses whose values are not checked."""
    if "pydantic" in sys.modules or is_installed("pydantic"):
        return

    def unchecked(**options: Any) -> Callable[[type], type]:
        return dataclass(frozen=options["frozen"])

    def given(*args: Any, **options: Any) -> Any:
        if "default_factory" in options:
            return field(default_factory=options["default_factory"])
        return field(default=options["default"]) if "default" in options else args[0] if args else None

    pydantic, dataclasses = ModuleType("pydantic"), ModuleType("pydantic.dataclasses")
    names = {"AfterValidator": given, "BeforeValidator": given, "ConfigDict": dict, "Field": given}
    for name, value in {**names, "ValidationError": ValueError, "TypeAdapter": given, "JsonValue": object}.items():
        setattr(pydantic, name, value)
    dataclasses.dataclass = unchecked  # type: ignore[attr-defined]
    sys.modules |= {"pydantic": pydantic, "pydantic.dataclasses": dataclasses}


def measure(device: str, out: Path, minutes: float, *, few: bool) -> list[dict[str, object]]:
    """Run the cases within a time, write the figures after each, and return them."""
    import torch

    ends = time.monotonic() + 60 * minutes
    card = torch.cuda.get_device_name() if device == "cuda" else device
    machine = {
        "card": card,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
    }
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory(prefix="raysp-gpu-") as work:
        for case in cases(device, Path(work), few=few):
            rows.append(_row(case, ends))
            write_json(out / "gpu.json", {"machine": machine, "cases": rows})
            print("  " + ", ".join(f"{key} {value}" for key, value in rows[-1].items() if key != "trace"), flush=True)
            if device == "cuda":
                torch.cuda.empty_cache()
    show(f"GPU: {card}", [row for row in rows if str(row["case"]).startswith(("equal", "speed"))])
    return rows


def _row(case: Case, ends: float) -> dict[str, object]:
    if case.needs and not is_installed(case.needs):
        return {"case": case.name, "left out": f"needs {case.needs}"}
    if time.monotonic() > ends:
        return {"case": case.name, "left out": "out of time"}
    try:
        return {"case": case.name, **case.run()}
    except Exception as error:
        words = " ".join(str(error).split())[:300]
        return {"case": case.name, "error": f"{type(error).__name__}: {words}", "trace": traceback.format_exc()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this part."""
    parser.add_argument("--device", default="cuda", choices=DEVICES, help="what to measure on (%(default)s)")
    parser.add_argument("--minutes", type=float, default=10, help="time after which no case begins (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("build/gpu"), help="folder of the results (%(default)s)")
    parser.add_argument("--few", action="store_true", help="the fewest cases, to test this command")


def run(args: argparse.Namespace) -> list[dict[str, object]]:
    """Measure and print; a case that fails is the exit code."""
    if missing := [name for name in NEEDED if not is_installed(name)]:
        raise SystemExit(f"python -m benchmarks gpu needs {', '.join(missing)}: not installed for {sys.executable}")
    import torch

    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit(NO_GPU)
    make_importable()
    if args.device == "stand-in":
        from tests.device import stand_in

        stand_in.install()
    rows = measure(DEVICES[args.device], args.out, args.minutes, few=args.few)
    print(f"\nThe results are in {args.out}")
    if any("error" in row or row.get("same") is False for row in rows):
        raise SystemExit(1)
    return rows
