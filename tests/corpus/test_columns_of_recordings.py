"""Columns that hold no recordings, and shards that cannot be read as they are: what is said, and what to do."""

import base64
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as pe
import pytest

import raysp
from raysp.corpus import sources
from raysp.corpus.shards import check_columns
from raysp.errors import AudioError, PlanError, ShardError
from raysp.labelling.planning.opening import plan
from raysp.storage.audio_root import AudioRoot
from tests.corpora import a_pipeline, rows_table

SAMPLES = pa.list_(pa.float32())


@pytest.mark.parametrize(
    ("kind", "remedy"),
    [
        (pa.string(), "set source.audio_root to their folder, or write a manifest"),
        (pa.large_string(), "set source.audio_root to their folder, or write a manifest"),
        (pa.string_view(), "set source.audio_root to their folder, or write a manifest"),
        (pa.dictionary(pa.int32(), pa.string()), "set source.audio_root to their folder, or write a manifest"),
        (SAMPLES, r"write the bytes of WAV or FLAC files, such as those of soundfile\.write"),
        (pa.large_list(pa.int16()), r"write the bytes of WAV or FLAC files"),
        (pa.list_(pa.float32(), 16_000), r"write the bytes of WAV or FLAC files"),
        (pa.list_(pa.string()), "Of several recordings in a row, write a row each"),
        (pa.struct([("array", SAMPLES), ("sampling_rate", pa.int32())]), r"cast_column\('audio', Audio\(\)\)"),
        (pa.struct([("path", pa.string())]), "Add the field 'bytes', null for recordings that 'path' names"),
        (pa.int64(), "Set source.audio to the column of recordings"),
    ],
    ids=str,
)
def test_a_column_of_another_type_is_refused_with_its_type_and_what_to_do(kind, remedy):
    schema = pa.schema([("id", pa.string()), ("audio", kind)])
    with pytest.raises(ShardError, match=r"a\.parquet: column 'audio' is .*; expected struct<bytes: .*" + remedy):
        check_columns("a.parquet", schema, audio="audio", others=())


def test_a_plan_over_paths_names_what_reads_them(tmp_path):
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"id": ["a"], "audio": ["a.wav"]}), tmp_path / "in" / "a.parquet")
    with pytest.raises(
        PlanError, match=r"a\.parquet: column 'audio' is string; expected .* a manifest: .*audio_filepath"
    ):
        plan(a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out"))


class _Keys(pe.KmsClient):
    """Keys that are not wrapped."""

    def __init__(self, _: object) -> None:
        super().__init__()

    def wrap_key(self, key: bytes, _: str) -> str:
        return base64.b64encode(key).decode()


def write_encrypted(path: object, table: pa.Table, columns: list[str], *, plaintext_footer: bool = True) -> None:
    factory = pe.CryptoFactory(lambda _: _Keys(_))
    keys = pe.EncryptionConfiguration(
        footer_key="footer", column_keys={"columns": columns}, plaintext_footer=plaintext_footer
    )
    properties = factory.file_encryption_properties(pe.KmsConnectionConfig(), keys)
    with pq.ParquetWriter(path, table.schema, encryption_properties=properties) as writer:
        writer.write_table(table)


@pytest.mark.parametrize(
    ("columns", "found"),
    [(["audio.bytes"], "'audio'"), (["text"], "'text'"), (["text", "audio.bytes"], "'audio', 'text'")],
)
def test_encrypted_columns_behind_a_plain_footer_are_named_and_do_not_end_the_process(tmp_path, columns, found):
    path = tmp_path / "a.parquet"
    write_encrypted(path, rows_table(3), columns)
    with pytest.raises(
        ShardError,
        match=rf"a\.parquet: its columns {found} are encrypted; expected a Parquet file without encryption\. "
        "Write it decrypted, and label that",
    ):
        sources.survey("parquet", str(path), "", None, ["id", "audio"])


def test_an_encrypted_footer_says_so(tmp_path):
    path = tmp_path / "a.parquet"
    write_encrypted(path, rows_table(3), ["text"], plaintext_footer=False)
    with pytest.raises(ShardError, match=r"an encrypted Parquet file \(its footer is encrypted\)\. Write it decrypted"):
        sources.survey("parquet", str(path), "")


@pytest.mark.parametrize("value", [["a.wav", "b.wav"], {"left": "a.wav"}], ids=["list", "object"])
def test_a_list_in_place_of_the_path_of_a_manifest_says_what_to_write(tmp_path, value):
    (tmp_path / "m.jsonl").write_text(json.dumps({"audio_filepath": value, "text": "six"}) + "\n")
    shard = plan(a_pipeline(f"{tmp_path}/m.jsonl", tmp_path / "out")).corpus.shards[0]
    [path] = sources.read_paths(shard, shard.pieces[0], "audio")
    assert path is not None
    with pytest.raises(
        AudioError, match=r"no such file .*; it looks like a JSON list or object: write one path, and a row for each"
    ):
        AudioRoot(str(tmp_path)).open(path)


def test_a_file_whose_name_begins_like_a_list_is_read(tmp_path):
    (tmp_path / "[1].wav").write_bytes(b"x")
    assert AudioRoot(str(tmp_path)).open("[1].wav").head == b"x"
    assert raysp.Shards(str(tmp_path)).audio == "audio"
