"""Columns that hold no recordings, and shards that cannot be read as they are: what is said, and what to do."""

import base64
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

import raysp
from raysp import PlanError, plan
from tests import corpora
from tests.corpora import AUDIO, a_pipeline, rows_table, wav, write_shard

SAMPLES = pa.list_(pa.float32())


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        (pa.string(), r"set source.audio_root to the folder of the files. Of base64, .* base64\.b64decode\(text\)"),
        (pa.dictionary(pa.int32(), pa.string()), "set source.audio_root to the folder of the files"),
        (pa.struct([("bytes", pa.string()), ("path", pa.string())]), r"base64\.b64decode\(text\)"),
        (SAMPLES, r"write the bytes of WAV or FLAC files, such as soundfile\.write"),
        (pa.list_(pa.float32(), 16_000), r"write the bytes of WAV or FLAC files"),
        (pa.list_(pa.string()), "Of several recordings in a row, write a row each"),
        (pa.list_(AUDIO), "Of several recordings in a row, write a row each"),
        (pa.struct([("array", SAMPLES), ("path", pa.string())]), r"cast_column\('audio', Audio\(\)\)"),
        (pa.struct([("left", pa.struct([("audio", AUDIO)]))]), r"in 'left\.audio': write this field as a column"),
        (pa.struct([("seconds", pa.float64())]), "Set source.audio to the column of recordings"),
    ],
    ids=str,
)
def test_a_column_of_another_type_is_refused_with_its_type_and_what_to_do(tmp_path, kind, remedy):
    _write_file(pa.table({"id": ["a", "b"], "audio": pa.nulls(2, kind)}), tmp_path)
    expected = (
        r"\. The expected types are binary, and struct<bytes: binary, path: string> with the bytes of audio files"
    )
    with pytest.raises(PlanError, match=r"a\.arrow: column 'audio' is .*" + remedy + ".*" + expected):
        plan(a_pipeline(f"{tmp_path}/a.arrow", tmp_path / "out"))


RECORDINGS = [wav(800, seed=seed) for seed in range(3)]
LISTS = [None if one is None else list(one) for one in (*RECORDINGS, None)]
HELD = [*RECORDINGS, None]


def _in_structs(array: pa.Array) -> pa.Array:
    others = {"path": pa.array([*["x.wav"] * 3, None]), "sampling_rate": pa.array([16_000] * 4)}
    return pa.StructArray.from_arrays([array, *others.values()], ["bytes", *others])


COLUMNS = {
    "binary": pa.array(HELD, pa.binary()),
    "large_binary": pa.array(HELD, pa.large_binary()),
    "fixed_size_binary": pa.array(HELD, pa.binary(len(RECORDINGS[0]))),
    "binary_view": pa.array(HELD, pa.binary_view()),
    "dictionary": pa.array(HELD, pa.binary()).dictionary_encode(),
    "list<uint8>": pa.array(LISTS, pa.list_(pa.uint8())),
    "large_list<uint8>": pa.array(LISTS, pa.large_list(pa.uint8())),
    "fixed_size_list<uint8>": pa.array(LISTS, pa.list_(pa.uint8(), len(RECORDINGS[0]))),
    "list<int8>": pa.array(LISTS, pa.list_(pa.uint8())).cast(pa.list_(pa.int8()), safe=False),
    "struct<list<uint8>, more>": _in_structs(pa.array(LISTS, pa.list_(pa.uint8()))),
    "struct<large_binary, more>": _in_structs(pa.array(HELD, pa.large_binary())),
    "struct<fixed_size_binary, more>": _in_structs(pa.array(HELD, pa.binary(len(RECORDINGS[0])))),
    "struct<dictionary, more>": _in_structs(pa.array(HELD, pa.binary()).dictionary_encode()),
}
OF_ARROW_ALONE = {
    "list_view<uint8>": pa.array(LISTS, pa.list_view(pa.uint8())),
    "runs": pa.RunEndEncodedArray.from_arrays(pa.array([1, 2, 3, 4], pa.int32()), pa.array(HELD, pa.binary())),
    "struct<runs>": _in_structs(
        pa.RunEndEncodedArray.from_arrays(pa.array([1, 2, 3, 4], pa.int32()), pa.array(HELD, pa.binary()))
    ),
}


def _write_parquet(table: pa.Table, folder: Path) -> None:
    pq.write_table(table, folder / "a.parquet", row_group_size=3)


def _write_file(table: pa.Table, folder: Path) -> None:
    with pa.ipc.new_file(folder / "a.arrow", table.schema) as writer:
        writer.write_table(table, max_chunksize=3)


def _write_stream(table: pa.Table, folder: Path) -> None:
    with pa.ipc.new_stream(folder / "a.arrow", table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as it:
        it.write_table(table, max_chunksize=3)


def _save_to_disk(table: pa.Table, folder: Path) -> None:
    _write_stream(table, folder)
    (folder / "a.arrow").rename(folder / "data-00000-of-00001.arrow")
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (folder / "dataset_info.json").write_text("{}")


WRITERS = {"parquet": _write_parquet, "file": _write_file, "stream": _write_stream, "save_to_disk": _save_to_disk}


def test_bytes_are_read_from_a_column_of_any_type_of_bytes(tmp_path):
    for writer, write in WRITERS.items():
        columns = COLUMNS if writer == "parquet" else OF_ARROW_ALONE
        for number, column in enumerate(columns.values()):
            folder = tmp_path / "in" / f"{writer}-{number:02}"
            folder.mkdir(parents=True)
            write(pa.table({"id": ["a", "b", "c", "d"], "audio": column}), folder)
    pipeline = a_pipeline(f"{tmp_path}/in", tmp_path / "out", label={"outputs": [raysp.Embedding()]})
    assert not raysp.run(pipeline, engine="here", progress=False).shards_failed
    shards = {str(file): pq.read_table(file).to_pylist() for file in (tmp_path / "out").rglob("*.parquet")}
    assert len(shards) == len(COLUMNS) + 3 * len(OF_ARROW_ALONE)
    expected = pq.read_table(tmp_path / "out/parquet-00/a.parquet").column("embedding").to_pylist()
    assert len({*map(tuple, expected[:3])}) == 3
    for name, found in shards.items():
        assert [row["embedding"] for row in found] == expected, name
        assert [row["error_type"] for row in found] == [None, None, None, "no_audio"], name
        assert "null; expected the bytes of an audio file" in found[3]["error_message"], name


def test_bytes_of_which_some_are_null_are_no_recording():
    table = pa.table({"id": ["a"], "audio": pa.array([[1, None, 3, None]], pa.list_(pa.uint8()))})
    with raysp.Labeller(a_pipeline().steps) as labeller:
        [row] = labeller(table).to_pylist()
    assert row["error_type"] == "corrupt_audio"
    assert "2 of its 4 bytes are null" in row["error_message"]


PATHS = ["a.wav", "", None]
OF_PATHS = {
    "string": pa.array(PATHS),
    "large_string": pa.array(PATHS, pa.large_string()),
    "string_view": pa.array(PATHS, pa.string_view()),
    "dictionary": pa.array(PATHS).dictionary_encode(),
    "struct<path>": pa.StructArray.from_arrays([pa.array(PATHS)], ["path"]),
    "struct<bytes: null, path>": pa.StructArray.from_arrays([pa.nulls(3), pa.array(PATHS)], ["bytes", "path"]),
}


@pytest.mark.parametrize("write", [_write_parquet, _write_stream])
def test_paths_are_read_from_a_column_of_any_type_of_text_below_audio_root(tmp_path, write):
    (tmp_path / "a.wav").write_bytes(RECORDINGS[0])
    for name, column in OF_PATHS.items():
        (tmp_path / "in" / name).mkdir(parents=True)
        write(pa.table({"id": [f"{name} a", f"{name} b", f"{name} c"], "audio": column}), tmp_path / "in" / name)
    rows = corpora.read(raysp.Shards(f"{tmp_path}/in", audio_root=str(tmp_path)))
    found = {row["id"]: row["error_type"] for row in rows}
    expected = {"a": "filtered", "b": "no_audio", "c": "no_audio"}
    assert found == {f"{name} {row}": kind for name in OF_PATHS for row, kind in expected.items()}


@pytest.mark.parametrize("kind", [pa.null(), pa.struct([("bytes", pa.null()), ("path", pa.null())])], ids=str)
def test_a_shard_whose_recordings_are_all_null_becomes_error_rows_beside_others(tmp_path, kind):
    (tmp_path / "in").mkdir()
    write_shard(tmp_path / "in" / "a.parquet", 1)
    pq.write_table(pa.table({"id": ["x", "y"], "audio": pa.nulls(2, kind)}), tmp_path / "in" / "b.parquet")
    raysp.run(a_pipeline(f"{tmp_path}/in", tmp_path / "out"), engine="here", progress=False)
    assert pq.read_table(tmp_path / "out/b.parquet").column("error_type").to_pylist() == ["no_audio"] * 2
    (tmp_path / "in" / "a.parquet").unlink()
    with pytest.raises(PlanError, match=r"column 'audio' holds no bytes in any of 2 rows, and no paths; expected"):
        plan(a_pipeline(f"{tmp_path}/in", tmp_path / "empty"))


class _Keys(pe.KmsClient):
    """Keys that are not wrapped."""

    def __init__(self, _: object) -> None:
        super().__init__()

    def wrap_key(self, key: bytes, _: str) -> str:
        return base64.b64encode(key).decode()


def write_encrypted(path: object, **footer: bool) -> None:
    factory = pe.CryptoFactory(lambda _: _Keys(_))
    columns = {"columns": ["text", "audio.bytes"]}
    keys = pe.EncryptionConfiguration(footer_key="footer", column_keys=columns, **footer)
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), keys)
    with pq.ParquetWriter(path, rows_table(3).schema, encryption_properties=properties) as writer:
        writer.write_table(rows_table(3))


def test_encrypted_columns_or_footers_are_named_and_do_not_end_the_process(tmp_path):
    path = tmp_path / "a.parquet"
    write_encrypted(path, plaintext_footer=True)
    assert corpora.refusal(path).startswith(
        f"{path}: its columns 'audio', 'text' are encrypted; expected a Parquet file without encryption. "
        "Write it decrypted, and label that"
    )
    write_encrypted(path, plaintext_footer=False)
    assert "an encrypted Parquet file (its footer is encrypted). Write it decrypted" in corpora.refusal(path)


def test_a_list_in_place_of_the_path_of_a_manifest_says_what_to_write(tmp_path):
    (tmp_path / "[1].wav").write_bytes(RECORDINGS[0])
    paths = [["a.wav", "b.wav"], {"left": "a.wav"}, "[1].wav"]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps({"audio_filepath": path}) + "\n" for path in paths))
    *bad, good = corpora.read(tmp_path / "m.jsonl")
    for row in bad:
        assert row["error_type"] == "not_found"
        assert "it looks like a JSON list or object: write one path, and a row for each" in row["error_message"]
    assert good["seconds"] == 0.05
