"""Steps of trainings on the stand-in device: the losses, norms and weights of the CPU, with one wait each."""

import copy

import numpy as np
import pytest
import torch

from raysp import Schedule, models
from raysp.models import Wav2Vec2FeatureExtractor
from raysp.models.loading import load_feature_extractor
from raysp.training.data.micro_batches import MicroBatch, seed_micro_batch
from raysp.training.loop.optimizing import group_parameters, new_optimizer
from raysp.training.loop.process_settings import process_settings
from raysp.training.loop.training_steps import Training, Update
from tests.device.class_cases import make_checkpoint
from tests.device.stand_in import NAME, counted
from tests.training.conftest import small_model
from tests.training.criteria import classify_criterion, ctc_criterion, seq2seq_criterion, speakers_criterion

EXTRACTOR = Wav2Vec2FeatureExtractor(return_attention_mask=True)
DROPOUTS = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout")
STILL = dict.fromkeys([*DROPOUTS, "layerdrop"], 0.0)
"""Without random numbers of the device, of which a GPU has others than a CPU."""
LENGTHS = (8000, 5600, 6640)
TEXTS = ([5, 6, 6, 7], [8], [9, 5])
CLASSES = ([1], [0], [2])


def of_waves(head: str, **fields: object):
    fields = {"num_labels": 3, **STILL, **fields}
    return small_model(getattr(models, f"Wav2Vec2For{head}"), models.Wav2Vec2Config, **fields)


def speakers(_folder):
    tdnn = {"tdnn_dim": (16, 16, 16, 16, 24), "xvector_output_dim": 12}
    return speakers_criterion(of_waves("XVector", **tdnn), EXTRACTOR, crop_seconds=0.4)


def seq2seq(folder):
    make_checkpoint("SpeechEncoderDecoderModel", folder / "checkpoint")
    config = models.SpeechEncoderDecoderConfig.from_pretrained(folder / "checkpoint")
    for part in (config.encoder, config.decoder):
        for name in [name for name in vars(part) if "drop" in name]:
            setattr(part, name, 0.0)
    model = models.SpeechEncoderDecoderModel.from_pretrained(folder / "checkpoint", config=config)
    return seq2seq_criterion(model.train(), EXTRACTOR)


OBJECTIVES = {
    "CTC": (lambda _: ctc_criterion(of_waves("CTC"), EXTRACTOR), TEXTS),
    "classes": (lambda _: classify_criterion(of_waves("SequenceClassification"), EXTRACTOR), CLASSES),
    "speakers": (speakers, CLASSES),
    "texts of a decoder": (seq2seq, TEXTS),
}


def steps_of(targets) -> list[list[MicroBatch]]:
    """Make two steps of two micro-batches."""
    rng = np.random.default_rng(0)
    waves = [(0.1 * rng.standard_normal(length)).astype(np.float32) for length in LENGTHS]
    batches = [
        MicroBatch(number, rows, [waves[row] for row in rows], [targets[row] for row in rows])
        for number, rows in enumerate(([0, 1], [2]))
    ]
    return [batches, batches[::-1]]


def training_of(objective) -> Training:
    # Adam divides a gradient by its own size: with the usual 1e-8 one of rounding alone moves its weight as far as any.
    optimizer = new_optimizer(group_parameters(objective.model, Schedule(steps=1, learning_rate=1e-3)))
    for group in optimizer.param_groups:
        group["eps"] = 1e-6
    return Training(objective, optimizer, seed=7)


def assert_one_wait(training: Training, step: int, batches: list[MicroBatch]) -> Update:
    """Take a step, for which the host waits once."""
    with counted() as counts:
        update = training.step(0, step, batches, learning_rate=1e-3)
    assert update.is_finite
    assert sum((counts.waits + counts.blocking).values()) == 1, counts.waits + counts.blocking
    return update


@pytest.mark.parametrize("name", OBJECTIVES)
def test_steps_are_those_of_the_cpu_and_the_host_waits_once_in_each(name, tmp_path):
    make, targets = OBJECTIVES[name]
    here = make(tmp_path)
    there = copy.deepcopy(here)
    there.model.to(NAME).tie_weights()  # of a tensor of another class, torch makes a parameter for each name
    with torch.no_grad():
        there(steps_of(targets)[0][0])  # constants are made
    expected, found = training_of(here), training_of(there)
    for step, batches in enumerate(steps_of(targets)):
        update = expected.step(0, step, batches, learning_rate=1e-3)
        on_device = assert_one_wait(found, step, batches)
        assert (on_device.num_rows, on_device.stops) == (update.num_rows, update.stops)
        assert on_device.loss == pytest.approx(update.loss, rel=1e-4)
        assert on_device.norm == pytest.approx(update.norm, rel=1e-3)
    weights = dict(there.model.named_parameters())
    for key, weight in here.model.named_parameters():
        torch.testing.assert_close(weights[key].detach().cpu(), weight.detach(), rtol=1e-3, atol=1e-4, msg=key)


@pytest.mark.parametrize("name", ["UniSpeechForCTC", "SEWDForCTC", "Wav2Vec2BertForCTC", "ParakeetForCTC"])
def test_steps_of_every_encoder_wait_once_with_dropout_and_masks(name, tmp_path):
    make_checkpoint(name, tmp_path / "checkpoint")
    config = models.AutoConfig.from_pretrained(tmp_path / "checkpoint")
    part = getattr(config, "encoder_config", config)
    for field in [field for field in vars(part) if "drop" in field and isinstance(getattr(part, field), float)]:
        setattr(part, field, 0.2)
    config.mask_time_prob = config.mask_feature_prob = 0.3
    config.mask_feature_length = 4
    model = models.AutoModelForCTC.from_pretrained(tmp_path / "checkpoint", config=config).to(NAME).train()
    training = training_of(ctc_criterion(model, load_feature_extractor(tmp_path / "checkpoint")))
    first, second = steps_of(TEXTS)
    training.step(0, 0, first, learning_rate=1e-3)  # constants are made
    assert_one_wait(training, 1, second)


def test_ctc_is_computed_on_the_cpu_if_kernels_are_to_be_deterministic():
    objective = ctc_criterion(of_waves("CTC"), EXTRACTOR)
    batch = steps_of(TEXTS)[0][0]
    seed_micro_batch(1, 2, 3, 4)
    expected = objective(batch).rows_B
    objective.model.to(NAME)
    with process_settings(1, deterministic=True), counted() as counts:
        seed_micro_batch(1, 2, 3, 4)
        losses = objective(batch)
        losses.total.backward()
    torch.testing.assert_close(losses.rows_B.cpu(), expected, rtol=1e-4, atol=1e-4)
    assert any("heads.py" in where for where in counts.waits), counts.waits
