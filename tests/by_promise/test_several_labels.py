"""Several `Label` steps: the labels of each are those of a run of its own, with outputs of earlier ones to read."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from safetensors.numpy import load_file, save_file

import raysp
from raysp import ChangedError, SpecError
from tests import kit
from tests.corpora import CHECKPOINT, digits_table, samples_of, with_columns, write_shard
from tests.golden.checkpoints import encoder_decoder, of_encoder
from tests.kit import interrupted, pipeline_file, rows, run
from tests.ops.waves import assert_alike

TEXTS = raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript(words=True)], window_seconds=2, overlap_seconds=0.5)
TIMES = raysp.Label(str(CHECKPOINT), outputs=[raysp.Align("pred_text")], window_seconds=2, overlap_seconds=0.5)
NOT_FOUR = raysp.Keep(where=[("pred_text", "!=", "FOUR")])
CLOSE = {"rel": 1e-5, "abs": 1e-5}


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> list[raysp.Label]:
    """Models of random weights: with other windows than those of the first, and with a text decoder."""
    folder = tmp_path_factory.mktemp("models")
    of_encoder("SEWDForCTC")(folder / "sew-d")
    encoder_decoder("gpt2")(folder / "decoder")
    vectors = raysp.Label(
        str(folder / "sew-d"), outputs=[raysp.Embedding(name="voice")], window_seconds=3, overlap_seconds=1
    )
    texts = raysp.Label(
        str(folder / "decoder"), outputs=[raysp.Transcript(name="again", generate={"max_new_tokens": 5})]
    )
    return [vectors, texts]


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> str:
    """Two shards of digits, one row of several windows each, and rows that are damaged or too short."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, first in (("a", 0), ("b", 12)):
        table = digits_table(12, first)
        audio = table.column("audio").to_pylist()
        long = folder / "long.wav"
        soundfile.write(long, np.concatenate([samples_of(one["bytes"]) for one in 2 * audio[:10]]), 16_000)
        audio[3] = {"bytes": long.read_bytes(), "path": None}
        audio[5] = {"bytes": b"no audio", "path": None}
        audio[7] = {"bytes": kit.sound(np.zeros(100, np.float32)), "path": None}
        write_shard(folder / f"{name}.parquet", table=with_columns(table, {"audio": audio}), row_group_size=4)
    return f"{folder}/*.parquet"


def made(source: object, sink: Path, *steps: object, **fields: object) -> raysp.Pipeline:
    source = source if isinstance(source, raysp.Shards) else raysp.Shards(source)
    return raysp.Pipeline(source, steps=[raysp.Decode(), *steps], sink=raysp.Parquet(str(sink)), **fields)


def labelled(pipeline: raysp.Pipeline, **options: object) -> list[dict[str, object]]:
    raysp.run(pipeline, **{"engine": "here", "progress": False, **options})
    return rows(pipeline.sink.url)


@pytest.fixture(scope="module")
def together(source, others, tmp_path_factory) -> list[dict[str, object]]:
    """The rows of a run of four models with a filter between them and one behind."""
    return labelled(all_of(source, others, tmp_path_factory.mktemp("together")))


def all_of(source: str, others: list[raysp.Label], sink: Path) -> raysp.Pipeline:
    behind = raysp.Keep(where=[("pred_text", "!=", "SIX")])
    return made(source, sink, TEXTS, NOT_FOUR, *others, TIMES, behind)


def test_each_model_gives_the_labels_of_a_run_of_its_own(source, others, together, tmp_path):
    texts = labelled(made(source, tmp_path / "texts", TEXTS))
    after = raysp.Shards(source, labels=str(tmp_path / "texts"))
    times = labelled(made(after, tmp_path / "times", TIMES))
    of_others = [labelled(made(source, tmp_path / str(number), one)) for number, one in enumerate(others)]
    statuses = {row["status"] for row in together}
    assert statuses == {"ok", "skipped", "error"}
    assert {"FOUR", "SIX"} <= {row["pred_text"] for row in texts}
    for number, row in enumerate(together):
        alone = texts[number]
        assert (row["shard"] if "shard" in row else row["id"]) == alone["id"]
        if alone["pred_text"] in ("FOUR", "SIX"):
            assert (row["status"], row["error_type"]) == ("skipped", "filtered")
            assert all(row[name] is None for name in ("pred_text", "voice", "again_text", "aligned_words"))
            continue
        assert row["status"] == alone["status"]
        expected = {**alone, **times[number], **{k: v for one in of_others for k, v in one[number].items()}}
        if row["status"] == "ok":
            assert_alike(row, {name: expected[name] for name in row}, **CLOSE)
    long = [row for row in together if row["seconds"] and row["seconds"] > 3]
    assert len(long) == 2
    assert all(row["voice"] and row["aligned_words"] for row in long)


def test_a_labeller_gives_the_same_rows(source, others, together, tmp_path):
    files = sorted(Path(source).parent.glob("*.parquet"))
    with raysp.Labeller(all_of(source, others, tmp_path / "out").steps) as labeller:
        found = [row for file in files for row in labeller(pq.read_table(file)).to_pylist()]
    assert_alike([{**row, "row": 0} for row in found], [{**row, "row": 0} for row in together], **CLOSE)


def test_stopped_and_run_again_retried_and_verified(source, others, together, tmp_path):
    pipeline = all_of(source, others, tmp_path / "out")
    file = pipeline_file(tmp_path / "label.py", pipeline)
    interrupted(pipeline)
    again = run(["run", file, "--json"])
    assert again.code == 0, again.err
    assert 0 < json.loads(again.out)["rows"] < len(together)
    assert_alike(rows(tmp_path / "out"), together, **CLOSE)
    retried = run(["retry", file, "--json"])
    assert json.loads(retried.out)["rows"] == sum(row["status"] == "error" for row in together)
    assert_alike(rows(tmp_path / "out"), together, **CLOSE)
    verified = run(["verify", file, "--sample", "2"])
    assert verified.code == 0, verified.err + verified.out


def test_the_plan_names_every_checkpoint_and_a_changed_later_step_is_refused(source, others, tmp_path):
    pipeline = made(source, tmp_path / "out", TEXTS, others[0])
    file = pipeline_file(tmp_path / "label.py", pipeline)
    planned = run(["plan", file])
    assert planned.code == 0, planned.err
    [line] = [line for line in planned.out.splitlines() if line.startswith("checkpoint 2")]
    assert f" {others[0].checkpoint}: SEWDForCTC, " in line
    labelled(pipeline)
    other = replace(others[0], window_seconds=4)
    with pytest.raises(ChangedError, match=r"`steps.2.window_seconds` was 3"):
        labelled(made(source, tmp_path / "out", TEXTS, other))


def test_what_cannot_be_is_refused_with_the_step(source, others, tmp_path):
    with pytest.raises(SpecError, match=r"steps\[2\] Label: found pool=.*set it there"):
        made(source, tmp_path, TEXTS, replace(others[0], pool=raysp.Pool(actors=2)))
    with pytest.raises(SpecError, match=r"steps\[1\] Label: outputs\[0\] Align reads the column 'pred_text', which"):
        made(source, tmp_path, TIMES, TEXTS)
    with pytest.raises(SpecError, match=r"steps\[1\] Keep after Label|'pred_text', a column that no step before it"):
        made(source, tmp_path, others[0], NOT_FOUR, TEXTS)


def test_rows_that_a_later_model_leaves_out_or_fails_on_have_no_outputs(tmp_path):
    """A model that needs 0.4 s leaves out short rows; one whose weights are not finite fails on the others."""
    long = tmp_path / "long"
    of_encoder("UniSpeechForCTC", conv_kernel=(16, 8, 80))(long)
    broken = Path(shutil.copytree(long, tmp_path / "broken"))
    tensors = load_file(broken / "model.safetensors")
    save_file({name: one * np.float32(np.nan) for name, one in tensors.items()}, broken / "model.safetensors")
    write_shard(tmp_path / "in" / "a.parquet", table=digits_table(12))
    later = [raysp.Label(str(one), outputs=[raysp.Embedding(name=one.name)]) for one in (long, broken)]

    def label_rows(*steps: raysp.Label) -> list[dict[str, object]]:
        sink = tmp_path / f"out {len(steps)}"
        return labelled(made(str(tmp_path / "in" / "*.parquet"), sink, *steps, max_error_rate=1.0))

    texts, of_both = label_rows(TEXTS), label_rows(TEXTS, *later)
    of_two = label_rows(TEXTS, later[0])
    assert all(row["status"] == "ok" and row["pred_text"] and row["pred_words"] for row in texts)
    assert {row["error_type"] for row in of_two} == {None, "too_short"}
    assert {row["error_type"] for row in of_both} == {"model_output", "too_short"}
    for alone, row, last in zip(texts, of_two, of_both, strict=True):
        if row["status"] == "ok":
            assert row["long"]
            assert {name: row[name] for name in alone} == alone
        else:
            assert (row["status"], row["seconds"]) == ("skipped", alone["seconds"])
            assert all(row[name] is None for name in ("pred_text", "pred_score", "pred_words", "long"))
        assert last["error_type"] == (row["error_type"] or "model_output")
        assert all(last[name] is None for name in ("pred_text", "pred_score", "pred_words", "long", "broken"))
