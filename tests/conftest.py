import atexit
import gc
import itertools
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import raysp.cli.console  # noqa: F401 - consoles keep COLUMNS of their import, which is that of no test
from tests import kit, s3_servers
from tests.clouds.azure_server import running_azure
from tests.clouds.cloud import CLOUDS, Cloud
from tests.clouds.gcs_server import running_gcs
from tests.commands import write_recipe
from tests.corpora import write_shard
from tests.faulty_proxy import FaultyProxy
from tests.runs import (  # noqa: F401
    local_ray,
    make_pipeline,
    shared_ray,
    small_shards,
    with_ray,
    without_ray,
    workers_hub_cache,
    write_shards,
)
from tests.s3_servers import S3Server

settings.register_profile(  # `make soak` draws new cases; a busy machine is no failure
    "the same every time", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("a few", settings.get_profile("the same every time"), max_examples=20)
settings.load_profile("the same every time")


GROUPS = {
    "local_ray": "Ray",
    "s3_server": "object storage",
    "moto_server": "object storage",
    "gcs_server": "clouds",
    "azure_server": "clouds",
}
"""Fixtures that start a server, which takes seconds of both cores: one process of `-n` has each of them."""
CASES = {"s3": "s3_server", **CLOUDS}
"""Parameters by which a fixture asks for a server; that of the object store may go on with a dash."""
NOT_FAST = ("cluster", "drivers", "gpu", "slow", "soak")
"""Marks of tests that `--fast` leaves out."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="one case of each test that needs no server and is not slow")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their number: a WAV of floats has the time of its making, so its content differs by process."""
    return f"{argname}: {len(val)} bytes" if isinstance(val, bytes) else None


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--fast"):
        settings.load_profile("a few")
    if config.getoption("dist", "no") == "load":  # `-n`: tests of a group in one process
        config.option.dist = "loadgroup"
    config.option.loadgroup = True  # in each process of `-n`, which reads the command line anew


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave `tests/device` to a process of its own (`test_stand_in_device.py`), and import no file without drivers
    for `make test-drivers`.
    """
    if collection_path == Path(__file__).parent / "device":
        return None if all("tests/device" in str(argument) for argument in config.args) else True
    is_left_out = config.option.markexpr.startswith("drivers") and collection_path.suffix == ".py"
    return True if is_left_out and "drivers" not in collection_path.read_text() else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the first case of each test for `--fast`, and tests of a server, or else of a file, in one process."""
    if config.getoption("--fast"):
        first: dict[str, pytest.Item] = {}
        for item in items:
            if not _servers(item) and not any(item.get_closest_marker(name) for name in NOT_FAST):
                first.setdefault(item.nodeid.partition("[")[0], item)
        config.hook.pytest_deselected(items=[item for item in items if item not in first.values()])
        items[:] = first.values()
    for item in items:
        group = next((GROUPS[name] for name in GROUPS if name in _servers(item)), item.nodeid.partition("::")[0])
        item.add_marker(pytest.mark.xdist_group(group))


def _servers(item: pytest.Item) -> set[str]:
    """Return the fixtures of servers that a test needs."""
    cases = {CASES.get(str(value).partition("-")[0]) for value in getattr(item, "callspec", _NO_CASE).params.values()}
    return GROUPS.keys() & {*getattr(item, "fixturenames", ()), *cases}


_NO_CASE = SimpleNamespace(params={})


def pytest_collection_finish() -> None:
    """Exempt modules and tests from garbage collection, which looks at each of them again and again."""
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # else libraries report leaks; pytest, which collects before, would take seconds


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Keep the shared Ray for the tests of its file: others would use whatever Ray this process is connected to."""
    global _file_on_ray
    if "local_ray" in getattr(item, "fixturenames", ()):
        _file_on_ray = item.path
        shared_ray.go_on()
    elif item.path != _file_on_ray:
        shared_ray.end()


_file_on_ray: Path | None = None


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real recordings and checkpoints, beside the repository or where RAYSP_SHARED says."""
    folder = s3_servers.shared_folder()
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data at {folder} (set RAYSP_SHARED)")
    return folder


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the test. That of pytest looks for a free number among all folders of the tests before it."""
    name = re.sub(r"\W", "_", request.node.name)[:30]
    return tmp_path_factory.mktemp(f"{name}{next(_numbers)}", numbered=False)


_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _one_thread_of_torch() -> None:
    """Give a test one thread of torch, whatever runs of earlier tests left: two processes of `-n` with two threads
    each wait for each other, and take four times as long.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() != 1:
        torch.set_num_threads(1)


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
def _cache_of_its_own(tmp_path_factory) -> Iterator[None]:
    """Keep what raysp stores of checkpoints out of the user's home, and tests from what is there."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _no_waits_for_disks() -> Iterator[None]:
    """Keep this process from waiting until its files are on disk: that helps when a machine fails, which none does
    here. A whole training waits some seventy times.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True)
def _modules_of_users_forgotten(tmp_path_factory) -> Iterator[None]:
    """Forget the modules that a test wrote and imported, and their folders: another may write one of the same name."""
    folder, last, path = str(tmp_path_factory.getbasetemp()), next(reversed(sys.modules)), [*sys.path]
    yield
    sys.path[:] = path
    for name in [*itertools.takewhile(lambda one: one != last, reversed(sys.modules))]:
        module = sys.modules[name]
        if folder in str(getattr(module, "__file__", None) or getattr(module, "__path__", "")):
            del sys.modules[name]


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


@pytest.fixture(scope="session")
def gcs_server() -> Iterator[Cloud]:
    """Google Cloud Storage, emulated."""
    with running_gcs() as server:
        yield server


@pytest.fixture(scope="session")
def azure_server() -> Iterator[Cloud]:
    """Azure Blob Storage, emulated."""
    with running_azure() as server:
        yield server


@pytest.fixture
def atomic_store(request) -> None:
    """Skip a test of concurrent writers on moto, which looks for the file and writes it in two steps."""
    on_s3 = any(str(value).startswith("s3") for value in request.node.callspec.params.values())
    if on_s3 and request.getfixturevalue("s3").kind == "moto":
        pytest.skip("moto's conditional writes are not atomic")


@pytest.fixture
def proxy(s3) -> Iterator[FaultyProxy]:
    """An object store that fails as it is told."""
    with FaultyProxy.in_front_of(s3) as found:
        yield found


@pytest.fixture
def raysp_command(monkeypatch, tmp_path):
    """Function that runs a command as `kit.run` does, with a cache of its own, by the engine of the environment."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return lambda *words: kit.run(words, RAYSP_ENGINE=os.environ.get("RAYSP_ENGINE", "auto"))


@pytest.fixture
def recipe(tmp_path) -> Path:
    write_shard(tmp_path / "in" / "a.parquet", 3)
    return write_recipe(tmp_path)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A checkpoint of random weights with a CTC head on letters."""
    from tests.recipes import tiny_checkpoint

    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def headless(tmp_path_factory) -> Path:
    """A checkpoint of random weights without a head."""
    from tests.recipes import tiny_checkpoint

    return tiny_checkpoint(tmp_path_factory.mktemp("headless"), head=False)


@pytest.fixture(scope="session")
def listener(tmp_path_factory) -> str:
    """A checkpoint of random weights of an architecture that has heads for speakers and for frames."""
    from tests.recipes import tiny_listener

    return str(tiny_listener(tmp_path_factory.mktemp("listener")))


@pytest.fixture(scope="session")
def words(tmp_path_factory) -> str:
    """Thirty rows with words of digits, in two shards: an epoch has a few steps."""
    from tests.recipes import write_words

    return write_words(tmp_path_factory.mktemp("words"), 18, 12)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if output := getattr(session.config, "workeroutput", None):
        output["object stores"] = s3_servers.used


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take what a process of `-n` used."""
    s3_servers.used.extend(getattr(node, "workeroutput", {}).get("object stores", ()))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    for line in s3_servers.used:
        terminalreporter.write_line(f"object store of the tests: {line}")
