"""Every model class and every output: the labels of the device are those of the CPU in float32, and bfloat16 runs."""

import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import speech
from benchmarks.gpu.part import Case, Figures, Setting
from tests.device.class_cases import CASES as CLASSES
from tests.device.class_cases import make_checkpoint
from tests.device.output_cases import ARPA, labelling, with_files
from tests.device.output_cases import CASES as OUTPUTS

SECONDS = 90.0
TOLERANCE = 2e-3
LENGTHS = (0.8, 2.2, 1.5, 3.1, 0.4, 2.9, 0.02)
"""Seconds of rows: of less and of more than a window, and one without a frame."""
FEW = ("SEWDForCTC", "ParakeetForCTC", "greedy", "beams with a language model", "greedy generation")
RANDOM = ("sampling", "sampling by beams")
"""Outputs by chance: a generator of another device has other numbers."""


def cases(setting: Setting) -> Iterator[Case]:
    """Yield a case for each class with its outputs, and for each output."""
    torch.set_num_threads(1)  # the models are tiny
    with tempfile.TemporaryDirectory(prefix="raysp-gpu-") as work:
        folder = Path(work)
        (folder / "lm.arpa").write_text(ARPA)
        for name, outputs in CLASSES.items():
            if not setting.few or name in FEW:
                yield Case(f"class {name}", partial(of_class, name, outputs, folder, setting.device))
        for name in OUTPUTS:
            if not setting.few or name in FEW:
                needs = ("silero_vad",) if name == "speech" else ()
                yield Case(f"output {name}", partial(of_output, name, folder, setting.device), needs)


def of_class(name: str, outputs: Sequence[Any], folder: Path, device: str) -> Figures:
    """Compare labels of a class of models."""
    return compare(_checkpoint(name, folder), outputs, speech.noise(LENGTHS), None, device)


def of_output(name: str, folder: Path, device: str) -> Figures:
    """Compare labels of an output on real speech: ten digits, and nine of them in one recording."""
    import numpy as np

    checkpoint, outputs = OUTPUTS[name]
    demo = {"demo": speech.CHECKPOINT}
    outputs = [with_files(output, demo, str(folder / "lm.arpa")) for output in outputs]
    waves, texts = zip(*speech.digits()[:10], strict=True)
    waves, texts = (*waves, np.concatenate(waves[:9])), (*texts, " ".join(texts[:9]))
    at = speech.CHECKPOINT if checkpoint == "demo" else _checkpoint(checkpoint, folder)
    return compare(at, outputs, waves, texts, device, is_random=name in RANDOM)


def compare(
    checkpoint: Path,
    outputs: Sequence[Any],
    waves: speech.Waves,
    texts: Sequence[str] | None,
    device: str,
    *,
    is_random: bool = False,
) -> Figures:
    """Return whether the labels of a device are those of the CPU, and how many rows have one in bfloat16."""
    found, expected, half = (
        label(checkpoint, outputs, waves, texts, *on)
        for on in ((device, "float32"), ("cpu", "float32"), (device, "bfloat16"))
    )
    differing = [] if is_random else list(differences(found, expected))
    numbers = [size for _, size in differences(found, expected, 0.0) if size is not None]
    return {
        "same": not differing and [row["status"] for row in found] == [row["status"] for row in expected],
        "rows": sum(row["status"] == "ok" for row in found),
        "rows in bfloat16": sum(row["status"] == "ok" for row in half),
        "largest difference": max(numbers, default=0.0),
        **({"differs": differing[0][0]} if differing else {}),
        "errors": sorted({str(row["error_message"]) for row in (*found, *half) if row["error_message"]}),
    }


def label(
    checkpoint: Path, outputs: Sequence[Any], waves: speech.Waves, texts: Sequence[str] | None, device: str, dtype: str
) -> list[dict[str, Any]]:
    """Return the labels of rows, in batches of several rows and windows."""
    op = labelling(checkpoint, outputs, device, dtype)
    return op(speech.block_of(waves, texts))[0].to_pylist()


def differences(
    found: Any, expected: Any, tolerance: float = TOLERANCE, at: str = ""
) -> Iterator[tuple[str, float | None]]:
    """Yield the places where labels differ, with the difference if both are numbers."""
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in {**found, **expected}:
            yield from differences(found.get(key), expected.get(key), tolerance, f"{at}.{key}")
    elif isinstance(found, list) and isinstance(expected, list) and len(found) == len(expected):
        for number, pair in enumerate(zip(found, expected, strict=True)):
            yield from differences(*pair, tolerance, f"{at}[{number}]")
    elif isinstance(found, float) and isinstance(expected, float):
        size = abs(found - expected)
        if size > tolerance * max(1.0, abs(expected)) or (size != size) != (expected != expected):
            yield f"{at}: {found} and {expected}", size
    elif found != expected:
        yield f"{at}: {found!r} and {expected!r}"[:200], None


def _checkpoint(name: str, folder: Path) -> Path:
    made = folder / name.replace(" ", "-") / "checkpoint"
    if not made.exists():
        make_checkpoint(name, made)
    return made
