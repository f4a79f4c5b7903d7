"""Listing of a corpus: names of label shards, kinds of shards, and sinks inside the source."""

import contextlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import PlanError
from tests.corpora import a_pipeline, rows_table, wav
from tests.kit import failing_files

MANIFEST = b'\n{"audio_filepath": "x.wav"}\n{"audio_filepath": "y.wav", "text": "[]"}\n'


def write(folder: Path, *names: str, data: bytes | None = None) -> None:
    """Write files whose content is that of their suffix."""
    table = rows_table(1)
    for name in names:
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        if data is None and place.suffix == ".arrow":
            with pa.ipc.new_file(str(place), table.schema) as writer:
                writer.write_table(table)
        elif data is None and place.suffix == ".parquet":
            pq.write_table(table, place)
        else:
            place.write_bytes(data or (MANIFEST if place.suffix.startswith(".json") else wav()))


def listed(folder: Path, urls: str | list[str], root: str | None = None) -> dict[str, str]:
    """Return the kinds of shards by the names of their label shards."""
    places = [f"{folder}/{url}" for url in ([urls] if isinstance(urls, str) else urls)]
    source = raysp.Shards(places, root=None if root is None else f"{folder}/{root}")
    return {one.name: one.kind for one in raysp.plan(a_pipeline(source, folder.with_name("out"))).corpus.shards}


@pytest.mark.parametrize(
    ("urls", "root", "expected"),
    [
        ("x", None, ["a.parquet", "y/a.parquet"]),
        ("*/a.parquet", None, ["x/a.parquet"]),
        (["a.parquet", "x/y/a.parquet"], None, ["a.parquet", "x/y/a.parquet"]),
        (["x", "x/a.parquet"], None, ["a.parquet", "y/a.parquet"]),
        ("x/a.parquet", "x/../", ["x/a.parquet"]),
        ("*.parquet", "..", ["data/a.parquet", "data/b.parquet"]),
    ],
)
def test_label_shards_are_named_relative_to_the_root(tmp_path, urls, root, expected):
    write(tmp_path / "data", "a.parquet", "b.parquet", "x/a.parquet", "x/y/a.parquet", "_a.parquet", ".a.arrow")
    assert [*listed(tmp_path / "data", urls, root)] == expected


@pytest.mark.parametrize(
    ("files", "urls", "expected"),
    [
        (["m.jsonl", "n/m.jsonl"], "**/*.jsonl", {"m-00000.parquet": "manifest", "n/m-00000.parquet": "manifest"}),
        (["_x.wav", "y/z.mp3", "a.txt", "_private/a.wav", ".b.wav"], "", {"data-00000.parquet": "folder"}),
        (["x.wav", "a.arrow", "m.jsonl"], "", {"a.parquet": "arrow"}),
        (["x.wav", "m.jsonl", "n.json"], "", {"data-00000.parquet": "folder"}),
        (["a.parquet", "t.csv", "x.wav", "_b.parquet", "c/._a.parquet"], "*", {"a.parquet": "parquet"}),
        (["train.json", "n.json"], "train.json", {"train-00000.parquet": "manifest"}),
    ],
)
def test_a_url_stands_for_shards_of_a_kind_and_hidden_files_are_passed_over(tmp_path, files, urls, expected):
    write(tmp_path / "data", *files)
    assert listed(tmp_path / "data", urls) == expected


@pytest.mark.parametrize(
    ("urls", "root", "message"),
    [
        ("a.*", None, r"a.arrow and .*a.parquet would both become a.parquet; set source.root or"),
        ("_a.parquet", None, r"readers ignore names that begin with '_'; rename '_a.parquet'"),
        ("a.parquet", "x", r"source.root: .*/data/a.parquet is not below .*/data/x; give a folder that holds all"),
        ("json", None, r"no recording.* 4 \.json; expected Parquet .*manifest"),
        ("json/a*", None, r"only 2 other files: 2 \.json"),
        ("json/array.json", None, r"begins with a JSON array; .* Convert it: jq -c '\.\[\]'"),
        ("json/lines.json", None, r"its first line is b'\{', not a complete JSON object"),
        ("json/other.json", None, "expected a manifest: one JSON object with 'audio_filepath' per line"),
    ],
)
def test_names_that_meet_or_that_readers_ignore_and_files_that_are_no_shards_are_refused(tmp_path, urls, root, message):
    data = tmp_path / "data"
    write(data, "a.parquet", "a.arrow", "_a.parquet", "x/b.parquet")
    write(data / "json", "array.json", "a.json", data=b'[{"audio_filepath": "x.wav"}]')
    write(data / "json", "lines.json", data=b'{\n  "audio_filepath": "x.wav"\n}')
    write(data / "json", "other.json", data=b'{"a": 1}')
    with pytest.raises(PlanError, match=message):
        listed(data, urls, root)


SINKS = [
    ("in", "in/labels", True),
    ("in/**", "in/x", True),
    ("in/a.parquet", "in", True),
    ("in/*.parquet", "in/labels", False),
    ("in", "in-labels", False),
    ("**/*.parquet", "labels", True),
    ("wav", "wav/x/labels", True),
    ("wav", "wav/_labels", False),
    ("wav/*.wav", "wav/labels", False),
]
"""Sources and sinks, and whether a later run would take label shards for shards."""


@pytest.mark.parametrize("scheme", ["", "memory://"])
def test_a_sink_inside_the_source_is_refused(tmp_path, scheme):
    write(tmp_path / "all", "in/a.parquet", "in/x/b.parquet", "wav/a.wav")
    with failing_files() as files:
        files.put(tmp_path / "all", "all")
        place = f"{scheme}{'all' if scheme else tmp_path / 'all'}"
        for url, sink, refused in SINKS:
            pipeline = a_pipeline(f"{place}/{url}", f"{place}/{sink}/")
            with pytest.raises(PlanError, match="would be one of the shards") if refused else contextlib.nullcontext():
                raysp.plan(pipeline)


@pytest.mark.parametrize(
    ("source", "sink", "message"),
    [
        ("link/in", "out", r"is a folder above the source .*choose a folder outside the source"),
        ("out/in", "link", r"is a folder above the source"),
        ("out", "link/labels", "would be one of the shards"),
        ("link", "out/labels", "would be one of the shards"),
    ],
)
def test_a_link_does_not_hide_that_one_is_in_the_other(tmp_path, source, sink, message):
    write(tmp_path / "out" / "in" / "x", "a.parquet")
    (tmp_path / "link").symlink_to(tmp_path / "out")
    with pytest.raises(PlanError, match=message):
        raysp.plan(a_pipeline(f"{tmp_path}/{source}", tmp_path / sink))
