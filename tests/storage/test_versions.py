"""Current versions of many files: from listings and from single requests, and the cost of each."""

import pytest

from raysp import StoreError
from raysp.storage import s3_client
from raysp.storage.audio_root import WORTH_LISTING, AudioRoot


@pytest.fixture(scope="module")
def bucket(s3_server):
    bucket = s3_server.bucket()
    for number in range(WORTH_LISTING + 20):
        s3_server.client.put_object(Bucket=bucket, Key=f"audio/a/{number:03}.wav", Body=b"x" * number)
    s3_server.client.put_object(Bucket=bucket, Key="audio/b.wav", Body=b"b")
    return bucket


@pytest.fixture
def root(bucket, proxy):
    return AudioRoot(f"s3://{bucket}/audio", proxy.options)


MANY = [f"a/{number:03}.wav" for number in range(WORTH_LISTING)]


def test_many_of_one_folder_are_listed_with_the_same_versions(root, proxy):
    found = root.versions([*MANY, "b.wav", "gone.wav"])
    assert sorted(method for method, _, _ in proxy.requests) == ["GET", "HEAD", "HEAD"]
    assert sorted(found) == sorted([*MANY, "b.wav"])
    assert all(found[path] == root.open(path).version for path in (*MANY[::20], "b.wav"))


def test_one_that_is_refused_is_absent_and_an_outage_is_an_error(root, proxy, constants):
    constants(s3_client, FIRST_DELAY_SECONDS=0.01)
    proxy.judge = lambda method, path: "403 AccessDenied" if "/b.wav" in path or "list-type" in path else None
    assert sorted(root.versions(["a/001.wav", "b.wav"])) == ["a/001.wav"]
    proxy.judge = lambda method, path: "503"
    with pytest.raises(StoreError, match="6 attempts"):
        root.versions(["a/001.wav"])
