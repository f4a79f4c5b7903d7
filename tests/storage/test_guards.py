"""Messages of stores that fail repeat no secret, whatever their servers and clients say."""

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import raysp
from raysp import PlanError, StoreError
from tests.corpora import a_pipeline, write_shard

SECRET = "sEcReT/neverInAMessage"


@pytest.fixture(autouse=True)
def _secret(monkeypatch) -> None:
    monkeypatch.setenv("THE_SECRET", SECRET)


def said(tmp_path, url: str, options: dict[str, object], place: str) -> str:
    """Return why a plan cannot read its source, or look at its sink, at a url."""
    write_shard(tmp_path / "in" / "a.parquet", 1)
    source = raysp.Shards(f"{url}/*.parquet", storage_options=options) if place == "source" else f"{tmp_path}/in"
    sink = raysp.Parquet(url, storage_options=options) if place == "sink" else tmp_path / "out"
    with pytest.raises((StoreError, PlanError)) as caught:
        raysp.plan(a_pipeline(source, sink))
    return str(caught.value)


@pytest.mark.parametrize("place", ["source", "sink"])
def test_answers_of_a_store_are_shown_without_how_a_request_was_signed(proxy, tmp_path, place):
    proxy.judge = lambda method, path: "403 AccessDenied"  # and it repeats how the request was signed
    found = said(tmp_path, "s3://bucket/x", {**proxy.options, "secret": raysp.Env("THE_SECRET")}, place)
    assert "AccessDenied" in found
    assert proxy.requests
    assert "Signature" not in found
    assert SECRET not in found


@pytest.mark.parametrize("place", ["source", "sink"])
def test_errors_of_a_client_are_shown_without_the_secrets_in_them(tmp_path, place):
    class Loud(MemoryFileSystem):
        cachable = False

        def fail(self, path: str, *arguments: object, **options: object) -> None:
            raise RuntimeError(f"no entry for {SECRET}")

        _open = info = find = ls = cat_file = fail

    fsspec.register_implementation("memory", Loud, clobber=True)
    try:
        found = said(tmp_path, "memory://x", {"token": raysp.Env("THE_SECRET")}, place)
    finally:
        fsspec.register_implementation("memory", MemoryFileSystem, clobber=True)
    assert "no entry for ***" in found
    assert SECRET not in found
