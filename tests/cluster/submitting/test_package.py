"""What travels with a pipeline file, and what stays."""

import os
import re
import subprocess
from pathlib import Path

from tests.cluster.submitting.conftest import PIPELINE, SUBMITTED
from tests.cluster.submitting.fake_head import FakeHead
from tests.corpora import CHECKPOINT

LABEL = PIPELINE.replace("import helper\n", "").replace('        raysp.Keep(where="helper:is_wanted"),\n', "")
PLACES = {"source": "s3://bucket/in/*.parquet", "sink": "s3://bucket/labels", "checkpoint": str(CHECKPOINT)}


def make(folder: Path, *names: str) -> Path:
    """Write a pipeline file, and files whose content is their name."""
    for name in (SUBMITTED, *names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(LABEL.format(**PLACES) if name == SUBMITTED else name)
    return folder


def git(folder: Path, ignored: str) -> None:
    subprocess.run(["git", "init", "-q", folder], check=True)
    (folder / ".gitignore").write_text(ignored)


def test_what_is_named_like_a_key_stays(tmp_path, head: FakeHead, submitted):
    """Like hidden files, caches, sinks and what is no file; the other neighbours travel."""
    keys = ["id_ed25519", "server.key", "key.pem", "prod.env", "credentials.json", "aws-credentials", "Credentials.csv"]
    keys += ["client_secret_1.json", "my-service-account.json", "secrets.yaml", "terraform.tfstate", "kubeconfig"]
    keys += ["api_keys.txt", "deep/store.p12", "_netrc", "pgpass.conf", "secrets/words.txt"]
    make(tmp_path, *keys, ".env", ".git/HEAD", "__pycache__/label.pyc", "pkg/__pycache__/a.pyc")
    odd = ["a[1]", "b*", "c?", "!d", "#e", "f g ", "h\\i"]  # they stay by their whole name, and keep no other
    make(tmp_path, *(f"{name}/x.pem" for name in odd), *(f"sink {name}/.raysp/run.json" for name in odd))
    travels = ["credentials.md", "secrets.py", "vocab.json", "words/list.txt", "sink bb/y.txt"]
    travels += [f"{name}/y.txt" for name in ("a1", "bb", "cc", "d", *odd)]
    make(tmp_path, *travels)
    (tmp_path / "self").symlink_to("self")
    (tmp_path / "gone").symlink_to(tmp_path / "nothing")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("x")
    os.mkfifo(tmp_path / "pipe")
    said = submitted(tmp_path)["said"]
    assert head.sent() == sorted([SUBMITTED, *travels])
    assert said.startswith(f"raysp: submitted to {head.url} with {tmp_path}; left out: ")
    assert re.search(r"\.env, .*, and \d+ more", said)
    assert "__pycache__" not in said


def test_git_decides_what_is_ignored_in_its_working_tree_and_else_the_files_that_ray_knows(
    tmp_path, head: FakeHead, submitted, monkeypatch
):
    """By its files of patterns: in the folder, above, and of the repository."""
    top = tmp_path / "top"
    project = make(top / "p", "notes.log", "deep/a.bin", "deep/b.txt", "private.txt", "ignored/b.txt")
    git(top, "*.log\nignored/\n")
    (project / "deep" / ".gitignore").write_text("*.bin\n")
    (top / ".git" / "info" / "exclude").write_text("private.txt\n")
    submitted(project)
    assert head.sent() == ["deep/b.txt", SUBMITTED]
    other = make(tmp_path / "other", "a.log", "model/weights", "b.txt")
    (other / ".gitignore").write_text("*.log\n")
    (other / ".rayignore").write_text("model/\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    submitted(other)
    assert head.sent() == ["b.txt", SUBMITTED]


def test_links_are_followed_and_circles_end(tmp_path, head: FakeHead, submitted):
    make(tmp_path / "elsewhere", "shared.py", "words/list.txt")
    project = make(tmp_path / "project", "deep/a.txt", "down/b.txt")
    (project / "shared.py").symlink_to(tmp_path / "elsewhere" / "shared.py")
    (project / "words").symlink_to(tmp_path / "elsewhere" / "words")
    (project / "circle").symlink_to(project)
    (project / "deep" / "other").symlink_to(project / "down")
    (project / "down" / "other").symlink_to(project / "deep")
    submitted(project)
    twice = ["deep/a.txt", "deep/other/b.txt", "down/b.txt", "down/other/a.txt"]
    assert head.sent() == [*twice, SUBMITTED, "shared.py", "words/list.txt"]


def test_a_package_above_the_limit_is_refused_with_its_largest_files(tmp_path, submitted, refusal):
    make(tmp_path, "small.txt", "corpus/a.wav", "b.bin")
    for name, size in (("corpus/a.wav", 60_000_000), ("b.bin", 50_000_000)):
        with (tmp_path / name).open("wb") as file:
            file.truncate(size)
    message = (
        rf"^{tmp_path}: the pipeline file and its neighbours come to 110\.0 MB; the limit is 100\.0 MB\. "
        rf"Largest: corpus/a\.wav \(60\.0 MB\), b\.bin \(50\.0 MB\), .*Let git ignore what the job does not need"
    )
    assert re.search(message, refusal(tmp_path))
    git(tmp_path, "corpus/\n")
    submitted(tmp_path)


def test_an_unchanged_package_has_the_same_name(tmp_path, head: FakeHead, submitted):
    submitted(make(tmp_path, "words/list.txt"))
    first = set(head.packages)
    os.utime(tmp_path / SUBMITTED, (1, 1))
    submitted(tmp_path)
    assert set(head.packages) == first
    (tmp_path / "words" / "list.txt").write_text("other")
    submitted(tmp_path)
    assert not first & set(head.packages)
