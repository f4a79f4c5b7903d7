"""A stand-in for the Hugging Face hub on 127.0.0.1, and its cache as huggingface_hub lays it out."""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def lay_out(cache: Path, folder: Path, *, name: str = "owner/name", commit: str = COMMIT) -> Path:
    """Put a checkpoint's files into a cache, as the commit of `main` and of `v1.0`; returns the snapshot."""
    repo = cache / f"models--{name.replace('/', '--')}"
    snapshot = repo / "snapshots" / commit
    for made in (repo / "blobs", repo / "refs", snapshot):
        made.mkdir(parents=True, exist_ok=True)
    for file in filter(Path.is_file, folder.iterdir()):
        blob = repo / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        blob.write_bytes(file.read_bytes())
        (snapshot / file.name).symlink_to(Path("..", "..", "blobs", blob.name))
    for ref in ("main", "v1.0"):
        (repo / "refs" / ref).write_text(commit)
    return snapshot


class HubServer:
    """Serves repositories: `repos[id][commit]` is a folder, `refs[id][revision]` a commit; `asked` is what was got."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, Path]] = {}
        self.refs: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []
        self.url = ""

    def push(self, name: str, folder: Path, commit: str = COMMIT, revision: str = "main") -> None:
        """Add a commit, which a revision then means."""
        self.repos.setdefault(name, {})[commit] = folder
        self.refs.setdefault(name, {})[revision] = commit

    def answer(self, path: str) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body of a path."""
        parts = path.strip("/").split("/")
        name = "/".join(parts[2:4] if parts[:2] == ["api", "models"] else parts[:2])
        if name not in self.repos:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        revision = parts[5] if parts[0] == "api" and len(parts) > 5 else "main" if parts[0] == "api" else parts[3]
        commit = self.refs[name].get(revision, revision)
        folder = self.repos[name].get(commit)
        if folder is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        files = [file for file in sorted(folder.iterdir()) if file.is_file()]
        if parts[0] == "api" and parts[4:5] == ["tree"]:
            entries = [
                {"type": "file", "path": f.name, "size": f.stat().st_size, "oid": _oid(f.read_bytes())} for f in files
            ]
            return 200, {}, json.dumps(entries).encode()
        if parts[0] == "api":
            return 200, {}, json.dumps({"id": name, "sha": commit, "siblings": []}).encode()
        data = (folder / parts[4]).read_bytes()
        return 200, {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": commit}, data


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@contextlib.contextmanager
def serving() -> Iterator[HubServer]:
    """Run a hub; set HF_ENDPOINT to its url."""
    hub = HubServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            hub.asked.append(f"{self.command} {path}")
            status, headers, body = hub.answer(path)
            self.send_response(status)
            for header in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(*header)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
