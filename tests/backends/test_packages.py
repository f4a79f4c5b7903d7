"""Models of other packages by entry points: runs as with a model of raysp, and errors that name the package."""

import json
import sys
import tomllib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

import raysp
from raysp import CheckpointError, RayspError
from tests.backends import runs
from tests.backends.runs import write_corpus
from tests.here import install_package, run_without_ray
from tests.kit import rows, run

EXAMPLE = Path(__file__).parent / "example"


CODE = {"raysp_loudness": (EXAMPLE / "raysp_loudness.py").read_text()}


def installed(folder: Path, *, name: str = "", models: dict[str, str] | None = None) -> Path:
    """Install the example; arguments replace its own name and entry points."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    models = models or project["entry-points"]["raysp.models"]
    return install_package(folder, name or project["name"], project["version"], models, CODE)


@pytest.fixture
def package(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = installed(tmp_path / "installed")
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    folder = tmp_path / "loudness"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "loudness"}))
    save_file({"threshold": torch.tensor(0.25)}, folder / "model.safetensors")
    return folder


def pipeline(folder: Path, checkpoint: Path, **label: object) -> raysp.Pipeline:
    return runs.pipeline(folder, checkpoint, **{"backend": None, "outputs": [raysp.Classes()], **label})


def test_the_example_of_the_documents_is_this_one_of_about_forty_lines():
    [code] = CODE.values()
    assert len(code.splitlines()) <= 45
    assert code in (Path(__file__).parents[2] / "docs" / "extend.md").read_text()


@pytest.mark.slow
def test_a_run_labels_with_the_model_of_a_package(package, checkpoint, tmp_path, monkeypatch):
    run_without_ray(monkeypatch)
    made = pipeline(write_corpus(tmp_path), checkpoint)
    assert raysp.run(made).rows == 4
    rows = pq.read_table(tmp_path / "out" / "a.parquet").to_pylist()
    assert [row["pred_label"] for row in rows] == ["loud", "loud", None, None]
    assert raysp.plan(made).rows_todo == 0
    assert raysp.verify(str(tmp_path / "out"), sample=4, trust=True).differences == ()


def test_name_version_and_code_of_the_package_are_part_of_the_fingerprint(package, checkpoint, tmp_path):
    plan = raysp.plan(made := pipeline(write_corpus(tmp_path), checkpoint))
    found = str(plan.parts["steps.1.package"])
    assert found.startswith("raysp-loudness 0.1 ")
    assert plan.facts["checkpoint"].endswith(f"by {found}")
    (package / "raysp_loudness.py").write_text((package / "raysp_loudness.py").read_text() + "# changed\n")
    assert raysp.plan(made).fingerprint != plan.fingerprint


def test_a_package_that_changes_or_goes_behind_the_plan_labels_nothing(package, checkpoint, tmp_path):
    def change(_: object) -> None:
        (package / "raysp_loudness.py").write_text((package / "raysp_loudness.py").read_text() + "# changed\n")

    def remove(_: object) -> None:
        sys.path.remove(str(package))

    made = pipeline(write_corpus(tmp_path), checkpoint)
    with pytest.raises(RayspError, match=r"planned with raysp-loudness 0.1 \w+, and here is raysp-loudness 0.1"):
        raysp.run(made, engine="here", progress=False, on_plan=change)
    with pytest.raises(RayspError, match="the package raysp-loudness, which offers the model type 'loudness', is not"):
        raysp.run(made, engine="here", progress=False, on_plan=remove)
    assert rows(tmp_path / "out") == []


def test_a_package_replaces_no_model_of_raysp(tmp_path, monkeypatch, tiny):
    monkeypatch.syspath_prepend(installed(tmp_path / "installed", models={"unispeech": "raysp_loudness:Loudness"}))
    parts = raysp.plan(pipeline(write_corpus(tmp_path), tiny, outputs=[raysp.Embedding()])).parts
    assert "steps.1.package" not in parts
    assert json.loads(run(["inspect", tiny, "--json"]).out)["backend"] == "torch"


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import no_such_module", "raysp-loudness 0.1, raysp_loudness:Loudness: describe failed with ModuleNot"),
        ("class Loudness:\n    def describe(self, folder):\n        return {}", "describe returned {}, expected a Che"),
        ("class Loudness: ...", "describe failed with AttributeError"),
        (f"{CODE['raysp_loudness']}\ndel LoudnessModel.run\n", "with summary, device, dtype and run; it has no"),
    ],
)
def test_errors_name_the_package(package, checkpoint, tmp_path, code, words):
    (package / "raysp_loudness.py").write_text(code)
    with pytest.raises(CheckpointError, match=words):
        raysp.Labeller(pipeline(tmp_path, checkpoint).steps)


def test_two_packages_for_one_model_type_are_refused(package, checkpoint, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(installed(tmp_path / "other", name="raysp-noise"))
    with pytest.raises(CheckpointError, match=r"found models of raysp-noise 0.1 and raysp-loudness 0.1"):
        raysp.plan(pipeline(write_corpus(tmp_path), checkpoint))
