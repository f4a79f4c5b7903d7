"""Runs over a recogniser: plan, languages by column, detected languages, options, kills."""

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import PlanError
from tests.backends.recognisers.loops import let_write, written
from tests.backends.runs import pipeline
from tests.backends.theirs import RATE, labelling, waves
from tests.here import install_package, run_without_ray
from tests.ops.waves import block_of, labels


def recording_of(corpus):
    [audio, *_] = pq.read_table(corpus / "in" / "a.parquet").column("audio").to_pylist()
    return raysp.audio.decode(audio["bytes"], sample_rate=RATE) / np.float32(32768)


@pytest.mark.slow
def test_a_checkpoint_is_labelled_by_its_name_alone_and_not_continued_by_a_version_that_was_not_measured(
    corpus, recogniser, monkeypatch
):
    run_without_ray(monkeypatch)
    folder = recogniser("qwen3_asr")
    made = pipeline(corpus, folder, backend=None)
    plan = raysp.plan(made)
    assert "raysp has no model of type 'qwen3_asr'" in plan.why_not_own[0]
    assert "padded seconds a pass" in plan.facts["model"]
    assert "steps.1.windows_alone" not in plan.parts
    assert raysp.run(made).rows == 4
    rows = pq.read_table(corpus / "out" / "a.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["ok", "ok", "error", "skipped"]
    assert [rows[0]["pred_text"]] == written(folder, "qwen3_asr", [recording_of(corpus)])
    assert raysp.plan(made).rows_todo == 0
    assert raysp.verify(str(corpus / "out"), sample=4, trust=True).differences == ()
    monkeypatch.syspath_prepend(install_package(corpus / "installed", "transformers", "5.99.1", {}, {}))
    monkeypatch.setenv("XDG_CACHE_HOME", str(corpus / "cache"))
    with pytest.raises(
        PlanError, match=r"its labels were made in padded batches, and here .* but with 5\.\d+; install"
    ):
        raysp.plan(made)
    (corpus / "out").rename(corpus / "old")
    plan = raysp.plan(made)
    assert plan.parts["steps.1.windows_alone"] is True
    assert "one window a pass (padded batches were not measured with transformers 5.99.1" in plan.facts["model"]


def test_a_checkpoint_of_object_storage_comes_with_its_chat_template(corpus, recogniser, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(corpus / "cache"))
    fsspec.filesystem("memory").put(str(recogniser("qwen3_asr")), "/recognisers/asr", recursive=True)
    assert raysp.plan(pipeline(corpus, "memory://recognisers/asr")).rows_todo == 4


@pytest.mark.slow
@pytest.mark.parametrize(("name", "languages"), [("cohere_asr", ("de", "en")), ("nemotron3_5_asr", ("de-DE", "fr-FR"))])
def test_rows_are_in_the_languages_of_a_column(corpus, recogniser, name, languages):
    def labeller(language: object) -> raysp.Labeller:
        outputs = [raysp.Transcript(language=language)]
        return raysp.Labeller(pipeline(corpus, recogniser(name), outputs=outputs).steps)

    row = pq.read_table(corpus / "in" / "a.parquet").slice(1, 1)  # of several windows
    table = pa.concat_tables([row] * 3).append_column("lang", pa.array([*languages, "xx"]))
    rows = labeller(raysp.Column("lang"))(table).to_pylist()
    assert [row["error_type"] for row in rows] == [None, None, "unknown_language"]
    assert "'xx'" in rows[-1]["error_message"]
    alone = [labeller(language)(row).column("pred_text")[0].as_py() for language in languages]
    assert [row["pred_text"] for row in rows[:2]] == alone
    assert alone[0] != alone[1]


@pytest.mark.slow
def test_the_language_that_the_model_writes_first_is_detected_with_its_probability(recogniser):
    op = labelling(recogniser("qwen3_asr"), raysp.Transcript(detect=True))
    model, tokenizer = op.loaded.search.model, op.loaded.files.processor.tokenizer
    mark = tokenizer.convert_tokens_to_ids("<asr_text>")
    ids = [*tokenizer.encode("language German"), mark, *tokenizer.encode("aha"), tokenizer.eos_token_id]
    model.generation_config.suppress_tokens = None
    let_write(model, ids, max_new_tokens=len(ids))
    [row] = labels(op, block_of(waves([16_000]))).values()
    assert row["pred_text"] == "aha"
    assert row["pred_language"]["language"] == "de"
    assert row["pred_language"]["score"] < 1e-6  # of random weights
    assert row["pred_score"] < 0
