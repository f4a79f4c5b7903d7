"""The public names: exactly these, cheap to import, each from its documented module."""

import importlib
import pkgutil
import subprocess
import sys
from importlib.metadata import version

import pytest

import raysp

NAMES = [
    "Agreement", "Align", "AudioError", "Batching", "CTC", "ChangedError", "Checkpoint", "CheckpointError",
    "ClassObjective", "Classes", "Classify", "Clips", "Column", "Csv", "Ctm", "Dataset", "Decode", "Embedding",
    "Env", "Evaluation", "Finetune", "Gain", "Jsonl", "Keep", "Label", "LabelStudio", "Labeller", "LoRA", "Map",
    "Mix", "Mos", "Nemo", "Noise", "Parquet", "Pipeline", "PlanError", "Pool", "RayspError", "Room", "Rttm",
    "RunError", "Schedule", "Segments", "Seq2Seq", "ShardError", "Shards", "Signals", "Speakers", "SpecError",
    "Speech", "Speed", "Srt", "StoreError", "Text", "TextGrid", "TextObjective", "Transcript", "TrustError",
    "Turns", "Utterances", "Vtt", "apply", "corrections", "diff", "estimate", "evaluate", "export", "finetune",
    "forget", "gc", "merge", "plan", "report", "retry", "run", "status", "suggest", "text_bounds", "verify",
]  # fmt: skip
HEAVY = ("torch", "ray", "pyarrow", "pydantic", "numpy", "transformers")


def in_a_fresh_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_the_public_names_are_exactly_these_and_each_is_an_object_with_a_docstring():
    assert sorted(raysp.__all__) == NAMES
    assert set(NAMES) <= set(dir(raysp))
    for name in NAMES:
        found = getattr(raysp, name)
        assert found.__name__ == name
        assert found.__module__.startswith("raysp.")
        assert found.__doc__
    with pytest.raises(AttributeError, match="attribute Nothing"):
        raysp.Nothing  # noqa: B018
    assert raysp.__version__ == version("raysp")


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
    loaded = in_a_fresh_python("import sys, raysp.labelling.engine.ray_pool; print(*sys.modules)").split()
    assert "ray" in loaded
    assert not {"torch", "ray.data", "pandas"} & set(loaded), "the driver of a run on Ray"


def test_no_submodule_has_a_public_name():
    verbs = ("raysp.verbs.", "raysp.evaluation.")  # rooms named as the verb, below a package, where they shadow nothing
    found = [info.name for info in pkgutil.walk_packages(raysp.__path__, "raysp.") if not info.name.startswith(verbs)]
    top = {info.name for info in pkgutil.iter_modules(raysp.__path__)}
    assert not {name.rpartition(".")[2] for name in found} & set(NAMES)
    assert not top & set(NAMES)
    for name in found:
        if not name.startswith("raysp.labelling.engine"):
            importlib.import_module(name)
    assert all(callable(getattr(raysp, name)) for name in NAMES if name[0].islower()), "a module shadows a name"
