"""What travels with a pipeline file, and what stays."""

import io
import os
import re
import subprocess
import zipfile
from pathlib import Path

import pytest

from tests.cluster.submitting.conftest import PIPELINE
from tests.cluster.submitting.fake_head import FakeHead
from tests.corpora import CHECKPOINT
from tests.kit import Ran, run

LABEL = PIPELINE.replace("import helper\n", "").replace('        raysp.Keep(where="helper:is_wanted"),\n', "")
PLACES = {"source": "s3://bucket/in/*.parquet", "sink": "s3://bucket/labels", "checkpoint": str(CHECKPOINT)}


def make(folder: Path, *names: str) -> Path:
    """Write files whose content is their name, and a pipeline to `label.py`."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(LABEL.format(**PLACES) if Path(name).name == "label.py" else name)
    return folder


def submit(folder: Path, head: FakeHead, *options: object) -> Ran:
    head.jobs.clear()
    return run(["submit", folder / "label.py", "--address", head.url, "--detach", *options])


@pytest.fixture
def names(head):
    """A function that submits the pipeline file of a folder, and returns the names of the files that are sent."""

    def submitted(folder: Path) -> list[str]:
        head.packages.clear()
        ran = submit(folder, head)
        assert ran.code == 0, ran.err
        [package] = head.packages.values()
        return sorted(zipfile.ZipFile(io.BytesIO(package)).namelist())

    return submitted


@pytest.fixture
def refusal(head):
    """A function that submits the pipeline file of a folder, and returns why it is refused."""

    def submitted(folder: Path, *options: object) -> str:
        head.packages.clear()
        ran = submit(folder, head, *options)
        assert (ran.code, head.packages) == (2, {})
        return ran.err

    return submitted


def test_what_is_named_like_a_key_stays(tmp_path, names):
    keys = ["id_ed25519", "server.key", "key.pem", "prod.env", "credentials.json", "aws-credentials", "Credentials.csv"]
    keys += ["client_secret_1.json", "my-service-account.json", "secrets.yaml", "terraform.tfstate", "kubeconfig"]
    keys += ["api_keys.txt", "deep/store.p12", "_netrc", "pgpass.conf", "secrets/words.txt"]
    make(tmp_path, "label.py", "secrets.py", "credentials.md", "vocab.json", *keys)
    assert names(tmp_path) == ["credentials.md", "label.py", "secrets.py", "vocab.json"]


def test_neighbours_travel_and_hidden_files_caches_sinks_and_what_is_no_file_stay(tmp_path, names):
    make(tmp_path, "label.py", "words/list.txt", ".env", ".git/HEAD", "__pycache__/label.pyc", "pkg/__pycache__/a.pyc")
    make(tmp_path, "labels/a.parquet", "labels/.raysp/run.json")
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("x")
    os.mkfifo(tmp_path / "pipe")
    assert names(tmp_path) == ["label.py", "words/list.txt"]


def git(folder: Path, *arguments: str) -> None:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
    subprocess.run(command, check=True, capture_output=True)


def test_git_decides_what_is_ignored_in_its_working_tree(tmp_path, names):
    """By its files of patterns: in the folder, above, and of the repository."""
    top = make(tmp_path, ".gitignore", "p/label.py", "p/deep/.gitignore", "p/notes.log", "p/deep/a.bin", "p/deep/b.txt")
    make(top, "p/private.txt", "p/ignored/b.txt")
    git(top, "init", "-q")
    (top / ".gitignore").write_text("*.log\nignored/\n")
    (top / "p" / "deep" / ".gitignore").write_text("*.bin\n")
    (top / ".git" / "info" / "exclude").write_text("private.txt\n")
    assert names(top / "p") == ["deep/b.txt", "label.py"]


def test_without_git_the_ignore_files_that_ray_knows_hold(tmp_path, monkeypatch, names):
    make(tmp_path, "label.py", "a.log", "model/weights", "b.txt")
    (tmp_path / ".gitignore").write_text("*.log\n")
    (tmp_path / ".rayignore").write_text("model/\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert names(tmp_path) == ["b.txt", "label.py"]


def test_what_is_left_out_is_named(tmp_path, head):
    make(tmp_path, "label.py", ".env", "server.key", "notes.txt", "__pycache__/label.pyc", "a/__pycache__/b.pyc")
    ran = submit(tmp_path, head)
    assert ran.err == f"raysp: submitted to {head.url} with {tmp_path}; left out: .env, server.key\n"
    many = make(tmp_path / "many", "label.py", *(f"{number:02}.pem" for number in range(30)))
    assert "18.pem, 19.pem, and 10 more" in submit(many, head).err


def test_odd_names_stay_by_their_whole_name_and_keep_no_other(tmp_path, names):
    odd = ["a[1]", "b*", "c?", "!d", "#e", "f g ", "h\\i"]
    make(tmp_path, "label.py", *(f"{name}/x.pem" for name in odd), "a1/y.txt", "bb/y.txt", "cc/y.txt", "d/y.txt")
    make(tmp_path, *(f"{name}/y.txt" for name in odd))
    make(tmp_path, *(f"sink {name}/.raysp/run.json" for name in odd), "sink bb/y.txt")
    kept = sorted(["label.py", "sink bb/y.txt", *(f"{one}/y.txt" for one in ("a1", "bb", "cc", "d", *odd))])
    assert names(tmp_path) == kept


def test_links_are_followed_and_circles_end(tmp_path, names):
    make(tmp_path / "elsewhere", "shared.py", "words/list.txt")
    project = make(tmp_path / "project", "label.py", "deep/a.txt", "down/b.txt")
    (project / "shared.py").symlink_to(tmp_path / "elsewhere" / "shared.py")
    (project / "words").symlink_to(tmp_path / "elsewhere" / "words")
    (project / "circle").symlink_to(project)
    (project / "deep" / "other").symlink_to(project / "down")
    (project / "down" / "other").symlink_to(project / "deep")
    twice = ["deep/a.txt", "deep/other/b.txt", "down/b.txt", "down/other/a.txt"]
    assert names(project) == [*twice, "label.py", "shared.py", "words/list.txt"]


def test_a_package_above_the_limit_is_refused_with_its_largest_files(tmp_path, head, refusal):
    make(tmp_path, "label.py", "small.txt")
    (tmp_path / "corpus").mkdir()
    for name, size in (("corpus/a.wav", 60_000_000), ("b.bin", 50_000_000)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    message = (
        rf"^raysp: {tmp_path}: the pipeline file and its neighbours come to 110\.0 MB; the limit is 100\.0 MB\. "
        rf"Largest: corpus/a\.wav \(60\.0 MB\), b\.bin \(50\.0 MB\), .*Let git ignore what the job does not need"
    )
    assert re.search(message, refusal(tmp_path))
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("corpus/\n")
    assert submit(tmp_path, head).code == 0


def test_an_unchanged_package_has_the_same_name(tmp_path, head):
    folder = make(tmp_path / "project", "label.py", "words/list.txt")
    assert submit(folder, head).code == 0
    first = set(head.packages)
    os.utime(folder / "label.py", (1, 1))
    assert submit(folder, head).code == 0
    assert set(head.packages) == first
    (folder / "words" / "list.txt").write_text("other")
    assert submit(folder, head).code == 0
    assert len(head.packages) == 2
