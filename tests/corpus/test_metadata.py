"""Folders of recordings with metadata files, as `audiofolder` of `datasets` has them."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import PlanError
from tests import corpora, kit
from tests.corpora import a_pipeline, wav

ROWS = [
    {"file_name": "b.wav", "text": "two", "speaker": 7},
    {"file_name": "a.wav", "text": "one", "speaker": 3},
]


def write(folder, rows, kind="csv"):
    """Write a metadata file into a folder, which is a path or a store."""
    if kind == "csv":
        names = list(rows[0])
        lines = [",".join(names), *(",".join(json.dumps(row[name]) for name in names) for row in rows)]
        data = "\n".join(lines).replace("\\", "").encode()
    elif kind == "jsonl":
        data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    else:
        out = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows), out)
        data = out.getvalue().to_pybytes()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"metadata.{kind}").write_bytes(data)


@pytest.fixture
def corpus(tmp_path):
    """A folder with three recordings."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number, name in enumerate(("a.wav", "b.wav", "c.wav")):
        (folder / name).write_bytes(wav(1600, seed=number))
    return folder


def pipeline_of(corpus, **fields) -> raysp.Pipeline:
    sink = raysp.Parquet(str(corpus.parent / "out"), keep=fields.pop("keep", ["speaker"]))
    return a_pipeline(raysp.Shards(str(corpus), text=fields.pop("text", "text")), sink, **fields)


def labels_of(corpus) -> list[dict]:
    files = sorted((corpus.parent / "out").glob("*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def rows_of(corpus, *columns: str, text: str | None = None) -> list[dict]:
    found = corpora.read(raysp.Shards(str(corpus), text=text), *(name for name in columns if name not in ("id", text)))
    return [{name: row[name] for name in columns} for row in found]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_its_columns_are_columns_of_the_rows_whichever_kind_it_is_of(corpus, kind):
    write(corpus, ROWS, kind)
    plan = raysp.plan(pipeline_of(corpus))
    assert plan.notes == ("1 recording without metadata or a text beside it: other columns are null",)
    assert plan.corpus.listed.passed_over == {}
    assert rows_of(corpus, "id", "text", "speaker", text="text") == [
        {"id": "a.wav", "text": "one", "speaker": 3},
        {"id": "b.wav", "text": "two", "speaker": 7},
        {"id": "c.wav", "text": None, "speaker": None},
    ]


@pytest.mark.slow
def test_a_recording_that_it_names_and_that_is_not_there_is_an_error_row_until_it_comes(corpus):
    write(corpus, [*ROWS, {"file_name": "later.wav", "text": "three", "speaker": 1}])
    plan = raysp.plan(pipeline_of(corpus))
    assert "1 recording of the metadata, or behind links, not found: their rows become errors (not_found)" in plan.notes
    raysp.run(pipeline_of(corpus), engine="here", progress=False)
    assert [(row["id"], row["error_type"]) for row in labels_of(corpus)][-1] == ("later.wav", "not_found")
    (corpus / "later.wav").write_bytes(wav(1600))
    raysp.run(pipeline_of(corpus), engine="here", progress=False)  # nothing changed of what is labelled
    raysp.retry(pipeline_of(corpus).sink.url, pipeline=pipeline_of(corpus), engine="here", progress=False)
    assert [(row["id"], row["status"], row["text"]) for row in labels_of(corpus)][-1] == ("later.wav", "ok", "three")
    assert raysp.verify(str(corpus.parent / "out"), trust=True).differences == ()


def test_those_of_subfolders_name_files_there_and_types_fit_all_of_them(corpus):
    write(corpus, [{"file_name": "./a.wav", "text": "1"}])
    write(corpus / "x", [{"file_name": "d.wav", "text": "four", "speaker": 2}])
    (corpus / "x" / "d.wav").write_bytes(wav(1600))
    raysp.run(pipeline_of(corpus), engine="here", progress=False)
    assert [(row["id"], row["text"], row["speaker"]) for row in labels_of(corpus)] == [
        ("a.wav", "1", None),
        ("b.wav", None, None),
        ("c.wav", None, None),
        ("x/d.wav", "four", 2),
    ]


@pytest.mark.slow
def test_another_file_between_a_kill_and_the_next_run_is_refused_and_its_shard_labelled_again_on_request(corpus):
    write(corpus, ROWS)
    (corpus / "c.wav").write_bytes(b"no audio at all")  # so that the shard is staged and not committed
    kit.interrupted(pipeline_of(corpus))
    write(corpus, [ROWS[0], {**ROWS[1], "text": "other"}])
    with pytest.raises(PlanError, match=r"its content changed since it was planned.*--shard in-00000.parquet"):
        raysp.plan(pipeline_of(corpus))
    pipeline = pipeline_of(corpus)
    raysp.retry(pipeline.sink.url, shards=["*.parquet"], pipeline=pipeline, engine="here", progress=False)
    assert [row["text"] for row in labels_of(corpus)] == ["other", "two", None]
    (corpus / "metadata.csv").unlink()
    with pytest.raises(PlanError, match="its content changed"):
        raysp.plan(pipeline_of(corpus))


def test_one_that_changes_after_the_plan_fails_its_shard_and_mixes_nothing(corpus):
    write(corpus, ROWS)
    found = corpora.failures(corpus, lambda: write(corpus, [ROWS[0], {**ROWS[1], "speaker": 4}]), "speaker")
    assert "metadata of 'a.wav' changed since it was planned" in found[""]


def test_numbers_of_a_csv_file_are_numbers_except_for_codes_and_empty_cells_are_null(corpus):
    text = 'file_name,a,b,c,d,e\na.wav,1,1.5,007,"",x\n"b.wav",-2,3e2,12,,"y\nz"\n'
    (corpus / "metadata.csv").write_text("\ufeff" + text)
    assert rows_of(corpus, "a", "b", "c", "d", "e")[:2] == [
        {"a": 1, "b": 1.5, "c": "007", "d": "", "e": "x"},
        {"a": -2, "b": 300.0, "c": "12", "d": None, "e": "y\nz"},
    ]


def test_names_that_lead_out_of_the_folder_are_error_rows(corpus):
    (corpus.parent / "secret.wav").write_bytes(wav(1600))
    names = ["../secret.wav", "/etc/passwd", "file:///etc/passwd", "x/../../secret.wav"]
    write(corpus, [*ROWS, *({"file_name": name, "text": name, "speaker": 1} for name in names)])
    rows = [row for row in corpora.read(corpus, "text", "speaker") if row["speaker"] == 1]
    assert sorted(row["text"] for row in rows) == sorted(names)
    assert {row["error_type"] for row in rows} == {"path_not_allowed"}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"metadata.csv": "name,text\na.wav,x\n"},
            r"metadata\.csv: its columns are name, text; expected one 'file_name'",
        ),
        ({"metadata.csv": ""}, "expected one 'file_name'"),
        ({"metadata.csv": "file_name,a\na.wav,1\na.wav,2\n"}, r"lists 'a\.wav' more than once"),
        ({"metadata.csv": "file_name,x\na.wav,1\n", "x/metadata.jsonl": "{}"}, r"several kinds \(\.csv, \.jsonl\)"),
        ({"metadata.jsonl": '{"file_name": "a.wav"}\n{"file_name": null}\n'}, "row 2 has None as its file_name"),
        ({"metadata.jsonl": "nonsense"}, r"metadata\.jsonl: line 1 of this slice is not JSON"),
        ({"metadata.csv": "file_name,audio\na.wav,1\n"}, "has a column 'audio', which is reserved for the recordings"),
        ({"metadata.csv": "file_name,a\na.wav\n"}, r"metadata\.csv: .*Expected 2 columns, got 1.*is ignored"),
    ],
)
def test_one_that_cannot_be_used_is_refused_before_any_work(corpus, files, message):
    for name, text in files.items():
        (corpus / name).parent.mkdir(exist_ok=True)
        (corpus / name).write_text(text)
    with pytest.raises(PlanError, match=message):
        raysp.plan(pipeline_of(corpus))


@pytest.mark.slow
def test_each_piece_has_its_own_rows(corpus):
    rows = [{"file_name": f"{n:05}.wav", "text": f"text {n}", "speaker": 0} for n in range(900)]
    write(corpus, rows, "jsonl")
    assert [piece.num_rows for piece in raysp.plan(pipeline_of(corpus)).corpus.shards[0].pieces] == [400, 400, 103]
    raysp.run(pipeline_of(corpus, max_error_rate=1.0), engine="here", progress=False)
    found = [(row["id"], row["text"]) for row in labels_of(corpus)]
    assert found[:900] == [(row["file_name"], row["text"]) for row in rows]
