"""Files whose names and contents differ: gzip is recognised by content, other formats are refused by their names."""

import bz2
import gzip
import io
import json
import lzma
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from tests.corpora import a_pipeline, rows_table, tar_of, wav

ROWS = 4
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "zstd": lambda data: pa.compress(data, "zstd", asbytes=True),
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lz4": lambda data: pa.compress(data, "lz4", asbytes=True),
}
REMEDIES = {"zstd": "unzstd", "bzip2": "bunzip2", "xz": "unxz", "lz4": "unlz4", "gzip": "gunzip"}


def recordings(folder: Path) -> Path:
    folder.mkdir()
    for row in range(ROWS):
        (folder / f"{row}.wav").write_bytes(wav(seed=row))
    return folder


def lines(key: str, first: int = 0, end: int = ROWS) -> bytes:
    return b"".join(json.dumps({key: f"{row}.wav", "words": "ja"}).encode() + b"\n" for row in range(first, end))


def a_tar() -> bytes:
    return tar_of({f"{row}.wav": wav(seed=row) for row in range(ROWS)})


def parquet() -> bytes:
    file = io.BytesIO()
    pq.write_table(rows_table(ROWS), file)
    return file.getvalue()


def arrow() -> bytes:
    file, table = io.BytesIO(), rows_table(ROWS)
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


def num_rows(tmp_path: Path, url: Path, **source: object) -> int:
    plan = raysp.plan(a_pipeline(raysp.Shards(str(url), **source), tmp_path / "out"))
    return sum(shard.num_rows for shard in plan.corpus.shards)


def reason(tmp_path: Path, url: Path, **source: object) -> str:
    """Return the reason why a source, or its only shard, is refused."""
    try:
        plan = raysp.plan(a_pipeline(raysp.Shards(str(url), **source), tmp_path / "out"))
    except raysp.PlanError as error:
        return str(error)
    return " ".join(plan.corpus.unreadable.values())


MANIFESTS = {
    "gzip.jsonl": gzip.compress(lines("audio_filepath")),
    "gzip.json": gzip.compress(lines("audio_filepath")),
    "plain.jsonl.gz": lines("audio_filepath"),
    "members.jsonl.gz": b"".join(gzip.compress(lines("audio_filepath", row, row + 1)) for row in range(ROWS)),
    "padded.jsonl.gz": gzip.compress(lines("audio_filepath")) + bytes(512),
    "mark.jsonl": b"\xef\xbb\xbf" + lines("audio_filepath"),
    "mark.jsonl.gz": gzip.compress(b"\xef\xbb\xbf" + lines("audio_filepath")),
}


class TestManifests:
    @pytest.mark.parametrize("name", MANIFESTS)
    def test_all_rows_are_read(self, tmp_path, name):
        (recordings(tmp_path / "in") / name).write_bytes(MANIFESTS[name])
        assert num_rows(tmp_path, tmp_path / "in" / name) == ROWS

    @pytest.mark.parametrize("name", ["m.jsonl.gz", "m.jsonl"])
    def test_truncated_gzip_is_refused(self, tmp_path, name):
        (recordings(tmp_path / "in") / name).write_bytes(gzip.compress(lines("audio_filepath"))[:-12])
        assert f"{name}: the gzip file is damaged" in reason(tmp_path, tmp_path / "in" / name)

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be"])
    def test_utf_16_is_refused(self, tmp_path, encoding):
        mark = b"" if encoding == "utf-16" else b"\xfe\xff"
        content = mark + lines("audio_filepath").decode().encode(encoding)
        (recordings(tmp_path / "in") / "m.jsonl").write_bytes(content)
        message = reason(tmp_path, tmp_path / "in/m.jsonl")
        assert "is in UTF-16; expected JSON lines. Convert it: iconv -f UTF-16 -t UTF-8 IN > OUT" in message


@pytest.mark.parametrize("kind", ["pointer", "gzip", "zstd", "samples"])
def test_a_pointer_or_a_compressed_file_under_the_name_of_a_recording_says_so(tmp_path, kind):
    content = {
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "gzip": gzip.compress(wav()),
        "samples": b"\xfe\xff" * 99,  # -2, which is also a mark of UTF-16
    }
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.wav").write_bytes(content[kind] if kind in content else COMPRESSORS[kind](wav()))
    found = raysp.run(a_pipeline(f"{tmp_path}/in", tmp_path / "out"), engine="here", rows=1, progress=False)
    [row] = found.table.to_pylist()
    message = {
        "pointer": "the recording is a Git LFS pointer, not the file itself; expected WAV.* Fetch it: git lfs pull",
        "samples": "no known audio format, 198 bytes beginning",
        "gzip": "the recording is compressed by gzip; expected WAV.* Decompress it: gunzip < IN > OUT",
    }.get(kind, f"the recording is compressed by {kind}; expected WAV.* Decompress it: {REMEDIES.get(kind)}")
    assert row["error_type"] == "unsupported_format"
    assert re.match(message, row["error_message"]), row["error_message"]
    assert "fetch or decompress them where error_message asks for it" in found.nothing_labelled


METADATA = {
    "metadata.jsonl": lines("file_name"),
    "metadata.csv": b"file_name,words\n" + b"".join(f"{row}.wav,ja\n".encode() for row in range(ROWS)),
}

CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "plain": bytes,
    "gzip": gzip.compress,
    "byte order mark": b"\xef\xbb\xbf".__add__,
}


class TestMetadata:
    @pytest.mark.parametrize("name", METADATA)
    @pytest.mark.parametrize("change", CHANGES)
    @pytest.mark.usefixtures("without_ray")
    def test_all_texts_are_read(self, tmp_path, name, change):
        (recordings(tmp_path / "in") / name).write_bytes(CHANGES[change](METADATA[name]))
        source = raysp.Shards(str(tmp_path / "in"), text="words")
        raysp.run(a_pipeline(source, tmp_path / "out"), progress=False)
        assert pq.read_table(tmp_path / "out/in-00000.parquet").column("words").to_pylist() == ["ja"] * ROWS


COMPRESSED = {
    "m.jsonl": (lambda: lines("audio_filepath"), "JSON lines", ("zstd", "bzip2", "xz", "lz4")),
    "m.jsonl.zst": (lambda: lines("audio_filepath"), "", ("zstd",)),
    "metadata.csv": (lambda: METADATA["metadata.csv"], "CSV or JSON lines", ("zstd", "xz")),
    "x.parquet": (parquet, "a Parquet file", ("gzip", "zstd")),
    "x.arrow": (arrow, "Arrow IPC", ("gzip", "zstd")),
    "x.tar": (a_tar, "a tar file", ("gzip", "zstd")),
}
"""Files by their names: content, what is expected of them, and compressions that are refused."""


@pytest.mark.parametrize(("name", "by"), [(name, by) for name, (_, _, kinds) in COMPRESSED.items() for by in kinds])
def test_other_compressions_are_refused_by_their_names_with_the_remedy(tmp_path, name, by):
    content, expected, _ = COMPRESSED[name]
    (recordings(tmp_path / "in") / name).write_bytes({"gzip": gzip.compress, **COMPRESSORS}[by](content()))
    message = reason(tmp_path, tmp_path / "in" / ("" if name.startswith("metadata") else name))
    assert f"{name}: is compressed by {by}; expected {expected}" in message
    assert f"Decompress it: {REMEDIES[by]} < IN" in message


def test_a_manifest_of_recordings_in_tar_files_is_refused_until_they_are_unpacked(tmp_path):
    folder = tmp_path / "tarred"
    folder.mkdir()
    names = [{"audio_filepath": f"{row}.wav", "shard_id": 0, "text": "ja"} for row in range(ROWS)]
    (folder / "tarred_audio_manifest.json").write_text("".join(f"{json.dumps(line)}\n" for line in names))
    (folder / "audio_0.tar").write_bytes(a_tar())
    pipeline = a_pipeline(f"{folder}/tarred_audio_manifest.json", tmp_path / "out")
    with pytest.raises(raysp.PlanError, match=r"'shard_id'.*'0\.wav' is no file; unpack the tar files"):
        raysp.plan(pipeline)
    shutil.unpack_archive(folder / "audio_0.tar", folder)
    assert raysp.run(pipeline, engine="here", progress=False).errors == {}
