"""The hash of a checkpoint: of names and contents, whatever the folder is called and the cache remembers."""

import json
import os
from pathlib import Path

import pytest

from raysp.io.checkpoints import digest_files


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "raysp" / "digests.json"


def folder_of(place: Path, **files: str) -> tuple[Path, list[Path]]:
    place.mkdir()
    for name, text in files.items():
        (place / name).write_text(text)
    return place, sorted(place.iterdir())


def test_it_is_the_same_wherever_the_checkpoint_lies_and_in_whatever_order_it_is_listed(tmp_path):
    one, files = folder_of(tmp_path / "one", a="1", b="2")
    other, copies = folder_of(tmp_path / "other", a="1", b="2")
    assert digest_files(one, files) == digest_files(one, files[::-1]) == digest_files(other, copies)


@pytest.mark.parametrize("files", [{"a": "1", "b": "3"}, {"a": "2", "b": "1"}, {"a": "1", "c": "2"}, {"a": "1"}])
def test_it_changes_with_a_name_a_content_or_a_file(tmp_path, files):
    original = digest_files(*folder_of(tmp_path / "one", a="1", b="2"))
    assert digest_files(*folder_of(tmp_path / "other", **files)) != original


def test_a_file_that_changed_is_read_again_although_it_was_remembered(tmp_path):
    folder, files = folder_of(tmp_path / "one", a="1")
    before = digest_files(folder, files)
    (folder / "a").write_text("2")
    os.utime(folder / "a", ns=(1, files[0].stat().st_mtime_ns + 1))
    assert digest_files(folder, files) != before


def test_a_file_that_did_not_change_is_not_read_again(tmp_path, monkeypatch):
    folder, files = folder_of(tmp_path / "one", a="1")
    before = digest_files(folder, files)
    monkeypatch.setattr("raysp.io.checkpoints._digest_file", lambda file: pytest.fail(f"{file} was read again"))
    assert digest_files(folder, files) == before


@pytest.mark.parametrize("damage", [b"", b"[]", b"{", b"\xff\xfe", b"null", b'{"x": 3}'])
def test_a_damaged_cache_is_passed_over(tmp_path, cache, damage):
    folder, files = folder_of(tmp_path / "one", a="1")
    expected = digest_files(folder, files)
    cache.write_bytes(damage)
    assert digest_files(folder, files) == expected
    assert json.loads(cache.read_text())


def test_a_home_that_cannot_be_written_costs_nothing_but_time(tmp_path, monkeypatch):
    folder, files = folder_of(tmp_path / "one", a="1")
    expected = digest_files(folder, files)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert digest_files(folder, files) == expected
