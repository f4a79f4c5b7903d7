"""What mutants of `tests.device.mutations` are noticed by: each class, output, training and case of a crossing."""

import copy
import functools
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import raysp
from raysp import finetune
from raysp.models import AutoModelForCTC, SpeechEncoderDecoderModel
from raysp.ops import late_steps
from raysp.training.tasks.speaker_task import SpeakerObjective
from tests.backends import theirs
from tests.device.class_cases import CASES as CLASSES
from tests.device.class_cases import make_checkpoint
from tests.device.crossing_cases import CASES as CROSSINGS
from tests.device.crossing_cases import spoken
from tests.device.output_cases import ARPA, labelling, with_files
from tests.device.output_cases import CASES as OUTPUTS
from tests.device.program_cases import CASES as PROGRAMS
from tests.device.stand_in import NAME
from tests.device.test_finetuning import recipe
from tests.device.test_generation import OPTIONS, written
from tests.device.test_training import OBJECTIVES, speakers, steps_of, training_of
from tests.ops.test_labelling import block_of
from tests.recipes import tiny_checkpoint, write_words

Run = functools.partial[Callable[[], Any]]
"""Makes what is run."""
THEIRS = {
    "Whisper": (theirs.tiny_whisper, [raysp.Transcript(), raysp.Embedding()]),
    "Speech2Text": (lambda folder: theirs.tiny_writer(folder, "Speech2Text"), [raysp.Transcript()]),
}


def runs(folder: Path, demo: Path) -> Iterator[tuple[str, Run]]:
    """Yield names and runs."""
    (folder / "lm.arpa").write_text(ARPA)

    @functools.cache
    def place(name: str) -> Path:
        if name == "demo":
            return demo
        make_checkpoint(name, folder / name)
        return folder / name

    for name, (checkpoint, outputs) in {**{one: (one, outputs) for one, outputs in CLASSES.items()}, **OUTPUTS}.items():
        given = [with_files(one, place, str(folder / "lm.arpa")) for one in outputs]
        yield name, functools.partial(_label, place(checkpoint), given)
    for name, case in {**CROSSINGS, **PROGRAMS}.items():
        (folder / "cases" / name).mkdir(parents=True)
        yield name, functools.partial(case, folder / "cases" / name, NAME)
    here = functools.cache(functools.partial(_writer, folder / "SpeechEncoderDecoderModel"))
    for name, options in OPTIONS.items():
        yield f"generation: {name}", functools.partial(_generate, here, options)
    for name, (make, targets) in OBJECTIVES.items():
        (folder / "training" / name).mkdir(parents=True)
        yield f"training: {name}", functools.partial(_train, make(folder / "training" / name), targets)
    (folder / "speakers").mkdir()
    yield "vectors of speakers", functools.partial(_vectors, speakers(folder / "speakers"))
    words, checkpoint = write_words(folder, 24), tiny_checkpoint(folder / "tiny")
    yield "finetuning", functools.partial(_finetune, words, checkpoint, folder / "sink")
    for name, (make_theirs, outputs) in THEIRS.items():
        yield name, functools.partial(_theirs, make_theirs(folder / name), outputs)


def _label(place: Path, outputs: list[Any]) -> Callable[[], Any]:
    waves, texts = spoken()
    op = labelling(place, outputs, NAME, "float32")
    block = block_of([*waves[:2], np.concatenate(waves[:4])])
    for name in op.reads:
        block = block.append_column(late_steps.CARRIED + name, pa.array([*texts[:2], " ".join(texts[:4])]))
    return lambda: op(block)[0].to_pylist()


def _vectors(objective: SpeakerObjective) -> Callable[[], Any]:
    objective.model.to(NAME)
    return lambda: objective.vectors(spoken()[0][:2])


def _writer(place: Path) -> Any:
    return SpeechEncoderDecoderModel.from_pretrained(place, device=NAME).eval()


def _generate(make: Callable[[], Any], options: dict[str, Any]) -> Callable[[], Any]:
    model = make()
    return lambda: written(model, **options)


def _train(objective: Any, targets: Any) -> Callable[[], Any]:
    there = copy.deepcopy(objective)
    there.model.to(NAME).tie_weights()
    training = training_of(there)
    return lambda: [training.step(0, *one, learning_rate=1e-3).loss for one in enumerate(steps_of(targets))]


def _finetune(words: Any, checkpoint: Any, sink: Path) -> Callable[[], Any]:
    def run() -> Any:
        shutil.rmtree(sink, ignore_errors=True)
        result = finetune(recipe(words, checkpoint, sink))
        weights = AutoModelForCTC.from_pretrained(sink).state_dict()
        return [result.loss, result.best, {name: one.double().sum().item() for name, one in weights.items()}]

    return run


def _theirs(folder: Path, outputs: list[Any]) -> Callable[[], Any]:
    waves = [(32767 * wave).astype(np.int16) for wave in theirs.waves([16_000, 16_000, 9_600])]
    op = theirs.labelling(folder, *outputs, device=NAME)
    return lambda: op(block_of(waves))[0].to_pylist()
