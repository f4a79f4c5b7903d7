"""The pages of the guide are followed in one folder: their files are written, their programs and commands run."""

import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests import forked, kit

DOCS = kit.CHECKOUT / "docs"
BLOCK = re.compile(
    r"(?:^<!-- (?P<not_run>[^\n]*) -->\n\n)?(?:^`(?P<file>\w+\.\w+)`:?\n\n|^[^\n]* `(?P<named>\w+\.\w+)`:\n\n)?"
    r"^```(?P<kind>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
REASON = re.compile(r"not run: needs [\w ]+")


class Block(NamedTuple):
    """A block of a page: `file` is the file that it is, `not_run` why it is not run here."""

    not_run: str
    file: str
    kind: str
    text: str


def blocks(page: str) -> Iterator[Block]:
    for match in BLOCK.finditer((DOCS / page).read_text()):
        yield Block(match["not_run"] or "", match["file"] or match["named"] or "", match["kind"], match["text"])


def without_numbers(text: str) -> str:
    """Return a text whose numbers, widths of tables and runs of spaces are equal on all machines."""
    return re.sub(r"[-+]?\d[\d.,:]*(?<=\d)", "0", re.sub(r"([ ━─])\1+", r"\1", text))


class Reader:
    """A newcomer who follows the pages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.is_after_training = False
        """Whether numbers are of trained weights, which another processor may change."""
        (folder / "pipelines").symlink_to(kit.CHECKOUT / "pipelines")
        self._environment = {**os.environ, "PYTHONPATH": str(kit.CHECKOUT), "COLUMNS": "100"}

    def follow(self, block: Block) -> None:
        """Write the file that a block is, or run it and compare what it prints."""
        if block.not_run:
            assert REASON.fullmatch(block.not_run), block.not_run
        elif block.file:
            (self.folder / block.file).write_text(block.text)
        elif block.kind == "python":
            self._run("python", "-c", f"import raysp\n{block.text}")
        elif block.kind == "console":
            for step in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                command, _, shown = step.partition("\n")
                self._compare(command, shown.splitlines())
        elif block.text.startswith("raysp "):
            for command in block.text.splitlines():
                self._run(*shlex.split(command))

    def _run(self, program: str, *words: str, code: int = 0) -> str:
        """Return what a command prints, without live lines."""
        if program in ("python", "raysp"):
            arguments = words if program == "python" else ["-m", "raysp", *words]
            ended, said, _ = forked.python(arguments, self._environment, self.folder, merged=True)
        else:
            done = subprocess.run([program, *words], cwd=self.folder, capture_output=True, text=True)
            ended, said = done.returncode, done.stdout + done.stderr
        text = said.replace(str(self.folder), "~/raysp")
        printed = re.sub(r"^raysp: \d+% .*\n", "", text, flags=re.MULTILINE)
        assert ended == code, f"{program} {words} ended with {ended}:\n{printed}"
        return printed

    def _compare(self, command: str, shown: list[str]) -> None:
        """Check that the lines shown are printed in this order; "..." stands for anything, alone for any lines."""
        is_refused = any("made by another pipeline" in line for line in shown)
        printed = self._run(*shlex.split(command), code=2 if is_refused else 0)
        if self.is_after_training:
            printed, shown = without_numbers(printed), without_numbers("\n".join(shown)).split("\n")
        wanted = [re.escape(line).replace(re.escape("..."), ".*") for line in shown]
        pattern = "\n".join(wanted).replace("\n.*\n", "\n(?:.*\n)*?")
        pattern = re.sub(r"^\.\*\n", r"(?:.*\\n)*?", pattern).removesuffix("\n.*")
        assert re.search(pattern, printed), f"$ {command}\n{printed}\nis not\n" + "\n".join(shown)


@pytest.mark.drivers
def test_the_guide_can_be_followed(tmp_path):
    folder = tmp_path / "raysp"
    folder.mkdir()
    reader = Reader(folder)
    for page in ("index.md", "data.md", "label.md", "outputs.md"):
        for block in blocks(page):
            reader.follow(block)
    reader.is_after_training = True
    (noisy, *_) = measured = list(blocks("evaluate.md"))
    for block in (noisy, *blocks("train.md"), *measured):
        reader.follow(block)


def test_blocks_of_the_guide_are_found():
    pages = ("index.md", "data.md", "label.md", "outputs.md", "evaluate.md", "train.md")
    found = [block for page in pages for block in blocks(page)]
    assert len(found) == sum(len(re.findall("^```", (DOCS / page).read_text(), re.MULTILINE)) for page in pages) / 2
    assert sum(bool(block.file) for block in found) >= 8
    assert sum(block.kind == "console" for block in found) >= 10
