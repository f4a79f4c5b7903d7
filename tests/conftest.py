import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import s3_servers
from tests.faulty_proxy import FaultyProxy
from tests.s3_servers import S3Server

settings.register_profile("the same every time", derandomize=True)  # `make soak` draws anew
settings.load_profile("the same every time")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real recordings and checkpoints, beside the repository or where RAYSP_SHARED says."""
    folder = s3_servers.shared_folder()
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data at {folder} (set RAYSP_SHARED)")
    return folder


@pytest.fixture(autouse=True, scope="session")
def _no_credentials_from_outside() -> Iterator[None]:
    """Keep tests from whatever credentials and metadata service a machine has."""
    kept = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("AWS_")}
    os.environ |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/dev/null"}
    os.environ |= {"AWS_SHARED_CREDENTIALS_FILE": "/dev/null"}
    yield
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ |= kept


@pytest.fixture(autouse=True, scope="session")
def _state_of_its_own(tmp_path_factory) -> Iterator[None]:
    """Keep what raysp remembers of pipelines out of the user's home, and tests from what it remembers there."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory) -> Iterator[S3Server]:
    """A real object store where there can be one, else moto's; the summary says which."""
    with s3_servers.running(s3_servers.kind(), tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory) -> Iterator[S3Server]:
    """The stand-in, for what the real one lacks."""
    with s3_servers.running("moto", tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture
def s3(s3_server, monkeypatch) -> S3Server:
    """The object store; RAYSP_TEST_SECRET holds the secret of `s3.options`."""
    monkeypatch.setenv(s3_servers.SECRET_VARIABLE, s3_server.secret)
    return s3_server


@pytest.fixture
def proxy(s3) -> Iterator[FaultyProxy]:
    """An object store that fails as it is told."""
    with FaultyProxy.in_front_of(s3) as found:
        yield found


def pytest_terminal_summary(terminalreporter) -> None:
    for line in s3_servers.used:
        terminalreporter.write_line(f"object store of the tests: {line}")
