"""Paths that strangers wrote: none leaves the folder that recordings may be read from."""

import os
import unicodedata
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp import AudioError
from raysp.storage import audio_root
from raysp.storage.audio_root import AudioRoot
from raysp.storage.stores import open_store


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "audio"
    (root / "sub").mkdir(parents=True)
    (root / "a.wav").write_bytes(b"inside")
    (root / "sub" / "b.wav").write_bytes(b"below")
    (root / "sub" / "within").symlink_to(root / "a.wav")
    (tmp_path / "secret.wav").write_bytes(b"outside")
    (tmp_path / "audio-of-others").mkdir()
    (tmp_path / "audio-of-others" / "c.wav").write_bytes(b"neighbour")
    (root / "out.wav").symlink_to(tmp_path / "secret.wav")
    (root / "others").symlink_to(tmp_path)
    (root / "loop").symlink_to(root / "loop")
    os.mkfifo(root / "pipe")
    return root


def error_type(root: AudioRoot, path: str) -> str:
    with pytest.raises(AudioError) as caught:
        root.open(path)
    assert str(root.url) in str(caught.value)
    return caught.value.error_type


@pytest.mark.parametrize(
    ("path", "content"),
    [("a.wav", b"inside"), ("sub/b.wav", b"below"), ("./sub//b.wav", b"below"), ("sub/within", b"inside")],
)
def test_files_inside_are_read(folder, path, content):
    assert AudioRoot(str(folder)).open(path).read() == content
    assert AudioRoot(f"{folder}/").open(f"{folder}/{path}").read() == content


def outside(folder) -> list[str]:
    return [
        "../secret.wav",
        "../../x",
        "sub/../../secret.wav",
        f"{folder}/../secret.wav",
        "/etc/passwd",
        f"{folder.parent}/secret.wav",
        f"{folder.parent}/audio-of-others/c.wav",
        "out.wav",
        "others/secret.wav",
        "others/audio-of-others/c.wav",
        "loop",
        "pipe",
        "sub",
        ".",
        "a.wav\0.txt",
        "x" * 5000,
        f"file://{folder}/a.wav",
        "file:///etc/passwd",
        "FILE:///etc/passwd",
        "http://127.0.0.1/a.wav",
        "http://169.254.169.254/latest/meta-data",
        "https://[::1]/x",
        "s3://another-bucket/a.wav",
        "zip://a.wav::http://10.0.0.1/x.zip",
        "simplecache::s3://b/x",
        "local:///etc/passwd",
    ]


def test_files_outside_are_not_read(folder):
    root = AudioRoot(str(folder))
    found = {path: error_type(root, path) for path in outside(folder)}
    assert found == dict.fromkeys(outside(folder), "path_not_allowed")


@pytest.mark.parametrize("path", ["gone.wav", "sub/gone.wav", "a.wav/x", "s3:/looks/like/a/folder"])
def test_a_missing_file_is_not_found(folder, path):
    assert error_type(AudioRoot(str(folder)), path) == "not_found"


@pytest.mark.slow
@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(["..", ".", "", "a.wav", "sub", "b.wav", "others", "out.wav", "~", "audio", "/"])))
def test_no_path_reads_files_outside(tmp_path_factory, parts):
    base = tmp_path_factory.getbasetemp() / "contained"
    if not base.exists():
        (base / "audio" / "sub").mkdir(parents=True)
        (base / "audio" / "a.wav").write_bytes(b"inside")
        (base / "a.wav").write_bytes(b"outside")
        (base / "audio" / "others").symlink_to(base)
        (base / "audio" / "out.wav").symlink_to(base / "a.wav")
    refused = "not_found"
    try:
        read = AudioRoot(str(base / "audio")).open("/".join(parts)).read()
    except AudioError as error:
        read, refused = b"inside", error.error_type
    assert read == b"inside"
    assert refused in ("path_not_allowed", "not_found")


def test_a_root_that_is_a_link_is_where_it_leads(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    assert AudioRoot(str(tmp_path / "link")).open("a.wav").read() == b"inside"
    assert error_type(AudioRoot(str(tmp_path / "link")), "out.wav") == "path_not_allowed"


def test_on_storage_with_urls_the_letters_decide():
    store = open_store(url := f"memory://{uuid.uuid4().hex}/audio")
    store.create("a/b.wav", b"inside")
    root = AudioRoot(url)
    assert root.open("a/b.wav").read() == root.open(f"{url}/a/b.wav").read() == b"inside"
    for path in (
        "../other/x.wav",
        "memory://other/x.wav",
        f"{url}/../x",
        "/etc/passwd",
        "file:///etc/passwd",
        "s3://b/x",
    ):
        assert error_type(root, path) == "path_not_allowed"
    assert error_type(root, "gone.wav") == "not_found"


@pytest.mark.parametrize("url", ["http://example.org/audio", "https://example.org/audio"])
def test_a_web_server_is_not_allowed_for_paths(url):
    assert error_type(AudioRoot(url), "a.wav") == "path_not_allowed"


class TestTheGuards:
    """What each guard alone holds back: without it the same path is read."""

    def test_dots_are_held_by_the_letters_and_by_the_real_path(self, folder, monkeypatch):
        monkeypatch.setattr(AudioRoot, "inside", lambda self, path: path)
        assert error_type(AudioRoot(str(folder)), "../secret.wav") == "path_not_allowed"
        monkeypatch.setattr(audio_root.os.path, "realpath", lambda path, strict=False: os.path.abspath(path))
        root = AudioRoot(str(folder))
        assert root.open("out.wav").read() == b"outside"

    def test_without_the_look_at_the_real_path_a_link_leads_out(self, folder, monkeypatch):
        monkeypatch.setattr(audio_root.os.path, "realpath", lambda path, strict=False: path)
        assert AudioRoot(str(folder)).open("others/secret.wav").read() == b"outside"

    def test_without_the_look_at_the_letters_a_scheme_is_a_folder_that_is_not_there(self, folder, monkeypatch):
        monkeypatch.setattr(AudioRoot, "inside", lambda self, path: path)
        assert error_type(AudioRoot(str(folder)), "http://127.0.0.1/a.wav") == "not_found"


FORMS = [("NFD", "NFC"), ("NFC", "NFD")]


@pytest.fixture(params=["disk", "s3"])
def stored(request, tmp_path):
    """A function that stores a file, and the root of all of them."""
    if request.param == "disk":

        def store(path: str) -> None:
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_bytes(b"x")

        return store, AudioRoot(str(tmp_path))
    s3 = request.getfixturevalue("s3")
    bucket = s3.bucket()
    root = AudioRoot(f"s3://{bucket}", s3.options)
    return lambda path: s3.client.put_object(Bucket=bucket, Key=path, Body=b"x"), root


@pytest.mark.parametrize(("there", "asked"), FORMS)
def test_a_name_that_is_there_in_another_unicode_form_only_is_opened_by_that_name(stored, there, asked):
    store, root = stored
    path = unicodedata.normalize(there, "\u00e9t\u00e9.wav")
    store(path)
    found = root.open(unicodedata.normalize(asked, path))
    assert (found.path, found.head) == (path, b"x")
    assert root.contents([unicodedata.normalize(asked, path)]) == {
        unicodedata.normalize(asked, path): root.contents([path])[path]
    }
    with pytest.raises(AudioError, match="no such file"):
        root.open("\u00e8.wav")


@pytest.mark.parametrize("path", ["./a/b.wav", "a/./b.wav", "././a/b.wav"])
def test_parts_of_one_dot_name_the_folder_itself(stored, path):
    put, root = stored
    put("a/b.wav")
    assert root.open(path).read() == b"x"
    assert len(root.contents([path])) == 1
    for other in ("./a//b.wav", ".a/b.wav", "./b.wav"):
        if not root.real or other != "./a//b.wav":  # a key with an empty part is another key
            with pytest.raises(AudioError, match="no such file in"):
                root.open(other)


def test_folders_and_files_may_have_different_unicode_forms(stored):
    store, root = stored
    path = "\u00e9/e\u0301.wav"
    store(path)
    for asked in ("NFC", "NFD"):
        assert root.open(unicodedata.normalize(asked, path)).path == path


def test_a_name_that_several_files_have_in_other_unicode_forms_is_an_error_with_their_names(stored):
    store, root = stored
    store("\u00e9\u00e9.wav")
    store("e\u0301e\u0301.wav")
    assert root.open("\u00e9\u00e9.wav").path == "\u00e9\u00e9.wav"
    assert root.open("e\u0301e\u0301.wav").path == "e\u0301e\u0301.wav"
    with pytest.raises(
        AudioError,
        match=r"path 'e\\u0301\\xe9\.wav': no such file in .*; 2 files have its name in other Unicode forms, "
        r"'\\xe9\\xe9\.wav', 'e\\u0301e\\u0301\.wav': write the path as one of them",
    ):
        root.open("e\u0301\u00e9.wav")
