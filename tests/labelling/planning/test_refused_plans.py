"""Pipelines that are refused before any work: columns, outputs, language models and machines that do not fit."""

import os
from pathlib import Path

import pyarrow as pa
import pytest

import raysp
from raysp import CheckpointError, Keep, PlanError, SpecError
from tests.classifiers import make_classifier
from tests.corpora import CHECKPOINT, a_pipeline, rows_table, write_shard
from tests.device.class_cases import make_checkpoint
from tests.text.beams.arpa_files import write_arpa
from tests.trainings import Sink
from tests.user_specs import Counted, Louder

CLASSES, WRITES = "UniSpeechForSequenceClassification", "SpeechEncoderDecoderModel"
PROBLEMS = {
    "single": ("single_label_classification", 3),
    "multi": ("multi_label_classification", 3),
    "number": ("regression", 1),
    "numbers": ("regression", 3),
}
"""Problems of classifiers, and their numbers of classes."""
TEXT = raysp.Transcript()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two rows with a text and a number, checkpoints, and language models."""
    made = tmp_path_factory.mktemp("refused")
    write_shard(made / "in" / "a.parquet", table=rows_table(2).append_column("length", pa.array([1, 2])))
    for name in (CLASSES, WRITES):
        make_checkpoint(name, made / name)
    for name, (problem, number) in PROBLEMS.items():
        make_classifier(made / name, *map(str, range(number)), problem=problem)
    whole = write_arpa(made / "damaged.arpa", [["ONE", "TWO"], ["NINE"]], 2)
    whole.write_text(whole.read_text().replace("\\2-grams:", "\\3-grams:"))
    write_arpa(made / "lower.arpa", [["one", "two"], ["three"]], 2)
    return made


@pytest.fixture(autouse=True)
def _there(folder, monkeypatch, tmp_path) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def label(*outputs: object, checkpoint: str = str(CHECKPOINT), **fields: object) -> raysp.Label:
    return raysp.Label(checkpoint, outputs=outputs, **fields)


def of(*outputs: object, **fields: object) -> raysp.Pipeline:
    return a_pipeline(label={"outputs": outputs, **fields})


def written(**generate: object) -> list[object]:
    return [label(raysp.Transcript(generate=generate), checkpoint=WRITES)]


def searched(lm: str) -> list[object]:
    return [label(raysp.Transcript(beams=8, lm=lm))]


@pytest.mark.parametrize(
    ("steps", "error", "message"),
    [
        (
            [Counted(), Keep(where=[("words", "==", "one")]), label(TEXT)],
            PlanError,
            "a.parquet: Keep cannot compare 'words' == 'one', a column of int32: expected a number without quotes$",
        ),
        ([Louder(), label(TEXT)], PlanError, r"steps\[1\] Louder: found a step that .* cannot run: it has no op"),
        ([label(raysp.Align("length"))], PlanError, "column 'length' holds int64, expected strings: Align aligns them"),
        (
            [label(TEXT), label(raysp.Align("pred_txt"))],
            PlanError,
            r"has no column 'pred_txt', .*; steps add pred_text, .* \(did you mean 'pred_text'\?\)",
        ),
        (written(num_bims=2), CheckpointError, "generate: generation does not support num_bims=2"),
        (written(num_beams="4"), CheckpointError, "generate: num_beams is '4', expected int"),
        (written(eos_token_id=9999), CheckpointError, "generate: eos_token_id has 9999, expected ids below the voc"),
        (written(max_new_tokens=5000), CheckpointError, "max_length is 5001 tokens, but the decoder has .* positions"),
        (written(seed=1), CheckpointError, "generate: seed acts only with do_sample=True"),
        (written(num_return_sequences=2), CheckpointError, "num_return_sequences is 2; a label holds only one text"),
        (searched("none.arpa"), CheckpointError, "language model '.*none.arpa': no such file; expected an ARPA file"),
        (searched("damaged.arpa"), CheckpointError, r"model '.*damaged.arpa', line \d+: found .*3-grams:'; expected"),
        (searched("lower.arpa"), CheckpointError, r"has 3 words, of which the checkpoint can write 0, not 'one'; its"),
    ],
)
def test_a_plan_refuses_columns_outputs_and_models_that_do_not_fit(steps, error, message):
    with pytest.raises(error, match=message):
        raysp.plan(a_pipeline("in", "out", steps=[raysp.Decode(), *steps]))


@pytest.mark.parametrize(
    ("checkpoint", "output", "message"),
    [
        (CLASSES, raysp.Align("text"), "does not support Align; it supports Classes, Embedding"),
        (CLASSES, raysp.Embedding(layer=(0, 3)), "layer=3, found 2 layers; give -1 to 2"),
        (CLASSES, raysp.Embedding(layer="mix"), "layer='mix', but no head of UniSpeechForSequenceClassification has"),
        (CLASSES, raysp.Embedding(pooling="xvector"), "has no x-vectors; use"),
        (WRITES, raysp.Transcript(words=True), "words and chars need a CTC check"),
        (
            "single",
            raysp.Classes(threshold=0.3),
            "multi-label checkpoints; problem_type is 'single_label_classification'",
        ),
        ("number", raysp.Classes(threshold=0.3), "is for multi-label checkpoints"),
        ("multi", raysp.Classes(top_k=2), "its classes are independent; give threshold=..., or top_k='all'"),
        ("number", raysp.Classes(top_k=2), "a regression with 1 number, which have no order; give top_k='all' or 1"),
        ("numbers", raysp.Classes(), "a regression with 3 numbers, which have no order; give top_k='all'$"),
    ],
)
def test_a_plan_refuses_outputs_that_a_checkpoint_does_not_have(checkpoint, output, message):
    with pytest.raises(CheckpointError, match=message):
        raysp.plan(a_pipeline("in", "out", steps=[raysp.Decode(), label(output, checkpoint=checkpoint)]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: of(TEXT, raysp.Align("pred_text")),
            "Align reads the column 'pred_text', which steps.1. Label adds",
        ),
        (lambda: of(raysp.Align("audio")), "Align reads the column 'audio', the recordings"),
        (lambda: raysp.Transcript(nbest=2), "nbest given with beams=1; they need a beam search, such as beams=8"),
        (lambda: raysp.Transcript(beams=2, nbest=3), "nbest=3 is more than beams=2; raise beams, or lower nbest"),
        (lambda: raysp.Transcript(beams=2, lm_weight=0.6), "lm_weight given without lm, the language model; give lm"),
        (lambda: raysp.Transcript(beams=2, hot_words={"ONE  TWO": 1.0}), "hot_words holds 'ONE  TWO'; give words sep"),
        (lambda: of(raysp.Mos(), windows="speech"), r"leaves out silence, and Mos\(.* needs all frames"),
        (lambda: raysp.Embedding(layer=()), "expected different layers, at least one"),
        (lambda: raysp.Embedding(layer=(1, -2)), "greater than or equal to -1"),
        (lambda: raysp.Embedding(layer="all", pooling="xvector"), "reads no layer"),
        (lambda: of(raysp.Align()), r"needs a column of the source, .* or of='pred'; found none"),
        (lambda: of(raysp.Align("a", of="pred")), r"found text='a' and of='pred'"),
        (lambda: of(raysp.Align(of="pred"), TEXT), r"outputs.0 Align\(of='pred'\) .* found none there"),
        (lambda: of(raysp.Transcript("a"), raysp.Align(of="pred")), r"found 'a' there. Put Transcript\('pred'\)"),
        (lambda: of(raysp.Agreement("text"), TEXT), r"found none there. Put Transcript\('pred'\) before"),
    ],
)
def test_a_pipeline_refuses_fields_that_contradict_each_other(make, message):
    with pytest.raises(SpecError, match=message):
        make()


NO_TF32 = r"dtype='tf32' on the device 'cpu', expected the device 'cuda': .* Set dtype='float32'"
TOO_LARGE = r"its weights take \d\.\d MB in .*, and an actor has \d\.\d MB"


@pytest.mark.parametrize(
    ("gpus", "fields", "message"),
    [
        ("", {"dtype": "tf32"}, NO_TF32),
        ("", {"pool": raysp.Pool(gpus=1)}, r"1 actor of 1 GPU, device='auto'; found 0 GPUs, and this machine has no m"),
        ("0", {"pool": raysp.Pool(gpus=2)}, r"1 actor of 2 GPUs.*found 1 GPU"),
        ("", {"pool": raysp.Pool(memory=4_000_000)}, TOO_LARGE),
        ("0", {"device": "cuda"}, TOO_LARGE),
    ],
)
def test_what_this_machine_does_not_have_is_refused_and_nothing_written(tmp_path, monkeypatch, gpus, fields, message):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    (tool := tmp_path / "bin" / "nvidia-smi").parent.mkdir()
    tool.write_text("#!/bin/sh\necho 1\n")  # a megabyte of memory
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tool.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(PlanError, match=message):
        raysp.run(a_pipeline("in", tmp_path / "out", label=fields), engine="here", progress=False)
    assert not (tmp_path / "out").exists()


def test_the_sink_of_a_training_is_refused_and_stays_as_it_is(tmp_path):
    Sink(tmp_path / "out").train(range(1, 3))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    for start in (raysp.plan, raysp.run):
        with pytest.raises(PlanError, match="out: the sink of a training; choose another folder for the labels"):
            start(a_pipeline("in", tmp_path / "out"))
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


@pytest.mark.parametrize(("options", "seconds", "most"), [({}, 30, 20), ({"max_new_tokens": 9}, 30, 9), ({}, 4, None)])
def test_a_limit_of_texts_that_speech_may_exceed_is_noted(options, seconds, most):
    step = label(raysp.Transcript(generate=options), checkpoint=WRITES, window_seconds=seconds, overlap_seconds=0.5)
    plan = raysp.plan(a_pipeline("in", "out", steps=[raysp.Decode(), step]))
    note = (
        f"pred_text is cut after {most} tokens of a window (max_length), and 30 seconds of speech may have 120: for "
        "recordings of that length pass generate={'max_new_tokens': N}"
    )
    assert {*plan.notes} <= {*plan.messages} & {*plan.messages_at_start}
    assert [one for one in plan.notes if "max_length" in one] == ([note] if most else [])
