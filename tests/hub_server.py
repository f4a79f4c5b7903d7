"""A stand-in for the Hugging Face hub on 127.0.0.1, and its cache as huggingface_hub lays it out."""

import base64
import contextlib
import hashlib
import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

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


def use_cache(monkeypatch: pytest.MonkeyPatch, cache: Path, url: str = "") -> None:
    """Let huggingface_hub in this process use a cache and the hub at a url; without a url it is offline."""
    values: dict[str, object] = {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": not url}
    if url:
        template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        values |= {"ENDPOINT": url, "HUGGINGFACE_CO_URL_TEMPLATE": template}
    for name, value in values.items():
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", value)


class HubServer:
    """Serves repositories: `repos[id][commit]` is a folder, `refs[id][revision]` a commit; `asked` is what was got.

    The id of a data set begins with `datasets/`.
    """

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, Path]] = {}
        self.refs: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []
        self.url = ""
        self.token, self.owners, self.space = "", set[str](), Path()
        """Token and owners of uploads, and the folder that holds them."""
        self.created: dict[str, str] = {}
        self.broken = False

    def push(self, name: str, folder: Path, commit: str = COMMIT, revision: str = "main") -> None:
        """Add a commit, which a revision then means."""
        self.repos.setdefault(name, {})[commit] = folder
        self.refs.setdefault(name, {})[revision] = commit

    def answer(self, path: str, *, recursive: bool = False) -> tuple[int, Mapping[str, str], bytes]:
        """Return status, headers and body of a path."""
        parts = [unquote(part) for part in path.strip("/").split("/")]  # a revision may hold slashes
        is_api = parts[0] == "api"
        if is_api or parts[0] == "datasets":
            kind, *parts = parts[1:] if is_api else parts
            if not parts:
                return 404, {}, b""
            parts = [f"datasets/{parts[0]}" if kind == "datasets" else parts[0], *parts[1:]]
        name = "/".join(parts[:2])
        if name not in self.repos:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        if is_api and parts[2:3] == ["refs"]:
            return 200, {}, json.dumps(self._listed(name)).encode()
        revision = parts[3] if len(parts) > 3 else "main"
        commit = self.refs[name].get(revision, revision)
        folder = self.repos[name].get(commit)
        if folder is None:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        if not is_api:
            if not (file := folder.joinpath(*parts[4:])).is_file():
                return 404, {"X-Error-Code": "EntryNotFound"}, b""
            data = file.read_bytes()
            return 200, {"ETag": f'"{_oid(data)}"', "X-Repo-Commit": commit}, data
        if parts[2:3] == ["tree"]:
            below = folder.joinpath(*parts[4:])
            if not below.is_dir():
                return 404, {"X-Error-Code": "EntryNotFound"}, b""
            found = sorted(below.rglob("*") if recursive else below.iterdir())
            return 200, {}, json.dumps([_entry(one, folder) for one in found]).encode()
        files = [{"rfilename": str(one.relative_to(folder))} for one in sorted(folder.rglob("*")) if one.is_file()]
        of_id = name.removeprefix("datasets/")
        return 200, {}, json.dumps({"id": of_id, "sha": commit, "siblings": files, "tags": []}).encode()

    def head(self, name: str) -> Path:
        """Return the folder of the last commit."""
        return self.repos[name][self.refs[name]["main"]]

    def post(self, path: str, body: bytes, token: str) -> tuple[int, dict[str, object]]:
        """Return status and answer of a request that creates or changes a repository."""
        if token != f"Bearer {self.token}":
            return 401, {"error": "Invalid credentials"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            asked = json.loads(body)
            owner, name = (
                asked["organization"],
                f"{asked.get('type', 'model')}s/{asked['organization']}/{asked['name']}",
            )
            if owner not in self.owners:
                return (403 if owner == "you" else 404), {"error": f"no rights for {owner}"}
            if name in self.repos:
                return 409, {"error": "exists", "url": f"{self.url}/{name}"}
            self.created[name] = asked.get("visibility", "private" if asked.get("private") else "public")
            self.push(name, self._folder_of(name, 0), commit=f"{0:040x}")
            return 200, {"url": f"{self.url}/{name}"}
        if self.broken:
            return 400, {"error": "out of order"}
        *parts, action, revision = path.removeprefix("/api/").split("/")
        if action == "preupload":
            files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
            return 200, {"files": [{**file, "shouldIgnore": False} for file in files]}
        return 200, self._commit("/".join(parts), revision, [json.loads(line) for line in body.splitlines()])

    def _folder_of(self, name: str, number: int) -> Path:
        folder = self.space / name / str(number)
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _commit(self, name: str, revision: str, lines: list[dict[str, Any]]) -> dict[str, object]:
        folder, commit = self._folder_of(name, len(self.repos[name])), f"{len(self.repos[name]):040x}"
        shutil.copytree(self.head(name), folder, dirs_exist_ok=True)
        for value in (line["value"] for line in lines if line["key"] == "file"):
            place = folder / value["path"]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(base64.b64decode(value["content"]))
        self.push(name, folder, commit, revision)
        url = f"{self.url}/{name}/commit/{commit}"
        return {"success": True, "commitOid": commit, "commitUrl": url, "hookOutput": ""}

    def _listed(self, name: str) -> dict[str, list[dict[str, str]]]:
        """Return the branches and pull requests of a repository."""
        found: dict[str, list[dict[str, str]]] = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
        for ref, commit in self.refs[name].items():
            kind = "pullRequests" if ref.startswith("refs/pr/") else "branches"
            path = ref if kind == "pullRequests" else f"refs/heads/{ref}"
            found[kind].append({"name": ref, "ref": path, "targetCommit": commit})
        return found


def _entry(place: Path, folder: Path) -> dict[str, object]:
    path = str(place.relative_to(folder))
    if place.is_dir():
        return {"type": "directory", "path": path, "size": 0, "oid": _oid(path.encode())}
    return {"type": "file", "path": path, "size": place.stat().st_size, "oid": _oid(place.read_bytes())}


def _oid(data: bytes) -> str:
    return hashlib.sha1(data).hexdigest()


@contextlib.contextmanager
def serving() -> Iterator[HubServer]:
    """Run a hub; set HF_ENDPOINT to its url."""
    hub = HubServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            hub.asked.append(f"{self.command} {path}")
            status, headers, body = hub.answer(path, recursive="recursive=true" in query.lower())
            if (asked := self.headers.get("Range")) and status == 200:
                first, _, last = asked.removeprefix("bytes=").partition("-")
                status, headers = 206, {**headers, "Content-Range": f"bytes {first}-{last}/{len(body)}"}
                body = body[int(first) : int(last) + 1]
            self.send_response(status)
            for header in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(*header)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_POST(self) -> None:
            path, body = self.path.partition("?")[0], self.rfile.read(int(self.headers["Content-Length"] or 0))
            status, answer = hub.post(path, body, self.headers.get("Authorization", ""))
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
