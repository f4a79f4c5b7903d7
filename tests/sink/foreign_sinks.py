"""Sinks made by someone else: their records name a server, a variable and a module, or have values of their own."""

import http.server
import io
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa

VARIABLE = "AWS_SECRET_ACCESS_KEY"
SECRET = "sEcReT/ofTheVictim"
MODULE = "left_beside_a_sink"


class Listener(http.server.ThreadingHTTPServer):
    """A server that records requests and their headers, and has no files."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.heard: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def secrets(self) -> list[str]:
        """What arrived with the value of the victim's variable."""
        return [path for path, headers in self.heard if SECRET in headers]


class _Handler(http.server.BaseHTTPRequestHandler):
    def _answer(self) -> None:
        self.server.heard.append((self.path, str(self.headers)))
        self.send_response(404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_HEAD = do_PUT = do_POST = _answer  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def listening() -> Iterator[Listener]:
    with Listener() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def sealed(*tables: pa.Table) -> bytes:
    """Return the file of a plan or of staged rows: Arrow streams, the size and digest of each, their number, a mark."""
    parts = []
    for table in tables:
        file = io.BytesIO()
        with pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
        parts.append(file.getvalue())
    index = b"".join(len(part).to_bytes(8, "little") + _digest(part) for part in parts)
    return b"".join(parts) + index + len(parts).to_bytes(8, "little") + _digest(index) + b"raysp.1\n"


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=16).digest()


def rewrite(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the first table of a sealed file."""
    with pa.ipc.open_stream(file.read_bytes()) as stream:
        file.write_bytes(sealed(change(stream.read_all())))


def edit_shards(sink: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the shards that a sink has recorded."""

    def edited(table: pa.Table) -> pa.Table:
        shards = table.to_pylist()
        for shard in shards:
            change(shard)
        return pa.Table.from_pylist(shards, table.schema)

    rewrite(sink / ".raysp" / "plan" / "00000.arrow", edited)


def with_shards_at(sink: Path, url: str) -> None:
    """Have the plan of a sink name another place for its shards."""
    edit_shards(sink, lambda shard: shard.update(url=f"{url}/{shard['name']}"))


def edit_record(sink: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the pipeline that a sink has recorded."""
    path = sink / ".raysp" / "run.json"
    record = json.loads(path.read_text())
    change(record["pipeline"])
    path.write_text(json.dumps(record))


def make_hostile(sink: Path, server: Listener) -> None:
    """Have a sink ask for a variable, an endpoint, urls and a module that lies in its own folder."""
    options = {"headers": {"X-Token": {"type": "Env", "name": VARIABLE}}}

    def change(pipeline: dict[str, Any]) -> None:
        pipeline["source"] |= {"url": f"{server.url}/a.parquet", "storage_options": options}
        pipeline["sink"]["storage_options"] = {**options, "endpoint_url": server.url}
        label = pipeline["steps"][-1]
        label["checkpoint"] = f"{server.url}/model"
        label["outputs"][0]["type"] = f"{MODULE}:Evil"
        pipeline["steps"].insert(1, {"type": "Keep", "where": f"{MODULE}:wanted"})
        pipeline["steps"].insert(
            2, {"type": "Map", "function": f"{MODULE}:wanted", "adds": {"a": "bool"}, "reads": ["id"]}
        )

    edit_record(sink, change)
    with_shards_at(sink, server.url)
    (sink / f"{MODULE}.py").write_text(
        "from pathlib import Path\nimport raysp\nfrom raysp.specs import spec\n"
        "(Path(__file__).parent / 'imported').touch()\n"
        "@spec\nclass Evil(raysp.Transcript): pass\ndef wanted(table): return [True] * len(table)\n"
    )
