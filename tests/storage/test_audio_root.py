"""Paths that strangers wrote: none leaves the folder that recordings may be read from."""

import os
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

import raysp
from tests import corpora, kit
from tests.corpora import AUDIO, wav, write_shard

INSIDE, BELOW, OUTSIDE = (wav(1600 * tenths) for tenths in (1, 2, 3))
READ = {INSIDE: 0.1, BELOW: 0.2, OUTSIDE: 0.3}
"""Seconds of a recording that is read."""


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "audio"
    (root / "sub").mkdir(parents=True)
    (root / "a.wav").write_bytes(INSIDE)
    (root / "sub" / "b.wav").write_bytes(BELOW)
    (root / "sub" / "within").symlink_to(root / "a.wav")
    (tmp_path / "secret.wav").write_bytes(OUTSIDE)
    (tmp_path / "audio-of-others").mkdir()
    (tmp_path / "audio-of-others" / "c.wav").write_bytes(OUTSIDE)
    (root / "out.wav").symlink_to(tmp_path / "secret.wav")
    (root / "others").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "pipe")
    return root


def shard_of(place: Path, paths: Sequence[str]) -> Path:
    """Write a shard whose rows have these paths."""
    audio = [{"bytes": None, "path": path} for path in paths]
    return write_shard(place / "in" / "a.parquet", table=pa.table({"id": paths, "audio": pa.array(audio, AUDIO)}))


def read(place: Path, root: object, paths: Sequence[str]) -> list[object]:
    """Return the seconds of the recordings that are read, and the error types of the others, whose root is named."""
    found = corpora.read(raysp.Shards(str(shard_of(place, paths)), audio_root=str(root)))
    assert [row["id"] for row in found] == paths
    for row in found:
        assert row["error_type"] == "filtered" or str(root).rstrip("/") in row["error_message"]
    return [row["seconds"] if row["error_type"] == "filtered" else row["error_type"] for row in found]


def test_files_inside_are_read(folder, tmp_path):
    paths = ["a.wav", "sub/b.wav", "./sub//b.wav", "sub/within"]
    assert read(tmp_path, folder, paths) == [0.1, 0.2, 0.2, 0.1]
    assert read(tmp_path, f"{folder}/", [f"{folder}/{path}" for path in paths]) == [0.1, 0.2, 0.2, 0.1]


def outside(folder) -> list[str]:
    return [
        "../secret.wav",
        "../../x",
        "sub/../../secret.wav",
        f"{folder}/../secret.wav",
        "/etc/passwd",
        f"{folder.parent}/secret.wav",
        f"{folder.parent}/audio-of-others/c.wav",
        "out.wav",
        "others/secret.wav",
        "others/audio-of-others/c.wav",
        "loop",
        "pipe",
        "sub",
        ".",
        "a.wav\0.txt",
        "x" * 5000,
        f"file://{folder}/a.wav",
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "http://127.0.0.1/a.wav",
        "http://169.254.169.254/latest/meta-data",
        "https://[::1]/x",
        "s3://another-bucket/a.wav",
        "zip://a.wav::http://10.0.0.1/x.zip",
        "simplecache::s3://b/x",
        "local:///etc/passwd",
    ]


def test_files_outside_are_not_read_and_missing_ones_are_not_found(folder, tmp_path):
    missing = ["gone.wav", "sub/gone.wav", "a.wav/x", "s3:/looks/like/a/folder"]
    found = read(tmp_path, folder, [*outside(folder), *missing])
    assert found == ["path_not_allowed"] * len(outside(folder)) + ["not_found"] * len(missing)


def test_on_storage_with_urls_the_letters_decide(tmp_path):
    url = f"memory://{uuid.uuid4().hex}/audio"
    fsspec.filesystem("memory").pipe_file(f"{url}/a/b.wav", INSIDE)
    refused = [
        "../other/x.wav",
        "memory://other/x.wav",
        f"{url}/../x",
        "/etc/passwd",
        "file:///etc/passwd",
        "s3://b/x",
    ]
    found = read(tmp_path, url, ["a/b.wav", f"{url}/a/b.wav", "gone.wav", *refused])
    assert found == [0.1, 0.1, "not_found", *["path_not_allowed"] * len(refused)]


@pytest.mark.parametrize("url", ["http://example.org/audio", "https://example.org/audio"])
def test_a_web_server_is_not_allowed_for_paths(tmp_path, url):
    assert read(tmp_path, url, ["a.wav"]) == ["path_not_allowed"]


@pytest.fixture(params=["disk", "url"])
def labelled(request, tmp_path) -> Callable[..., list[dict[str, object]]]:
    """Label rows of a sink over paths below a folder of recordings, by their names."""

    def labelled(recordings: Mapping[str, bytes], *paths: str) -> list[dict[str, object]]:
        root = f"{tmp_path}/audio" if request.param == "disk" else f"memory://{uuid.uuid4().hex}/audio"
        files, place = fsspec.url_to_fs(root)
        files.makedirs(place)
        for name, data in recordings.items():
            files.pipe_file(f"{place}/{name}", data)
        source = raysp.Shards(str(shard_of(tmp_path, list(paths))), audio_root=root)
        pipeline = corpora.reading(source, tmp_path / "out")
        raysp.run(pipeline, engine="here", progress=False)
        assert raysp.verify(f"{tmp_path}/out", pipeline=pipeline).differences == ()
        return kit.rows(tmp_path / "out")

    return labelled


def test_a_name_that_is_there_in_another_unicode_form_only_is_opened_by_that_name(labelled):
    recordings = {"\u00e9t\u00e9.wav": INSIDE, "o\u0302.wav": BELOW}
    *found, missing = labelled(recordings, "e\u0301te\u0301.wav", "\u00f4.wav", "\u00e8.wav")
    assert [row["seconds"] for row in found] == [0.1, 0.2]
    assert (missing["error_type"], "no such file" in missing["error_message"]) == ("not_found", True)


def test_a_name_that_several_files_have_in_other_unicode_forms_is_an_error_with_their_names(labelled):
    recordings = {"\u00e9\u00e9.wav": INSIDE, "e\u0301e\u0301.wav": BELOW}
    *exact, neither = labelled(recordings, *recordings, "e\u0301\u00e9.wav")
    assert [row["seconds"] for row in exact] == [0.1, 0.2]
    assert re.fullmatch(
        r"path 'e\\u0301\\xe9.wav': no such file in .*; 2 files have its name in other Unicode forms, "
        r"'\\xe9\\xe9.wav', 'e\\u0301e\\u0301.wav': write the path as one of them",
        neither["error_message"],
    )
