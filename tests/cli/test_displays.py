"""What the verbs print of a small corpus with faults, as it is recorded in `recorded/outputs.txt`.

`RAYSP_TEST_RECORD=1` writes the recording again. Paths, dates, digests, times and speeds are masked.
"""

import contextlib
import os
import re
from pathlib import Path

import pytest

import raysp
from tests import kit, trainings
from tests.classifiers import make_classifier, make_speaker_model
from tests.cli.test_finetune import RECIPE
from tests.corpora import CHECKPOINT, label_twice, labelled
from tests.recipes import tiny_checkpoint, write_words

RECORDED = Path(__file__).with_name("recorded") / "outputs.txt"
HOSTILE = "\x1b]0;owned\x07\x1b[31m\x9b2J[bold]\r\nz"
ESCAPES = {"\x1b", "\x9b", "\x07", "\r"}
COMMANDS = (
    "--help",
    "run --help",
    "plan label.py",
    "plan label.py --rtfx 50 --price 2",
    "run label.py --rows 3",
    "run label.py",
    "plan label.py",
    "status out",
    "retry label.py",
    "verify label.py",
    "gc out",
    "forget out yweweler_three_22",
    "report out",
    "export out lines --to jsonl",
    "export out lines --to jsonl",
    "evaluate model in --text text --rows 6 --by speaker_id --fail-above wer=0",
    "evaluate classifier in --label text --rows 3",
    "evaluate speakers in --speaker speaker_id --rows 6",
    "diff A B --by speaker_id --fail-below agreement=0.99",
    "diff classesA classesB",
    "diff textsA textsB --column pred_text --normalise none",
    "merge textsA textsB --by pred_score --to merged",
    "plan train.py",
    "plan train.py --rtfx 0.005 --price 2",
    "status training",
    "inspect model",
)
"""Commands in their order; later ones find what earlier ones left."""
TEXTS = {
    "r0": ("one two three", "one too three"),
    "r1": ("one two", "one two three"),
    "r2": ("", "one two"),
    "r3": ("x b c d e f g h y", "b c d e f g h"),
    HOSTILE: (f"one {HOSTILE}", "one two"),
}


def make_places(folder: Path) -> None:
    """Make the corpora, checkpoints, sinks and files that the commands name."""
    corpus = kit.corpus(folder / "in", rows=4, faults=["not_audio", "too_short"])
    kit.pipeline_file(folder / "label.py", corpus.pipeline("out", source={"text": "text"}))
    (folder / "model").symlink_to(CHECKPOINT)
    make_classifier(folder / "classifier", "three", "five", "four")
    make_speaker_model(folder / "speakers")
    (folder / "twice").mkdir()
    label_twice(folder / "twice")
    for name in "AB":
        (folder / name).symlink_to(folder / "twice" / name)
        side = "AB".index(name)
        classes = {"pred_label": ["three", "five"][side : side + 1] * 2, "pred_label_scores": [0.5] * 2}
        labelled(folder / "c", classes, [raysp.Classes()], name=f"classes{name}", checkpoint=folder / "classifier")
        texts = {"id": [*TEXTS], "pred_text": [pair[side] for pair in TEXTS.values()]}
        labelled(folder / "t", texts, name=f"texts{name}")
        for place in ("classes", "texts"):
            (folder / f"{place}{name}").symlink_to(folder / place[0] / f"{place}{name}")
    (folder / "words").mkdir()
    recipe = {"source": write_words(folder / "words", 18, 12), "checkpoint": str(tiny_checkpoint(folder / "tiny"))}
    (folder / "train.py").write_text(RECIPE.format(**recipe, sink="trained", epochs=2))
    trainings.Sink(folder / "training").train(range(1, 21))


def masked(text: str, folder: Path) -> str:
    """Replace what differs by run and machine."""
    text = text.replace(str(folder), "DIR").replace(str(kit.CHECKOUT), "CHECKOUT")
    text = re.sub(r"\b[0-9a-f]{12,64}\b", "DIGEST", text)
    text = re.sub(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?(\+00:00| UTC)?", "DATE", text)
    lines = (re.sub(r"\d[\d.,:]*", "N", line) if MACHINE.search(line) else line.rstrip() for line in text.splitlines())
    return "".join(f"{line}\n" for line in lines if not re.match(r"raysp: N+% · ", line))


MACHINE = re.compile(r"RTFx|CPU| ago|waited for input|% · ")
"""Lines whose numbers depend on the machine."""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("displays")
    make_places(folder)
    found = []
    with contextlib.chdir(folder):
        for line in COMMANDS:
            ran = kit.run(line, COLUMNS="100")
            said = masked(ran.out, folder) + "".join(f"! {one}\n" for one in masked(ran.err, folder).splitlines())
            found.append(f"$ raysp {line}\n{said}exit code {ran.code}\n")
    if os.environ.get("RAYSP_TEST_RECORD"):
        RECORDED.write_text("\n".join(found))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(COMMANDS)), ids=lambda number: COMMANDS[number])
def test_a_command_prints_what_is_recorded(outputs, number):
    recorded = re.split(r"\n(?=\$ raysp )", RECORDED.read_text())
    assert len(recorded) == len(COMMANDS)
    assert outputs[number].strip() == recorded[number].strip()
    assert not ESCAPES & {*outputs[number]}
