"""The public names: exactly these, cheap to import, each from its documented module."""

import importlib
import pkgutil
import subprocess
import sys

import pytest

import raysp

NAMES = [
    "Agreement",
    "Align",
    "AudioError",
    "Batching",
    "CTC",
    "ChangedError",
    "Checkpoint",
    "CheckpointError",
    "ClassObjective",
    "Classes",
    "Classify",
    "Clips",
    "Column",
    "Csv",
    "Ctm",
    "Dataset",
    "Decode",
    "Embedding",
    "Env",
    "Evaluation",
    "Finetune",
    "Gain",
    "Jsonl",
    "Keep",
    "Label",
    "LabelStudio",
    "Labeller",
    "LoRA",
    "Map",
    "Mix",
    "Mos",
    "Nemo",
    "Noise",
    "Parquet",
    "Pipeline",
    "PlanError",
    "Pool",
    "RayspError",
    "Room",
    "Rttm",
    "RunError",
    "Schedule",
    "Segments",
    "Seq2Seq",
    "ShardError",
    "Shards",
    "Signals",
    "Speakers",
    "SpecError",
    "Speech",
    "Speed",
    "Srt",
    "StoreError",
    "Text",
    "TextGrid",
    "TextObjective",
    "Transcript",
    "TrustError",
    "Turns",
    "Utterances",
    "Vtt",
    "apply",
    "corrections",
    "diff",
    "estimate",
    "evaluate",
    "export",
    "finetune",
    "forget",
    "gc",
    "merge",
    "plan",
    "report",
    "retry",
    "run",
    "status",
    "suggest",
    "text_bounds",
    "verify",
]
HEAVY = ("torch", "ray", "pyarrow", "pydantic", "numpy", "transformers")


def in_a_fresh_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_the_public_names_are_exactly_these():
    assert sorted(raysp.__all__) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_public_name_resolves_to_its_object(name):
    found = getattr(raysp, name)
    assert found.__name__ == name
    assert found.__module__.startswith("raysp.")
    assert found.__doc__


def test_all_public_names_are_listed_for_completion():
    assert set(NAMES) <= set(dir(raysp))


def test_another_name_is_an_attribute_error_with_its_name():
    with pytest.raises(AttributeError, match="attribute Nothing"):
        raysp.Nothing  # noqa: B018


def test_importing_raysp_loads_nothing_heavy():
    loaded = in_a_fresh_python("import sys, raysp; print(*sorted({name.partition('.')[0] for name in sys.modules}))")
    assert "raysp" in loaded.split()
    assert not set(HEAVY) & set(loaded.split())


def test_making_a_pipeline_and_the_command_line_load_no_torch_and_no_ray():
    loaded = in_a_fresh_python("import sys, raysp, raysp.specs.pipeline, raysp.cli; print(*sys.modules)").split()
    assert "raysp.specs.pipeline" in loaded
    assert not {"torch", "ray", "pyarrow"} & set(loaded)


@pytest.mark.slow
def test_workers_that_read_and_decode_load_no_torch():
    """They are told of the checkpoint as well; importing torch takes them longer than minutes of audio."""
    modules = "raysp.labelling.engine.piece_reading, raysp.ops.decoding, raysp.models.labelled_passes"
    loaded = in_a_fresh_python(f"import sys, {modules}; print(*sys.modules)")
    assert not {"torch", "ray", "pandas"} & set(loaded.split())
    import raysp.models

    assert raysp.models.CheckpointSummary.__module__ == "raysp.models.labelled_passes"


@pytest.mark.slow
def test_the_driver_of_a_run_on_ray_loads_no_torch_and_no_ray_data():
    loaded = in_a_fresh_python("import sys, raysp.labelling.engine.ray_pool; print(*sys.modules)").split()
    assert "ray" in loaded
    assert not {"torch", "ray.data", "pandas"} & set(loaded)


def test_no_submodule_has_a_public_name():
    verbs = ("raysp.verbs.", "raysp.evaluation.")  # rooms named as the verb, below a package, where they shadow nothing
    found = [info.name for info in pkgutil.walk_packages(raysp.__path__, "raysp.") if not info.name.startswith(verbs)]
    top = {info.name for info in pkgutil.iter_modules(raysp.__path__)}
    assert not {name.rpartition(".")[2] for name in found} & set(NAMES)
    assert not top & set(NAMES)


def test_importing_every_module_does_not_shadow_a_public_name():
    for info in pkgutil.walk_packages(raysp.__path__, "raysp."):
        if not info.name.startswith("raysp.labelling.engine"):
            importlib.import_module(info.name)
    assert all(
        callable(getattr(raysp, name))
        for name in ("diff", "evaluate", "export", "gc", "plan", "report", "retry", "run", "status", "verify")
    )


def test_the_version_is_the_installed_one():
    from importlib.metadata import version

    assert raysp.__version__ == version("raysp")
