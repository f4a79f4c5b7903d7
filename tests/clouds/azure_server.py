"""Azure Blob Storage for tests: azurite, where `.ci/run` could install it by npm."""

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

import raysp
from tests.clouds.cloud import Cloud, free_port, wait_for

START_SECONDS = 90
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Account and key of every emulator, as Azure's documentation has them."""
PROGRAM = Path("node_modules", "azurite", "dist", "src", "blob", "main.js")


class AzureCloud(Cloud):
    """Azure Blob Storage."""

    scheme = kind = "az"
    secret = KEY

    @property
    def connection_string(self) -> str:
        where = f"BlobEndpoint={self.endpoint}/{ACCOUNT}"
        return f"DefaultEndpointsProtocol=http;AccountName={ACCOUNT};AccountKey={KEY};{where}"

    @property
    def options(self) -> dict[str, object]:
        """Storage options, whose secret is in a variable of this endpoint; processes that are started inherit it."""
        variable = f"RAYSP_TEST_AZURE_{self.endpoint.rpartition(':')[2]}"
        os.environ[variable] = self.connection_string
        return {"connection_string": raysp.Env(variable)}

    @cached_property
    def client(self) -> Any:
        from azure.storage.blob import BlobServiceClient

        return BlobServiceClient.from_connection_string(self.connection_string)

    def bucket(self) -> str:
        name = f"raysp-{uuid.uuid4().hex[:12]}"
        self.client.create_container(name)
        return name

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self.client.get_blob_client(bucket, key).upload_blob(data, overwrite=True)

    def get_all(self, bucket: str) -> dict[str, bytes]:
        folder = self.client.get_container_client(bucket)
        return {one.name: folder.download_blob(one.name).readall() for one in folder.list_blobs()}

    def marks(self, bucket: str, prefix: str) -> dict[str, object]:
        found = self.client.get_container_client(bucket).list_blobs(prefix)
        return {one.name: one.etag for one in found}


def _program() -> Path | None:
    build = Path(__file__).parents[2] / "build" / "azurite"
    places = [Path(os.environ.get("RAYSP_AZURITE") or build) / PROGRAM]
    return next((place for place in places if place.is_file()), None)


@contextmanager
def running_azure() -> Iterator[AzureCloud]:
    """Run the emulator for as long as it is needed; skip a test where it is not installed."""
    pytest.importorskip("adlfs", reason="adlfs is not installed")
    program, node = _program(), shutil.which("node")
    if program is None or node is None:
        pytest.skip("azurite is not installed: npm install --prefix build/azurite azurite")
    endpoint = f"http://127.0.0.1:{free_port()}"
    where = ["--blobHost", "127.0.0.1", "--blobPort", endpoint.rpartition(":")[2]]
    command = [node, str(program), *where, "--inMemoryPersistence", "--silent", "--disableTelemetry"]
    process = subprocess.Popen(
        [*command, "--skipApiVersionCheck"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(endpoint, lambda: process.poll() is None, START_SECONDS)
        yield AzureCloud(endpoint)
    finally:
        process.kill()
        process.wait()
