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
        return zipfile.ZipFile(io.BytesIO(package)).namelist()

    return submitted


@pytest.fixture
def refusal(head):
    """A function that submits the pipeline file of a folder, and returns why it is refused."""

    def submitted(folder: Path, *options: object) -> str:
        head.packages.clear()
        head.packages.clear()
        ran = submit(folder, head, *options)
        assert (ran.code, head.packages) == (2, {})
        return ran.err

    return submitted


def test_neighbours_travel_and_hidden_files_caches_and_sinks_stay(tmp_path, names):
    make(tmp_path, "label.py", "words/list.txt", ".env", ".git/HEAD", "__pycache__/label.pyc", "pkg/__pycache__/a.pyc")
    make(tmp_path, "labels/a.parquet", "labels/.raysp/run.json")
    assert names(tmp_path) == ["label.py", "words/list.txt"]


def test_ignore_files_hold_in_their_folder_and_below(tmp_path, names):
    make(tmp_path, "label.py", "data/a.bin", "data/b.txt", "deep/b.txt", "deep/c.txt", "deep/down/c.txt", "c.txt")
    (tmp_path / ".raysignore").write_text("data/*.bin\n")
    (tmp_path / "deep" / ".raysignore").write_text("c.txt\n")
    assert names(tmp_path) == ["c.txt", "data/b.txt", "deep/b.txt", "label.py"]


def test_raysignore_takes_in_what_gitignore_leaves_out(tmp_path, names):
    make(tmp_path, "label.py", "model/weights", "corpus/a.wav", "notes.log")
    (tmp_path / ".gitignore").write_text("model/\ncorpus/\n*.log\n")
    assert names(tmp_path) == ["label.py"]
    (tmp_path / ".raysignore").write_text("!model/\n")
    assert names(tmp_path) == ["label.py", "model/weights"]


def git(folder: Path, *arguments: str) -> None:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
    subprocess.run(command, check=True, capture_output=True)


def test_git_decides_what_is_ignored_in_its_working_tree(tmp_path, names):
    """Its files of patterns: above, of the repository, of the user; and what is tracked is not ignored."""
    top = make(tmp_path, ".gitignore", "p/label.py", "p/deep/.gitignore", "p/notes.log", "p/kept.log", "p/deep/a.bin")
    make(top, "p/private.txt", "p/ignored/b.txt", "p/again/c.txt")
    git(top, "init", "-q")
    (top / ".gitignore").write_text("*.log\nignored/\nagain/\n")
    (top / "p" / "deep" / ".gitignore").write_text("*.bin\n")
    (top / ".git" / "info" / "exclude").write_text("private.txt\n")
    git(top, "add", "-f", "p/kept.log")
    assert names(top / "p") == ["kept.log", "label.py"]
    (top / "p" / ".raysignore").write_text("kept.log\n!again/\n")
    assert names(top / "p") == ["again/c.txt", "label.py"]


def test_a_working_tree_within_and_a_linked_folder_have_answers_of_git_of_their_own(tmp_path, names):
    make(tmp_path / "other", "lib/a.py", "lib/b.tmp")
    project = make(tmp_path / "project", "label.py", "inner/c.py", "inner/d.tmp")
    for one in (tmp_path / "other", project, project / "inner"):
        git(one, "init", "-q")
    for one in (tmp_path / "other", project / "inner"):
        (one / ".gitignore").write_text("*.tmp\n")
    (project / "lib").symlink_to(tmp_path / "other" / "lib")
    assert names(project) == ["inner/c.py", "label.py", "lib/a.py"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_an_ignore_file_may_begin_with_a_byte_order_mark(tmp_path, encoding, names):
    make(tmp_path, "label.py", "é.txt")
    (tmp_path / ".raysignore").write_bytes("é.txt\n".encode(encoding))
    assert names(tmp_path) == ["label.py"]


def test_an_ignore_file_of_another_encoding_is_refused(tmp_path, names, refusal):
    make(tmp_path, "label.py")
    (tmp_path / ".raysignore").write_bytes(b"\xe9.txt\n")
    assert re.search(r"\.raysignore: .*expected UTF-8", refusal(tmp_path))


def test_without_git_the_gitignore_files_above_hold(tmp_path, monkeypatch, names):
    make(tmp_path, "p/label.py", "p/a.log", ".git/HEAD")
    (tmp_path / ".gitignore").write_text("*.log\n")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert names(tmp_path / "p") == ["label.py"]


@pytest.mark.parametrize(
    "name",
    [
        *(
            "id_ed25519",
            "server.key",
            "key.pem",
            "prod.env",
            "credentials.json",
            "aws-credentials",
            "client_secret_1.json",
        ),
        *(
            "my-service-account.json",
            "secrets.yaml",
            "terraform.tfstate",
            "kubeconfig",
            "api_keys.txt",
            "deep/store.p12",
            "_netrc",
            "pgpass.conf",
        ),
    ],
)
def test_what_looks_like_a_key_is_refused_unless_it_is_named(tmp_path, name, names, refusal):
    make(tmp_path, "label.py", name)
    assert re.search(rf"look like keys or credentials: {name}\. List them in .* \(!{name}\)", refusal(tmp_path))
    (tmp_path / ".raysignore").write_text(f"!{name}\n")
    assert names(tmp_path) == sorted([name, "label.py"])
    (tmp_path / ".raysignore").write_text(f"{name}\n")
    assert names(tmp_path) == ["label.py"]


LETTERS = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJ"


@pytest.mark.parametrize(
    "content",
    [
        b"-----BEGIN OPENSSH PRIVATE KEY-----\n",
        "-----BEGIN PRIVATE KEY-----\n".encode("utf-16"),
        b'{"private_key": "x"}',
        b'{"installed": {"client_secret": "x"}}',
        b"aws_secret_access_key = x\n",
        b"DefaultEndpointsProtocol=https;AccountName=a;AccountKey=Zm9v;EndpointSuffix=core.windows.net",
        b"# mine\nmachine api.wandb.ai login user password 1\n",
        b"hf_" + LETTERS[:34],
        b'{"source": ["TOKEN = \'ghp_' + LETTERS + b"'\"]}",
        b"export WANDB_API_KEY=" + LETTERS,
        b"HF_TOKEN: '" + LETTERS + b"'",
    ],
)
def test_a_file_with_the_content_of_a_key_is_refused(tmp_path, content, names, refusal):
    make(tmp_path, "label.py")
    (tmp_path / "notes.txt").write_bytes(content)
    assert re.search(r"look like keys or credentials: notes\.txt", refusal(tmp_path))


def test_code_and_certificates_are_no_keys(tmp_path, names):
    make(tmp_path, "label.py", "secrets.py", "tokens.json", "vocab.json")
    (tmp_path / "ca.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\n")
    (tmp_path / "tokens.json").write_text('{"PAD_TOKEN": "<pad>", "UNK_TOKEN": "[UNK]", "sk-": 1, "hf_": 2}')
    (tmp_path / "secrets.py").write_text(
        'token = Env("HF_TOKEN")\nAPI_KEY = os.environ["WANDB_API_KEY"]\nHF_TOKEN = token_of_this_environment()\n'
    )
    assert names(tmp_path) == ["ca.pem", "label.py", "secrets.py", "tokens.json", "vocab.json"]


def test_a_link_to_itself_is_passed_over_and_a_name_that_is_not_utf_8_is_refused(tmp_path, names, refusal):
    make(tmp_path, "label.py")
    (tmp_path / "self").symlink_to("self")
    assert names(tmp_path) == ["label.py"]
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("x")
    assert re.search(r"the name b'\\xff\.txt' is not UTF-8.*such as \*\.txt", refusal(tmp_path))
    (tmp_path / ".raysignore").write_text("*.txt\n")
    assert names(tmp_path) == ["label.py"]


def test_links_are_followed_and_circles_end(tmp_path, names):
    make(tmp_path / "elsewhere", "shared.py", "words/list.txt")
    project = make(tmp_path / "project", "label.py")
    (project / "shared.py").symlink_to(tmp_path / "elsewhere" / "shared.py")
    (project / "words").symlink_to(tmp_path / "elsewhere" / "words")
    (project / "circle").symlink_to(project)
    (project / "gone").symlink_to(tmp_path / "gone")
    os.mkfifo(project / "pipe")
    assert names(project) == ["label.py", "shared.py", "words/list.txt"]


def test_a_package_above_the_limit_is_refused_with_its_largest_files(tmp_path, head, refusal):
    make(tmp_path, "label.py", "small.txt")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.wav").write_bytes(bytes(2_000_000))
    (tmp_path / "b.bin").write_bytes(bytes(1_500_000))
    message = (
        rf"^raysp: {tmp_path}: the pipeline file and its neighbours come to 3\.5 MB in 4 files; the limit is 3\.0 MB "
        rf"\(--max-package-mb\)\. Largest: corpus/a\.wav \(2\.0 MB\), b\.bin \(1\.5 MB\), .*"
        rf"List files that the job does not need in {tmp_path}/\.raysignore"
    )
    assert re.search(message, refusal(tmp_path, "--max-package-mb", 3))
    (tmp_path / ".raysignore").write_text("corpus/\n")
    assert submit(tmp_path, head, "--max-package-mb", 3).code == 0


@pytest.mark.slow
def test_a_folder_of_very_many_files_is_refused_before_all_are_found(tmp_path, head, refusal):
    make(tmp_path, "label.py")
    for number in range(9_999):
        (tmp_path / f"{number}.txt").touch()
    assert submit(tmp_path, head).code == 0
    (tmp_path / "one more.txt").touch()
    assert "come to more than 10,000 files; the limit is 10,000 files" in refusal(tmp_path)


def test_equal_files_make_equal_packages(tmp_path, head):
    folder = make(tmp_path / "project", "label.py", "words/list.txt")
    assert submit(folder, head).code == 0
    first = dict(head.packages)
    head.packages.clear()
    os.utime(folder / "label.py", (1, 1))
    assert submit(folder, head).code == 0
    assert head.packages == first
    with zipfile.ZipFile(io.BytesIO(*first.values())) as written:
        assert {name: written.read(name).decode() for name in written.namelist()} == {
            "label.py": (folder / "label.py").read_text(),
            "words/list.txt": "words/list.txt",
        }
