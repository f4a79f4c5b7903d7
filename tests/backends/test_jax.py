"""Labels of the Flax classes equal those of the PyTorch classes."""

import os

import numpy as np
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import CheckpointError
from tests.backends.theirs import labelling, waves
from tests.corpora import CHECKPOINT, write_shard
from tests.device.class_cases import make_checkpoint
from tests.here import run_without_ray, without_packages
from tests.ops.test_labelling import block_of, labels

LENGTHS = (9_000, 12_000, 16_000)
TEXTS = raysp.Transcript(generate={"max_new_tokens": 8})


@pytest.fixture(autouse=True, scope="module")
def jax():
    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # both are read when JAX starts
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
    pytest.importorskip("flax", reason='needs pip install "raysp[jax]"')
    return pytest.importorskip("jax", reason='needs pip install "raysp[jax]"')


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("writer")
    make_checkpoint("SpeechEncoderDecoderModel", folder)
    return folder


def pipeline(folder, checkpoint, backend, **label):
    step = raysp.Label(str(checkpoint), backend=backend, **{"outputs": [raysp.Transcript(words=True)], **label})
    return raysp.Pipeline(
        source=raysp.Shards(str(folder / "in")),
        steps=[raysp.Decode(), step],
        sink=raysp.Parquet(str(folder / backend)),
    )


@pytest.mark.slow
def test_real_digits_have_the_texts_and_times_of_torch(tmp_path, monkeypatch):
    run_without_ray(monkeypatch)
    write_shard(tmp_path / "in" / "a.parquet", 12)
    for backend in ("torch", "jax"):
        assert raysp.run(pipeline(tmp_path, CHECKPOINT, backend)).rows == 12
    ours, theirs = (pq.read_table(tmp_path / name / "a.parquet") for name in ("jax", "torch"))
    np.testing.assert_allclose(ours.column("pred_score"), theirs.column("pred_score"), atol=1e-4)
    for name in ("pred_text", "status", "seconds"):
        assert ours.column(name).to_pylist() == theirs.column(name).to_pylist()
    assert raysp.plan(pipeline(tmp_path, CHECKPOINT, "jax")).rows_todo == 0


@pytest.mark.slow
def test_a_model_of_features_has_the_texts_of_torch(tmp_path):
    make_checkpoint("Wav2Vec2BertForCTC", tmp_path)
    words = raysp.Transcript(words=True)
    found = [labels(labelling(tmp_path, words, backend=one), block_of(waves(LENGTHS))) for one in ("torch", "jax")]
    for theirs, ours in zip(*(one.values() for one in found), strict=True):
        assert ours["pred_text"] == theirs["pred_text"]
        assert ours["pred_score"] == pytest.approx(theirs["pred_score"], abs=1e-4)


@pytest.mark.drivers
@pytest.mark.slow
def test_a_decoder_writes_the_texts_of_torch_in_any_batch(writer, tmp_path):
    recordings = waves(LENGTHS)
    write_shard(tmp_path / "in" / "a.parquet", 1)
    assert raysp.plan(pipeline(tmp_path, writer, "jax", outputs=[TEXTS])).rows_todo == 1
    theirs = labels(labelling(writer, TEXTS, backend="torch"), block_of(recordings))
    for seconds in (0.6, 600):
        ours = labels(labelling(writer, TEXTS, batch_seconds=seconds, backend="jax"), block_of(recordings))
        for row, expected in zip(ours.values(), theirs.values(), strict=True):
            assert row["pred_text"] == expected["pred_text"]
            assert row["pred_score"] == pytest.approx(expected["pred_score"], abs=1e-4)


@pytest.mark.soak
def test_samples_depend_on_the_row_and_not_on_its_batch(writer):
    drawn = raysp.Transcript(generate={"max_new_tokens": 8, "do_sample": True, "seed": 3})
    recordings = waves(LENGTHS)
    found = (labelling(writer, drawn, batch_seconds=seconds, backend="jax") for seconds in (1, 600))
    alone, together = ([row["pred_text"] for row in labels(op, block_of(recordings)).values()] for op in found)
    assert alone == together


@pytest.mark.slow
def test_what_has_no_flax_class_is_refused(tmp_path, writer):
    (tmp_path / "classes").mkdir()
    make_checkpoint("UniSpeechForSequenceClassification", tmp_path / "classes")
    write_shard(tmp_path / "in" / "a.parquet", 1)
    with pytest.raises(CheckpointError, match="UniSpeechForSequenceClassification has no Flax class that gives texts"):
        raysp.plan(pipeline(tmp_path, tmp_path / "classes", "jax"))
    with pytest.raises(CheckpointError, match="backend='jax' takes no language and task"):
        raysp.plan(pipeline(tmp_path, writer, "jax", outputs=[raysp.Transcript(language="de")]))


def test_without_the_extra_the_plan_says_what_to_install(tmp_path, monkeypatch):
    write_shard(tmp_path / "in" / "a.parquet", 1)
    for name in ("jax", "flax"):
        with monkeypatch.context() as patched:
            without_packages(patched, name)
            with pytest.raises(CheckpointError, match=rf"package {name} is not installed; pip install 'raysp\[jax\]'"):
                raysp.plan(pipeline(tmp_path, CHECKPOINT, "jax", outputs=[raysp.Transcript()]))
