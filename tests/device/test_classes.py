"""Every architecture and head on the stand-in device: the labels of the CPU."""

import numpy as np
import pytest

from tests.device.class_cases import CASES
from tests.device.conftest import assert_same, labelling
from tests.device.stand_in import NAME
from tests.ops.test_precision import noise


@pytest.fixture(scope="module")
def waves():
    """Recordings of less and of more than a window, and one without a frame."""
    return [(wave * 32767 / 2).astype(np.int16) for wave in noise([0.8, 1.2, 0.5, 2.6, 0.4, 1.1, 0.02], seed=1)]


@pytest.mark.parametrize("name", CASES)
def test_labels_are_those_of_the_cpu(name, waves, checkpoints):
    rows = labelling(checkpoints(name), CASES[name], NAME)(waves)
    assert [row["status"] for row in rows].count("ok") >= 6
    assert_same(rows, labelling(checkpoints(name), CASES[name], "cpu")(waves))


@pytest.mark.parametrize("name", CASES)
def test_half_precision_labels_all_rows(name, waves, checkpoints):
    rows = labelling(checkpoints(name), CASES[name], NAME, dtype="bfloat16")(waves)
    assert [row["status"] for row in rows].count("ok") >= 6
