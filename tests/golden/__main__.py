"""Record golden cases again, on purpose only: `python -m tests.golden record [CASE ...] [--force]`."""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.golden import recorded
from tests.golden.cases import CASES

CHECKOUT = Path(__file__).parents[2]


def main() -> int:
    """Record the cases that are named, by default all."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("action", choices=["record"])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"one of {', '.join(CASES)}")
    parser.add_argument("--force", action="store_true", help="record in spite of uncommitted changes")
    given = parser.parse_intermixed_args()
    if unknown := [name for name in given.cases if name not in CASES]:
        parser.error(f"found {', '.join(unknown)}, expected cases of {', '.join(CASES)}")
    if not given.force and (changed := _changes()):
        parser.error(f"the checkout has uncommitted changes, such as {changed[0]!r}: commit them, or give --force")
    for name in given.cases or CASES:
        if reason := CASES[name].missing:
            sys.stderr.write(f"{name}: not recorded, {reason}\n")
            continue
        with tempfile.TemporaryDirectory() as folder:
            recorded.write(name, CASES[name].run(Path(folder)))
        sys.stdout.write(f"{name}: {recorded.path_of(name).stat().st_size:,} bytes\n")
    return 0


def _changes() -> list[str]:
    """Return the changed files of the checkout, but for the recorded ones."""
    command = ["git", "status", "--porcelain", "--", ".", f":!{recorded.DATA.relative_to(CHECKOUT)}"]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.splitlines()


if __name__ == "__main__":
    os.environ["RAYSP_ENGINE"] = "here"
    sys.exit(main())
