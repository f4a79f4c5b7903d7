import subprocess
import sys

import pytest

import raysp.models


def test_names_resolve_when_first_used():
    for name in raysp.models.__all__:
        assert getattr(raysp.models, name).__name__ == name
        assert name in dir(raysp.models)
    with pytest.raises(AttributeError, match=r"module 'raysp.models' has no attribute 'Missing'"):
        _ = raysp.models.Missing


def test_importing_the_package_imports_no_torch():
    code = "import sys, raysp.models, raysp.text; sys.exit('torch' in sys.modules or 'safetensors' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
