"""Runs of the tests that cover a mutant, in a copy of the checkout."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.mutants.contexts import RECORD
from tests.mutants.drawing import Mutant

CHECKOUT = Path(__file__).parents[2]
BUILD = CHECKOUT / "build" / "mutants"
COVERAGE, TREE, DRAWN, RESULTS = BUILD / "coverage", BUILD / "tree", BUILD / "drawn.jsonl", BUILD / "results.jsonl"
TEST_SECONDS = 120.0
"""Seconds of the tests of a mutant, as they took when coverage was recorded; the quickest are chosen."""
HANGING_SECONDS = 300.0
"""Seconds beyond four times those of the tests after which a mutant counts as hanging."""
QUICK = "not soak and not drivers"
SETTINGS = """
[run]
source = raysp
relative_files = true
[report]
ignore_errors = true
"""


@dataclass(frozen=True)
class Result:
    """Outcome of a mutant."""

    number: int
    """Place in the draw."""
    outcome: str
    """`killed`, `hung`, `lives`, or `uncovered`: no test runs its line."""
    tests: int
    """Number of tests that were chosen."""
    seconds: float
    killer: str = ""
    """Test or error that noticed it."""


class Covered:
    """Tests that cover the lines of raysp, as `cover` recorded them."""

    def __init__(self, folder: Path = COVERAGE) -> None:
        from coverage import CoverageData

        self.seconds: dict[str, float] = {}
        self._data = []
        for path in sorted(folder.glob("*.json")):
            seconds = json.loads(path.read_text())
            # A name with a path of the checkout has another path in the copy.
            self.seconds |= {name: value for name, value in seconds.items() if str(CHECKOUT) not in name}
            data = CoverageData(str(path.with_suffix(".coverage")))
            data.read()
            self._data.append(data)

    def tests_of(self, mutant: Mutant) -> list[str]:
        """Return the tests that run a line, the quickest first.

        A line that runs at import alone has the tests that run any other line of its file.
        """
        of_line: set[str] = set()
        of_file: set[str] = set()
        lines = range(mutant.line, mutant.end_line + 1)
        for data in self._data:
            contexts = data.contexts_by_lineno(mutant.file)
            of_file.update(*contexts.values())
            of_line.update(*(contexts.get(line, ()) for line in lines))
        tests = (of_line & self.seconds.keys()) or (of_file & self.seconds.keys() if of_line else set())
        return sorted(tests, key=lambda name: (self.seconds[name], name))

    def chosen(self, mutant: Mutant) -> list[str]:
        """Return the tests to run: the quickest that take TEST_SECONDS together."""
        tests: list[str] = []
        total = 0.0
        for name in self.tests_of(mutant):
            total += self.seconds[name]
            if tests and total > TEST_SECONDS:
                break
            tests.append(name)
        return tests


def cover(places: Sequence[str], marks: str = QUICK) -> None:
    """Record which tests of some folders or files run which lines; each is recorded by itself, in place of before."""
    COVERAGE.mkdir(parents=True, exist_ok=True)
    settings = BUILD / "coveragerc"
    settings.write_text(SETTINGS)
    for place in places:
        record = COVERAGE / f"{place.strip('/').replace('/', '.')}.json"
        for old in (record, record.with_suffix(".coverage")):
            old.unlink(missing_ok=True)
        measure = ["coverage", "run", f"--rcfile={settings}", f"--data-file={record.with_suffix('.coverage')}"]
        tests = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "tests.mutants.contexts", "-m", marks, place]
        environment = {**os.environ, RECORD: str(record)}
        code = subprocess.run([sys.executable, "-m", *measure, *tests], cwd=CHECKOUT, env=environment).returncode
        if code not in (0, 1, 5):
            raise SystemExit(f"{place}: pytest ended with {code}; nothing of it is recorded")


def run(mutants: Sequence[Mutant], budget_seconds: float) -> Iterator[Result]:
    """Yield the results of the mutants that have none, until the time is over; each is written at once."""
    has_result = {result.number for result in results()}
    covered, ends = Covered(), time.monotonic() + budget_seconds
    _copy()
    with RESULTS.open("a") as file:
        for number, mutant in enumerate(mutants):
            if number in has_result:
                continue
            if time.monotonic() > ends:
                return
            result = _result(number, mutant, covered)
            file.write(json.dumps(asdict(result)) + "\n")
            file.flush()
            yield result


def results() -> list[Result]:
    """Return the results so far."""
    return [Result(**json.loads(line)) for line in RESULTS.read_text().splitlines()] if RESULTS.is_file() else []


def drawn() -> list[Mutant]:
    """Return the mutants of the last draw."""
    if not DRAWN.is_file():
        raise SystemExit("no mutants are drawn: run `python -m tests.mutants draw` first")
    return [Mutant(**json.loads(line)) for line in DRAWN.read_text().splitlines()]


def _copy() -> None:
    """Copy the files that git knows of: the mutants never touch the checkout."""
    shutil.rmtree(TREE, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=CHECKOUT,
        capture_output=True,
        check=True,
    ).stdout
    for name in listed.decode().split("\0"):
        if (source := CHECKOUT / name).is_file():
            (TREE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, TREE / name)
    where = subprocess.run(
        [sys.executable, "-c", "import raysp; print(raysp.__file__)"],
        cwd=TREE,
        env=_environment(),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if not where.startswith(str(TREE)):
        raise SystemExit(f"raysp is imported from {where.strip()!r}, expected from {str(TREE)!r}: check PYTHONPATH")


def _environment() -> dict[str, str]:
    shared = os.environ.get("RAYSP_SHARED", str(CHECKOUT.parent / "shared"))
    return {**os.environ, "PYTHONPATH": str(TREE), "RAYSP_SHARED": shared, "OMP_NUM_THREADS": "1"}


def _result(number: int, mutant: Mutant, covered: Covered) -> Result:
    tests = covered.chosen(mutant)
    if not tests:
        return Result(number, "uncovered", 0, 0.0)
    path = TREE / mutant.file
    original, written = path.read_text(), path.stat()
    began = time.monotonic()
    path.write_text(mutant.apply(original))
    # Compiled files are told apart by size and second: each mutant has a second of its own.
    os.utime(path, (written.st_atime, written.st_mtime + number + 1))
    try:
        outcome, killer = _tested(tests, 4 * sum(covered.seconds[name] for name in tests) + HANGING_SECONDS)
    finally:
        path.write_text(original)
        os.utime(path, (written.st_atime, written.st_mtime))
    return Result(number, outcome, len(tests), round(time.monotonic() - began, 1), killer)


def _tested(tests: Sequence[str], most_seconds: float) -> tuple[str, str]:
    """Return the outcome of tests in the copy, and the first that failed."""
    names = BUILD / "tests.txt"
    names.write_text("\n".join(tests) + "\n")
    command = ["-m", "pytest", "-q", "-x", "--tb=no", "-p", "no:cacheprovider", f"@{names}"]
    process = subprocess.Popen(
        [sys.executable, *command],
        cwd=TREE,
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        out, _ = process.communicate(timeout=most_seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        process.communicate()
        return "hung", ""
    if process.returncode == 0:
        return "lives", ""
    if "ERROR: not found" in out:
        raise SystemExit(f"tests of the record are not in the copy; record their coverage again:\n{out[-2000:]}")
    failed = [line for line in out.splitlines() if line.startswith(("FAILED", "ERROR", "E  ", "ImportError"))]
    return "killed", (failed or out.splitlines()[-1:] or ["?"])[0][:200]
