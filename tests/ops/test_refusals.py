"""Recordings that storage refuses: rows of their own, unless storage refuses everything."""

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest

import raysp
from raysp import StoreError
from tests.corpora import AUDIO, a_pipeline, wav

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
    shutil.rmtree(place)


def labelled(url: str, names: list[str], options: dict[str, object] | None = None) -> list[dict]:
    """Label recordings by path, once a process that decodes has started, while that is allowed."""
    steps = [raysp.Decode(), a_pipeline().label]
    with raysp.Labeller(steps, id=None, audio_root=url, storage_options=options) as labeller:
        labeller(pa.table({"audio": pa.array([{"bytes": wav(800), "path": None}], AUDIO)}))
        paths = pa.array([{"bytes": None, "path": name} for name in names], AUDIO)
        with without_privileges():
            return labeller(pa.table({"audio": paths})).to_pylist()


class TestOnDisk:
    def test_one_that_may_not_be_read_costs_its_row(self, folder):
        (folder / "0.wav").chmod(0)
        (folder / "7.wav").chmod(0)
        rows = labelled(str(folder), ROWS)
        assert [place for place, row in enumerate(rows) if row["error_type"] == "not_readable"] == [0, 7]
        assert [row["status"] for row in rows].count("ok") == 10
        expected = (str(folder / "0.wav"), "Permission denied", "give permission to read this recording", "raysp retry")
        assert [part for part in expected if part not in rows[0]["error_message"]] == []

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
        with pytest.raises(StoreError, match=message):
            labelled(str(folder), rows)


class TestOnAnObjectStore:
    @pytest.fixture
    def url(self, s3):
        bucket = s3.bucket()
        for name in ROWS:
            s3.client.put_object(Bucket=bucket, Key=f"audio/{name}", Body=wav(800))
        return f"s3://{bucket}/audio"

    @pytest.mark.parametrize(
        ("answer", "place", "message"),
        [
            ("403 AccessDenied", "", r"recordings tried in .* is denied"),
            ("403 SignatureDoesNotMatch", ".wav", "give other credentials"),
        ],
    )
    def test_a_store_that_refuses_everything_is_no_rows_error(self, url, proxy, answer, place, message):
        proxy.judge = lambda method, path: answer if place in path else None
        with pytest.raises(StoreError, match=message):
            labelled(url, ROWS, proxy.options)
