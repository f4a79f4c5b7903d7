"""The tours of docs/tour: their commands parse, and their output fits a screen and hides no failure."""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import kit
from tests.commands import check_understood

FOLDER = Path(__file__).parents[1] / "docs" / "tour"
_SPEC = importlib.util.spec_from_file_location("make_tours", FOLDER / "make.py")
make = importlib.util.module_from_spec(_SPEC)
sys.modules["make_tours"] = make
_SPEC.loader.exec_module(make)


class Shown(NamedTuple):
    """A command of a tour and what it printed."""

    tour: str
    command: str
    printed: list[str]
    exit_code: int

    @property
    def raysp_commands(self) -> Iterator[list[str]]:
        """Words of each command of raysp, without variables in front of it and redirections behind it."""
        for part in re.split(r"; |&& |& ", self.command):
            words = shlex.split(re.sub(r"\d?> ?\S+", "", part))
            while words and ("=" in words[0] or words[0] in ("env", "-u") or re.fullmatch(r"[A-Z_]+", words[0])):
                words.pop(0)
            if words and words[0] == "raysp":
                yield words[1:]


def shown_in(page: Path) -> Iterator[Shown]:
    for block in re.findall(r"```console\n(.*?)\n```", page.read_text(), re.DOTALL):
        command, *printed = block.splitlines()
        code = re.fullmatch(r"\[exit code (\d+)\]", printed[-1]) if printed else None
        yield Shown(
            page.stem, command.removeprefix("$ "), printed[:-1] if code else printed, int(code[1]) if code else 0
        )


SHOWN = [shown for page in sorted(FOLDER.glob("*.md")) for shown in shown_in(page)]
each_command = pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: f"{shown.tour}: {shown.command[:60]}")


def test_each_kind_of_user_has_a_tour_and_each_page_is_one():
    assert sorted(make.TOURS) == sorted(page.stem for page in FOLDER.glob("*.md"))
    assert len(make.TOURS) == 11


@pytest.mark.parametrize("name", make.TOURS)
def test_a_page_has_the_words_files_and_commands_of_its_tour_in_their_order(name):
    page = (FOLDER / f"{name}.md").read_text()
    for step in make.TOURS[name].steps:
        text = f"`{step.name}`:\n\n```python\n{step.text}```" if isinstance(step, make.File) else step
        _, found, page = page.partition(f"{text}\n")
        assert found, text


@pytest.mark.parametrize("name", sorted(make.TOURS.keys() - {"models"}))
def test_a_tour_shows_a_whole_run_that_labels_and_another_look_at_it(name):
    runs = [shown for shown in SHOWN if shown.tour == name and "this run " in "\n".join(shown.printed)]
    assert runs
    assert all(shown.exit_code == 0 for shown in runs)


@each_command
def test_a_command_prints_a_screen_at_most_and_does_not_fail_with_exit_code_0(shown):
    assert len(shown.printed) <= make.LINES
    make.check(shown.command, "\n".join(shown.printed), shown.exit_code)


@each_command
def test_a_command_of_raysp_is_understood(shown, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for step in make.TOURS[shown.tour].steps:
        if isinstance(step, make.File):
            (tmp_path / step.name).write_text(step.text)
    for verb, *words in shown.raysp_commands:
        check_understood(verb, *words)
        settings = [word for place, word in enumerate(words) if words[place - 1 : place] == ["--set"]]
        for target in (word for word in words if re.search(r"\.py(:|$)", word) and "=" not in word):
            changes = [word for one in settings for word in ("--set", one)]
            said = kit.run(["plan", target, *changes, "--rtfx", "0"]).err  # refused after the file is loaded
            is_refused = f"--set {(settings or [''])[-1].partition('=')[0]}: " in "".join(shown.printed)
            assert said.startswith("raysp: --set " if is_refused else "raysp: rtfx: found 0"), said


@pytest.mark.slow
def test_the_page_for_sceptics_has_the_output_of_its_commands(raysp_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    make.prepare(tmp_path)
    tour = make.TOURS["sceptic"]
    steps = tour.steps[: tour.steps.index("$ raysp run label.py --rows 3") + 1]
    for step in steps:
        if isinstance(step, make.File):
            (tmp_path / step.name).write_text(step.text)
    subprocess.run(["bash", "-c", next(step for step in steps if "mkdir" in str(step))[2:]], check=True)
    seen = 0
    for shown in [one for one in SHOWN if one.tour == "sceptic" and f"$ {one.command}" in steps]:
        for words in shown.raysp_commands:
            ran = raysp_command(*words)
            said = make.normalised(ran.err + ran.out, tmp_path, tour.varies).splitlines()
            said = [line for line in said if not line.startswith("bfloat16 ")]  # where the processor has AMX
            assert sorted(said) == sorted(
                line for line in shown.printed if line not in ("checkpoint", "digits", "label.py")
            )
            assert ran.code == shown.exit_code
            seen += 1
    assert seen == 5


def test_the_generator_of_tours_detects_failures_with_exit_code_0_and_long_output():
    for said, code in (("raysp: 0 of 3 rows were labelled (3 no_audio)", 0), ("x\n" * 61, 0), ("Traceback", 1)):
        with pytest.raises(SystemExit):
            make.check("$ raysp run", said, code)
    make.check("$ raysp run", "raysp: 0 of 3 rows were labelled (3 no_audio)", 3)
    make.check("$ raysp run", "x\n" * 60, 0)


@pytest.mark.soak
@pytest.mark.parametrize("name", make.TOURS)
def test_a_tour_that_is_made_again_is_the_same(name):
    if name == "cluster" and not shutil.which("ray", path=make.search_path()):
        pytest.skip("no ray command beside this Python")
    with tempfile.TemporaryDirectory() as folder:  # a short path: messages are cut at a length
        assert_same(make.made(make.TOURS[name], Path(folder).resolve()), name)


def assert_same(page: str, name: str) -> None:
    """Assert that a page equals that of a tour, but for what differs between processors."""
    tour = make.TOURS[name]
    assert tour.comparable(page) == tour.comparable((FOLDER / f"{name}.md").read_text())
