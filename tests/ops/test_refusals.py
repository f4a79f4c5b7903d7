"""Recordings that storage refuses: rows of their own, unless storage refuses everything."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

import raysp
import raysp.audio
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


@pytest.fixture(params=["in process", "in a process of its own"])
def decoder(request):
    if request.param == "in process":
        yield raysp.audio
        return
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

    def test_a_piece_of_one_row_is_judged_by_its_folder(self, folder):
        (folder / "0.wav").chmod(0)
        with without_privileges():
            assert types_of(AudioRoot(str(folder)), ["0.wav"]) == ["not_readable"]

    def test_a_folder_that_refuses_everything_is_not_an_error_of_a_row(self, folder):
        for name in ROWS:
            (folder / name).chmod(0)
        with (
            without_privileges(),
            pytest.raises(StoreError, match=r"Access to all 12 recordings tried in .* is denied"),
        ):
            types_of(AudioRoot(str(folder)), ROWS)

    def test_a_closed_root_is_not_an_error_of_a_row(self, folder):
        folder.chmod(0)
        with without_privileges(), pytest.raises(StoreError, match=r"Permission denied.*Access to all 2 recordings"):
            types_of(AudioRoot(str(folder)), ROWS[:2])


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

    def test_one_that_is_refused_costs_its_row(self, root, proxy):
        proxy.judge = lambda method, path: "403 AccessDenied" if path.endswith("/0.wav") else None
        assert types_of(root, ROWS) == ["not_readable"] + [None] * 11

    def test_without_permission_to_list_the_others_decide(self, root, proxy):
        proxy.judge = lambda method, path: "403 AccessDenied" if "/0.wav" in path or "list-type" in path else None
        assert types_of(root, ROWS[:3]) == ["not_readable", None, None]

    def test_a_store_that_refuses_everything_is_not_an_error_of_a_row(self, root, proxy):
        proxy.judge = lambda method, path: "403 AccessDenied"
        with pytest.raises(StoreError, match=r"recordings tried in .* is denied"):
            types_of(root, ROWS)

    def test_wrong_keys_are_no_rows_error_and_are_not_tried_on_others(self, root, proxy):
        proxy.judge = lambda method, path: "403 SignatureDoesNotMatch" if method == "GET" else None
        with pytest.raises(StoreError, match="give other credentials"):
            types_of(root, ROWS)

    def test_an_outage_is_not_an_error_of_a_row(self, root, proxy):
        proxy.judge = lambda method, path: "503" if path.endswith("/4.wav") else None
        with pytest.raises(StoreError, match="6 attempts"):
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
