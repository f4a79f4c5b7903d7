"""Packs of rows: as batches in float32, and in half precision the same bits whatever the other rows."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from raysp.models import (
    LoadedCheckpoint,
    SeamlessM4TFeatureExtractor,
    SEWDConfig,
    SEWDModel,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    load_checkpoint,
)
from raysp.models.encoder.fast_conformer import KEPT_FRAMES
from raysp.models.features.waves import pad
from raysp.models.kernels.pack_sizes import PRODUCT_ROWS
from raysp.models.labelled_passes import ModelPass
from tests.device.class_cases import CASES, SMALL, WAVES, make_checkpoint

pytestmark = pytest.mark.drivers  # every encoder in packs takes long

SECONDS = (1.0, 2.2, 1.5, 3.1, 0.91, 1.0)
ADAPTER = {"add_adapter": True, "output_hidden_size": 24}
OTHERS = {
    "Wav2Vec2Model with an adapter": Wav2Vec2Model(Wav2Vec2Config(**SMALL, **WAVES, **ADAPTER)),
    "Wav2Vec2BertModel with sinusoids and an adapter": Wav2Vec2BertModel(
        Wav2Vec2BertConfig(
            **SMALL, **ADAPTER, position_embeddings_type="relative", use_intermediate_ffn_before_adapter=True
        )
    ),
    "SEWDModel of threes with a convolution": SEWDModel(
        SEWDConfig(**SMALL, **WAVES, position_buckets=16, squeeze_factor=3, conv_kernel_size=3, share_att_key=False)
    ),
    "Wav2Vec2BertModel with rotations": Wav2Vec2BertModel(
        Wav2Vec2BertConfig(**SMALL, position_embeddings_type="rotary")
    ),
}
"""Configurations of which labelling has no case."""
HALF = ["bfloat16", pytest.param("float16", marks=pytest.mark.slow)]
COPIES = {
    f"aten::{name}"
    for name in (
        *("alias", "as_strided", "cat", "clone", "copy_", "empty_like", "expand", "index_select", "lift_fresh"),
        *("new_empty", "new_zeros", "pad", "pad_sequence", "permute", "select.int", "slice.Tensor", "split.Tensor"),
        *("to.dtype_layout", "transpose.int", "unbind.int", "unfold", "unsqueeze", "view", "zeros", "zeros_like"),
    )
}
"""Ops that copy values or view them."""


@pytest.fixture(scope="module")
def waves() -> list[np.ndarray]:
    generator = np.random.default_rng(3)
    return [0.1 * generator.standard_normal(round(16_000 * one)).astype(np.float32) for one in SECONDS]


def write(name: str, folder: Path) -> Path:
    """Write the checkpoint of a case."""
    if name in OTHERS:
        torch.manual_seed(1)
        OTHERS[name].init_weights().save_pretrained(folder)
        extractors = SeamlessM4TFeatureExtractor(), Wav2Vec2FeatureExtractor(return_attention_mask=True)
        extractors["Bert" not in name].save_pretrained(folder)
    else:
        make_checkpoint(name, folder)
    return folder


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> Callable[[str, str], LoadedCheckpoint]:
    """Return the checkpoint of a case, which is written once, in a dtype."""
    written = cache(lambda name: write(name, tmp_path_factory.mktemp("written") / "checkpoint"))
    return cache(lambda name, dtype: load_checkpoint(written(name), dtype=dtype))


@torch.inference_mode()
def values(one: LoadedCheckpoint, waves: Sequence[np.ndarray], *, packed: bool = True) -> list[list[torch.Tensor]]:
    """Return all values of each row: frames, hidden states and results of heads, without padding."""
    if not packed:
        found = one.run(*pad(waves), hidden_states=True)
        return [list(_of_row(found, row)) for row in range(len(waves))]
    samples, counts = [*map(torch.from_numpy, waves)], torch.tensor([*map(len, waves)])
    return [list(_of_row(row, 0)) for row in one.run_pack(samples, counts, hidden_states=True)]


def _of_row(found: ModelPass, row: int) -> Iterator[torch.Tensor]:
    frames, hidden_frames = (int(one[row]) for one in (found.num_frames_B, found.hidden_frames_B))
    yield found.encoded["last_hidden_state"][row, :frames]
    for state in found.encoded["hidden_states"]:
        yield state[row, :hidden_frames]
    for output in found.heads.values():
        for name in {"logits", "embeddings", "pooler_output"} & {*output.keys()}:
            yield output[name][row, :frames] if output[name].ndim == 3 else output[name][row]


@pytest.mark.parametrize("name", [*CASES, *OTHERS])
def test_rows_of_a_pack_have_the_values_of_a_batch(name, waves, loaded):
    one = loaded(name, "float32")
    assert one.summary.takes_packs
    expected = values(one, waves, packed=False)
    for row, found in enumerate(values(one, waves)):
        assert len(found) == len(expected[row])
        for value, other in zip(found, expected[row], strict=True):
            torch.testing.assert_close(value, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", [*CASES, *OTHERS])
def test_a_row_has_the_same_bits_in_every_pack(name, dtype, waves, loaded):
    one = loaded(name, dtype)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        alone = [values(one, [wave])[0] for wave in waves]
        for order in [(4, 2, 1, 0, 3), (1, 0), (3, 3, 5)]:
            for row, found in zip(order, values(one, [waves[row] for row in order]), strict=True):
                assert all(map(torch.equal, found, alone[row]))
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("dtype", HALF)
def test_a_row_of_short_distances_has_the_same_bits_beside_a_row_of_long_ones(dtype, waves, loaded):
    one = loaded("ParakeetForCTC", dtype)
    long = 0.1 * np.random.default_rng(4).standard_normal(round(1.2 * KEPT_FRAMES * 1280)).astype(np.float32)
    alone = [values(one, [wave])[0] for wave in (waves[1], long)]
    for found, expected in zip(values(one, [waves[1], long]), alone, strict=True):
        assert all(map(torch.equal, found, expected))


class Arithmetic(TorchDispatchMode):
    """Records shapes and strides of floating-point tensors of each op that computes floating-point values."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[tuple[object, ...]] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        if func.name() not in COPIES and any(map(_is_floating, _flat(found))):
            self.seen[func.name(), *map(_layout, filter(_is_floating, _flat((args, kwargs, found))))] += 1
        return found


def _flat(given: object) -> list[object]:
    return tree_flatten(given)[0]


def _is_floating(one: object) -> bool:
    return isinstance(one, torch.Tensor) and one.is_floating_point() and not one.is_mkldnn


def _layout(one: torch.Tensor) -> tuple[object, ...]:
    """Return dtype, sizes and strides; that of an axis of one place addresses nothing."""
    return one.dtype, *one.shape, *(step for step, size in zip(one.stride(), one.shape, strict=True) if size > 1)


def arithmetic(one: LoadedCheckpoint, waves: Sequence[np.ndarray]) -> Counter[tuple[object, ...]]:
    with Arithmetic() as mode:
        values(one, waves)
    return mode.seen


@pytest.mark.parametrize("name", [*CASES, *OTHERS])
def test_no_op_of_a_pass_has_another_layout_for_other_neighbours(name, waves, loaded):
    one = loaded(name, "bfloat16")
    values(one, waves[1:2])  # makes what is kept for all passes
    alone = {row: arithmetic(one, [waves[row]]) for row in (0, 1, 2, 4)}
    both = arithmetic(one, [waves[0], waves[1]])
    of_all_rows = alone[0] + alone[1] - both
    assert any(PRODUCT_ROWS in layout for _, *layouts in of_all_rows for layout in layouts)
    for rows in [(1, 0), (2, 4), (1, 4, 2)]:
        expected = sum((alone[row] for row in rows), Counter())
        expected.subtract({op: count * (len(rows) - 1) for op, count in of_all_rows.items()})
        found = arithmetic(one, [waves[row] for row in rows])
        assert {op: count for op, count in expected.items() if count} == found
