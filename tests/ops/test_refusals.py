"""Recordings that storage refuses: rows of their own, unless storage refuses everything."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from raysp import StoreError
from raysp.audio.isolation import Decoder
from raysp.storage import s3_client
from raysp.storage.audio_root import AudioRoot
from raysp.storage.stores import open_store
from tests.corpora import AUDIO, wav
from tests.ops.test_decoding import decoded, decoding

NOBODY = 65534
ROWS = [f"{number}.wav" for number in range(12)]


@contextlib.contextmanager
def without_privileges():
    """Be a user whom permissions bind, also where tests run as root."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def folder():
    """A folder that another user may read; pytest's own are closed to others."""
    place = Path(tempfile.mkdtemp(prefix="raysp-refusals-"))
    place.chmod(0o755)
    for name in ROWS:
        (place / name).write_bytes(wav(800))
        (place / name).chmod(0o644)
    yield place
    place.chmod(0o755)
    for below in (one for one in place.rglob("*") if one.is_dir()):
        below.chmod(0o755)
    shutil.rmtree(place)


@pytest.fixture
def decoder():
    """A process of its own that decodes."""
    with Decoder() as own:
        own.read_header(wav(800))  # starts it, while that is allowed
        yield own


def of_paths(names: list[str]) -> pa.Table:
    return pa.table({"audio": pa.array([{"bytes": None, "path": name} for name in names], AUDIO)})


def types_of(root: AudioRoot, names: list[str], **changes: object) -> list[object]:
    rows = decoded(decoding(root=root, **changes), of_paths(names))
    return [row["error_type"] for row in rows]


class TestOnDisk:
    def test_one_that_may_not_be_read_costs_its_row(self, folder, decoder):
        (folder / "0.wav").chmod(0)
        (folder / "7.wav").chmod(0)
        with without_privileges():
            rows = decoded(decoding(root=AudioRoot(str(folder)), decoder=decoder), of_paths(ROWS))
        assert [row["row"] for row in rows if row["error_type"] == "not_readable"] == [0, 7]
        assert [row["samples"] for row in rows] == [None if row in (0, 7) else 800 for row in range(12)]
        message = rows[0]["error_message"]
        for part in (
            str(folder / "0.wav"),
            "Permission denied",
            "give permission to read this recording",
            "raysp retry",
        ):
            assert part in message

    @pytest.mark.parametrize(
        ("closed", "rows", "message"),
        [
            ("files", ROWS, r"Access to all 12 recordings tried in .* is denied"),
            ("root", ROWS[:2], r"Permission denied.*Access to all 2 recordings"),
        ],
    )
    def test_a_folder_that_refuses_everything_is_not_an_error_of_a_row(self, folder, closed, rows, message):
        for place in [folder] if closed == "root" else [folder / name for name in rows]:
            place.chmod(0)
        with without_privileges(), pytest.raises(StoreError, match=message):
            types_of(AudioRoot(str(folder)), rows)


class TestOnAnObjectStore:
    @pytest.fixture(autouse=True)
    def quick(self, monkeypatch):
        monkeypatch.setattr(s3_client, "FIRST_DELAY_SECONDS", 0.01)
        monkeypatch.setattr(s3_client, "_clients", {})

    @pytest.fixture
    def root(self, s3, proxy):
        bucket = s3.bucket()
        for name in ROWS:
            s3.client.put_object(Bucket=bucket, Key=f"audio/{name}", Body=wav(800))
        return AudioRoot(f"s3://{bucket}/audio", proxy.options)

    @pytest.mark.parametrize("is_listed", [True, False])
    def test_one_that_is_refused_costs_its_row_also_where_others_must_decide(self, root, proxy, is_listed):
        closed = ("/0.wav",) if is_listed else ("/0.wav", "list-type")
        proxy.judge = lambda method, path: "403 AccessDenied" if any(one in path for one in closed) else None
        assert types_of(root, ROWS[:3]) == ["not_readable", None, None]

    @pytest.mark.parametrize(
        ("answer", "place", "message"),
        [
            ("403 AccessDenied", "", r"recordings tried in .* is denied"),
            ("403 SignatureDoesNotMatch", ".wav", "give other credentials"),
            ("503", "/4.wav", "6 attempts"),
        ],
    )
    def test_a_store_that_refuses_everything_or_is_out_is_no_rows_error(self, root, proxy, answer, place, message):
        proxy.judge = lambda method, path: answer if place in path else None
        with pytest.raises(StoreError, match=message):
            types_of(root, ROWS)


def test_a_refusal_while_a_recording_is_read_costs_its_row(decoder, monkeypatch):
    """Clients of fsspec describe a file by one permission and read it by another."""
    store = open_store(url := "memory://refused/audio")
    for name in ROWS[:3]:
        store.create(name, wav(800))
    files = type(fsspec.filesystem("memory"))
    cat_file = files.cat_file

    def refusing(self, path, start=None, end=None, **options):
        if path.endswith("1.wav"):
            raise PermissionError("this object is closed to you")
        return cat_file(self, path, start=start, end=end, **options)

    monkeypatch.setattr(files, "cat_file", refusing)
    assert types_of(AudioRoot(url), ROWS[:3], decoder=decoder) == [None, "not_readable", None]
