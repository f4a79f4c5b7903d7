"""The backend `vllm`, over a stand-in of vLLM's call that answers as transformers does."""

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest

import raysp
from raysp import CheckpointError
from tests.backends.recognisers.loops import LANGUAGES
from tests.backends.runs import pipeline
from tests.backends.theirs import labelling, together_and_alone, waves
from tests.here import install_package, run_without_ray
from tests.ops.waves import block_of, labels

VLLM = "vllm"
FEW = ("cohere_asr", "qwen3_asr")
"""A family with a decoder of its own, and one of a language model."""
STAND_IN = Path(__file__).parent / "vllm_stand_in.py"


def install(folder: Path, version: str, monkeypatch) -> None:
    """Put the stand-in on the path of this process."""
    monkeypatch.syspath_prepend(install_package(folder, VLLM, version, {}, {VLLM: STAND_IN.read_text()}))
    importlib.invalidate_caches()


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """Forget the stand-in, and the variables that the backend sets."""
    for name in ("BATCH_INVARIANT", "ENABLE_V1_MULTIPROCESSING", "LOGGING_STREAM", "NO_USAGE_STATS"):
        monkeypatch.setenv(f"VLLM_{name}", "")
    sys.modules.pop(VLLM, None)
    yield
    sys.modules.pop(VLLM, None)


@pytest.fixture
def vllm(tmp_path, monkeypatch):
    """Install a version that is supported."""
    install(tmp_path / "packages", "0.32.0", monkeypatch)


@pytest.mark.slow
@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize("name", FEW)
def test_texts_alone_and_together_are_those_of_the_backend_transformers(recogniser, name):
    folder, recordings = recogniser(name), waves((24_000, 9_000, 33_333))
    more = {"prompt": "Birds", "generate": {"max_new_tokens": 5}} if name == "qwen3_asr" else {}
    output = raysp.Transcript(language=LANGUAGES.get(name), **more)
    together, alone = together_and_alone(labelling(folder, output, backend=VLLM), recordings)
    assert sys.modules[VLLM].calls == [1, 2, 3, 1, 1, 1]  # the compared pair before them
    theirs = [*labels(labelling(folder, output), block_of(recordings)).values()]
    for rows in (together, alone):
        assert [row["pred_text"] for row in rows] == [row["pred_text"] for row in theirs]
        scores = [[row["pred_score"] for row in of_backend] for of_backend in (rows, theirs)]
        np.testing.assert_allclose(*scores, atol=1e-5)
    assert any(row["pred_text"] for row in theirs)


@pytest.mark.drivers
@pytest.mark.usefixtures("vllm")
def test_a_run_is_verified_and_its_plan_does_not_import_vllm(corpus, recogniser, monkeypatch):
    run_without_ray(monkeypatch)
    made = pipeline(corpus, recogniser("qwen3_asr"), backend=VLLM)
    plan = raysp.plan(made)
    assert "by vllm 0.32.0 with transformers 5" in str(plan.facts)
    assert (plan.parts["steps.1.backend"], plan.parts.get("steps.1.windows_alone")) == (VLLM, None)
    assert VLLM not in sys.modules
    assert raysp.run(made).rows == 4
    assert raysp.verify(str(corpus / "out"), sample=4, trust=True).differences == ()


def test_a_missing_or_an_old_vllm_is_refused_by_the_plan(corpus, recogniser, monkeypatch):
    made = pipeline(corpus, recogniser("qwen3_asr"), backend=VLLM)
    with pytest.raises(CheckpointError, match=r"vllm is not installed; pip install 'raysp\[vllm\]'"):
        raysp.plan(made)
    install(corpus / "packages", "0.11.0", monkeypatch)
    with pytest.raises(CheckpointError, match=r"vllm 0\.11\.0 is installed, expected 0\.22 or later, which has VLLM"):
        raysp.plan(made)


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("canary", {}, "model type 'canary' with backend='vllm', expected one of cohere_asr, .*leave backend out"),
        ("qwen3_asr", {"repetition_penalty": 1.2}, "has repetition_penalty=1.2, which vLLM does not apply"),
        ("cohere_asr", {"max_length": 40, "max_new_tokens": None}, "max_length=40, .*max_new_tokens takes the place"),
    ],
)
def test_families_and_settings_that_vllm_has_otherwise_are_refused_by_the_plan(corpus, edited, name, values, words):
    folder = edited(name, values=values)
    with pytest.raises(CheckpointError, match=words):
        raysp.plan(pipeline(corpus, folder, backend=VLLM))
