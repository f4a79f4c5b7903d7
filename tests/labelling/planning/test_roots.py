"""The root that a sink's label shards are named relative to: recorded at the first plan, and kept."""

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

import raysp
from raysp import ChangedError
from raysp.sink import plan_record, table_files
from tests import kit
from tests.corpora import a_pipeline, rows_table, wav, write_shard

RUN = ".raysp/run.json"


def label(pipeline: raysp.Pipeline) -> None:
    raysp.run(pipeline, engine="here", progress=False)


@pytest.fixture
def data(tmp_path) -> Path:
    write_shard(tmp_path / "data" / "a" / "x.parquet", 2)
    write_shard(tmp_path / "data" / "b" / "y.parquet", 3)
    return tmp_path / "data"


@pytest.fixture
def sink(data, tmp_path) -> Path:
    """A sink of the first folder alone."""
    label(a_pipeline(str(data / "a"), tmp_path / "out"))
    return tmp_path / "out"


def forget_root(sink: Path) -> None:
    """Make the record that of a sink from before roots were recorded."""
    file = sink / RUN
    found = json.loads(file.read_text())
    del found["root"]
    file.write_text(json.dumps(found))


def files(sink: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in sink.rglob("*") if file.is_file()}


def sources_of_both(data: Path) -> list[raysp.Shards]:
    return [
        raysp.Shards([str(data / "a"), str(data / "b")]),
        raysp.Shards(str(data)),
        raysp.Shards(str(data / "a"), root=str(data)),
        raysp.Shards(str(data / "b")),
    ]


@pytest.mark.parametrize("is_old", [False, True])
@pytest.mark.parametrize("number", range(4))
def test_another_root_is_refused_with_both_and_the_remedy(data, sink, number, is_old):
    if is_old:
        forget_root(sink)
    shutil.rmtree(sink / ".raysp" / "lease")
    before = files(sink)
    pipeline = a_pipeline(sources_of_both(data)[number], sink)
    other = data / "b" if number == 3 else data
    message = (
        rf"{sink}: its label shards are named relative to '{data}/a', this source's to '{other}'.*"
        rf"Set source.root='{data}/a', undo the change of source.url, or use another sink"
    )
    with pytest.raises(ChangedError, match=message) as error:
        raysp.run(pipeline, engine="here", progress=False)
    assert error.value.differences == (f"source.root: '{data}/a' -> '{other}'",)
    shutil.rmtree(sink / ".raysp" / "lease")
    assert files(sink) == before


def test_the_remedy_of_the_message_works(data, sink, tmp_path):
    write_shard(data / "a" / "z.parquet", 1)
    both = [str(data / "a" / "x.parquet"), str(data / "a" / "z.parquet")]
    plan = raysp.plan(a_pipeline(raysp.Shards(both, root=str(data / "a")), sink))
    assert [shard.name for shard in plan.corpus.shards] == ["x.parquet", "z.parquet"]
    assert [shard.name for shard in plan.corpus.fresh] == ["z.parquet"]
    assert len(raysp.plan(a_pipeline(raysp.Shards(str(data)), tmp_path / "another")).corpus.shards) == 3


def test_the_root_is_in_the_record_and_an_old_record_gets_it_with_its_next_run(data, sink):
    def recorded() -> str | None:
        return json.loads((sink / RUN).read_text()).get("root")

    assert recorded() == str(data / "a")
    forget_root(sink)
    label(a_pipeline(str(data / "a"), sink))
    assert recorded() == str(data / "a")


def test_a_corpus_that_moved_as_a_whole_continues(data, sink, tmp_path):
    moved = Path(shutil.copytree(data / "a", tmp_path / "moved"))
    plan = raysp.plan(a_pipeline(str(moved), sink))
    assert (plan.corpus.fresh, plan.corpus.vanished) == ((), ())
    label(a_pipeline(str(moved), sink))
    assert json.loads((sink / RUN).read_text())["root"] == str(moved)
    with pytest.raises(ChangedError, match=rf"relative to '{moved}', this source's to '{data}'"):
        raysp.plan(a_pipeline(str(data), sink))


def test_a_copy_beside_the_recorded_shard_does_not_pass_for_a_move(data, sink):
    shutil.copy2(data / "a" / "x.parquet", data / "x.parquet")
    with pytest.raises(ChangedError, match=r"undo the change of source.url"):
        raysp.plan(a_pipeline(str(data), sink))


def test_a_sink_that_has_no_shard_yet_takes_any_root(data, tmp_path):
    (data / "a" / "x.parquet").write_bytes(b"broken")
    with pytest.raises(raysp.RunError, match=r"x\.parquet"):
        label(a_pipeline(str(data / "a"), tmp_path / "out"))
    assert [shard.name for shard in raysp.plan(a_pipeline(str(data), tmp_path / "out")).corpus.fresh] == ["b/y.parquet"]


@pytest.mark.slow
@pytest.mark.parametrize("root", [None, "."])
@pytest.mark.parametrize("url", ["in/*.parquet", "in/m.jsonl", "in/voices", "**/x.arrow", "[in/x.arrow,in/voices]"])
def test_the_root_of_an_old_sink_follows_from_its_shards(tmp_path, monkeypatch, root, url):
    (tmp_path / "in" / "voices").mkdir(parents=True)
    (tmp_path / "in" / "voices" / "v.wav").write_bytes(wav())
    (tmp_path / "in" / "m.jsonl").write_text('{"audio_filepath": "voices/v.wav"}\n')
    write_shard(tmp_path / "in" / "x.parquet", 1)
    with pa.ipc.new_file(str(tmp_path / "in" / "x.arrow"), (table := rows_table(1)).schema) as writer:
        writer.write_table(table)
    monkeypatch.chdir(tmp_path)
    urls = url.strip("[]").split(",")
    source = raysp.Shards(urls if len(urls) > 1 else url, root=root)
    expected = str(tmp_path if root or url.startswith("**") else tmp_path / "in")
    if url == "in/voices" and not root:
        expected = str(tmp_path / "in" / "voices")
    sink = tmp_path / "out"
    kit.interrupted(a_pipeline(source, sink))
    assert json.loads((sink / RUN).read_text())["root"] == expected
    forget_root(sink)
    assert raysp.plan(a_pipeline(source, sink)).corpus.fresh == ()
    with pytest.raises(ChangedError, match=f"its label shards are named relative to '{expected}', this source's to '"):
        raysp.plan(a_pipeline(raysp.Shards(source.url, root="/"), sink))


@pytest.mark.parametrize(
    ("name", "url", "expected"),
    [
        ("x.parquet", "{data}/x.parquet", "{data}"),
        ("a/x.parquet", "{data}/a/x.parquet", "{data}"),
        ("a/x.parquet", "s3://bucket/a/x.parquet", "s3://bucket"),
        ("x.parquet", "/x.parquet", "/"),
        ("x.parquet", "/data/y.parquet", None),
        ("a/x.parquet", "/x.parquet", None),
    ],
)
def test_a_root_is_inferred_only_where_name_and_url_agree(data, sink, name, url, expected):
    forget_root(sink)
    [file] = sink.glob(".raysp/plan/*.arrow")
    [shard] = kit.planned_shards(sink)
    record_shards(file, {**shard, "name": name, "url": url.format(data=data)})
    pipeline = a_pipeline(raysp.Shards(str(data / "b")), sink)
    if expected is None:
        assert [one.name for one in raysp.plan(pipeline).corpus.fresh] == ["y.parquet"]
        return
    message = f"named relative to '{expected.format(data=data)}', this source's to '{data}/b'"
    with pytest.raises(ChangedError, match=message):
        raysp.plan(pipeline)


def record_shards(file: Path, *shards: dict[str, object]) -> None:
    """Write a part of the recorded plan with these shards."""
    with file.open("wb") as opened, table_files.Writer(opened) as writer:
        writer.write(pa.Table.from_pylist(list(shards), plan_record.SCHEMA))


@pytest.mark.lengthy
def test_verify_finds_a_shard_that_was_recorded_under_two_names(data, tmp_path):
    """Sinks from before roots were recorded may hold rows twice."""
    write_shard(data / "a" / "x.parquet", table=rows_table(2))
    pipeline = a_pipeline(str(data / "a"), tmp_path / "out")
    raysp.run(pipeline, engine="here", progress=False)
    assert raysp.verify(str(tmp_path / "out"), trust=True).differences == ()
    [file] = (tmp_path / "out").glob(".raysp/plan/*.arrow")
    [shard] = kit.planned_shards(tmp_path / "out")
    record_shards(file.with_stem(f"{1:0{len(file.stem)}}"), {**shard, "name": "a/x.parquet"})
    (tmp_path / "out" / "a").mkdir()
    shutil.copy(tmp_path / "out" / "x.parquet", tmp_path / "out" / "a" / "x.parquet")
    found = raysp.verify(str(tmp_path / "out"), trust=True)
    assert found.differences == (
        f"a/x.parquet and x.parquet: both hold labels of the shard {data}/a/x.parquet, so readers see its rows twice; "
        "use another sink",
    )
    assert found.exit_code == 1


def test_verify_finds_a_label_shard_that_is_not_planned(data, tmp_path):
    raysp.run(a_pipeline(str(data / "a"), tmp_path / "out"), engine="here", progress=False)
    shutil.copy(tmp_path / "out" / "x.parquet", tmp_path / "out" / "z.parquet")
    assert [
        one
        for one in raysp.verify(str(tmp_path / "out"), trust=True).differences
        if one.startswith("z.parquet: readers see")
    ]
