"""Shards: footers of strangers, pieces that cover every row once, rows as they were written."""

import base64
import itertools
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp import ShardError, StoreError
from raysp.corpus import parquet
from raysp.corpus.parquet import read_footer
from raysp.corpus.shards import Group, Piece, Shard, cut_groups, input_id, only_first_rows
from raysp.corpus.sources import read_table, survey
from raysp.corpus.tables import check_columns
from tests.corpora import AUDIO, rows_table, write_shard

AUDIO_BYTES = pa.array([b"x"])


def shard_of(path, *pieces: Piece) -> Shard:
    footer = read_footer(str(path))
    facts = path.stat()
    return Shard(
        name="x.parquet",
        url=str(path),
        num_bytes=facts.st_size,
        version="1",
        num_rows=footer.metadata.num_rows,
        input_id=input_id(facts.st_size, "1", footer),
        pieces=pieces or cut_groups(survey("parquet", str(path), "").groups),
    )


class TestReadFooter:
    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda data: b"", "found 0 bytes; expected a Parquet file"),
            (lambda data: data[:11], "found 11 bytes"),
            (
                lambda data: data[: len(data) // 2],
                r"ends in b'.*'; expected b'PAR1', the end of a Parquet file. Copy the shard",
            ),
            (lambda data: b"\0" * len(data), r"ends in b'\\x00"),
            (lambda data: data[:-8] + b"\xff\xff\xff\x7fPAR1", "its footer length is 2,147,483,647 bytes in a file of"),
            (lambda data: data[:-8] + b"\0\0\0\0PAR1", "its footer length is 0 bytes"),
            (lambda data: data[:-8] + b"\5\0\0\0PAR1", "its footer cannot be read"),
            (lambda data: b"PAR1" + b"\0" * 200 + b"\xc8\0\0\0PAR1", "its footer cannot be read"),
        ],
    )
    def test_a_damaged_file_is_refused_with_its_name_and_its_content(self, tmp_path, spoil, message):
        path = write_shard(tmp_path / "x.parquet")
        path.write_bytes(spoil(path.read_bytes()))
        with pytest.raises(ShardError, match=rf"x.parquet: {message}"):
            read_footer(str(path))

    @pytest.mark.slow
    @settings(max_examples=300, deadline=None)
    @given(data=st.data())
    def test_any_content_of_a_footer_is_read_or_refused_by_name(self, data, tmp_path_factory):
        path = tmp_path_factory.getbasetemp() / "fuzzed.parquet"
        write_shard(path, 3)
        raw = bytearray(path.read_bytes())
        footer = int.from_bytes(raw[-8:-4], "little")
        for _ in range(data.draw(st.integers(1, 4))):
            raw[data.draw(st.integers(len(raw) - 8 - footer, len(raw) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(raw)
        refused = None
        try:
            found = read_footer(str(path))
        except ShardError as error:
            refused = str(error)
        if refused is None:
            pieces = cut_groups(survey("parquet", str(path), "").groups)
            assert sum(piece.num_rows for piece in pieces) == found.metadata.num_rows
        else:
            assert "fuzzed.parquet: " in refused
            assert "\n" not in refused

    def test_a_missing_shard_is_a_matter_of_the_storage(self, tmp_path):
        with pytest.raises(StoreError, match=r"check the path"):
            read_footer(str(tmp_path / "missing.parquet"))

    @pytest.mark.parametrize("nested", [False, True])
    @pytest.mark.parametrize("name", ["ray.data.arrow_tensor", "ray.data.arrow_pickled_object"])
    def test_an_extension_type_of_ray_is_refused_before_it_is_looked_at(self, tmp_path, name, nested):
        metadata = {"ARROW:extension:name": name, "ARROW:extension:metadata": "payload"}
        field = pa.field("evil", pa.binary(), metadata=metadata)
        kind = pa.struct([field]) if nested else field.type
        column = pa.array([{"evil": b"x"}] if nested else [b"x"], kind)
        schema = pa.schema([pa.field("outer", kind) if nested else field])
        write_shard(tmp_path / "x.parquet", table=pa.table([column], schema=schema))
        with pytest.raises(
            ShardError, match=r"x.parquet: its schema holds an extension type of Ray, which would run code"
        ):
            read_footer(str(tmp_path / "x.parquet"))

    def test_no_byte_of_a_refused_schema_reaches_a_registered_type(self, tmp_path):
        touched = []

        class Evil(pa.ExtensionType):
            def __init__(self):
                super().__init__(pa.binary(), "ray.evil")

            def __arrow_ext_serialize__(self):
                return b"payload"

            @classmethod
            def __arrow_ext_deserialize__(cls, storage_type, serialized):
                touched.append(serialized)
                return cls()

        write_shard(tmp_path / "x.parquet", table=pa.table({"a": pa.ExtensionArray.from_storage(Evil(), AUDIO_BYTES)}))
        pa.register_extension_type(Evil())
        try:
            with pytest.raises(ShardError, match="would run code"):
                read_footer(str(tmp_path / "x.parquet"))
            assert touched == []
            pq.read_metadata(tmp_path / "x.parquet")
            assert touched != []  # so it would have been
        finally:
            pa.unregister_extension_type("ray.evil")

    def test_another_extension_type_is_read_as_its_storage(self, tmp_path):
        metadata = {"ARROW:extension:name": "someone.else", "ARROW:extension:metadata": ""}
        table = pa.table([pa.array([b"x"])], schema=pa.schema([pa.field("a", pa.binary(), metadata=metadata)]))
        write_shard(tmp_path / "x.parquet", table=table)
        assert read_footer(str(tmp_path / "x.parquet")).schema.field("a").type == pa.binary()

    def test_a_column_that_mentions_ray_is_not_an_extension_type(self, tmp_path):
        table = pa.table({"ray.data": [1]}).replace_schema_metadata({"made by": "ray.data.write_parquet"})
        write_shard(tmp_path / "x.parquet", table=table)
        assert read_footer(str(tmp_path / "x.parquet")).schema.names == ["ray.data"]

    def test_a_stored_schema_that_is_not_base64_is_refused(self, tmp_path):
        path = write_shard(tmp_path / "x.parquet")
        raw = path.read_bytes()
        stored = pq.read_metadata(path).metadata[b"ARROW:schema"]
        assert base64.b64decode(stored)
        path.write_bytes(raw.replace(stored, b"A" * (len(stored) - 3) + b"A=="))
        with pytest.raises(
            ShardError, match=r"x.parquet: its (stored Arrow schema is not base64|footer cannot be read)"
        ):
            read_footer(str(path))


class TestJoinedFiles:
    @pytest.mark.parametrize("options", [{}, {"write_page_index": True}, {"compression": "none"}], ids=str)
    def test_joined_files_of_one_layout_are_refused_and_not_read_in_part(self, tmp_path, options):
        paths = [tmp_path / f"{name}.parquet" for name in "abc"]
        for path, prefix in zip(paths, "uv", strict=False):
            pq.write_table(rows_table(3, prefix=prefix), path, row_group_size=2, **options)
        paths[2].write_bytes(paths[0].read_bytes() + paths[1].read_bytes())
        size = paths[0].stat().st_size
        with pytest.raises(
            ShardError, match=rf"c\.parquet: a Parquet file ends at byte {size:,} of .*, and another foll"
        ):
            read_footer(str(paths[2]))
        assert [read_footer(str(path)).metadata.num_rows for path in paths[:2]] == [3, 3]

    def test_an_index_that_is_larger_than_the_rows_is_no_second_file(self, tmp_path):
        table = pa.table({"a": ["x" * 60] * 2000})
        pq.write_table(table, tmp_path / "a.parquet", write_page_index=True, data_page_size=1, write_batch_size=1)
        assert read_footer(f"{tmp_path}/a.parquet").metadata.num_rows == 2000


class TestCheckColumns:
    @pytest.mark.parametrize(
        "kind",
        [
            pa.binary(),
            pa.large_binary(),
            pa.binary_view(),
            AUDIO,
            pa.struct([("path", pa.string()), ("bytes", pa.large_binary())]),
            pa.struct([("bytes", pa.binary())]),
        ],
    )
    def test_bytes_alone_or_in_a_struct_are_audio(self, kind):
        check_columns("s", pa.schema({"audio": kind, "id": pa.int64()}), audio="audio", others=["id"])

    @pytest.mark.parametrize(
        "kind", [pa.string(), pa.list_(pa.float32()), pa.struct([("name", pa.string())]), pa.struct([])]
    )
    def test_another_type_is_refused_by_its_name(self, kind):
        with pytest.raises(
            ShardError, match=r"s: column 'audio' is .* The expected types are binary, and struct<bytes: binary, "
        ):
            check_columns("s", pa.schema({"audio": kind}), audio="audio", others=[])

    @pytest.mark.parametrize(("audio", "others"), [("sound", []), ("audio", ["lang"])])
    def test_a_missing_column_is_named_with_the_shard_and_its_columns(self, audio, others):
        with pytest.raises(
            ShardError, match=r"s: has no column '(sound|lang)', expected one; its columns are id, audio"
        ):
            check_columns("s", pa.schema({"id": pa.string(), "audio": AUDIO}), audio=audio, others=others)

    def test_a_column_that_is_misspelt_has_a_suggestion(self):
        schema = pa.schema({"audio": AUDIO, "speaker": pa.string()})
        with pytest.raises(ShardError, match=r"s: has no column 'speakr' \(did you mean 'speaker'\?\), expected one;"):
            check_columns("s", schema, audio="audio", others=["speakr"])

    def test_a_column_that_is_there_twice_is_refused(self):
        schema = pa.schema([("audio", AUDIO), ("id", pa.string()), ("id", pa.string())])
        with pytest.raises(ShardError, match=r"s: has 2 columns 'id', expected one"):
            check_columns("s", schema, audio="audio", others=["id"])


class TestReadTable:
    @pytest.mark.slow
    @settings(max_examples=40, deadline=None)
    @given(data=st.data())
    def test_the_pieces_of_a_shard_give_its_rows_in_order(self, data, tmp_path_factory):
        num_rows, per_group = data.draw(st.integers(1, 60)), data.draw(st.integers(1, 60))
        path = tmp_path_factory.getbasetemp() / "pieces.parquet"
        table = rows_table(num_rows, audio=b"some bytes")
        write_shard(path, table=table, row_group_size=per_group)
        edges = sorted({0, num_rows, *data.draw(st.lists(st.integers(0, num_rows), max_size=5))})
        shard = shard_of(path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(parquet, "READ_BATCH_BYTES", data.draw(st.integers(1, 2000)))
            found = [read_table(shard, Piece(a, b), ["id", "language"]) for a, b in itertools.pairwise(edges)]
        assert pa.concat_tables(found).combine_chunks() == table.select(["id", "language"]).combine_chunks()

    @pytest.mark.parametrize(
        "column",
        [
            pa.array(["a", None, "b"]).dictionary_encode(),
            pa.array([1, None, 3], pa.int64()),
            pa.array([None, None, None]),
            pa.array(["a", None, "b"], pa.large_string()),
            pa.array([{"bytes": b"x", "path": None}, None, {"bytes": None, "path": "p"}], AUDIO),
            pa.array([b"x", None, b""], pa.large_binary()),
            pa.array([[1], None, []], pa.list_(pa.int8())),
        ],
    )
    def test_a_column_of_any_type_is_read_as_it_was_written(self, tmp_path, column):
        path = write_shard(tmp_path / "x.parquet", table=pa.table({"a.b c": column, "other": [1, 2, 3]}))
        found = read_table(shard_of(path), Piece(1, 3), ["a.b c"])
        assert found.column_names == ["a.b c"]
        assert found.column(0).type == column.type
        assert found.column(0).to_pylist() == column.to_pylist()[1:]

    def test_no_rows_give_an_empty_table_with_the_columns(self, tmp_path):
        path = write_shard(tmp_path / "x.parquet", table=rows_table(0))
        found = read_table(shard_of(path), Piece(0, 0), ["id"])
        assert (found.num_rows, found.column_names) == (0, ["id"])

    def test_a_shard_that_changed_since_it_was_planned_is_refused(self, tmp_path):
        path = write_shard(tmp_path / "x.parquet", 3)
        shard = shard_of(path)
        write_shard(path, 4)
        with pytest.raises(ShardError, match=r"x.parquet: changed since it was planned"):
            read_table(shard, Piece(0, 3), ["id"])

    def test_a_shard_that_is_gone_since_it_was_planned_is_named(self, tmp_path):
        shard = shard_of(write_shard(tmp_path / "x.parquet", 3))
        (tmp_path / "x.parquet").unlink()
        with pytest.raises(ShardError, match=r"x\.parquet: cannot read it .*check the path"):
            read_table(shard, Piece(0, 3), ["id"])

    def test_damaged_pages_are_refused_with_the_rows(self, tmp_path):
        path = write_shard(tmp_path / "x.parquet", 50)
        shard = shard_of(path)
        raw = bytearray(path.read_bytes())
        raw[4:200] = b"\xff" * 196
        path.write_bytes(raw)
        with pytest.raises(ShardError, match=r"x.parquet: rows 0 to 50: .+\. Copy the shard again"):
            read_table(shard, Piece(0, 50), ["id", "audio"])


PEAK_OF_READING = """
import sys
from raysp.corpus import sources
from raysp.corpus.shards import Shard, cut_groups, input_id
from raysp.devices import highest_resident_bytes
path, num_bytes = sys.argv[1], int(sys.argv[2])
found = sources.survey("parquet", path, "")
shard = Shard("x", path, num_bytes, "1", found.num_rows, input_id(num_bytes, "1", found), cut_groups(found.groups))
before = highest_resident_bytes()
rows = sum(sources.read_table(shard, piece, ["audio"]).num_rows for piece in shard.pieces)
print(len(shard.pieces), rows, (highest_resident_bytes() - before) // 2**20)
"""


@pytest.mark.soak
def test_a_row_group_over_two_gigabytes_is_read_in_bounded_memory(tmp_path):
    """Bytes that compress well: what counts is their number once read."""
    path, num_rows = tmp_path / "large.parquet", 2400
    recording = bytes(range(256)) * 4096
    part = pa.array([{"bytes": recording, "path": None}] * 50, AUDIO)
    table = pa.table({"audio": pa.chunked_array([part] * (num_rows // 50))})
    pq.write_table(table, path, row_group_size=num_rows, compression="zstd", use_dictionary=False)
    metadata = pq.read_metadata(path)
    assert metadata.num_row_groups == 1
    assert metadata.row_group(0).total_byte_size > 2**31
    command = [sys.executable, "-c", PEAK_OF_READING, str(path), str(path.stat().st_size)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    pieces, rows, peak = map(int, done.stdout.split())
    assert (rows, pieces) == (num_rows, 22)
    assert peak < 700  # megabytes: a piece of 256, and what lies between two of them


@given(st.lists(st.integers(0, 40), max_size=12), st.integers(0, 500))
def test_a_try_out_takes_the_first_rows_and_no_more(sizes, num_rows):
    corpus = [
        Shard(f"{i}.parquet", "u", 1, "1", rows, "i", cut_groups([Group(rows, 0, 0.0)], most_rows=10))
        for i, rows in enumerate(sizes)
    ]
    found = only_first_rows(corpus, num_rows)
    total = sum(shard.num_rows for shard in corpus)
    assert sum(shard.num_rows for shard in found) == min(num_rows, total)
    for shard, original in zip(found, corpus, strict=False):
        assert shard.name == original.name
        rows = [row for piece in shard.pieces for row in range(piece.first, piece.end)]
        assert rows == list(range(shard.num_rows))


def test_an_encrypted_shard_is_refused_as_encrypted(tmp_path):
    shard = tmp_path / "a.parquet"
    shard.write_bytes(b"PARE" + bytes(40) + (20).to_bytes(4, "little") + b"PARE")
    with pytest.raises(ShardError, match=r"a\.parquet: is an encrypted Parquet file .*\. Write it decrypted"):
        read_footer(str(shard))
