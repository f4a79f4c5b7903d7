import os

import pytest

# Read when JAX starts, so set before any test imports it: small programs compile faster without optimisation.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")


@pytest.fixture(scope="session", autouse=True)
def jax():
    pytest.importorskip("flax", reason='needs pip install "raysp[jax]"')
    return pytest.importorskip("jax", reason='needs pip install "raysp[jax]"')
