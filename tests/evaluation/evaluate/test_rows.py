"""References joined with label rows: evaluations of sinks whose label rows are chosen."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import raysp
from tests.classifiers import make_speaker_model
from tests.corpora import AUDIO, CHECKPOINT, rewrite, wav, with_columns, write_shard

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


def test_no_label_rows_at_all(tmp_path):
    write(tmp_path, {"a": ["x", None], "b": ["y"]})
    corpus = f"{tmp_path}/in"
    options = {"text": "text", "rows": 20, "engine": "here", "progress": False}
    found = raysp.evaluate(
        str(CHECKPOINT), corpus, **options, on_plan=lambda _: [one.unlink() for one in Path(corpus).iterdir()]
    )
    assert (found.rows.compared, found.rows.uncommitted, found.rows.without_reference) == (0, 2, 1)
    assert (found.exit_code, found.scores.metrics["wer"].value, found.worst) == (3, None, ())
    assert found.nothing_compared == "no row was compared: 1 without a reference, 2 in shards that failed"


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


def test_reasons_are_sorted_by_frequency(tmp_path):
    write(tmp_path, {"a": ["x", "y", "z", "v"]})
    evaluate(tmp_path)
    choose(tmp_path, {"a": [error("b"), error("a"), error("a"), {"pred_text": "v"}]})
    found = evaluate(tmp_path)
    assert [*found.rows.errors.items()] == [("a", 2), ("b", 1)]
    assert found.facts["not compared"] == "2 errors (a), 1 error (b)"


def test_another_number_of_label_rows_is_refused(tmp_path):
    write(tmp_path, {"a": ["x"]})
    evaluate(tmp_path)
    rewrite(tmp_path / "out" / "a.parquet", lambda table: table.slice(0, 0))
    with pytest.raises(ValueError, match="found 0 label rows for 1 rows"):
        evaluate(tmp_path)
