"""Stores of fsspec: read-only ones, bounds, and clients that are missing."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from raysp import StoreError, bounds
from raysp.corpus.parquet import read_footer
from raysp.storage.stores import expand, open_store
from tests.corpora import rows_table


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        data = self.server.files.get(self.path)
        status, wanted = (404 if data is None else 200), self.headers.get("Range")
        data = data or b""
        if wanted and self.server.serves_parts:
            first, _, last = wanted.removeprefix("bytes=").partition("-")
            status, data = 206, data[int(first) : int(last) + 1]
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"one"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    do_HEAD = do_GET  # noqa: N815 - likewise


@pytest.fixture
def web(tmp_path) -> Iterator[ThreadingHTTPServer]:
    """A web server with one shard, at `web.url`."""
    pq.write_table(rows_table(50), tmp_path / "a.parquet")
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.files, server.serves_parts = {"/in/a.parquet": (tmp_path / "a.parquet").read_bytes()}, True
    server.url = f"http://127.0.0.1:{server.server_port}/in"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


class TestAWebServer:
    def test_a_shard_is_found_by_its_url_and_read_by_parts(self, web):
        listing = expand(f"{web.url}/a.parquet")
        [entry] = listing.entries
        assert (listing.root, entry.path, entry.version) == (web.url, "a.parquet", "one")
        assert entry.num_bytes == len(web.files["/in/a.parquet"])
        assert read_footer(f"{web.url}/a.parquet").metadata.num_rows == 50

    @pytest.mark.parametrize("url", ["", "/b.parquet", "/*.parquet"])
    def test_it_refuses_to_list_with_a_message(self, web, url):
        with pytest.raises(StoreError, match="a web server does not list its files: give the url of each"):
            expand(f"{web.url}{url}")

    def test_one_that_serves_no_parts_is_named(self, web):
        web.serves_parts, web.files["/in/large"] = False, bytes(300_000)
        with (
            open_store(web.url).open("large") as file,
            pytest.raises(StoreError, match="does not support range requests"),
        ):
            file.read(10)


def test_clients_that_are_not_installed_are_named():
    program = (
        "import sys\n"
        "for name in ('boto3', 'gcsfs', 'gcsfs.core', 'adlfs', 'adlfs.core'):\n    sys.modules[name] = None\n"
        "from raysp import StoreError\nfrom raysp.storage.stores import open_store\n"
        "for url in ('s3://bucket', 'gs://b', 'az://b'):\n"
        "    try:\n        open_store(url).read('a')\n    except StoreError as error:\n        print(error)\n"
    )
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    of_s3, of_gcs, of_azure = ran.stdout.splitlines()
    assert "pip install 'raysp[s3]'" in of_s3
    assert "gs://b: cannot reach it (ModuleNotFoundError: " in of_gcs
    assert "gcsfs" in of_gcs
    assert "adlfs" in of_azure


def test_a_file_that_is_read_whole_is_read_to_the_bound_alone(web, constants):
    constants(bounds, MOST_TABLE_BYTES=1000)
    memory = MemoryFileSystem()
    for name, num_bytes in (("small", 1000), ("large", 1001)):
        memory.pipe_file(f"/bounds/{name}", b"x" * num_bytes)
    store = open_store("memory://bounds")
    assert len(store.read("small")) == 1000
    for wrong in (lambda: store.read("large"), lambda: open_store(web.url).read("a.parquet")):
        with pytest.raises(StoreError, match=r"has more than 1,000 bytes.* in a file that is read whole; remove or"):
            wrong()
