import atexit
import gc
import itertools
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

import raysp.cli.console  # noqa: F401 - consoles keep COLUMNS of their import, which is that of no test
from raysp.cli import main
from tests import s3_servers
from tests.clouds.azure_server import running_azure
from tests.clouds.cloud import CLOUDS, Cloud
from tests.clouds.gcs_server import running_gcs
from tests.commands import Ran, write_recipe
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


SERVERS = {"local_ray", "s3_server", "moto_server", "gcs_server", "azure_server"}
ON_CLOUDS = ("labelling/engine/test_clouds_runs.py", "storage/test_clouds.py")
"""Files with tests that use an emulated cloud without a parameter that names it; checked as the others are."""
ON_OBJECT_STORAGE = (
    "by_promise/test_export_to_a_bucket.py",
    "by_promise/test_archived.py",
    "by_promise/test_tables.py",
    "checkpoints/test_fetching.py",
    "kubernetes/test_keys_of_a_store.py",
    "kubernetes/test_policies.py",
    "cli/test_storage_options.py",
    "corpus/test_metadata.py",
    "cluster/test_isolated_nodes.py",
    "cluster/submitting/test_real_head.py",
    "labelling/engine/test_object_storage.py",
    "labelling/planning/test_checkpoints.py",
    "ops/test_refusals.py",
    "by_promise/export/test_in_a_bucket.py",
    "labelling/reports/test_in_a_bucket.py",
    "training/reading/test_in_a_bucket.py",
    "sink/test_retrying.py",
    "storage/test_guards.py",
    "storage/test_s3.py",
    "storage/test_s3_options.py",
    "storage/test_versions.py",
    "tests/test_readme.py",
)
"""Files with tests that use the object store without a parameter that names it; checked when tests are collected."""

ON_RAY = (
    "by_promise/test_several_labels.py",
    "by_promise/test_clips_at_scale.py::test_tasks",
    "by_promise/test_engine.py",
    "cli/test_refusals.py",
    "cluster/test_",
    "labelling/engine/datasets/",
    "labelling/engine/on_ray/",
    "cluster/submitting/test_head.py",
    "labelling/engine/test_places.py",
    "labelling/engine/test_protocol.py::test_retry_verify",
    "labelling/engine/test_running.py",
    "labelling/engine/test_try_out.py",
    "specs/code/test_travelling.py::test_workers",
    "training/runs/test_several_workers.py",
    "labelling/planning/test_machine.py",
    "training/test_indexes.py::test_tasks",
)
"""Folders, files and tests that use the shared Ray, whose start takes seconds of both cores."""
LONG = (
    "labelling/engine/test_clusters.py",
    "labelling/engine/test_protocol.py",
    "slurm/test_slurm.py",
    "versions/test_stand_in_device.py",
)
"""Files whose tests take longest, one after the other in one process."""

NOT_FAST = ("cluster", "drivers", "gpu", "slow", "soak")
"""Marks of tests that `--fast` leaves out."""
_WHOLLY_SLOW = re.compile(rf"^pytestmark = .*\.(?:{'|'.join(NOT_FAST)})\b", re.MULTILINE)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="one case of each test that needs no server and is not slow")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name bytes by their number: a WAV of floats has the time of its making, so its content differs by process."""
    return f"{argname}: {len(val)} bytes" if isinstance(val, bytes) else None


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--fast"):
        settings.load_profile("a few")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave `tests/device` to a process of its own (`test_stand_in_device.py`), unless nothing else is asked for.

    Leave out files too in which `make test-drivers` or `--fast` runs nothing, since importing them takes long.
    """
    is_alone = all("tests/device" in str(argument) for argument in config.args)
    if collection_path == Path(__file__).parent / "device" and not is_alone:
        return True
    if collection_path.suffix != ".py":
        return None
    if config.option.markexpr.startswith("drivers"):
        return None if _names_drivers(collection_path) else True
    return True if config.getoption("--fast") and _WHOLLY_SLOW.search(collection_path.read_text()) else None


def _names_drivers(file: Path) -> bool:
    return "drivers" in file.read_text()


@pytest.hookimpl(wrapper=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Iterator[None]:
    """Drop cases that will not run before they become items, which takes longer than most tests."""
    yield
    cases, config = metafunc._calls, metafunc.config
    if config.getoption("--fast"):
        fast = [one for one in cases if not _is_marked(one, *NOT_FAST) and not _servers_of_case(f"[{one.id}]")]
        metafunc._calls = (fast or cases)[:1]
    elif "not soak" in config.option.markexpr.split(" and "):
        metafunc._calls = [one for one in cases if not _is_marked(one, "soak")] or cases


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the first case of each test for `--fast`, and divide the tests among the processes of `-n`."""
    if config.getoption("--fast"):
        chosen = _first_cases(items)
        config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
        items[:] = [item for item in items if item in chosen]
    for item in items:
        servers, group = _servers(item), _group(item.nodeid)
        if item.get_closest_marker("drivers") and not _names_drivers(item.path):
            raise pytest.UsageError(
                f"{item.nodeid} has the marker drivers from elsewhere: `make test-drivers` misses it"
            )
        if servers & {"s3_server", "moto_server"} and group != "object storage":
            raise pytest.UsageError(f"{item.nodeid} uses the object store: add its file to ON_OBJECT_STORAGE")
        if servers & {*CLOUDS.values()} and group != "clouds":
            raise pytest.UsageError(f"{item.nodeid} uses an emulated cloud: add its file to ON_CLOUDS")
        if servers == {"local_ray"} and group != "Ray":
            raise pytest.UsageError(f"{item.nodeid} uses the shared Ray: add its file to ON_RAY")
    if os.environ.get("PYTEST_XDIST_WORKER"):
        items.sort(key=_turn)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[object]:
    """Collect no garbage while tests are collected: modules and tests stay."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish() -> None:
    """Exempt modules and tests from garbage collection, which looks at each of them again and again.

    It looks at all that tests import and keep ten times less often than by default.
    """
    gc.collect()
    gc.freeze()
    young, middle, old = gc.get_threshold()
    gc.set_threshold(young, middle, 10 * old)
    atexit.register(gc.unfreeze)  # else libraries report leaks; pytest, which collects before, would take seconds


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give the tests of a group to the same process of `-n`."""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return _group(nodeid)

    return ByGroup(config, log)


def _first_cases(items: list[pytest.Item]) -> set[pytest.Item]:
    first: dict[str, pytest.Item] = {}
    for item in items:
        is_slow = any(item.get_closest_marker(name) for name in NOT_FAST)
        if not is_slow and not _servers(item):
            first.setdefault(item.nodeid.partition("[")[0], item)
    return set(first.values())


def _is_marked(case: Any, *names: str) -> bool:
    return any(mark.name in names for mark in case.marks)


def _servers(item: pytest.Item) -> set[str]:
    """Return the servers that a test needs."""
    return SERVERS.intersection(getattr(item, "fixturenames", ())) | _servers_of_case(item.name)


def _servers_of_case(name: str) -> set[str]:
    """Return the servers that parameters ask for by their names, as of a fixture by s3, the object store."""
    object_store = {"s3_server"} if "[s3" in name or "-s3" in name else set()
    return object_store | {CLOUDS[cloud] for cloud in _CLOUD.findall(name)}


_CLOUD = re.compile(r"(?<=[\[-])(?:gs|az)(?=[\]-])")  # a parameter of a fixture


def _group(nodeid: str) -> str:
    """Return the name of the tests that run in the same process as a test.

    One process has the object store, one the clouds, one the shared Ray. Other tests go by file, since they share
    fixtures.
    """
    file, *_ = nodeid.partition("::")
    if _CLOUD.search(nodeid) or file.endswith(ON_CLOUDS):
        return "clouds"
    if "[s3" in nodeid or "-s3" in nodeid or file.endswith(ON_OBJECT_STORAGE):
        return "object storage"
    return "Ray" if any(f"tests/{name}" in nodeid for name in ON_RAY) else file


def _turn(item: pytest.Item) -> int:
    """Return the turn of a test: the long groups come first, so that all processes end at about the same time."""
    if _group(item.nodeid) in {"clouds", "object storage", "Ray"} or item.nodeid.partition("::")[0].endswith(LONG):
        return 0
    return 1 if item.get_closest_marker("slow") else 2 if item.get_closest_marker("cluster") else 3


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Keep the shared Ray for the tests of its group: others would use whatever Ray this process is connected to."""
    if _group(item.nodeid) != "Ray":
        shared_ray.end()
    elif "local_ray" in getattr(item, "fixturenames", ()):
        shared_ray.go_on()


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
def raysp_command(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delenv("RAYSP_DEBUG", raising=False)

    def command(*arguments: object) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(one) for one in arguments])
        said = capsys.readouterr()
        return Ran(int(stop.value.code or 0), said.out, said.err)

    return command


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
