"""Half precision: a label does not depend on its batch on a CPU; elsewhere the budget is part of the fingerprint."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

import raysp
from raysp.ops.labelling import Labelling
from tests.device.class_cases import CASES, make_checkpoint
from tests.golden.checkpoints import of_encoder
from tests.ops.waves import block_of, labels
from tests.soaked import soaked

OUTPUTS = [raysp.Transcript(words=True), raysp.Embedding(layer=1), raysp.Embedding("last")]


def op(folder: Path, outputs: Sequence[object], budget: float, **options: object) -> Labelling:
    options = {"dtype": "bfloat16", "window_seconds": 5, "overlap_seconds": 1, **options}
    return Labelling(
        str(folder), lambda loaded: [one.op(loaded.summary, loaded) for one in outputs], batch_seconds=budget, **options
    )


def noise(seconds: Sequence[float], seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [0.1 * generator.standard_normal(round(16_000 * one)).astype(np.float32) for one in seconds]


def assert_independent(ops: Sequence[Labelling], waves: Sequence[np.ndarray]) -> None:
    """Compare each row alone with the row in the batches of several ops, bit for bit."""
    alone = {row: labels(ops[0], block_of([wave], [row]))[row] for row, wave in enumerate(waves)}
    assert {label["status"] for label in alone.values()} == {"ok"}
    for one in ops:
        found = labels(one, block_of(waves))
        assert json.dumps(found, sort_keys=True, default=str) == json.dumps(alone, sort_keys=True, default=str)


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> Path:
    """A checkpoint whose products are wide enough that oneDNN takes other kernels for more rows."""
    folder = tmp_path_factory.mktemp("wide") / "checkpoint"
    of_encoder("UniSpeechForCTC", hidden_size=512, num_attention_heads=8, intermediate_size=3072)(folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", *soaked(["float16"])])
def test_a_row_has_the_label_that_it_has_alone_in_any_batch_by_any_number_of_threads(wide, dtype):
    ops = [op(wide, OUTPUTS, budget, dtype=dtype, threads=threads) for budget, threads in ((2, 1), (600, 3))]
    assert [one.at_once for one in ops] == [1, 3]  # each window has a pass of its own by one thread
    assert_independent(ops, noise([0.5, 6.0, 1.1]))


@pytest.mark.parametrize("name", CASES)
def test_so_do_all_models_and_heads(name, tmp_path):
    make_checkpoint(name, folder := tmp_path / "checkpoint")
    assert_independent([op(folder, CASES[name], 600)], noise([0.8, 2.2], seed=1))
