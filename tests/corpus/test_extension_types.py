"""Extension types in schemas of strangers: those of Ray would run code and are refused unread, others are storage."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import corpora
from tests.corpora import rows_table


class Evil(pa.ExtensionType):
    """A type whose class runs code as a schema is read."""

    ran: list[bytes] = []  # noqa: RUF012 - shared by the instances

    def __init__(self):
        super().__init__(pa.binary(), "ray.data.evil")

    def __arrow_ext_serialize__(self):
        return b"payload"

    @classmethod
    def __arrow_ext_deserialize__(cls, storage_type, serialized):
        cls.ran.append(serialized)
        return cls()


@pytest.fixture
def ran():
    """The code that readers ran."""
    Evil.ran.clear()
    pa.register_extension_type(Evil())
    yield Evil.ran
    pa.unregister_extension_type("ray.data.evil")


def write(path, table) -> None:
    if path.suffix == ".parquet":
        pq.write_table(table, path)
    else:
        with (pa.ipc.new_stream if path.stem == "stream" else pa.ipc.new_file)(path, table.schema) as writer:
            writer.write_table(table)


FILES = {
    "a.parquet": pq.read_metadata,
    "file.arrow": lambda path: pa.ipc.open_file(path),
    "stream.arrow": lambda path: pa.ipc.open_stream(path),
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize(("name", "nested"), [("ray.data.evil", True), ("ray.data.arrow_pickled_object", False)])
def test_a_type_of_ray_is_refused_and_its_code_is_not_run(tmp_path, ran, file, nested, name):
    metadata = {"ARROW:extension:name": name, "ARROW:extension:metadata": "payload"}
    field = pa.field("evil", pa.binary(), metadata=metadata)
    kind = pa.struct([field]) if nested else field.type
    column = pa.array([{"evil": b"x"}] if nested else [b"x"], kind)
    path = tmp_path / file
    write(path, pa.table([column], schema=pa.schema([pa.field("outer", kind) if nested else field])))
    assert corpora.refusal(path).startswith(f"{path}: its schema holds an extension type of Ray, which would run code")
    assert ran == []
    if name == "ray.data.evil":
        FILES[file](path)
        assert ran  # so it would have been


@pytest.mark.parametrize("file", FILES)
def test_another_extension_type_is_read_as_its_storage(tmp_path, file):
    storage = pa.array([b"0123456789abcdef"], pa.binary(16))
    values = pa.ExtensionArray.from_storage(pa.opaque(pa.binary(16), "own", "raysp"), storage)
    write(tmp_path / file, rows_table(1).append_column("own", values))
    assert [row["own"] for row in corpora.read(tmp_path / file, "own")] == [b"0123456789abcdef"]
    table = rows_table(1).append_column("ray.data", pa.array([1]))
    write(tmp_path / file, table.replace_schema_metadata({"made by": "ray.data.write_parquet"}))
    assert [row["ray.data"] for row in corpora.read(tmp_path / file, "ray.data")] == [1]
