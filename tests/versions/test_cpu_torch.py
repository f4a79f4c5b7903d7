import subprocess
import sys

import pytest

SCRIPT = ".ci/cpu-torch"
NEEDS_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the CPU build has a name of its own on Linux only")


@NEEDS_LINUX
def test_the_release_is_installed_where_an_index_has_a_cpu_build(tmp_path):
    done, installed = _run(tmp_path, "Available versions: 2.14.0, 2.13.0+cpu, 2.13.0")
    assert (done.returncode, installed) == (0, "torch==2.13.0")


@NEEDS_LINUX
@pytest.mark.parametrize("known", ["2.14.0, 2.13.0", "2.14.0, 2.13.0+cpu1, 12.13.0+cpu", "2.14.0"])
def test_a_release_with_a_gpu_build_alone_is_passed_over_and_named(tmp_path, known):
    done, installed = _run(tmp_path, f"Available versions: {known}")
    assert (done.returncode, installed) == (0, "")
    assert "No CPU build of torch==2.13.0 for Python" in done.stdout


@pytest.mark.parametrize("failing", ["index", "install"])
def test_a_failure_of_pip_is_an_error_with_its_words(tmp_path, failing):
    done, _ = _run(tmp_path, "Available versions: 2.13.0+cpu, 2.13.0", failing)
    assert done.returncode != 0
    assert "no route to host" in done.stderr


def _run(folder, known, failing=""):
    """Run the script with a Python whose pip knows some versions; return what it did and what it installed."""
    installed = folder / "installed"
    python = folder / "python"
    python.write_text(
        f"""#!/bin/bash
if [ "$1" = -V ]; then echo Python 3.13.0; exit; fi
if [ "$4" = "{failing}" ]; then echo no route to host >&2; exit 1; fi
if [ "$4" = index ]; then echo "torch (2.14.0)"; echo "{known}"; else printf %s "${{@: -1}}" > "{installed}"; fi
"""
    )
    python.chmod(0o755)
    done = subprocess.run([SCRIPT, python, "torch==2.13.0"], capture_output=True, text=True, check=False)
    return done, installed.read_text() if installed.exists() else ""
