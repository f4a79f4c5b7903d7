"""S3, Google Cloud Storage and Azure alike: conditions, lost responses, retries, messages; parts of the last two."""

import asyncio
import logging
import threading
import types
from collections.abc import Callable

import pytest

from raysp import StoreError
from raysp.storage import fsspec_files, s3_client
from raysp.storage.store import Entry, RefusedError, Store, UnusableError, probe
from raysp.storage.stores import expand, open_store
from tests import s3_servers
from tests.clouds.cloud import CLOUDS, Cloud
from tests.faulty_proxy import FaultyProxy

gcsfs = pytest.importorskip("gcsfs")

TOKEN = "ya29.neverInAMessage"
DATA = bytes(i * 7 % 251 for i in range(700_000))


S3 = f"s3-{s3_servers.kind()}"
IN_PARTS = [(S3, False), *((name, in_parts) for name in CLOUDS for in_parts in (False, True))]
"""Stores, and whether files go there in parts. `test_s3.py` has those of S3, which are of 5 MiB at least."""


@pytest.fixture(params=[S3, *CLOUDS])
def cloud(request) -> Cloud:
    return request.getfixturevalue(CLOUDS.get(request.param, "s3"))


@pytest.fixture(autouse=True)
def quick(constants, cloud):
    """Wait little between attempts."""
    wait = asyncio.sleep
    constants(gcsfs.retry, asyncio=types.SimpleNamespace(sleep=lambda seconds: wait(min(seconds, 0.01))))
    quickly = {"initial_backoff": 0, "increment_base": 0.01, "random_jitter_range": 0.01}
    constants(fsspec_files, AZURE_RETRIES={**fsspec_files.AZURE_RETRIES, **quickly})
    constants(s3_client, FIRST_DELAY_SECONDS=0.01)


@pytest.fixture
def bucket(cloud) -> str:
    return cloud.bucket()


@pytest.fixture
def proxy(cloud):
    with FaultyProxy.in_front_of(cloud) as found:
        yield found


@pytest.fixture
def in_parts(request) -> bool:
    return request.param


@pytest.fixture
def opened(cloud, bucket, request, constants) -> Callable[..., Store]:
    """Open the folder x of a bucket; files go there in parts of 256 KiB if the test asks for `in_parts`."""
    parted = "in_parts" in request.fixturenames and request.getfixturevalue("in_parts")

    def open_it(options: dict[str, object] = cloud.options) -> Store:
        uncached = {"skip_instance_cache": True} if cloud.kind in CLOUDS else {}
        return open_store(cloud.url(bucket, "x"), {**options, **uncached})

    if parted:
        constants(fsspec_files, ONE_REQUEST_BYTES=0, PART_BYTES=2**18)
    return open_it


@pytest.fixture
def store(opened) -> Store:
    return opened()


@pytest.fixture
def faulty(opened, proxy) -> Store:
    """A store behind the proxy, of which is known what it honours."""
    store = opened(proxy.options)
    probe(store)
    proxy.requests.clear()
    return store


def publish(store: Store, data: bytes, **how: object) -> Entry | None:
    with store.scratch() as scratch:
        scratch.write_bytes(data)
        return store.publish(scratch, "a", **how)


def is_write(method: str) -> bool:
    return method in ("POST", "PUT")


@pytest.mark.usefixtures("in_parts")
@pytest.mark.parametrize(("cloud", "in_parts"), IN_PARTS, indirect=True)
class TestConditions:
    def test_nothing_is_looked_at_before_a_write(self, faulty, proxy, in_parts):
        assert publish(faulty, DATA)
        assert len(proxy.requests) == (4 if in_parts else 1)
        assert all(is_write(method) for method, _, _ in proxy.requests)

    @pytest.mark.usefixtures("atomic_store")
    def test_of_many_that_publish_one_wins(self, opened):
        start, won = threading.Barrier(6), []

        def work(k: int) -> None:
            store = opened()
            start.wait()
            if publish(store, str(k).encode() * 300_000):
                won.append(k)

        threads = [threading.Thread(target=work, args=(k,)) for k in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1
        assert opened().read("a") == str(won[0]).encode() * 300_000

    def test_a_file_that_appears_during_an_upload_stays(self, faulty, store, proxy):
        proxy.hold = lambda method, path: store.create("a", b"first") if is_write(method) else None
        assert not publish(faulty, DATA)
        assert store.read("a") == b"first"

    @pytest.mark.parametrize("change", ["replaced", "deleted"])
    def test_a_version_that_changes_after_the_look_at_it_is_not_replaced(self, faulty, store, proxy, change):
        store.create("a", b"one")
        version = store.stat("a").version
        alter = {"replaced": lambda: store.replace("a", b"another"), "deleted": lambda: store.delete("a")}[change]
        proxy.hold = lambda method, path: alter() if is_write(method) else None
        assert not publish(faulty, DATA, replace=True, expected=version)
        assert store.stat("a") is None if change == "deleted" else store.read("a") == b"another"

    @pytest.mark.parametrize(("fault", "nth"), [("lost", 1), ("lost", 4), ("reset", 2), ("503", 1)])
    def test_a_request_that_fails_is_repeated_and_knows_its_own_file(self, faulty, store, proxy, fault, nth):
        version = ""
        for data in (DATA, DATA[1:]):
            numbers = iter(range(1, 100))
            proxy.judge = lambda method, path, numbers=numbers: fault if next(numbers) == nth else None
            published = publish(faulty, data, expected=version or None)
            assert store.read("a") == data
            assert published == store.stat("a")
            version = published.version

    def test_an_upload_that_the_store_forgets_after_its_end_knows_its_own_file(
        self, cloud, in_parts, faulty, store, proxy
    ):
        faults = ["lost", "404 notFound"]

        def judge(method: str, path: str) -> str | None:
            posted = [path for method, path, _ in proxy.requests if is_write(method)]
            return faults.pop(0) if is_write(method) and faults and len(posted) >= 3 else None

        proxy.judge = judge if in_parts and cloud.kind == "gs" else proxy.judge  # others have no session
        assert publish(faulty, DATA)
        assert store.read("a") == DATA

    def test_an_upload_that_fails_is_not_visible(self, faulty, store, proxy, in_parts):
        numbers = iter(range(1, 1000))
        proxy.judge = lambda method, path: "503" if next(numbers) >= (4 if in_parts else 1) else None
        with pytest.raises(StoreError, match="x/a: cannot write it"):
            publish(faulty, DATA)
        assert list(store.list()) == []


class TestReading:
    def test_a_file_that_is_replaced_while_it_is_read_is_noticed(self, store):
        store.create("a", bytes(300_000))
        with store.open("a") as file:
            file.read(10)
            store.replace("a", bytes(299_999) + b"x")
            with pytest.raises(StoreError, match="x/a: it was replaced while it was read; run again"):
                file.read()

    @pytest.mark.parametrize("cloud", CLOUDS, indirect=True)
    def test_more_files_than_a_page_holds_are_all_listed(self, faulty, proxy, cloud, bucket, constants):
        constants(fsspec_files, PAGE=10)
        made = [f"{number:02}.parquet" for number in range(25)]
        for name in made:
            cloud.put(bucket, f"x/{name}", b"x")
        assert [entry.path for entry in faulty.list()] == made
        assert len(proxy.requests) == 3
        assert len(expand(f"{faulty.url}/1*.parquet", cloud.options).entries) == 10

    def test_folder_markers_of_other_tools_are_not_files(self, store, cloud, bucket):
        for key in ("x/", "x/folder/"):
            cloud.put(bucket, key, b"")
        assert list(store.list()) == []

    @pytest.mark.parametrize("fault", ["503", "reset", "truncate"])
    def test_transient_errors_are_retried(self, cloud, faulty, proxy, fault):
        faulty.create("a", DATA)
        for call in (
            lambda: faulty.read("a") == DATA,
            lambda: faulty.stat("a").num_bytes == len(DATA),
            lambda: [entry.path for entry in faulty.list()] == ["a"],
            lambda: faulty.open("a").read() == DATA,
        ):
            proxy.fail_next(fault, fault)
            assert call()
        has_no_body = cloud.kind != "gs" and fault == "truncate"  # the response to HEAD, for `stat`
        assert [found for _, _, found in proxy.requests].count(fault) == 8 - has_no_body


class TestMessages:
    def test_a_bucket_that_is_not_there_is_named(self, cloud):
        store = open_store(cloud.url("raysp-nobody-made-this", "x"), cloud.options)
        for call in (lambda: probe(store), lambda: list(store.list())):
            with pytest.raises(
                UnusableError, match=r"raysp-nobody-made-this/x.*there is no (such )?(bucket|container)"
            ):
                call()

    @pytest.mark.parametrize(("fault", "kind"), [("403 AccessDenied", RefusedError), ("401 authError", UnusableError)])
    def test_refusals_are_reported_at_once_and_without_secrets(self, cloud, opened, proxy, caplog, fault, kind):
        options = {**proxy.options, **_signing(cloud)}
        store = opened(options)
        proxy.judge = lambda method, path: fault
        advice = "check the url, storage_op" if cloud.kind in CLOUDS else "grant these credentials permission"
        for call in (lambda: store.read("a"), lambda: store.create("a", b""), lambda: list(store.list())):
            with (
                caplog.at_level(logging.INFO, "raysp"),
                pytest.raises(kind, match=rf"cannot .* {advice}") as found,
            ):
                call()
            said = f"{found.value}{found.value!r}{caplog.text}"
            assert TOKEN not in said
            assert "SharedKey" not in said
            assert cloud.secret not in said or not cloud.secret
        assert isinstance(found.value, RefusedError) == (kind is RefusedError)
        assert len(proxy.requests) == 3

    def test_an_outage_is_reported_after_six_attempts(self, cloud, faulty, proxy):
        proxy.judge = lambda method, path: "503"
        why = "Http.*Error" if cloud.kind in CLOUDS else ".*6 attempts"
        with pytest.raises(StoreError, match=rf"x/a: cannot read it \({why}.*run again: committed work"):
            faulty.read("a")
        assert len(proxy.requests) == 6


def _signing(cloud: Cloud) -> dict[str, object]:
    """Return options with which requests are signed, where those of the emulator are anonymous."""
    if cloud.kind != "gs":
        return {}
    from google.oauth2.credentials import Credentials

    return {"token": Credentials(TOKEN)}


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("az://container/a/b/", "container/a/b"),
        ("abfs://container/a", "container/a"),
        ("abfss://container@account.dfs.core.windows.net/a/b", "container/a/b"),
    ],
)
def test_a_url_of_azure_may_name_its_account(url, place):
    named = {} if "@" in url else {"account_name": "account"}
    files = fsspec_files.AzureFiles(url, {"account_key": "a2V5", **named})
    assert files.root(url) == place
    assert files._files.account_name == "account"
