"""An object store for tests: a real one (Ceph's radosgw) where it can be started, else moto's stand-in."""

import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

import raysp
from tests.clouds.cloud import Cloud, free_port, wait_for

SECRET_VARIABLE = "RAYSP_TEST_SECRET"
START_SECONDS = 90
QUICK = """
paxos propose interval = 0.02
paxos min wait = 0.01
rgw enable apis = s3
rgw enable lc threads = false
"""
"""Settings of Ceph for a store of few minutes: each of a dozen changes at its start waits a second without them."""

used: list[str] = []
"""What was used, for the summary at the end of a test run."""


@dataclass(frozen=True)
class S3Server(Cloud):
    """Where an object store is, and how to get in."""

    kind: str = "moto"
    key: str = "test"
    secret: str = "testtest"

    scheme = "s3"

    @property
    def options(self) -> dict[str, object]:
        """Storage options, the secret by name."""
        return {"key": self.key, "secret": raysp.Env(SECRET_VARIABLE), "endpoint_url": self.endpoint}

    @cached_property
    def client(self) -> Any:
        """A plain client, to look at the store past raysp."""
        config = Config(request_checksum_calculation="when_required", response_checksum_validation="when_required")
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            config=config,
        )

    def bucket(self) -> str:
        """Make a bucket of its own."""
        name = f"raysp-{uuid.uuid4().hex[:12]}"
        self.client.create_bucket(Bucket=name)
        return name

    def put(self, bucket: str, key: str, data: bytes) -> None:
        """Write an object."""
        self.client.put_object(Bucket=bucket, Key=key, Body=data)

    def marks(self, bucket: str, prefix: str) -> dict[str, object]:
        """Return by key what changes with every write of a label shard: its mark, for an etag is that of the bytes.

        Objects in `.raysp/` may be removed while they are read, by a process that outlives its driver.
        """
        objects = self.client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ())
        keys = [entry["Key"] for entry in objects if "/.raysp/" not in entry["Key"]]
        heads = {key: self.client.head_object(Bucket=bucket, Key=key) for key in keys}
        return {key: (head["ETag"], head["Metadata"].get("raysp-write")) for key, head in heads.items()}

    def get_all(self, bucket: str) -> dict[str, bytes]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        return {key: self.client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def shared_folder() -> Path:
    """Return the folder of real recordings and tools: RAYSP_SHARED, or beside the checkout."""
    return Path(os.environ.get("RAYSP_SHARED") or Path(__file__).parents[2] / "shared")


def kind() -> str:
    """Tell which store the tests use: one that runs already, Ceph if it is installed, else moto."""
    if os.environ.get("RAYSP_S3_ENDPOINT"):
        return "given"
    needed = ("ceph-mon", "ceph-osd", "ceph-mgr", "radosgw", "radosgw-admin")
    if os.environ.get("RAYSP_S3") != "moto" and os.geteuid() == 0 and _script().is_file() and all(map(_which, needed)):
        return "ceph"
    return "moto"


def _which(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/bin")


def _script() -> Path:
    return shared_folder() / "tools" / "s3-server.sh"


@contextmanager
def running(kind: str, folder: Path) -> Iterator[S3Server]:
    """Run a store for as long as it is needed."""
    if kind == "given":
        endpoint = os.environ["RAYSP_S3_ENDPOINT"]
        used.append(f"the one at {endpoint}")
        yield S3Server(endpoint, kind)
    elif kind == "ceph":
        yield from _ceph(folder)
    else:
        yield from _moto("")


def _ceph(folder: Path) -> Iterator[S3Server]:
    port = free_port()
    # Its folder's name is short: daemons listen on sockets of the file system inside it.
    place = Path("/tmp") / f"raysp-ceph-{os.getpid()}"
    environment = {**os.environ, "DIR": str(place), "PORT": str(port), "CEPH_ARGS": "--cluster-addr=127.0.0.1"}
    log = folder / "ceph.log"
    script = _script_of_its_own(folder)
    try:
        with log.open("wb") as said:
            subprocess.run(
                [*script, "start"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=said,
                timeout=START_SECONDS,
                check=False,
            )
        wait_for(f"http://127.0.0.1:{port}", lambda: _lives(place / "run" / "client.rgw.pid"), START_SECONDS)
        server = S3Server(f"http://127.0.0.1:{port}", "ceph")
        server.bucket()
    except Exception as error:
        _stop(script, environment, place)
        yield from _moto(f" (Ceph is installed but did not start: {type(error).__name__}, see {log})")
        return
    used.append("Ceph radosgw, a real one")
    try:
        yield server
    finally:
        _stop(script, environment, place)


def _script_of_its_own(folder: Path) -> list[str]:
    """Return the command of a copy of the script.

    The copy has ports of its own, since another store may run on this machine, and leaves out what a store of one node
    can do without (its status, its manager). Nagle's algorithm is off: each body would wait 40 ms for it.
    """
    text = _script().read_text()
    for port in ("13300", "16789"):
        text = text.replace(port, str(free_port()))
    text = text.replace("beast endpoint", "beast tcp_nodelay=1 endpoint").replace(
        "debug ms = 0", f"debug ms = 0{QUICK}"
    )
    needless = ("-s | head", "mon enable-msgr2", "auth import", "osd crush add", "ceph-mgr -c")
    lines = [line for line in text.splitlines() if not any(part in line for part in needless)]
    copy = folder / "s3-server.sh"
    copy.write_text("\n".join(lines).replace("sleep 2", "sleep 0.2"))
    return ["bash", str(copy)]


def _lives(pid_file: Path) -> bool:
    return pid_file.is_file() and Path("/proc", pid_file.read_text().strip()).is_dir()


def _stop(script: list[str], environment: dict[str, str], place: Path) -> None:
    subprocess.run([*script, "stop"], env=environment, capture_output=True, timeout=60, check=False)
    shutil.rmtree(place, ignore_errors=True)


def _moto(why: str) -> Iterator[S3Server]:
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}", lambda: process.poll() is None, START_SECONDS)
        used.append(f"moto, a stand-in{why}")
        yield S3Server(f"http://127.0.0.1:{port}", "moto")
    finally:
        process.kill()
        process.wait()
