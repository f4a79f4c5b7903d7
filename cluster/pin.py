"""Pin what the images install: `python cluster/pin.py`, in the environment in which the tests passed.

Writes cluster/constraints.txt: all that raysp with the extras of the Dockerfile needs, in the versions of this
environment if it has them.
"""

import json
import re
import subprocess
import sys
import tempfile
from importlib.metadata import distributions
from pathlib import Path

FOLDER = Path(__file__).parent
HEADER = """\
# Made by `python cluster/pin.py`: what the images install, in the versions that the tests passed with.
# On CUDA torch also needs packages of NVIDIA and triton, which it pins itself.
"""


def main() -> None:
    """Resolve the requirements, without installing anything, and write their versions."""
    (extras,) = set(re.findall(r"^ARG EXTRAS=(\S+)$", (FOLDER / "Dockerfile").read_text(), re.MULTILINE))
    here = {one.metadata["Name"]: one.version.partition("+")[0] for one in distributions()}
    here.pop("raysp", None)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as constraints:
        constraints.write("".join(f"{name}=={version}\n" for name, version in here.items()))
        constraints.flush()
        resolve = [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--dry-run",
            "--ignore-installed",
            "--quiet",
            "--report",
            "-",
        ]
        target = f"{FOLDER.parent}[{extras}]"
        report = subprocess.run([*resolve, "-c", constraints.name, target], stdout=subprocess.PIPE, check=True).stdout
    found = {one["metadata"]["name"].lower(): one["metadata"]["version"] for one in json.loads(report)["install"]}
    pins = [f"{name}=={version.partition('+')[0]}\n" for name, version in sorted(found.items()) if name != "raysp"]
    (FOLDER / "constraints.txt").write_text(HEADER + "".join(pins))


if __name__ == "__main__":
    main()
