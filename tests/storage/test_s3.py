"""Object storage only: conditions, parts, retries, credentials, messages."""

import logging
from collections.abc import Iterator

import pytest

import raysp
from raysp import StoreError
from raysp.storage import s3 as s3_module
from raysp.storage import s3_client
from raysp.storage.s3 import S3Store
from raysp.storage.store import check_names, probe
from raysp.storage.stores import expand, open_store
from tests.faulty_proxy import FaultyProxy

TOKEN = "tOkEn//neverInAMessage"


@pytest.fixture(autouse=True)
def quick(constants):
    """Wait little between attempts. Not for an answer: one of a busy server may take seconds."""
    constants(s3_client, FIRST_DELAY_SECONDS=0.01, _clients={})
    constants(s3_module, _honoured={})


@pytest.fixture
def bucket(s3):
    return s3.bucket()


@pytest.fixture
def store(s3, bucket):
    return S3Store(f"s3://{bucket}/x", s3.options)


@pytest.fixture
def faulty(proxy, bucket):
    """A store behind the proxy, which already knows what the object store honours."""
    store = S3Store(f"s3://{bucket}/x", proxy.options)
    probe(store)
    proxy.requests.clear()
    return store


@pytest.fixture
def completing(s3, request, proxy) -> Iterator[FaultyProxy]:
    """A proxy before an object store that honours if-none-match when an upload is completed: this one, or moto."""
    if S3Store(f"s3://{s3.bucket()}", s3.options)._honours("multipart completion"):
        yield proxy
        return
    with FaultyProxy.in_front_of(request.getfixturevalue("moto_server")) as found:
        yield found


def keys(s3, bucket) -> list[str]:
    return [one["Key"] for one in s3.client.list_objects_v2(Bucket=bucket).get("Contents", ())]


def uploads(s3, bucket) -> list[dict]:
    return s3.client.list_multipart_uploads(Bucket=bucket).get("Uploads") or []


class TestOptions:
    def test_missing_credentials_are_reported_with_their_possible_sources(self, s3, bucket):
        with pytest.raises(StoreError, match=r"NoCredentialsError.*give credentials: storage_options, AWS_ACCESS_K"):
            S3Store(f"s3://{bucket}", {"endpoint_url": s3.endpoint}).read("a")

    def test_environment_profile_and_endpoint_variable_serve_as_well(self, s3, bucket, monkeypatch, tmp_path):
        (tmp_path / "credentials").write_text(
            f"[lab]\naws_access_key_id = {s3.key}\naws_secret_access_key = {s3.secret}\n"
        )
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)
        assert S3Store(f"s3://{bucket}", {"profile": "lab"}).create("by-profile", b"")
        with pytest.raises(StoreError, match=r"profile .*nobody.* could not be found"):
            S3Store(f"s3://{bucket}", {"profile": "nobody"}).create("x", b"")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret)
        assert S3Store(f"s3://{bucket}").stat("by-profile") is not None

    def test_anonymous_requests_are_not_signed(self, proxy, bucket):
        signed = []
        proxy.judge = lambda method, path: signed.append(path) or "403 AccessDenied"
        store = S3Store(f"s3://{bucket}", {"endpoint_url": proxy.server.endpoint, "anon": True})
        with pytest.raises(StoreError, match=r"cannot read it \(AccessDenied HTTP 403: refused: None None\); grant"):
            store.read("a")  # the proxy repeats the Authorization header that it was sent: none


class TestWriting:
    @pytest.mark.parametrize("honoured", [True, False])
    def test_a_large_file_goes_up_in_parts_only_where_their_completion_has_a_condition(
        self, completing, constants, honoured
    ):
        constants(s3_module, MULTIPART_BYTES=6 * 2**20, PART_BYTES=5 * 2**20)
        s3, bucket = completing.server, completing.server.bucket()
        store = S3Store(f"s3://{bucket}/x", s3.options)
        if not honoured:
            s3_module._honoured[store._client, bucket, "multipart completion"] = False
        data = bytes(range(256)) * 28_000
        for expected in (True, False):
            with store.scratch() as scratch:
                scratch.write_bytes(data)
                published = store.publish(scratch, "large")
                assert published == (store.stat("large") if expected else None)
        assert store.read("large") == data
        assert ("-" in store.stat("large").version) == honoured
        with store.scratch() as scratch:
            scratch.write_bytes(data[1:])
            assert store.publish(scratch, "large", replace=True) == store.stat("large")
        assert store.stat("large").version.endswith("-2")
        assert store.read("large") == data[1:]
        assert uploads(s3, bucket) == []
        assert keys(s3, bucket) == ["x/large"]

    def test_an_upload_that_fails_is_not_visible_and_leaves_nothing(self, faulty, proxy, s3, bucket, constants):
        constants(s3_module, MULTIPART_BYTES=1, PART_BYTES=5 * 2**20)
        proxy.judge = lambda method, path: "403 AccessDenied" if "partNumber=2" in path else None
        with faulty.scratch() as scratch:
            scratch.write_bytes(bytes(11 * 2**20))
            with pytest.raises(StoreError, match=r"x/large: cannot write it .AccessDenied"):
                faulty.publish(scratch, "large", replace=True)
            assert scratch.exists()
        assert uploads(s3, bucket) == keys(s3, bucket) == []

    def test_a_store_that_ignores_the_condition_is_warned_of_and_looked_at_first(self, proxy, bucket, caplog):
        proxy.ignores_conditions = True
        store = S3Store(f"s3://{bucket}/x", proxy.options)
        with caplog.at_level(logging.WARNING):
            assert store.create("a", b"one") is True
            assert store.create("a", b"two") is False
            version = store.stat("a").version
            for data, how, is_published in (
                (b"new", {}, False),
                (b"next", {"replace": True, "expected": version}, True),
                (b"late", {"replace": True, "expected": version}, False),
            ):
                with store.scratch() as scratch:
                    scratch.write_bytes(data)
                    assert bool(store.publish(scratch, "a", **how)) is is_published
        assert store.read("a") == b"next"
        assert [record.message for record in caplog.records if "ignores if-none-match" in record.message] == [
            f"s3://{bucket}/x: this store ignores if-none-match: whether a file exists is checked before it is "
            "written, so two concurrent runs could write one label shard twice (with the same rows)"
        ]


class TestFaults:
    @pytest.mark.parametrize("fault", ["500", "429"])
    def test_a_busy_server_is_asked_again(self, faulty, proxy, fault):
        for call in (lambda: faulty.create("a", b"one"), lambda: faulty.read("a"), lambda: [*faulty.list()]):
            proxy.fail_next(fault, fault)
            assert call()
            assert [found for _, _, found in proxy.requests][-3:] == [fault, fault, None]

    def test_a_body_that_stalls_is_requested_again(self, proxy, bucket):
        faulty = S3Store(f"s3://{bucket}/x", {**proxy.options, "config_kwargs": {"read_timeout": 0.4}})
        data = bytes(i * 7 % 251 for i in range(300_000))
        faulty.create("a", data)
        for read in (lambda: faulty.read("a"), lambda: faulty.open("a").read()):
            proxy.fail_next("stall", method="GET")
            assert read() == data
        assert [fault for _, _, fault in proxy.requests].count("stall") == 2

    @pytest.mark.parametrize("replace", [True, False])
    def test_an_upload_whose_last_answer_was_lost_is_complete(self, completing, constants, replace):
        constants(s3_module, MULTIPART_BYTES=1)
        store = S3Store(f"s3://{completing.server.bucket()}/x", completing.options)
        store._honours("multipart completion")
        with store.scratch() as scratch:
            scratch.write_bytes(b"whole")
            completing.fail_next("lost", method="POST", path="uploadId=")
            assert store.publish(scratch, "large", replace=replace) == store.stat("large")
        assert store.read("large") == b"whole"
        assert "-" in store.stat("large").version

    def test_expired_credentials_are_looked_up_once_more_and_used(self, faulty, proxy, s3, bucket):
        faulty.create("a", b"one")
        before = faulty._client._made
        proxy.fail_next("403 ExpiredToken")
        assert faulty.read("a") == b"one"
        assert faulty._client._made is not before

    def test_credentials_that_stay_expired_are_to_be_renewed_and_not_shown(self, proxy, bucket, monkeypatch):
        monkeypatch.setenv("THE_TOKEN", TOKEN)
        proxy.judge = lambda method, path: "400 ExpiredToken"
        store = S3Store(f"s3://{bucket}/x", {**proxy.options, "token": raysp.Env("THE_TOKEN")})
        with pytest.raises(StoreError, match=r"ExpiredToken.* renew them, run") as caught:
            store.read("a")
        assert len(proxy.requests) == 2  # they are looked up once more
        assert TOKEN not in f"{caught.value}{caught.value.__cause__}"

    def test_nothing_listens_at_the_endpoint(self, s3, bucket):
        store = S3Store(f"s3://{bucket}/x", s3.at("http://127.0.0.1:9").options)
        with pytest.raises(
            StoreError, match=r"EndpointConnectionError.*6 attempts.*check endpoint_url \(or AWS_ENDPOINT"
        ):
            store.read("a")


class TestKeysWithEmptyParts:
    """`audio//x.parquet` and `audio/x.parquet` are two keys; neither is read in place of the other."""

    def test_a_folder_or_url_with_such_a_key_is_refused_by_name(self, s3, bucket):
        root = open_store(f"s3://{bucket}", s3.options)
        for key in ("audio/x.parquet", "audio//x.parquet", "single/x.parquet"):
            root.create(key, key.encode())
        with pytest.raises(StoreError, match=r"audio//x\.parquet: the key has an empty part"):
            check_names(expand(f"s3://{bucket}/audio", s3.options))
        check_names(expand(f"s3://{bucket}/single", s3.options))
        for url in ("audio//x.parquet", "audio//*.parquet", "/x.parquet", "/*.parquet"):
            with pytest.raises(StoreError, match="the key has an empty part"):
                expand(f"s3://{bucket}/{url}", s3.options)
