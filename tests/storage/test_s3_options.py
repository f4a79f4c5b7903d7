"""Options and file systems that work for a user in s3fs work in raysp, and the results are read back with them."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import s3fs

import raysp
from raysp import SpecError, StoreError
from raysp.specs.values import from_json, to_json
from raysp.storage import s3_client
from raysp.storage.options import resolve
from raysp.storage.s3 import S3Store
from raysp.storage.s3_client import read_options
from raysp.storage.stores import expand, open_store

LITERAL = "lItErAlSeCrEt"


@pytest.fixture(autouse=True)
def new_clients(constants):
    constants(s3_client, FIRST_DELAY_SECONDS=0.01, _clients={})


@pytest.fixture
def bucket(s3):
    return s3.bucket()


def spellings(s3) -> dict[str, dict[str, object]]:
    """Return options that mean the same to s3fs."""
    secret = raysp.Env("RAYSP_TEST_SECRET")
    client = {"aws_access_key_id": s3.key, "aws_secret_access_key": secret, "region_name": "us-east-1"}
    return {
        "client": {"client_kwargs": {**client, "endpoint_url": s3.endpoint}},
        "config and requests": {
            "username": s3.key,
            "password": secret,
            "endpoint_url": s3.endpoint,
            "use_ssl": False,
            "config_kwargs": {"s3": {"addressing_style": "path"}, "signature_version": "s3v4", "read_timeout": 20},
            "default_block_size": 2**20,
            "requester_pays": True,
            "s3_additional_kwargs": {"CacheControl": "no-store"},
        },
    }


@pytest.mark.parametrize("spelling", ["client", "config and requests"])
def test_options_that_s3fs_takes_work_here(s3, bucket, spelling):
    options = spellings(s3)[spelling]
    theirs = s3fs.S3FileSystem(**resolve(options), skip_instance_cache=True)
    theirs.pipe_file(f"{bucket}/in/theirs", b"theirs")
    store = open_store(f"s3://{bucket}/in", options)
    assert store.read("theirs") == b"theirs"
    assert store.create("ours", b"ours")
    assert theirs.cat_file(f"{bucket}/in/ours") == b"ours"
    assert [entry.path for entry in expand(f"s3://{bucket}/in/*", options).entries] == ["ours", "theirs"]


@pytest.mark.parametrize(("retries", "attempts"), [({"max_attempts": 1}, 2), ({"total_max_attempts": 3}, 3)])
def test_a_request_is_tried_as_often_as_the_options_say(proxy, bucket, retries, attempts):
    store = S3Store(f"s3://{bucket}", {**proxy.options, "config_kwargs": {"retries": retries}})
    proxy.judge = lambda method, path: "503"
    with pytest.raises(StoreError, match="SlowDown"):
        store.read("a")
    assert len(proxy.requests) == attempts


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"session": "x"}, "s3 has no option 'session'; its options are anon, client_kwargs.*, requester_pays,"),
        ({"client_kwargs": {"verify": False}}, "set AWS_CA_BUNDLE to the file of your own certificate"),
        ({"config_kwargs": {"read_timeout": 0}}, r"\['read_timeout'\] is a int; expected a number above 0"),
        ({"config_kwargs": {"region_name": "a"}, "region": "b"}, r"'region' and config_kwargs\['region_name'\] differ"),
        ({"username": "a", "key": "b"}, "'key' and 'username' differ; give one of them"),
        ({"s3_additional_kwargs": {"VersionId": "x"}}, r"additional_kwargs'\]: s3 has no option 'VersionId'"),
        ({"key": "AKIA"}, "'key' and 'secret' go together; give both, or a profile"),
    ],
)
def test_other_options_are_refused_with_those_that_are_taken(options, message):
    with pytest.raises(StoreError, match=message):
        open_store("s3://bucket/x", options)


def test_no_option_shows_a_secret(monkeypatch):
    monkeypatch.setenv("THE_KEY", LITERAL)
    options = {"s3_additional_kwargs": {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": raysp.Env("THE_KEY")}}
    assert LITERAL not in repr(read_options(options)) + repr(raysp.Shards("s3://b/x", storage_options=options))
    for given, message in [
        ({"s3_additional_kwargs": {"SSECustomerKey": LITERAL}}, "holds a literal secret"),
        ({"client_kwargs": {"aws_secret_access_key": LITERAL}}, "holds a literal secret"),
        ({"config_kwargs": {"proxies": {"https": f"http://me:{LITERAL}@proxy"}}}, "is a url with a password"),
    ]:
        with pytest.raises(SpecError, match=message) as caught:
            raysp.Shards("s3://b/x", storage_options=given)
        assert LITERAL not in str(caught.value)


class TestFileSystems:
    def test_one_of_s3fs_is_taken_for_its_options(self, s3, bucket, monkeypatch):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.key)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.secret)
        files = s3fs.S3FileSystem(endpoint_url=s3.endpoint, config_kwargs={"read_timeout": 9}, max_concurrency=4)
        store = open_store(f"s3://{bucket}/x", files)
        assert store.create("a", b"one")
        assert files.cat_file(f"{bucket}/x/a") == b"one"
        source = raysp.Shards(f"s3://{bucket}/x/*", storage_options=files)
        assert source.storage_options == files.storage_options
        assert from_json(to_json(source)) == source

    def test_its_literal_secrets_are_refused_with_the_remedy(self):
        files = s3fs.S3FileSystem(key="AKIA", secret=LITERAL, skip_instance_cache=True)
        with pytest.raises(
            SpecError, match=r"write raysp.Env\('SECRET'\): storage_options=\{\*\*fs.storage_opt"
        ) as caught:
            raysp.Shards("s3://bucket/x", storage_options=files)
        assert LITERAL not in str(caught.value)


class _Redirecting(BaseHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        self.send_response(307)
        self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/latest/meta-data/")
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_GET  # noqa: N815 - a name that http.server looks for


@pytest.mark.slow
def test_a_redirect_is_not_followed(monkeypatch):
    monkeypatch.setenv("THE_SECRET", LITERAL)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Redirecting)
    server.daemon_threads, server.asked = True, []
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    options = {
        "key": "AKIA",
        "secret": raysp.Env("THE_SECRET"),
        "endpoint_url": f"http://127.0.0.1:{server.server_port}",
    }
    with pytest.raises(
        StoreError, match=r"cannot read it \(307: Temporary Redirect\); redirects are not followed: set endpoint_url"
    ):
        open_store("s3://bucket/x", options).read("a")
    server.shutdown()
    server.server_close()
    assert server.asked == ["/bucket/x/a", "/bucket"]  # botocore asks for the bucket's region
