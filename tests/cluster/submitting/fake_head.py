"""A small server with the part of Ray's Jobs API that raysp uses, for tests of the client without a cluster."""

import asyncio
import contextlib
import io
import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

LOST = object()
"""In a script of the log: the connection breaks."""


@dataclass
class FakeHead:
    """Jobs by id, and what the server was asked."""

    token: str | None = None
    ray_version: str = "2.60.0"
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)
    packages: dict[str, bytes] = field(default_factory=dict)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    logs: list[list[object]] = field(default_factory=list)
    """A script for each request for a log, in order; the last one repeats. A function is called."""
    beside: Callable[[], object] = object
    """Called before a job is submitted."""
    stops_after: int = 1
    """Number of questions for a job after which a stopped one has ended."""
    failing: list[int] = field(default_factory=list)
    """Status codes of the next answers."""
    url: str = ""

    def add(self, job_id: str, status: str = "RUNNING", **fields: Any) -> None:
        metadata = {"raysp_version": "0.1.0", "raysp_sink": "s3://bucket/labels", "raysp_file": "label.py"}
        self.jobs[job_id] = {
            "type": "SUBMISSION",
            "submission_id": job_id,
            "status": status,
            "entrypoint": "python -m raysp run label.py",
            "metadata": metadata,
            "start_time": int(time.time() * 1000),
            **fields,
        }

    def end(self, job_id: str, status: str, code: int | None = None, message: str = "") -> None:
        self.jobs[job_id] |= {"status": status, "driver_exit_code": code, "message": message}

    @contextlib.contextmanager
    def serving(self, ssl_context: Any = None) -> Iterator["FakeHead"]:
        loop, is_up, stop = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

        async def serve() -> None:
            runner = web.AppRunner(self._app(), shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=ssl_context)
            await site.start()
            port = runner.addresses[0][1]
            self.url = f"{'https' if ssl_context else 'http'}://localhost:{port}"
            is_up.set()
            await stop.wait()
            await runner.cleanup()

        thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
        thread.start()
        is_up.wait(30)
        try:
            yield self
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(30)
            loop.close()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._admit], client_max_size=200_000_000)
        app.add_routes(
            [
                web.get("/api/version", self._version),
                web.get("/api/packages/{protocol}/{name}", self._has_package),
                web.put("/api/packages/{protocol}/{name}", self._take_package),
                web.post("/api/jobs/", self._submit),
                web.get("/api/jobs/", self._list),
                web.get("/api/jobs/{id}", self._job),
                web.post("/api/jobs/{id}/stop", self._stop),
                web.get("/api/jobs/{id}/logs", self._log),
            ]
        )
        return app

    @web.middleware
    async def _admit(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.requests.append((request.method, request.path, dict(request.headers)))
        if self.failing:
            return web.Response(status=self.failing.pop(0), text="not now")
        if self.token is not None:
            given = request.headers.get("Authorization") or request.headers.get("X-Ray-Authorization")
            if given is None:
                return web.Response(status=401, text="Unauthorized: Missing authentication token")
            if given != f"Bearer {self.token}":
                return web.Response(status=403, text="Forbidden: Invalid authentication token")
        return await handler(request)

    async def _version(self, _: web.Request) -> web.Response:
        found = {"version": "4", "ray_version": self.ray_version, "ray_commit": "c", "session_name": "s"}
        return web.json_response(found)

    async def _has_package(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if request.match_info["name"] in self.packages else 404)

    async def _take_package(self, request: web.Request) -> web.Response:
        self.packages[request.match_info["name"]] = await request.read()
        return web.Response()

    async def _submit(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self.beside()
        self.add(asked["submission_id"], **{name: asked[name] for name in ("entrypoint", "metadata", "runtime_env")})
        return web.json_response({"job_id": asked["submission_id"], "submission_id": asked["submission_id"]})

    async def _list(self, _: web.Request) -> web.Response:
        return web.json_response([*self.jobs.values()])

    async def _job(self, request: web.Request) -> web.Response:
        job_id = request.match_info["id"]
        if (job := self.jobs.get(job_id)) is None:
            return web.Response(status=404, text=f"Job {job_id} does not exist")
        if job.get("asked_to_stop"):
            self.stops_after -= 1
            if self.stops_after <= 0:
                job |= {"status": "STOPPED", "message": "Job was intentionally stopped."}
        return web.json_response(job)

    async def _stop(self, request: web.Request) -> web.Response:
        self.jobs[request.match_info["id"]]["asked_to_stop"] = True
        return web.json_response({"stopped": True})

    async def _log(self, request: web.Request) -> web.Response:
        if request.match_info["id"] not in self.jobs:
            return web.Response(status=404, text="no such job")
        script = self.logs.pop(0) if len(self.logs) > 1 else self.logs[0] if self.logs else []
        log = ""
        for part in script:
            if part is LOST:
                request.transport.abort()  # type: ignore[union-attr]
            elif callable(part):
                part()
            else:
                log += str(part)
        return web.json_response({"logs": log})

    def submitted(self) -> dict[str, Any]:
        """The only job, as it was asked for."""
        [job] = self.jobs.values()
        return json.loads(json.dumps(job))

    def sent(self) -> list[str]:
        """The names of the files of the only package."""
        [package] = self.packages.values()
        return sorted(zipfile.ZipFile(io.BytesIO(package)).namelist())
