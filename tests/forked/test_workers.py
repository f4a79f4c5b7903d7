import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests import forked

WORKER = """
import os, sys
import ray
print(sys.argv[1], os.getcwd(), os.environ["MINE"], ray.ObjectRef.from_random().hex(), "torch" in sys.modules)
sys.exit(int(sys.argv[1]))
"""
NO_CONTEXT = {
    "command_prefix": [],
    "py_executable": sys.executable,
    "override_worker_entrypoint": None,
    "java_jars": [],
}


@pytest.mark.drivers
@pytest.mark.slow
def test_a_forked_worker_has_the_arguments_folder_environment_and_output_of_its_launcher_and_ids_of_its_own(
    tmp_path, monkeypatch
):
    script = tmp_path / "default_worker.py"
    script.write_text(WORKER)
    monkeypatch.setenv("MINE", "another")
    monkeypatch.delenv("RAYSP_TEST_FORK", raising=False)
    seen = []
    with forked.workers():
        for status in ("0", "3"):
            context = "--serialized-runtime-env-context=" + json.dumps({**NO_CONTEXT, "env_vars": {"MINE": "a value"}})
            launcher = str(forked.FOLDER / "launcher.py")
            command = [sys.executable, launcher, context, "--language=PYTHON", str(script), status]
            ended = subprocess.run(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=False)
            assert ended.returncode == int(status)
            argument, folder, value, drawn, has_torch = ended.stdout.replace("a value", "value").split()
            assert (argument, Path(folder), value, has_torch) == (status, tmp_path, "value", "True")
            seen.append(drawn)
    assert seen[0] != seen[1]
