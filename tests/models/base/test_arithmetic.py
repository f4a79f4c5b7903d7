"""Flags of float32: those of a pass, whatever they were before; and as before afterwards."""

import ast
from pathlib import Path

import pytest
import torch

from raysp.models.base.placing import arithmetic, without_cudnn
from tests.test_architecture import PACKAGE, dotted, sources

backends = torch.backends
GENERIC = backends._FP32Precision("generic", "all")
SET_BY_USERS = {
    "nothing": lambda: None,
    "the older interface": lambda: (setattr(backends.cuda.matmul, "allow_tf32", True), _set(backends.cudnn, False)),
    "high": lambda: torch.set_float32_matmul_precision("high"),
    "medium": lambda: torch.set_float32_matmul_precision("medium"),
    "products": lambda: setattr(backends.cuda.matmul, "fp32_precision", "tf32"),
    "convolutions": lambda: setattr(backends.cudnn.conv, "fp32_precision", "ieee"),
    "products on CPUs": lambda: setattr(backends.mkldnn.matmul, "fp32_precision", "bf16"),
    "all": lambda: setattr(GENERIC, "fp32_precision", "tf32"),
}


def _set(cudnn, value):
    cudnn.allow_tf32 = value


def state() -> dict[str, object]:
    """Return the flags of both interfaces; "raises" where the older one contradicts the newer one."""
    read = {
        "matmul.allow_tf32": lambda: backends.cuda.matmul.allow_tf32,
        "cudnn.allow_tf32": lambda: backends.cudnn.allow_tf32,
        "float32_matmul_precision": torch.get_float32_matmul_precision,
        "generic": lambda: GENERIC.fp32_precision,
        **{
            f"{where}.{one}": lambda part=part, one=one: getattr(part, one).fp32_precision
            for where, part, ones in (
                ("cuda", backends.cuda, ("matmul",)),
                ("cudnn", backends.cudnn, ("conv", "rnn")),
                ("mkldnn", backends.mkldnn, ("matmul", "conv", "rnn")),
            )
            for one in ones
        },
        "enabled": lambda: backends.cudnn.enabled,
        "deterministic": lambda: backends.cudnn.deterministic,
        "flash": backends.cuda.flash_sdp_enabled,
        "split": lambda: backends.cuda.matmul.allow_bf16_reduced_precision_reduction_split_k,
    }
    return {name: _read(one) for name, one in read.items()}


def _read(one):
    try:
        return one()
    except RuntimeError:
        return "raises"


@pytest.fixture(autouse=True)
def flags_of_others():
    """Flags as a new process has them, before and after."""

    def fresh():
        GENERIC.fp32_precision = "none"
        torch.set_float32_matmul_precision("highest")
        backends.cudnn.allow_tf32 = True
        for part in (backends.cuda.matmul, backends.mkldnn.matmul, backends.mkldnn.conv, backends.mkldnn.rnn):
            part.fp32_precision = "none"

    fresh()
    yield
    fresh()


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1"])
@pytest.mark.parametrize("dtype", ["float32", "tf32", "bfloat16", "float16"])
@pytest.mark.parametrize("user", SET_BY_USERS)
def test_float32_rounds_nothing_whatever_a_user_has_set_and_flags_are_restored(user, dtype, device):
    SET_BY_USERS[user]()
    before = state()
    with arithmetic(dtype=dtype, device=device):
        inside = state()
    after = state()
    is_rounded = dtype == "tf32"
    assert inside["matmul.allow_tf32"] == inside["cudnn.allow_tf32"] == is_rounded, inside  # neither interface raises
    assert inside["float32_matmul_precision"] == ("high" if is_rounded else "highest")
    values = {value for name, value in inside.items() if "." in name and "allow" not in name}
    assert values == {"tf32" if is_rounded else "ieee"}
    assert inside["deterministic"] == (device != "cpu" and dtype != "float32")
    assert inside["flash"] == (device == "cpu" or dtype in ("float32", "tf32"))
    assert {name: one for name, one in after.items() if before[name] not in ("raises", one)} == {}


def test_flags_are_restored_after_an_error_and_after_the_outer_of_nested_blocks():
    before = state()

    def failing():
        with arithmetic(dtype="float32", device="cuda"):
            with arithmetic(dtype="bfloat16", device="cuda"), without_cudnn():
                assert not backends.cudnn.enabled
            assert state()["split"] == before["split"]
            assert (backends.cudnn.enabled, backends.cudnn.allow_tf32) == (True, False)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert state() == before


FLAGS_OF_TORCH = ("torch.backends", "torch.set_float32_matmul_precision", "torch.nn.attention")


@pytest.mark.slow
def test_one_module_alone_sets_the_flags_of_arithmetic():
    wrong = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}: {dotted(node)}"
        for path in sources(PACKAGE)
        if path.relative_to(PACKAGE) != Path("models/base/placing.py") and "torch" in path.read_text()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Attribute)
        and dotted(node).startswith(FLAGS_OF_TORCH)
        and dotted(node).count(".") > 1
        and not dotted(node).endswith(".is_available")
    ]
    assert [one for one in wrong if one.rpartition(": ")[2] != "torch.backends.mkldnn"] == []
