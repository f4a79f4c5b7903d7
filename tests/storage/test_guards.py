"""Guards of secrets in messages, switched off one by one: the fault that each prevents happens then."""

import re

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import raysp
from raysp import StoreError
from raysp.storage import fsspec_store, s3_client
from raysp.storage.s3 import S3Store
from raysp.storage.stores import open_store

SECRET = "sEcReT/neverInAMessage"


class TestSecrets:
    """No secret stands in a message."""

    def test_without_the_filter_messages_of_a_store_repeat_its_secrets(self, proxy, monkeypatch):
        monkeypatch.setenv("THE_SECRET", SECRET)
        proxy.judge = lambda method, path: "403 AccessDenied"  # and it repeats how the request was signed

        def said() -> str:
            s3_client._clients.clear()
            with pytest.raises(StoreError) as caught:
                S3Store("s3://bucket/x", {**proxy.options, "secret": raysp.Env("THE_SECRET")}).read("a")
            return str(caught.value)

        assert "Signature=" not in said()
        monkeypatch.setattr(s3_client, "_OF_SIGNING", re.compile("(?!)"))
        monkeypatch.setattr(s3_client, "SHOWN_CHARACTERS", 1000)
        assert "Signature=" in said()

    def test_without_the_filter_messages_of_a_client_repeat_its_secrets(self, monkeypatch):
        monkeypatch.setenv("THE_SECRET", SECRET)

        class Loud(MemoryFileSystem):
            def _open(self, path, *args, **kwargs):
                raise RuntimeError(f"no entry for {SECRET}")

        monkeypatch.setattr(fsspec, "filesystem", lambda *args, **options: Loud())

        def said() -> str:
            with pytest.raises(StoreError) as caught:
                open_store("memory://x", {"token": raysp.Env("THE_SECRET")}).read("a")
            return str(caught.value)

        assert SECRET not in said()
        monkeypatch.setattr(fsspec_store, "_texts", lambda value: iter(()))
        assert SECRET in said()
