"""Values cross from a device to the host in one module: by the source, and its results on the CPU."""

import ast
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from raysp import crossing
from tests.test_architecture import PACKAGE, sources

ONE_VALUE = ("any", "all", "sum", "max", "min", "argmax", "amax", "amin", "nonzero")
ALLOWED = {
    "crossing.py": "the module itself",
    "models/base/weights.py": "weights that are stored",
    "models/base/kernels.py": "on the CPU alone",
    "models/encoder/speech_model.py": "on the CPU, or numbers drawn by numpy",
    "models/unispeech.py": "on the CPU, or numbers drawn by numpy",
    "models/features/processors.py": "features of waves on the host",
    "models/features/log_mels.py": "constants, and waves on the host",
    "models/features/seamless.py": "constants, and waves on the host",
    "models/encoder/heads.py": "labels given are checked once, and negatives read once for all rows",
    "text/alignment.py": "alignment, which is of the host",
    "ops/speech/pauses.py": "the model of speech in tasks that decode, on the CPU",
    "training/loop/training_steps.py": "the wait of a step",
    "training/loop/session.py": "the wait of a step",
    "training/data/micro_batches.py": "numbers of tokens, which are on the host",
    "training/checkpoint_export.py": "figures of the index, which are arrays",
}
"""Modules that may read tensors themselves, with the reason."""
ALLOWED_FOLDERS = ("models/flax/", "training/objectives/")
ARRAYS = {
    *("ops/aligning.py", "ops/classifying.py", "ops/embeddings.py", "ops/measuring.py", "text/beams/search.py"),
    *("ops/labelling.py", "ops/speech/speaking.py", "backends/hugging_face/transducers.py"),
}
"""Modules whose `int(x.argmax())`, `float(x.sum())` are of arrays."""


def crossings(source: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that read a tensor, and how."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Attribute) and node.func.attr in ("cpu", "numpy", "item"):
            yield node.lineno, f".{node.func.attr}()"
        is_number = isinstance(node.func, ast.Name) and node.func.id in ("bool", "int", "float")
        if is_number and node.args and isinstance(node.args[0], ast.Call):
            inner = node.args[0].func
            if isinstance(inner, ast.Attribute) and inner.attr in ONE_VALUE:
                yield node.lineno, f"{node.func.id}(x.{inner.attr}())"


@pytest.mark.slow
def test_tensors_are_read_by_one_module():
    wrong = []
    for path in sources(PACKAGE):
        name = str(path.relative_to(PACKAGE))
        text = path.read_text()
        if "torch" not in text or name in ALLOWED or name.startswith(ALLOWED_FOLDERS):
            continue
        is_of_arrays = name in ARRAYS
        found = [one for one in crossings(text) if not (is_of_arrays and one[1].startswith(("int(", "float(")))]
        # The samples of a window, as they were decoded, are in memory of the host.
        found = [one for one in found if not (name == "ops/labelling.py" and one[1] == ".numpy()")]
        wrong += [f"{name}:{line}: {how}" for line, how in found]
    assert wrong == [], "read tensors by raysp.crossing.fetch, which brings the values of a batch in one copy"

    assert [one for one in ALLOWED if not [*crossings((PACKAGE / one).read_text())]] == [], "reads none any more"


def test_a_read_that_is_added_is_found():
    for added in ("x.cpu()", "x.item()", "x.cpu().numpy()", "bool(x.any())", "int(x.max())", "float(x.sum())"):
        assert [*crossings(f"def read(x):\n    return {added}\n")]


def test_on_the_cpu_arrays_and_tensors_share_their_memory():
    given = [torch.arange(6).view(2, 3), torch.ones(2, dtype=torch.bool)]
    found = crossing.fetch(*given)
    assert [one.dtype for one in found] == [np.int64, np.bool_]
    found[0][0, 0] = 7
    assert given[0][0, 0] == 7
    array = np.arange(3)
    [sent] = crossing.send(torch.device("cpu"), array)
    array[0] = 5
    assert sent.tolist() == [5, 1, 2]
