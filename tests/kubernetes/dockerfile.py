"""The Dockerfile as stages of instructions, and its steps run without an engine of containers."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from tests.kubernetes.manifests import CLUSTER

ROOT = CLUSTER.parent
FILE = CLUSTER / "Dockerfile"
IGNORED = CLUSTER / "Dockerfile.dockerignore"


@dataclass
class Stage:
    """One stage: what it begins with, and its instructions as (keyword, rest of the line)."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, keyword: str) -> list[str]:
        return [rest for found, rest in self.instructions if found == keyword]


def stages(text: str) -> dict[str, Stage]:
    """Return the stages of a Dockerfile by name."""
    found: dict[str, Stage] = {}
    current = None
    for keyword, rest in _instructions(text):
        if keyword == "FROM":
            base, name = re.fullmatch(r"(\S+) AS (\S+)", rest).groups()
            current = found[name] = Stage(name, base)
        elif current:
            current.instructions.append((keyword, rest))
    return found


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        keyword, _, rest = line.partition(" ")
        yield keyword, " ".join(rest.split())


def with_bases(name: str, known: Mapping[str, Stage]) -> list[Stage]:
    """Return a stage and the stages that it begins with, the first one first."""
    stage = known[name]
    return [*(with_bases(stage.base, known) if stage.base in known else []), stage]


def sources(stage: Stage) -> list[str]:
    """Return what a stage copies from the repository."""
    return [one for rest in stage.all("COPY") if not rest.startswith("--from=") for one in rest.split()[:-1]]


def is_sent(path: str, ignored: str) -> bool:
    """Return whether Docker sends a path of the repository to the builder, by a file of ignored paths."""
    sent = True
    for line in ignored.splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        if not line or line.startswith("#"):
            continue
        parts = path.split("/")
        anywhere = line.startswith("**/") and any(fnmatch(part, pattern) for part in parts)
        below = not line.startswith("**/") and any(
            fnmatch("/".join(parts[:end]), pattern) for end in range(1, len(parts) + 1)
        )
        if anywhere or below:
            sent = line.startswith("!")
    return sent


class Scratch:
    """A folder in which the steps of stages run: each stage has a root there, and its paths are below it.

    Args:
        folder: an empty folder.
        arguments: of the build.
        python: what stands for the Python of the image.
    """

    SYSTEM = ("groupadd", "useradd", "install")
    """Commands that would change this machine. They are recorded, not run."""

    def __init__(self, folder: Path, arguments: Mapping[str, str], python: str) -> None:
        self.folder, self.arguments = folder, arguments
        self.commands = folder / "bin"
        self.commands.mkdir()
        (self.commands / "python").symlink_to(python)
        for name in self.SYSTEM:
            stub = self.commands / name
            stub.write_text(f'#!/bin/sh\necho {name} "$@" >> {folder}/recorded\n')
            stub.chmod(0o755)

    @property
    def recorded(self) -> list[str]:
        return (self.folder / "recorded").read_text().splitlines()

    def run(self, target: str, known: Mapping[str, Stage]) -> Path:
        """Run a stage and those that it needs, and return its root."""
        root = self.folder / target
        if root.exists():
            return root
        root.mkdir()
        environment = {**os.environ, "PATH": f"{self.commands}:/usr/bin:/bin"}
        place = root
        for stage in with_bases(target, known):
            for keyword, rest in stage.instructions:
                if keyword == "ARG":
                    name, _, value = rest.partition("=")
                    environment[name] = self.arguments.get(name, value)
                elif keyword == "WORKDIR":
                    place = root / rest.lstrip("/")
                    place.mkdir(parents=True, exist_ok=True)
                elif keyword == "COPY":
                    self._copy(rest, root, place, known)
                elif keyword == "RUN":
                    subprocess.run(["/bin/sh", "-ec", self._below(rest, root)], cwd=place, env=environment, check=True)
        return root

    def _copy(self, rest: str, root: Path, place: Path, known: Mapping[str, Stage]) -> None:
        *found, to = rest.split()
        origin = ROOT
        if found[0].startswith("--from="):
            origin = self.run(found.pop(0).removeprefix("--from="), known)
        target = root / to.lstrip("/") if to.startswith("/") else place / to
        for one in found:
            path = origin / one.lstrip("/")
            if path.is_dir():
                shutil.copytree(path, target, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                end = target / path.name if to.endswith("/") else target
                end.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, end)

    @staticmethod
    def _below(command: str, root: Path) -> str:
        return re.sub(r"(?<=[\s\"=])/(?=(opt|wheels|constraints|var|home)\b)", f"{root}/", command)
