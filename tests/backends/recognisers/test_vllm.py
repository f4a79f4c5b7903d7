"""The backend `vllm`, over a stand-in of vLLM's call that answers as transformers does."""

import importlib
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import CheckpointError
from raysp.backends.finding import VLLM, choose
from raysp.backends.on_vllm.vllm_backend import FAMILIES
from tests.backends.killed_runs import check_killed
from tests.backends.recognisers.loops import LANGUAGES
from tests.backends.runs import pipeline, write_corpus
from tests.backends.theirs import labelling, waves
from tests.here import run_without_ray
from tests.ops.test_labelling import block_of, labels

STAND_IN = Path(__file__).parent / "vllm_stand_in.py"


def install(folder: Path, version: str, monkeypatch) -> None:
    """Put the stand-in on the path of this process and of those that it starts."""
    (folder / "vllm").mkdir(parents=True)
    shutil.copy(STAND_IN, folder / "vllm" / "__init__.py")
    (folder / f"vllm-{version}.dist-info").mkdir()
    (folder / f"vllm-{version}.dist-info" / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, sys.path)]))
    monkeypatch.delitem(sys.modules, "vllm", raising=False)
    importlib.invalidate_caches()


@pytest.fixture(autouse=True)
def _clean(monkeypatch):
    monkeypatch.setattr(os, "environ", os.environ.copy())
    yield
    sys.modules.pop("vllm", None)


@pytest.fixture
def vllm(tmp_path, monkeypatch):
    """Install a version that is supported."""
    install(tmp_path / "packages", "0.32.0", monkeypatch)


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path)


def edited(folder: Path, copy: Path, **values) -> Path:
    """Return a copy of a checkpoint with other values in generation_config.json."""
    shutil.copytree(folder, copy)
    file = copy / "generation_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
    return copy


@pytest.mark.slow
@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize("name", FAMILIES)
def test_texts_alone_and_together_are_those_of_the_backend_transformers(recogniser, name):
    folder, recordings = recogniser(name), waves((24_000, 9_000, 16_000, 33_333))
    output = raysp.Transcript(language=LANGUAGES.get(name))
    op = labelling(folder, output, backend=VLLM)
    together = [*labels(op, block_of(recordings)).values()]
    alone = [labels(op, block_of([wave]))[0] for wave in recordings]
    assert sys.modules["vllm"].calls == [1, 2, 4, 1, 1, 1, 1]  # the compared pair before them
    theirs = [*labels(labelling(folder, output), block_of(recordings)).values()]
    for rows in (together, alone):
        assert [row["pred_text"] for row in rows] == [row["pred_text"] for row in theirs]
        np.testing.assert_allclose(
            [row["pred_score"] for row in rows], [row["pred_score"] for row in theirs], atol=1e-5
        )
    assert any(row["pred_text"] for row in theirs)


@pytest.mark.slow
@pytest.mark.usefixtures("vllm")
def test_options_of_a_transcript_reach_prompt_and_search(recogniser):
    folder, [wave] = recogniser("qwen3_asr"), waves([16_000])
    output = raysp.Transcript(language="de", prompt="Birds", generate={"max_new_tokens": 5, "eos_token_id": [257, 259]})
    rows = [labels(labelling(folder, output, backend=name), block_of([wave]))[0] for name in (VLLM, "transformers")]
    assert rows[0]["pred_text"] == rows[1]["pred_text"]
    assert rows[0]["pred_score"] == pytest.approx(rows[1]["pred_score"], abs=1e-5)
    assert len(rows[0]["pred_text"]) <= 5
    [row] = labels(labelling(folder, raysp.Transcript(detect=True), backend=VLLM), block_of([wave])).values()
    assert row["pred_language"] is None or row["pred_language"]["score"] == 0  # random weights write none


@pytest.mark.slow
@pytest.mark.usefixtures("vllm")
def test_a_run_has_a_language_for_each_row_and_its_plan_does_not_import_vllm(corpus, recogniser, monkeypatch):
    run_without_ray(monkeypatch)
    file = corpus / "in" / "a.parquet"
    table = pq.read_table(file).slice(0, 2)
    both = pa.concat_tables([table, table, table.slice(0, 1)])
    pq.write_table(both.append_column("lang", pa.array(["de", "en", "en", "de", "xx"])), file)
    outputs = [raysp.Transcript(language=raysp.Column("lang"))]
    made = pipeline(corpus, recogniser("cohere_asr"), outputs=outputs, backend=VLLM)
    plan = raysp.plan(made)
    assert "by vllm 0.32.0 with transformers 5" in str(plan.facts)
    assert (plan.parts["steps.1.backend"], plan.parts.get("steps.1.windows_alone")) == (VLLM, None)
    assert VLLM not in sys.modules
    raysp.run(made)
    rows = pq.read_table(corpus / "out" / "a.parquet").to_pylist()
    assert [row["error_type"] for row in rows] == [None] * 4 + ["unknown_language"]
    theirs = pipeline(corpus, recogniser("cohere_asr"), outputs=outputs)
    raysp.run(raysp.Pipeline(source=theirs.source, steps=theirs.steps, sink=raysp.Parquet(str(corpus / "theirs"))))
    expected = pq.read_table(corpus / "theirs" / "a.parquet").to_pylist()
    assert [row["pred_text"] for row in rows] == [row["pred_text"] for row in expected]
    assert raysp.verify(str(corpus / "out"), sample=4, trust=True).differences == ()


@pytest.mark.drivers
@pytest.mark.slow
@pytest.mark.usefixtures("vllm")
def test_a_killed_run_continues_to_the_labels_of_an_undisturbed_one(tmp_path, recogniser):
    options = 'backend="vllm", outputs=[raysp.Transcript()]'
    check_killed(tmp_path, recogniser("qwen3_asr"), options, "before_piece_staged:2")


def test_a_missing_or_an_old_vllm_is_refused_by_the_plan(corpus, recogniser, monkeypatch):
    made = pipeline(corpus, recogniser("qwen3_asr"), backend=VLLM)
    with pytest.raises(CheckpointError, match=r"vllm is not installed; pip install 'raysp\[vllm\]'"):
        raysp.plan(made)
    install(corpus / "packages", "0.11.0", monkeypatch)
    with pytest.raises(
        CheckpointError, match=r"vllm 0\.11\.0 is installed, expected 0\.22 or later, which has VLLM_BATCH_INVARIANT"
    ):
        raysp.plan(made)


@pytest.mark.usefixtures("vllm")
@pytest.mark.parametrize(
    ("name", "values", "words"),
    [
        ("canary", {}, "model type 'canary' with backend='vllm', expected one of cohere_asr, .*leave backend out"),
        ("qwen3_asr", {"repetition_penalty": 1.2}, "has repetition_penalty=1.2, which vLLM does not apply"),
        (
            "cohere_asr",
            {"max_length": 40, "max_new_tokens": None},
            "has max_length=40, .*max_new_tokens takes the place of max_length",
        ),
    ],
)
def test_families_and_settings_that_vllm_has_otherwise_are_refused_by_the_plan(
    corpus,
    recogniser,
    name,
    values,
    words,
):
    folder = edited(recogniser(name), corpus / "checkpoint", **values)
    with pytest.raises(CheckpointError, match=words):
        raysp.plan(pipeline(corpus, folder, backend=VLLM))


@pytest.mark.slow
@pytest.mark.usefixtures("vllm")
def test_an_engine_that_fails_or_whose_texts_depend_on_their_batch_is_refused(tmp_path, recogniser):
    folder = edited(recogniser("glmasr"), tmp_path / "checkpoint")
    backend = choose(folder, VLLM).open()
    loaded = backend.load(folder, dtype="float32", device="cpu")
    loaded.check_padding()
    generate = loaded.search.model.generate

    def leaking(prompts, *args, **kwargs):
        outputs = generate(prompts, *args, **kwargs)
        for scores in outputs[0].outputs[0].logprobs:
            for score in scores.values():
                score.logprob += len(prompts) / 10
        return outputs

    loaded.search.model.generate = leaking
    with pytest.raises(CheckpointError, match=r"scores of a recording differ by 0\.1 .*set batch_seconds=0\.01"):
        loaded.check_padding()
    (folder / "no-memory").touch()
    with pytest.raises(
        CheckpointError, match=r"0\.32\.0 cannot read it \(RuntimeError: Engine core initialization fail"
    ):
        backend.load(folder, dtype="float32", device="cpu")
