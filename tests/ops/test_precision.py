"""Half precision: a label does not depend on its batch on a CPU; elsewhere the budget is part of the fingerprint."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import raysp
from raysp.models import UniSpeechConfig, UniSpeechForCTC, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor
from raysp.ops.blocks import Batching, batching, most_unequal
from raysp.ops.labelling import Labelling
from tests.device.class_cases import CASES, make_checkpoint
from tests.ops.test_labelling import block_of, labels
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
    folder = tmp_path_factory.mktemp("wide")
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNO"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    Wav2Vec2CTCTokenizer(folder / "vocab.json").save_pretrained(folder)
    torch.manual_seed(0)
    config = UniSpeechConfig(
        vocab_size=20, hidden_size=512, num_hidden_layers=2, num_attention_heads=8, intermediate_size=3072,
        conv_dim=(32, 32, 64), conv_stride=(10, 8, 4), conv_kernel=(16, 8, 4), num_conv_pos_embeddings=16,
    )  # fmt: skip
    UniSpeechForCTC(config).init_weights().save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return folder


class TestOnACpu:
    @pytest.mark.slow
    @pytest.mark.parametrize("dtype", ["bfloat16", *soaked(["float16"])])
    def test_a_row_has_the_label_that_it_has_alone_in_any_batch_by_any_number_of_threads(self, wide, dtype):
        ops = [op(wide, OUTPUTS, budget, dtype=dtype, threads=threads) for budget, threads in ((2, 1), (600, 3))]
        assert [one.at_once for one in ops] == [1, 3]  # each window has a pass of its own by one thread
        assert_independent(ops, noise([0.5, 6.0, 1.1]))

    @pytest.mark.parametrize("name", CASES)
    def test_so_do_all_models_and_heads(self, name, tmp_path):
        make_checkpoint(name, folder := tmp_path / "checkpoint")
        assert_independent([op(folder, CASES[name], 600)], noise([0.8, 2.2, 1.5], seed=1))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run `make gpu` where there is one")
class TestOnAGpu:
    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_labels_in_batches_and_alone_agree_as_often_as_is_promised(self, wide, dtype):
        waves = noise(np.random.default_rng(2).uniform(0.5, 5, 200))
        first, *others = (op(wide, OUTPUTS[:1], one, dtype=dtype, device="cuda") for one in (1, 5, 60, 600))
        alone = [labels(first, block_of([wave]))[0]["pred_text"] for wave in waves]
        for other in others:
            found = labels(other, block_of(waves))
            unequal = sum(found[row]["pred_text"] != text for row, text in enumerate(alone))
            assert unequal <= most_unequal(len(waves), dtype)


@pytest.mark.parametrize(
    ("dtype", "device", "expected"),
    [
        ("float32", "cpu", Batching.FREE),
        ("float32", "cuda", Batching.FREE),
        ("bfloat16", "cpu", Batching.ALONE),
        ("float16", "cpu", Batching.ALONE),
        ("bfloat16", "cuda", Batching.RECORDED),
        ("int8", "cpu", Batching.FREE),
        ("int8", "cuda", Batching.RECORDED),
        ("tf32", "cuda", Batching.RECORDED),
    ],
)
def test_half_precision_is_not_free(dtype, device, expected):
    assert batching(dtype=dtype, device=device) is expected


@pytest.mark.parametrize(
    ("num_rows", "dtype", "most"),
    [(1_000, "float32", 0), (1, "bfloat16", 1), (20, "tf32", 2), (1_000, "float16", 100)],
)
def test_how_many_rows_may_differ(num_rows, dtype, most):
    assert most_unequal(num_rows, dtype) == most
