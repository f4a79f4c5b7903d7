"""Encoders that take all rows of a pack at once on a device: values of row by row, launches that rows do not change."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from raysp.models import LoadedCheckpoint, load_checkpoint
from raysp.models.base.packs import EncodedPack, Pack
from raysp.models.kernels.pack_sizes import most_rows, slot_frames
from raysp.models.kernels.packing import Packing
from raysp.models.kernels.row_tables import RowTables
from tests.device.stand_in import NAME, counted
from tests.models.encoder.test_encoder_packs import OTHERS, write
from tests.ops.test_precision import noise

CASES = (
    *("UniSpeechForCTC", "Wav2Vec2ForCTC", "HubertModel", "SEWDForCTC", "Wav2Vec2BertForCTC", "ParakeetForCTC"),
    *OTHERS,
)
SECONDS = (1.28, 0.6, 1.0, 2.3, 0.42)
SIZE = 512


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    found: dict[str, LoadedCheckpoint] = {}

    def of(name: str) -> LoadedCheckpoint:
        if name not in found:
            folder = write(name, tmp_path_factory.mktemp("checkpoints") / "checkpoint")
            found[name] = load_checkpoint(folder, dtype="float32", device=NAME)
        return found[name]

    return of


@pytest.fixture(scope="module")
def waves() -> list[np.ndarray]:
    return noise(SECONDS, seed=1)


@torch.inference_mode()
def row_by_row(one: LoadedCheckpoint, waves: Sequence[np.ndarray]) -> EncodedPack:
    samples = [torch.from_numpy(wave).to(NAME) for wave in waves]
    counts = [torch.tensor([len(wave)]).to(NAME) for wave in waves]
    features = [one.feature_extractor.extract(wave[None], count) for wave, count in zip(samples, counts, strict=True)]
    encoder = one.model.speech_encoder
    inputs = [of_row[encoder.main_input_name][0] for of_row in features]
    num_valid = [one.feature_extractor.num_inputs(len(wave)) for wave in waves]
    num_frames = one.num_frames([*map(len, waves)])[1]
    return encoder.encode_pack(Pack.of(inputs, num_frames, encoder.inputs_a_frame, SIZE, num_valid), with_states=True)


@torch.inference_mode()
def at_once(one: LoadedCheckpoint, waves: Sequence[np.ndarray]) -> EncodedPack:
    stride, encoder = one.model.hidden_stride, one.model.speech_encoder
    slots = [slot_frames(len(wave), stride) for wave in waves]
    samples = np.zeros(SIZE * stride, np.float32)
    for wave, begin in zip(waves, itertools.accumulate(slots, initial=0), strict=False):
        samples[begin * stride : begin * stride + len(wave)] = wave
    counts = torch.tensor([*map(len, waves), *[0] * (most_rows(SIZE) - len(waves))]).to(NAME)
    with counted() as counts_of_launches:
        tables = RowTables.of(one.model.num_hidden_frames(counts), (counts + (stride - 1)) // stride, SIZE)
        packing = Packing.in_slots(one.num_frames([*map(len, waves)])[1], slots, SIZE, tables)
        values = one.feature_extractor.extract_pack(torch.from_numpy(samples).to(NAME), counts, tables)
        num_valid = tuple(one.feature_extractor.num_inputs(len(wave)) for wave in waves)
        num_inputs = tuple(map(encoder_inputs(one), waves))
        valid = one.feature_extractor.num_inputs(counts).clamp(min=0)
        pack = Pack(values, num_inputs, packing, encoder.inputs_a_frame, num_valid, valid)
        encoded = encoder.encode_pack(pack, with_states=True)
    at_once.launches = counts_of_launches.launches_at
    return encoded


def encoder_inputs(one: LoadedCheckpoint):
    return lambda wave: one.feature_extractor.num_inputs(len(wave))


def values(encoded: EncodedPack) -> list[list[torch.Tensor]]:
    return [
        [one.cpu()[0] for one in (output.last_hidden_state, *(output.hidden_states or ()))]
        for output in encoded.outputs
    ]


@pytest.mark.parametrize("name", CASES)
def test_rows_at_once_have_the_values_of_row_by_row(name, checkpoints, waves):
    one = checkpoints(name)
    for found, expected in zip(values(at_once(one, waves)), values(row_by_row(one, waves)), strict=True):
        assert len(found) == len(expected) > 1
        for value, other in zip(found, expected, strict=True):
            torch.testing.assert_close(value, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", [name for name in CASES if "sinusoids" not in name])  # their attention goes by row
def test_launches_do_not_depend_on_the_rows(name, checkpoints, waves):
    one = checkpoints(name)
    at_once(one, waves)
    of_launches = []
    for chosen in (waves, waves[1:2], waves[:3]):
        at_once(one, chosen)
        of_launches.append(at_once.launches)
    assert of_launches[0] == of_launches[1] == of_launches[2]
