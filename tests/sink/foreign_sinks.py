"""Sinks made by someone else: their records name a server, a variable and a module."""

import http.server
import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from raysp.sink import plan_record
from raysp.specs.values import JsonValue
from raysp.storage.store import LocalStore

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


def with_shards_at(sink: Path, url: str) -> None:
    """Have the plan of a sink name another place for its shards."""
    shards = [replace(shard, url=f"{url}/{shard.name}") for shard in plan_record.load(LocalStore(sink))]
    shutil.rmtree(sink / ".raysp" / "plan")
    plan_record.record(LocalStore(sink), shards)


def edit_record(sink: Path, change) -> JsonValue:
    """Change the pipeline that a sink has recorded."""
    path = sink / ".raysp" / "run.json"
    record = json.loads(path.read_text())
    change(record["pipeline"])
    path.write_text(json.dumps(record))
    return record["pipeline"]


def make_hostile(sink: Path, server: Listener) -> None:
    """Have a sink ask for a variable, an endpoint, urls and a module that lies in its own folder."""
    options = {"headers": {"X-Token": {"type": "Env", "name": VARIABLE}}}

    def change(pipeline) -> None:
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
