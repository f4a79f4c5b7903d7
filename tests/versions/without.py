"""Pass over tests that need packages which are not installed: `-p tests.versions.without --without torch,jax`.

A package that is named and installed is refused, so nothing else is passed over, or with `--hide` cannot be imported.
"""

import re
import sys
from importlib.util import find_spec
from typing import Any

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without", default="", metavar="NAMES", help="pass over tests that need these missing packages")
    parser.addoption("--hide", action="store_true", help="make as if these packages were not installed")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--hide"):
        sys.modules.update(dict.fromkeys(_missing(config)))  # an import finds None and fails
    present = [name for name in _missing(config) if find_spec(name)]
    if present:
        raise pytest.UsageError(f"--without names installed packages: {', '.join(present)}")


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    """Pass over a file that imports one of the packages."""
    report = yield
    if report.failed:
        for name in _missing(collector.config):
            if re.search(rf"No module named '{name}|import of {name}\b.* halted", str(report.longrepr)):
                report.outcome, report.longrepr = "skipped", (str(collector.path), 1, f"Skipped: needs {name}")
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> None:
    """Pass over a test in which the import of one of the packages failed."""
    error = call.excinfo.value if call.excinfo else None
    name = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
    if name in _missing(item.config):
        skipped = pytest.skip.Exception(f"needs {name}").with_traceback(error.__traceback__)
        call.excinfo = pytest.ExceptionInfo.from_exception(skipped)


def _missing(config: pytest.Config) -> list[str]:
    return [name for name in config.getoption("--without").split(",") if name]
