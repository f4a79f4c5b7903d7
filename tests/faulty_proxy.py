"""A proxy on loopback that forwards requests to an object store and fails some of them on request."""

import http.client
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.clouds.cloud import Cloud

FAULTS = ("503", "500", "429", "reset", "truncate", "stall", "lost", "403 ExpiredToken", "403 AccessDenied")
STALL_SECONDS = 20
_CODES = {"503": "SlowDown", "500": "InternalError", "429": "TooManyRequests"}
_HOP = {"connection", "transfer-encoding", "keep-alive", "content-length"}

Judge = Callable[[str, str], str | None]
"""Names the fault of a request by its method and path, or none."""


class FaultyProxy:
    """What stands between; set `judge`, or `fail_next`."""

    def __init__(self, upstream: Cloud, endpoint: str) -> None:
        self.server = upstream.at(endpoint)
        self.upstream = urlsplit(upstream.endpoint)
        self.judge: Judge = lambda method, path: None
        self.hold: Callable[[str, str], None] = lambda method, path: None
        """Called with each request before it is judged; others go on while it waits."""
        self.ignores_conditions = False
        self.plain = getattr(upstream, "client", None)
        self.requests: list[tuple[str, str, str | None]] = []
        self._lock = threading.Lock()

    @property
    def options(self) -> dict[str, object]:
        """Storage options that lead here."""
        return self.server.options

    def fail_next(self, *faults: str, method: str = "", path: str = "") -> None:
        """Fail the next requests of a method and path, one after the other, each by one of these faults."""
        left = list(faults)

        def judge(found_method: str, found_path: str) -> str | None:
            chosen = left and method in ("", found_method) and path in found_path
            return left.pop(0) if chosen else None

        self.judge = judge

    def take(self, method: str, path: str) -> str | None:
        """Judge and note a request."""
        with self._lock:
            fault = self.judge(method, path)
            self.requests.append((method, path, fault))
            return fault

    @classmethod
    @contextmanager
    def in_front_of(cls, upstream: Cloud) -> Iterator["FaultyProxy"]:
        """Serve until the end of the block."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        server.daemon_threads = True
        server.proxy = cls(upstream, f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield server.proxy
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.proxy.hold(self.command, self.path)
        fault = self.server.proxy.take(self.command, self.path)
        if fault == "reset":
            self._reset()
        elif fault and fault[:3].isdigit():
            self._refuse(fault)
        elif self.server.proxy.ignores_conditions and self.command == "PUT" and self._has_condition():
            self._put_unconditionally(body)
        else:
            self._hand_on(body, fault)

    def _has_condition(self) -> bool:
        return any(self.headers.get(name) for name in ("If-None-Match", "If-Match"))

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve  # noqa: N815 - names that http.server looks for

    def _refuse(self, fault: str) -> None:
        status, _, code = fault.partition(" ")
        # Like a careless store: what it was sent stands in its answer.
        echoed = f"{self.headers.get('Authorization')} {self.headers.get('x-amz-security-token')}"
        text = (
            f"<Error><Code>{code or _CODES.get(status, '')}</Code><Message>refused: {echoed}</Message></Error>".encode()
        )
        self.send_response(int(status))
        self.send_header("Content-Length", "0" if self.command == "HEAD" else str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _put_unconditionally(self, body: bytes) -> None:
        """Write a conditional request unconditionally; it is signed again, or it would be refused."""
        bucket, _, key = urlsplit(self.path).path[1:].partition("/")
        self.server.proxy.plain.put_object(Bucket=bucket, Key=key, Body=body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _reset(self) -> None:
        """Close so that the other side sees a reset."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.close()

    def _hand_on(self, body: bytes, fault: str | None) -> None:
        upstream = http.client.HTTPConnection(self.server.proxy.upstream.netloc, timeout=60)
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() != "expect":
                upstream.putheader(name, value)
        upstream.endheaders(body or None)
        answer = upstream.getresponse()
        data = answer.read()
        upstream.close()
        if fault == "lost":
            self._reset()
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in _HOP:
                self.send_header(name, value.replace(self.server.proxy.upstream.netloc, self.headers["Host"]))
        length = answer.getheader("Content-Length") if self.command == "HEAD" else str(len(data))
        self.send_header("Content-Length", length or "0")
        self.end_headers()
        with suppress(ConnectionError):  # the client may have left
            self._send(data, fault)

    def _send(self, data: bytes, fault: str | None) -> None:
        if fault is None:
            self.wfile.write(data)
            return
        self.wfile.write(data[: len(data) // 2])
        self.wfile.flush()
        if fault == "stall":
            time.sleep(STALL_SECONDS)
        self.close_connection = True
