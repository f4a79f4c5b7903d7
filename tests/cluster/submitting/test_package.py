"""What travels with a pipeline file, and what stays."""

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

from raysp import SpecError
from raysp.cluster.submitting.package import MAX_FILES, collect

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


def git(folder: Path, *arguments: str) -> None:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
    subprocess.run(command, check=True, capture_output=True)


def test_git_decides_what_is_ignored_in_its_working_tree(tmp_path):
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


def test_a_working_tree_within_and_a_linked_folder_have_answers_of_git_of_their_own(tmp_path):
    make(tmp_path / "other", "lib/a.py", "lib/b.tmp")
    project = make(tmp_path / "project", "label.py", "inner/c.py", "inner/d.tmp")
    for one in (tmp_path / "other", project, project / "inner"):
        git(one, "init", "-q")
    for one in (tmp_path / "other", project / "inner"):
        (one / ".gitignore").write_text("*.tmp\n")
    (project / "lib").symlink_to(tmp_path / "other" / "lib")
    assert names(project) == ["inner/c.py", "label.py", "lib/a.py"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_an_ignore_file_may_begin_with_a_byte_order_mark(tmp_path, encoding):
    make(tmp_path, "label.py", "é.txt")
    (tmp_path / ".raysignore").write_bytes("é.txt\n".encode(encoding))
    assert names(tmp_path) == ["label.py"]


def test_an_ignore_file_of_another_encoding_is_refused(tmp_path):
    make(tmp_path, "label.py")
    (tmp_path / ".raysignore").write_bytes(b"\xe9.txt\n")
    with pytest.raises(SpecError, match=r"\.raysignore: .*expected UTF-8"):
        names(tmp_path)


def test_without_git_the_gitignore_files_above_hold(tmp_path, monkeypatch):
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
def test_what_looks_like_a_key_is_refused_unless_it_is_named(tmp_path, name):
    make(tmp_path, "label.py", name)
    with pytest.raises(SpecError, match=rf"look like keys or credentials: {name}\. List them in .* \(!{name}\)"):
        names(tmp_path)
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
def test_a_file_with_the_content_of_a_key_is_refused(tmp_path, content):
    make(tmp_path, "label.py")
    (tmp_path / "notes.txt").write_bytes(content)
    with pytest.raises(SpecError, match=r"look like keys or credentials: notes\.txt"):
        names(tmp_path)


def test_code_and_certificates_are_no_keys(tmp_path):
    make(tmp_path, "label.py", "secrets.py", "tokens.json", "vocab.json")
    (tmp_path / "ca.pem").write_bytes(b"-----BEGIN CERTIFICATE-----\n")
    (tmp_path / "tokens.json").write_text('{"PAD_TOKEN": "<pad>", "UNK_TOKEN": "[UNK]", "sk-": 1, "hf_": 2}')
    (tmp_path / "secrets.py").write_text(
        'token = Env("HF_TOKEN")\nAPI_KEY = os.environ["WANDB_API_KEY"]\nHF_TOKEN = token_of_this_environment()\n'
    )
    assert names(tmp_path) == ["ca.pem", "label.py", "secrets.py", "tokens.json", "vocab.json"]


def test_a_link_to_itself_is_passed_over_and_a_name_that_is_not_utf_8_is_refused(tmp_path):
    make(tmp_path, "label.py")
    (tmp_path / "self").symlink_to("self")
    assert names(tmp_path) == ["label.py"]
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.txt")).write_text("x")
    with pytest.raises(SpecError, match=r"the name b'\\xff\.txt' is not UTF-8.*such as \*\.txt"):
        names(tmp_path)
    (tmp_path / ".raysignore").write_text("*.txt\n")
    assert names(tmp_path) == ["label.py"]


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
    monkeypatch.setattr("raysp.cluster.submitting.package.MAX_FILES", 3)
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
