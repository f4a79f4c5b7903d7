"""Requirements of the environments with the oldest and the newest versions: `python tests/versions/bounds.py oldest`.

Torch is left out: the Makefile installs the release of constraints.txt, in the newest environment only a CPU build.
So is silero-vad, which asks for torchaudio: the Makefile installs it alone.
"""

import re
import sys
import tomllib
from pathlib import Path

EXTRAS = ("s3", "turns")
LEFT_OUT = ("torch", "silero-vad")
TEST_PACKAGES = (
    "duckdb",
    "hypothesis",
    "jsonschema",
    "moto",
    "pandas",
    "praatio",
    "psutil",
    "pysubs2",
    "pytest",
    "pytest-xdist",
    "sentencepiece",
    "webvtt-py",
)
"""Packages of the extra `dev` that the quick tests use, in any version. Others need torch or are slow to install."""


def requirements(which: str, text: str) -> list[str]:
    """Return the lines for pip: each lower bound of pyproject.toml as a pin, or each range as it stands."""
    project = tomllib.loads(text)["project"]
    extras = project["optional-dependencies"]
    product = [*project["dependencies"], *(line for extra in EXTRAS for line in extras[extra])]
    product = [line for line in product if _name(line) not in LEFT_OUT]
    if which == "oldest":
        product = [line.replace(">=", "==") for line in product]
    return product + [line for line in extras["dev"] if _name(line) in TEST_PACKAGES]


def _name(line: str) -> str:
    return re.split(r"[\[><=]", line, maxsplit=1)[0]


if __name__ == "__main__":
    sys.stdout.write("\n".join(requirements(sys.argv[1], Path("pyproject.toml").read_text())) + "\n")
