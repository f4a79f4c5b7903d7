"""References joined with label rows: evaluations of sinks whose label rows are chosen."""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import raysp
from tests.classifiers import make_classifier, make_speaker_model
from tests.corpora import AUDIO, CHECKPOINT, rewrite, rows_table, wav, with_columns, write_shard

OK = {"status": "ok", "error_type": None, "error_message": None, "seconds": 1.0}


def write(folder: Path, shards: Mapping[str, Sequence[str | None]]) -> None:
    """Write shards of references, with recordings that are too short for a model: labelling them takes no time."""
    for name, texts in shards.items():
        number = len(texts)
        columns = {
            "id": [f"{name}{row}" for row in range(number)],
            "audio": pa.array([{"bytes": wav(20), "path": None}] * number, AUDIO),
            "text": pa.array(texts, pa.string()),
            "by": [f"of {name}{row}" for row in range(number)],
        }
        write_shard(folder / "in" / f"{name}.parquet", table=pa.table(columns))


def choose(folder: Path, labels: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Give label rows their values by shard: those of `OK` but for what is given."""
    for name, rows in labels.items():
        columns = {key: [{**OK, **row}.get(key) for row in rows] for key in {**OK, **rows[0]}}
        rewrite(folder / "out" / f"{name}.parquet", partial(with_columns, columns=columns))


def evaluate(folder: Path, checkpoint: object = CHECKPOINT, **options: Any) -> Any:
    label = checkpoint if isinstance(checkpoint, raysp.Label) else str(checkpoint)
    given = {"text": "text", "by": ["by"], "engine": "here", "progress": False, **options}
    return raysp.evaluate(label, f"{folder}/in", sink=f"{folder}/out", **given)


def skipped(kind: str) -> dict[str, Any]:
    return {"status": "skipped", "error_type": kind, "pred_text": None}


def error(kind: str) -> dict[str, Any]:
    return {"status": "error", "error_type": kind, "pred_text": None}


def test_rows_of_shards_that_failed_are_counted_and_have_no_labels(tmp_path):
    shards = {"a": ["one", None], "b": ["two"], "c": ["three", "four", "five"]}
    write(tmp_path, {name: texts for name, texts in shards.items() if name != "b"})
    evaluate(tmp_path)
    c = [skipped("filtered"), {"pred_text": "for", "seconds": 2.0}, {"pred_text": "five", "seconds": 4.0}]
    choose(tmp_path, {"a": [{"pred_text": "one more"}, {"pred_text": "?"}], "c": c})
    write(tmp_path, {"b": shards["b"]})
    found = evaluate(tmp_path, on_plan=lambda _: (tmp_path / "in" / "b.parquet").unlink())
    rows = found.rows
    assert [*found.run.shards_failed] == ["b.parquet"]
    assert (rows.total, rows.compared, rows.uncommitted, rows.without_reference) == (6, 3, 1, 1)
    assert (rows.skipped, rows.errors) == ({"filtered": 1}, {})
    assert found.facts["not compared"] == "1 without a reference, 1 in shards that failed, 1 skipped (filtered)"
    worst = sorted((one.id, one.shard, one.row, one.seconds, one.reference, one.hypothesis) for one in found.worst)
    assert worst == [("a0", "a.parquet", 0, 1.0, "one", "one more"), ("c1", "c.parquet", 1, 2.0, "four", "for")]
    groups = {one.value: (one.scores.seconds, one.scores.metrics["wer"].value) for one in found.by["by"]}
    assert groups == {"of a0": (1.0, 1.0), "of c1": (2.0, 1.0), "of c2": (4.0, 0.0)}


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_embeddings_are_vectors_and_those_of_rows_without_one_are_none(tmp_path, dtype):
    speakers = ["x", "y", "y", "x", "y", "y"]
    write(tmp_path, {"a": speakers})
    model = make_speaker_model(tmp_path / "speakers")
    label = raysp.Label(model, outputs=[raysp.Embedding(pooling="xvector", dtype=dtype)])
    options = {"text": None, "speaker": "text"}
    evaluate(tmp_path, label, **options)
    vectors = [[1.0, 0.0], None, None, [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]
    rows = [{"embedding": one and one + [0.0] * 10} for one in vectors]
    rows[2] |= {"status": "error", "error_type": "a"}
    choose(tmp_path, {"a": rows})
    found = evaluate(tmp_path, label, **options)
    assert found.scores.counts == {"speakers": 2, "target_pairs": 2, "non_target_pairs": 4, "without_vector": 1}
    assert (found.scores.metrics["eer"].value, found.rows.compared) == (0.0, 5)
    assert found.rows.errors == {"a": 1}


@pytest.mark.parametrize(
    ("values", "task", "references"),
    [
        (pa.array(["one", "one", "two"]).dictionary_encode(), "text", ["one", "one", "two"]),
        (pa.array([b"one", b"one", b"two"]), "text", ["one", "one", "two"]),
        (pa.array([7, 7, 9]), "speaker", ["7", "7", "9"]),
        (pa.array([1, 1, 0]), "label", ["cat", "cat", "dog"]),  # by the names in the metadata of datasets
        (pa.array(["cat", "cat", "dog"]), "label", ["cat", "cat", "dog"]),
    ],
    ids=["dictionary", "bytes", "numbers of speakers", "ClassLabel", "classes"],
)
def test_references_of_every_type_are_read(tmp_path, values, task, references):
    features = {"ref": {"names": ["dog", "cat"], "_type": "ClassLabel"}, "audio": {"_type": "Audio"}}
    audio = pa.array([{"bytes": wav(4000, seed=row), "path": None} for row in range(3)], AUDIO)
    table = pa.table({"id": [*"abc"], "audio": audio, "ref": values})
    if task == "label" and pa.types.is_integer(values.type):
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    write_shard(tmp_path / "in" / "a.parquet", table=table)
    folder = tmp_path / "model"
    model = {
        "text": lambda: CHECKPOINT,
        "speaker": lambda: make_speaker_model(folder),
        "label": lambda: make_classifier(folder, "cat", "dog"),
    }[task]()
    found = evaluate(tmp_path, model, **{"text": None, task: "ref", "by": ["ref"], "rows": None})
    assert found.rows.compared == 3
    groups = {str(group.value): group.scores.rows for group in found.by["ref"]}
    assert sorted(groups.values()) == [1, 2]
    if task != "speaker":
        assert {row.reference for row in found.worst} <= {*references}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": "nothing"}, "column 'nothing' is null in all rows; name the column of the references"),
        (
            {"text": "number"},
            r"a\.parquet: column 'number' holds double, expected strings: source.text is compared with",
        ),
        ({"text": None, "speaker": "number"}, "holds double, expected strings or integers; .* of the speakers"),
        ({"by": ["audio"]}, r"column 'audio' holds struct<.*>, expected single values, by which rows are grouped"),
        ({"by": ["dialect"]}, "has no column 'dialect'"),
    ],
)
def test_columns_that_cannot_be_compared_are_refused(tmp_path, options, message):
    options = {"by": [], **options}
    table = rows_table(2).append_column("nothing", pa.nulls(2, pa.string())).append_column("number", pa.array([0.5, 1]))
    write_shard(tmp_path / "in" / "a.parquet", table=table)
    with pytest.raises(raysp.PlanError, match=message):
        evaluate(tmp_path, make_speaker_model(tmp_path / "model") if "speaker" in options else CHECKPOINT, **options)
