"""Half precision: a label does not depend on its batch on a CPU; elsewhere the budget is part of the fingerprint."""

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

import raysp
from raysp.models import UniSpeechConfig, UniSpeechForCTC, Wav2Vec2CTCTokenizer, Wav2Vec2FeatureExtractor
from raysp.ops.blocks import AGREED_RATE, Batching, batching, most_unequal
from raysp.ops.labelling import Batch, Labelling
from tests.device.class_cases import CASES, make_checkpoint
from tests.ops import label_independence
from tests.ops.label_independence import FEW_ROWS, LIMITS, TRAINED, WRITERS, count_with, labellings
from tests.ops.test_labelling import block_of, labels

BUDGETS = (2, 600)
OF_EACH_KIND = [
    *(*TRAINED, "Wav2Vec2ForCTC", "SEWDForCTC", "Wav2Vec2BertForXVector", "ParakeetForTDT"),
    *(name for name in WRITERS if name.endswith(("greedy", "beams"))),
]
"""Checkpoints of each kind of encoder and of text decoder."""


def op(folder: Path, outputs: Sequence[object], budget: float, **options: object) -> Labelling:
    options = {"dtype": "bfloat16", "window_seconds": 5, "overlap_seconds": 1, **options}
    return Labelling(
        str(folder), lambda loaded: [one.op(loaded.summary, loaded) for one in outputs], batch_seconds=budget, **options
    )


def noise(seconds: Sequence[float], seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [0.1 * generator.standard_normal(round(16_000 * one)).astype(np.float32) for one in seconds]


def assert_independent(
    folder: Path, outputs: Sequence[object], waves: Sequence[np.ndarray], budgets: Sequence[float] = (600,), **options
) -> None:
    """Compare each row alone with the row in batches of several budgets, bit for bit."""
    ops = [op(folder, outputs, budget, **options) for budget in budgets]
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


@pytest.fixture(scope="module")
def digits(shared) -> list[np.ndarray]:
    """Recordings of one to six digits."""
    return label_independence.digits()


def has_avx512() -> bool:
    """Return whether the processor has the instructions of all cases."""
    flags = Path("/proc/cpuinfo")
    return flags.exists() and {"avx2", "avx512f", "avx512bw", "avx512_bf16"} <= {*flags.read_text().split()}


class TestOnACpu:
    @pytest.mark.slow
    @pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.soak)])
    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_a_row_has_the_label_that_it_has_alone_to_the_last_bit(self, wide, dtype, threads):
        outputs = [raysp.Transcript(words=True), raysp.Embedding(layer=1), raysp.Embedding("last")]
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            assert_independent(wide, outputs, noise([0.5, 1.1, 1.6, 2.0]), BUDGETS, dtype=dtype)
        finally:
            torch.set_num_threads(before)

    @pytest.mark.parametrize("name", CASES)
    def test_so_do_all_models_and_heads(self, name, tmp_path):
        folder = tmp_path / "checkpoint"
        make_checkpoint(name, folder)
        assert_independent(folder, CASES[name], noise([0.8, 2.2, 1.5], seed=1))

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["BART greedy", "GPT-2 beams"])
    def test_so_do_texts_of_decoders(self, name, digits, tmp_path):
        few = {"orders": 2, "budgets": (2, 60), "threads": (1,)}
        assert len(labellings(name, "bfloat16", tmp_path / "checkpoint", digits[:9], **few)) == 1

    @pytest.mark.soak
    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    @pytest.mark.parametrize("name", [*TRAINED, *CASES, *WRITERS])
    def test_no_order_no_budget_and_no_number_of_threads_reaches_a_label_of_digits(self, name, dtype, digits, tmp_path):
        rows = digits if dtype == "bfloat16" else digits[:FEW_ROWS]  # products of float16 take many times as long
        assert (
            len(labellings(name, dtype, tmp_path / "checkpoint", rows if name in TRAINED else digits[:FEW_ROWS])) == 1
        )

    @pytest.mark.skipif(not has_avx512(), reason="the processor lacks AVX-512 with bfloat16, which this limits")
    @pytest.mark.parametrize(
        ("instructions", "name", "dtype"),
        [
            pytest.param("AVX512_CORE", "ParakeetForTDT", "bfloat16", marks=pytest.mark.drivers),
            *(
                pytest.param(*case, marks=pytest.mark.soak)
                for case in itertools.product(LIMITS, OF_EACH_KIND, ["bfloat16", "float16"])
            ),
        ],
    )
    def test_nor_do_they_with_fewer_instructions(self, instructions, name, dtype, shared, request):
        is_soaked = request.node.get_closest_marker("soak") is not None
        assert count_with(instructions, name, dtype, *((5, 20) if is_soaked else (2, 8))) == 1

    @pytest.mark.slow
    def test_windows_of_a_long_row_do_too(self, wide):
        long, short = noise([11.0, 1.0])
        tables = [op(wide, [raysp.Transcript()], 600)(block_of(one))[0] for one in ([long], [short, long])]
        assert tables[0].slice(0, 1).drop_columns(["row"]).equals(tables[1].slice(1, 1).drop_columns(["row"]))

    @pytest.mark.lengthy
    @pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)])
    def test_the_number_of_threads_does_not_reach_a_label(self, wide, dtype):
        waves, outputs = noise([0.5, 1.5, 0.9, 1.2], seed=4), [raysp.Transcript(words=True), raysp.Embedding()]
        found = [labels(op(wide, outputs, 15, dtype=dtype, threads=threads), block_of(waves)) for threads in (1, 2, 3)]
        assert (
            json.dumps(found[0], default=str) == json.dumps(found[1], default=str) == json.dumps(found[2], default=str)
        )

    @pytest.mark.slow
    def test_each_window_has_a_pass_of_its_own_by_one_thread(self, wide, monkeypatch):
        taken: list[tuple[int, int]] = []
        one = op(wide, [raysp.Transcript()], 600, threads=2)

        def seen(batch):
            taken.append((len(batch.windows), torch.get_num_threads()))
            return forward(batch)

        forward = Batch.forward
        monkeypatch.setattr(Batch, "forward", seen)
        found = labels(one, block_of(noise([1.0, 2.0, 1.0, 0.5])))
        assert {label["status"] for label in found.values()} == {"ok"}
        assert taken == [(1, 1)] * 4


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device: run `make gpu` where there is one")
class TestOnAGpu:
    @pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
    def test_labels_in_batches_and_alone_agree_as_often_as_is_promised(self, wide, dtype, capsys):
        waves = noise(np.random.default_rng(2).uniform(0.5, 5, 200))
        outputs = [raysp.Transcript()]
        first = op(wide, outputs, 1, dtype=dtype, device="cuda")
        alone = [labels(first, block_of([wave]))[0] for wave in waves]
        unequal = {}
        for budget in (5, 60, 600):
            found = labels(op(wide, outputs, budget, dtype=dtype, device="cuda"), block_of(waves))
            unequal[budget] = {
                name: sum(found[row][name] != label[name] for row, label in enumerate(alone))
                for name in ("pred_text", "pred_score")
            }
        with capsys.disabled():
            print(f"\n{torch.cuda.get_device_name()}, {dtype}, of {len(waves)} rows differ by budget: {unequal}")  # noqa: T201
        assert all(one["pred_text"] <= most_unequal(len(waves), dtype) for one in unequal.values())


class TestBatching:
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
    def test_half_precision_is_not_free(self, dtype, device, expected):
        assert batching(dtype=dtype, device=device) is expected

    @pytest.mark.parametrize(
        ("num_rows", "dtype", "most"),
        [
            (1, "float32", 0),
            (1_000, "float32", 0),
            (1, "bfloat16", 1),
            (20, "bfloat16", 2),
            (1_000, "float16", 100),
            (20, "tf32", 2),
        ],
    )
    def test_how_many_rows_may_differ(self, num_rows, dtype, most):
        assert most_unequal(num_rows, dtype) == most
        assert dtype == "float32" or most == 1 or most / num_rows == pytest.approx(1 - AGREED_RATE)
