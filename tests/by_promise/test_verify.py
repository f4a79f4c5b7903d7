"""Faults put into a finished sink by hand, each found and named; and whole sinks in which nothing is found."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import ChangedError, PlanError
from tests.corpora import DEMO, a_pipeline, damaged, digits_table, rewrite, with_columns, write_shard

pytestmark = pytest.mark.lengthy

DIGITS = digits_table()
IDS = DIGITS.column("id").to_pylist()[:6]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> dict[str, Path]:
    """Two shards, labelled in several ways; one recording of the second cannot be decoded."""
    folder = tmp_path_factory.mktemp("verify")
    for name, table in {"a": DIGITS.slice(0, 6), "b": damaged(DIGITS.slice(6, 6), 4)}.items():
        write_shard(folder / "in" / f"{name}.parquet", table=table, row_group_size=3)
    kinds = {"all": {}, "ok": {"rows": "ok"}, "half": {}}
    for kind, fields in kinds.items():
        sink = raysp.Parquet(str(folder / kind), keep=["speaker_id"], compression="none", **fields)
        label = {"outputs": [raysp.Transcript(words=True)], "dtype": "bfloat16" if kind == "half" else "float32"}
        raysp.run(a_pipeline(f"{folder}/in/*.parquet", sink, label=label), engine="here", progress=False)
    return {kind: folder / kind for kind in kinds}


@pytest.fixture
def sink(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished["all"], tmp_path / "labels"))


def found(sink: Path, **options) -> list[str]:
    verified = raysp.verify(str(sink), trust=True, **options)
    assert verified.exit_code == bool(verified.differences)
    return list(verified.differences)


@pytest.mark.parametrize("kind", ["all", "ok"])
def test_a_sink_as_it_should_be_has_no_difference_and_orphans_are_listed(finished, kind):
    orphan = finished[kind] / ".raysp" / "tmp" / "0123"
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"x")
    verified = raysp.verify(str(finished[kind]), sample=5, trust=True)
    assert verified.differences == ()
    assert (verified.shards, verified.rows, verified.sampled, verified.duplicate_ids) == (2, 12, 5, 0)
    assert (verified.orphans, verified.sources_missing, verified.exit_code) == ((".raysp/tmp/0123",), (), 0)


NOT_IN_ORDER = "its row numbers do not ascend within the 6 rows of the shard); label its shard again with `raysp retry"


def of_column(name: str, values: list[object]) -> Callable[[pa.Table], pa.Table]:
    return lambda table: with_columns(table, {name: values})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda table: table.take([0, 2, 1, 3, 4, 5]), NOT_IN_ORDER),
        (lambda table: table.take([0, 1, 1, 2, 3, 4, 5]), NOT_IN_ORDER),
        (lambda table: table.take([0, 1, 2, 4, 5]), "a.parquet: missing: 1 of 6 rows, the first is row 3"),
        (of_column("id", [*IDS[:5], "other"]), f"a.parquet: row 5: id is 'other', in the source it is {IDS[5]!r}"),
        (of_column("speaker_id", ["x"] * 6), "a.parquet: row 0: speaker_id is 'x', in the source it is "),
        (of_column("error_type", ["x"] * 6), "a.parquet: row 0: error_type must be null exactly where status is ok"),
    ],
    ids=["order", "twice", "missing", "id", "kept column", "reason"],
)
def test_rows_that_were_changed_are_named(sink, change, expected):
    rewrite(sink / "a.parquet", change)
    assert any(expected in line for line in found(sink)), found(sink)


def test_files_and_metadata_that_were_changed_are_named(finished, sink):
    counts = pq.read_metadata(sink / "b.parquet").metadata[b"raysp.counts"].decode()
    rewrite(sink / "b.parquet", counts=counts.replace('"skipped": {}', '"skipped": {"too_short": 7}'))
    assert found(sink) == ["b.parquet: its metadata says skipped={'too_short': 7}, found {}"]
    (sink / "b.parquet").unlink()
    shutil.copy(sink / "a.parquet", sink / "copy.parquet")
    fingerprint = json.loads((sink / ".raysp" / "run.json").read_text())["fingerprint"]
    rewrite(sink / "a.parquet", fingerprint="0123456789abcdef")
    # Its receipt is still there: verify reads every footer.
    assert sorted(found(sink)) == [
        f"a.parquet: fingerprint: '0123456789abcdef' -> '{fingerprint}'",
        "b.parquet: not committed: there is no label shard; run again",
        "copy.parquet: readers see this file, but it is not in the sink's plan",
    ]
    ok = Path(shutil.copytree(finished["ok"], sink.parent / "ok"))
    shutil.rmtree(ok / ".raysp" / "errors")
    assert "b.parquet: missing: 1 of 6 rows, the first is row 4" in found(ok)


def test_a_bit_that_flipped_in_a_page_is_found_by_its_checksum(sink):
    path = sink / "a.parquet"
    data = path.read_bytes()
    text = pq.read_table(path).column("pred_text")[2].as_py().encode()
    assert data.count(text)
    path.write_bytes(data.replace(text, bytes([text[0] ^ 2]) + text[1:]))
    [line] = found(sink)
    assert line.startswith("a.parquet: cannot be read: ")
    assert "CRC" in line


def test_a_label_that_the_row_alone_does_not_give_is_found_in_a_sample_by_seed(sink):
    rewrite(sink / "a.parquet", of_column("pred_text", ["FOUR HUNDRED"] * 6))
    assert found(sink) == []
    differences = found(sink, sample=11)
    assert len(differences) == 6
    assert all("pred_text is 'FOUR HUNDRED', recomputed alone '" in line for line in differences)
    by_seed = [found(sink, sample=3, seed=seed) for seed in (1, 2, 3, 1)]
    assert len({*map(tuple, by_seed)}) > 1
    assert by_seed[0] == by_seed[-1]


@pytest.mark.parametrize(("wrong", "equal"), [([2], 10), ([1, 2, 3], 8)])
def test_rows_in_half_precision_are_compared_by_the_share_of_equal_ones(finished, tmp_path, wrong, equal):
    sink = Path(shutil.copytree(finished["half"], tmp_path / "labels"))

    def other(table: pa.Table) -> pa.Table:
        texts = [f"{text} TEN" if row in wrong else text for row, text in enumerate(table["pred_text"].to_pylist())]
        return with_columns(table, {"pred_text": texts})

    rewrite(sink / "a.parquet", other)
    verified = raysp.verify(str(sink), sample=100, trust=True)
    assert (verified.sampled, verified.sampled_equal) == (11, equal)
    assert len(verified.differences) == (len(wrong) > 1)
    if verified.differences:
        assert re.match(
            r"8 of 11 sampled rows are equal when labelled again alone \(72\.7%\), expected at least 90% in "
            r"bfloat16: a\.parquet: row \d: pred_text is '.* TEN', recomputed alone '",
            verified.differences[0],
        )


def moved(seconds: float) -> Callable[[Any], Any]:
    return lambda words: [{**one, "start": one["start"] + seconds} for one in words]


def test_texts_are_compared_exactly_and_numbers_to_three_digits(sink):
    changes = [
        {"pred_text": lambda text: None},
        {"pred_score": lambda score: score - 0.0004, "pred_words": moved(0.0001)},
        {"pred_score": lambda score: score - 0.002},
        {"pred_words": moved(0.1)},
        {"pred_words": lambda words: words * 2},
        {},
    ]

    def changed(table: pa.Table) -> pa.Table:
        rows = [
            {**row, **{name: change(row[name]) for name, change in changes_of_row.items()}}
            for row, changes_of_row in zip(table.to_pylist(), changes, strict=True)
        ]
        return pa.Table.from_pylist(rows, table.schema)

    rewrite(sink / "a.parquet", changed)
    found_rows = [
        re.search(r"row (\d): (\w+) is .*, recomputed alone ", line).groups() for line in found(sink, sample=11)
    ]
    assert sorted(found_rows) == [("0", "pred_text"), ("2", "pred_score"), ("3", "pred_words"), ("4", "pred_words")]


def test_duplicate_ids_and_missing_shards_are_counted_and_changed_content_is_a_difference(tmp_path):
    rows = DIGITS.slice(0, 3).to_pylist()
    rows[1]["id"] = rows[2]["id"] = rows[0]["id"]
    write_shard(tmp_path / "in" / "a.parquet", table=pa.Table.from_pylist(rows, DIGITS.schema))
    write_shard(tmp_path / "in" / "b.parquet", table=pa.Table.from_pylist(rows[:1], DIGITS.schema))
    raysp.run(a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out"), engine="here", progress=False)
    verified = raysp.verify(str(tmp_path / "out"), trust=True)
    assert (verified.duplicate_ids, verified.differences) == (3, ())
    write_shard(tmp_path / "in" / "b.parquet", table=DIGITS.slice(7, 1))
    [difference] = found(tmp_path / "out")
    assert "changed since it was planned" in difference
    (tmp_path / "in" / "b.parquet").unlink()
    verified = raysp.verify(str(tmp_path / "out"), trust=True)
    assert (verified.sources_missing, verified.differences, verified.rows) == (("b.parquet",), (), 4)


def test_a_checkpoint_that_changed_and_a_folder_without_a_sink_are_refused(tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", table=DIGITS.slice(0, 1))
    checkpoint = shutil.copytree(DEMO / "unispeech-digits-ctc", tmp_path / "checkpoint")
    steps = [raysp.Decode(), raysp.Label(str(checkpoint), outputs=[raysp.Transcript()])]
    raysp.run(a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out", steps=steps), engine="here", progress=False)
    vocabulary = json.loads((checkpoint / "vocab.json").read_text())
    (checkpoint / "vocab.json").write_text(json.dumps(vocabulary, indent=9))
    assert found(tmp_path / "out") == []
    with pytest.raises(ChangedError, match=r"the files of `steps.1.checkpoint` changed"):
        raysp.verify(str(tmp_path / "out"), sample=1, trust=True)
    with pytest.raises(PlanError, match="not a sink of raysp"):
        raysp.verify(str(tmp_path / "in"), trust=True)
