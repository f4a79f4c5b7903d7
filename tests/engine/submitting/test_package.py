"""What travels with a pipeline file, and what stays."""

import os
import zipfile
from pathlib import Path

import pytest

from raysp import SpecError
from raysp.engine.submitting.package import MAX_FILES, collect

PLENTY = 10**9


def make(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def names(folder: Path) -> list[str]:
    return [file.name for file in collect(folder, PLENTY).files]


def test_neighbours_travel_and_hidden_files_caches_and_sinks_stay(tmp_path):
    make(tmp_path, "label.py", "words/list.txt", ".env", ".git/HEAD", "__pycache__/label.pyc", "pkg/__pycache__/a.pyc")
    make(tmp_path, "labels/a.parquet", "labels/.raysp/run.json")
    assert names(tmp_path) == ["label.py", "words/list.txt"]


def test_ignore_files_hold_in_their_folder_and_below(tmp_path):
    make(tmp_path, "label.py", "data/a.bin", "data/b.txt", "deep/b.txt", "deep/c.txt", "deep/down/c.txt", "c.txt")
    (tmp_path / ".raysignore").write_text("data/*.bin\n")
    (tmp_path / "deep" / ".raysignore").write_text("c.txt\n")
    assert names(tmp_path) == ["c.txt", "data/b.txt", "deep/b.txt", "label.py"]


def test_raysignore_takes_in_what_gitignore_leaves_out(tmp_path):
    make(tmp_path, "label.py", "model/weights", "corpus/a.wav", "notes.log")
    (tmp_path / ".gitignore").write_text("model/\ncorpus/\n*.log\n")
    assert names(tmp_path) == ["label.py"]
    (tmp_path / ".raysignore").write_text("!model/\n")
    assert names(tmp_path) == ["label.py", "model/weights"]


def test_links_are_followed_and_circles_end(tmp_path):
    make(tmp_path / "elsewhere", "shared.py", "words/list.txt")
    project = make(tmp_path / "project", "label.py")
    (project / "shared.py").symlink_to(tmp_path / "elsewhere" / "shared.py")
    (project / "words").symlink_to(tmp_path / "elsewhere" / "words")
    (project / "circle").symlink_to(project)
    (project / "gone").symlink_to(tmp_path / "gone")
    os.mkfifo(project / "pipe")
    assert names(project) == ["label.py", "shared.py", "words/list.txt"]


def test_a_package_above_the_limit_is_refused_with_its_largest_files(tmp_path):
    make(tmp_path, "label.py", "small.txt")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.wav").write_bytes(bytes(2_000_000))
    (tmp_path / "b.bin").write_bytes(bytes(1_500_000))
    message = (
        rf"^{tmp_path}: the pipeline file and its neighbours come to 3\.5 MB in 4 files; the limit is 3\.0 MB "
        rf"\(--max-package-mb\)\. Largest: corpus/a\.wav \(2\.0 MB\), b\.bin \(1\.5 MB\), .*"
        rf"List files that the job does not need in {tmp_path}/\.raysignore"
    )
    with pytest.raises(SpecError, match=message):
        collect(tmp_path, 3_000_000)
    (tmp_path / ".raysignore").write_text("corpus/\n")
    assert collect(tmp_path, 3_000_000).num_bytes < 1_600_000


def test_a_folder_of_very_many_files_is_refused_before_all_are_found(tmp_path, monkeypatch):
    assert MAX_FILES == 10_000
    monkeypatch.setattr("raysp.engine.submitting.package.MAX_FILES", 3)
    make(tmp_path, *(f"{number}.txt" for number in range(5)))
    with pytest.raises(SpecError, match=r"come to more than 3 files; the limit is 3 files"):
        collect(tmp_path, PLENTY)


def test_equal_files_make_equal_packages(tmp_path):
    folder = make(tmp_path / "project", "label.py", "words/list.txt")
    first, second = tmp_path / "1.zip", tmp_path / "2.zip"
    collect(folder, PLENTY).write(first)
    os.utime(folder / "label.py", (1, 1))
    collect(folder, PLENTY).write(second)
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as written:
        assert {name: written.read(name).decode() for name in written.namelist()} == {
            "label.py": "label.py",
            "words/list.txt": "words/list.txt",
        }
