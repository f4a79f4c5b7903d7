"""Work of strangers' files in a process with little memory, where a bomb ends the process and not the tests."""

import gzip
import io
import os
import subprocess
import sys
from functools import cache

MIB = 1 << 20


@cache
def bomb(head: bytes = b"", mib: int = 80) -> bytes:
    """Return a small gzip file of many spaces."""
    file = io.BytesIO()
    with gzip.open(file, "wb") as written:
        written.write(head)
        for _ in range(mib):
            written.write(b" " * MIB)
    return file.getvalue()


def limited(imports: str, work: str, *, more_bytes: int = 300 * MIB, **environment: str) -> str:
    """Run `work` after `imports` with at most `more_bytes` of further memory; return what it printed.

    An error of raysp is printed as its class and message; any other end fails the test.
    """
    indented = "\n".join(f"    {line}" for line in work.splitlines())
    program = (
        "from raysp.bounds import limit_memory, limit_time\n"
        "from raysp.errors import RayspError\n"
        f"{imports}\nlimit_time(60)\nlimit_memory({more_bytes})\n"
        f"try:\n{indented}\nexcept RayspError as error:\n    print(type(error).__name__, error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd(), **environment},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
