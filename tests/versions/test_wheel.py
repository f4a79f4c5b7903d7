"""The wheel, made from the source distribution as a release is, installed in a new environment and used there."""

import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from packaging.requirements import Requirement

CHECKOUT = Path(__file__).parents[2]
PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "demo-labels")
SOURCE_DISTRIBUTION = "from setuptools.build_meta import build_sdist; print(build_sdist('dist'))"


def succeed(*command: object, folder: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """Build both distributions from a copy, where no earlier build has left modules that are gone since."""
    copy = tmp_path_factory.mktemp("release") / "checkout"
    shutil.copytree(CHECKOUT, copy, ignore=LEFT_OUT)
    name = succeed(sys.executable, "-c", SOURCE_DISTRIBUTION, folder=copy).splitlines()[-1]
    offline = ("--no-deps", "--no-build-isolation", "--no-index")
    succeed(sys.executable, "-m", "pip", "wheel", *offline, "-w", "dist", f"dist/{name}", folder=copy)
    return copy / "dist"


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """Install the wheel in a new environment; the libraries are those of this one."""
    folder = tmp_path_factory.mktemp("environment")
    succeed(sys.executable, "-m", "venv", "--without-pip", folder, folder=folder)
    pip = [sys.executable, "-m", "pip", "--python", folder / "bin" / "python"]
    succeed(*pip, "install", "--no-index", "--no-deps", wheel, folder=folder)
    (site,) = folder.glob("lib/python*/site-packages")
    # A line of a .pth file comes after the environment's own packages, and the .pth files there are not read: what
    # leads an editable installation to the checkout has no effect.
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    return folder


@pytest.mark.drivers
def test_the_distributions_have_the_modules_of_raysp_and_the_metadata_of_the_project(built, wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    files = [path for path in (CHECKOUT / "raysp").rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
    modules = {str(path.relative_to(CHECKOUT)) for path in files}
    assert {Path(name).suffix or Path(name).name for name in modules} <= {".py", ".pyi", ".html", ".typed"}
    assert {name for name in names if not name.startswith("raysp-")} == modules
    assert any(name.endswith(".dist-info/licenses/LICENSE") for name in names)
    [archive] = built.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        top = {Path(name).parts[1] for name in packed.getnames() if len(Path(name).parts) > 1}
    assert {"raysp", "pyproject.toml", "README.md", "LICENSE"} <= top
    assert not top & {"benchmarks", "docs", "cluster", "pipelines"}

    [name] = (name for name in names if name.endswith(".dist-info/METADATA"))
    metadata = message_from_bytes(zipfile.ZipFile(wheel).read(name))
    assert (metadata["Name"], metadata["Version"]) == (PROJECT["name"], PROJECT["version"])
    required = {str(Requirement(line)) for line in metadata.get_all("Requires-Dist") if "extra ==" not in line}
    assert required == {str(Requirement(line)) for line in PROJECT["dependencies"]}


@pytest.mark.drivers
def test_the_installed_command_labels_speech(environment, tmp_path):
    shutil.copytree(CHECKOUT / "pipelines", tmp_path / "pipelines")
    raysp = environment / "bin" / "raysp"
    assert succeed(raysp, "--version", folder=tmp_path).split()[:2] == ["raysp", PROJECT["version"]]
    where = succeed(environment / "bin" / "python", "-c", "import raysp; print(raysp.__file__)", folder=tmp_path)
    assert Path(where.strip()).is_relative_to(environment)
    assert "THREE" in succeed(raysp, "run", "pipelines/label_digits.py", "--rows", 3, folder=tmp_path)
    succeed(raysp, "run", "pipelines/label_digits.py", folder=tmp_path)
    labels = [pq.read_table(path) for path in (tmp_path / "demo-labels").rglob("digits-*.parquet")]
    assert sum(table.num_rows for table in labels) == 300
    assert {status for table in labels for status in table["status"].to_pylist()} == {"ok"}


def test_the_versions_of_python_that_are_named_are_those_that_the_tests_run_on():
    named = [line.rpartition(" ")[2] for line in PROJECT["classifiers"] if "Python :: 3." in line]
    oldest = re.search(r"^PYTHON \?= python(\S+)$", (CHECKOUT / "Makefile").read_text(), re.M)[1]
    newest = re.search(r"^for version in (.*); do$", (CHECKOUT / ".ci/newest-python").read_text(), re.M)[1].split()
    assert named == sorted([oldest, *newest])
    after = int(newest[0].partition(".")[2]) + 1
    assert PROJECT["requires-python"] == f">={oldest},<3.{after}"
