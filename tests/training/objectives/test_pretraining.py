"""Pre-training of UniSpeech: its two losses and their weights, rows without labels, and the noise that falls."""

import numpy as np
import pytest
import torch

from raysp.models import UniSpeechForPreTraining, Wav2Vec2FeatureExtractor
from raysp.text.error_rates import TextRules
from raysp.text.targets import CharacterTargets, Target
from raysp.training.data.micro_batches import MicroBatch, seed_micro_batch
from raysp.training.loop.optimizing import group_parameters, new_optimizer
from raysp.training.loop.training_steps import Training
from raysp.training.tasks.pretraining_task import (
    OptionalTexts,
    PretrainingObjective,
    Temperature,
    load_pretraining_model,
)
from tests.models.oracles import make_oracle
from tests.training.objectives.originals import CODES, LAYER, model_pair, random_batch

EXTRACTOR = Wav2Vec2FeatureExtractor(return_attention_mask=True)
TEXTS = [[4, 5, 6, 6, 9], [7], [8, 5, 4]]


def new_model(**fields):
    values = {**CODES, **LAYER, "num_ctc_classes": 20, "num_negatives": 7, "pad_token_id": 0, **fields}
    model = model_pair("unispeech", "UniSpeechForPreTraining", **values)[1]
    config = model.config
    config.apply_spec_augment, config.mask_time_prob, config.mask_time_length = True, 0.4, 6
    return model


@pytest.fixture(scope="module")
def model():
    return new_model()


def losses_of(model, targets=TEXTS, **options):
    """Run a micro-batch whose random numbers are always the same."""
    seed_micro_batch(1, 2, 3, 4)
    return PretrainingObjective(model, EXTRACTOR, **options)(random_batch(targets))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_loss_is_both_terms_by_alpha_over_the_masked_frames(model, alpha):
    losses = losses_of(model, alpha=alpha)
    terms = {name: value.item() for name, value in losses.terms.items()}
    expected = (1 - alpha) * (terms["contrast"] + terms["diversity"]) + alpha * terms["ctc"]
    assert losses.total.item() == pytest.approx(expected, rel=1e-5)
    assert terms == {name: value.item() for name, value in losses_of(model).terms.items()}
    frames = sum(model.num_frames(len(wave)) for wave in random_batch(TEXTS).waves)
    assert 0.2 * frames < losses.count < 0.6 * frames


def test_rows_without_labels_count_in_the_contrast_alone_and_whole(model):
    labelled, mixed, unlabelled = (losses_of(model, targets) for targets in (TEXTS, [[4, 5], [], []], [[], [], []]))
    assert unlabelled.terms["ctc"] == 0
    assert unlabelled.total.item() == pytest.approx(
        (unlabelled.terms["contrast"] + unlabelled.terms["diversity"]).item(), rel=1e-5
    )
    assert unlabelled.terms["contrast"] == labelled.terms["contrast"] == mixed.terms["contrast"]
    assert torch.equal(mixed.rows_B[1:], unlabelled.rows_B[1:])


def test_all_weights_learn(model):
    model.zero_grad()
    losses_of(model).total.backward()
    assert [name for name, one in model.named_parameters() if one.grad is None or not one.grad.any()] == []
    model.zero_grad()


def test_without_the_weight_of_ctc_its_head_does_not_learn(model):
    model.zero_grad()
    losses_of(model, alpha=0.0).total.backward()
    assert not model.ctc_proj.weight.grad.any()
    model.zero_grad()


def test_a_row_that_is_not_finite_is_named_alone(model):
    batch = random_batch(TEXTS)
    waves = [batch.waves[0], batch.waves[1] * np.nan, batch.waves[2]]
    losses = PretrainingObjective(model, EXTRACTOR)(MicroBatch(0, batch.rows, waves, TEXTS))
    assert torch.isfinite(losses.rows_B).tolist() == [True, False, True]
    assert not torch.isfinite(losses.total)


@pytest.mark.parametrize(
    ("updates", "expected"), [(0, 2.0), (1, 1.99999), (200_000, 2 * 0.999995**200_000), (300_000, 0.5), (10**7, 0.5)]
)
def test_the_noise_falls_with_the_updates(updates, expected):
    assert Temperature().after(updates) == pytest.approx(expected)


def test_the_temperature_is_that_of_the_micro_batch(model):
    objective = PretrainingObjective(model, EXTRACTOR, temperature=Temperature(3.0, 1.0, 0.5))
    for updates, temperature in [(1, 1.5), (0, 3.0), (7, 1.0)]:
        objective(random_batch(TEXTS, updates=updates))
        assert model.quantizer.temperature == temperature


@pytest.mark.parametrize(("field", "value"), [("apply_spec_augment", False), ("mask_time_prob", 0.0)])
def test_a_model_that_masks_nothing_is_refused(field, value):
    model = new_model()
    setattr(model.config, field, value)
    with pytest.raises(ValueError, match="expected masked frames, which pre-training identifies: set them in masks"):
        PretrainingObjective(model, EXTRACTOR)


def test_a_model_in_eval_mode_is_refused():
    with pytest.raises(ValueError, match="the model is in eval mode, expected training mode"):
        losses_of(new_model().eval())


def test_a_step_reports_the_means_of_the_terms():
    objective = PretrainingObjective(new_model(), EXTRACTOR)
    training = Training(
        objective, new_optimizer(group_parameters(objective.model), learning_rate=0, weight_decay=0), seed=7
    )
    first, second = (random_batch(targets) for targets in (TEXTS, [[3], []]))
    batches = [first, MicroBatch(1, second.rows, second.waves, second.targets)]
    update = training.step(0, 0, batches, learning_rate=0.0)
    losses = []
    for batch in batches:
        seed_micro_batch(7, 0, 0, batch.number)
        losses.append(objective(batch))
    count = sum(one.count for one in losses)
    assert update.terms.keys() == {"contrast", "diversity", "ctc"}
    for name, mean in update.terms.items():
        assert mean == pytest.approx(sum(one.terms[name].item() for one in losses) / count, rel=1e-4)
    assert training.step(0, 1, [], learning_rate=0.0).terms == dict.fromkeys(update.terms, 0.0)


@pytest.mark.slow
def test_the_loss_falls():
    model = new_model()
    objective = PretrainingObjective(model, EXTRACTOR)
    training = Training(objective, new_optimizer(group_parameters(model), learning_rate=1e-3, weight_decay=0), seed=0)
    losses = [training.step(0, 0, [random_batch(TEXTS)], learning_rate=2e-3).loss for _ in range(25)]
    assert losses[-1] < 0.7 * losses[0]


def test_a_checkpoint_gets_a_new_head_for_another_vocabulary(tmp_path):
    make_oracle("UniSpeechForPreTraining", **CODES, num_ctc_classes=20).save_pretrained(tmp_path)
    same = load_pretraining_model(tmp_path, masks={"mask_time_prob": 0.5})
    assert isinstance(same, UniSpeechForPreTraining)
    assert (same.training, same.config.mask_time_prob, same.config.num_ctc_classes) == (True, 0.5, 20)
    other = load_pretraining_model(tmp_path, num_classes=31, seed=1)
    assert (other.ctc_proj.out_features, other.config.num_ctc_classes) == (31, 31)
    assert torch.equal(other.ctc_proj.weight, load_pretraining_model(tmp_path, num_classes=31, seed=1).ctc_proj.weight)
    other.save_pretrained(tmp_path / "new")
    again = load_pretraining_model(tmp_path / "new")
    for name, weight in other.stored_weights().items():
        assert torch.equal(again.state_dict()[name], weight), name


def test_an_encoder_alone_gets_all_else_anew(tmp_path):
    make_oracle("UniSpeechForCTC").save_pretrained(tmp_path)
    model = load_pretraining_model(tmp_path, num_classes=12, seed=1)
    assert model.ctc_proj.out_features == 12
    again = load_pretraining_model(tmp_path, num_classes=12, seed=1)
    for name, weight in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], weight), name


def test_an_evaluation_is_a_function_of_weights_and_rows_alone(model):
    objective = PretrainingObjective(model, EXTRACTOR)
    found = []
    for seed in (1, 2):
        seed_micro_batch(seed, 0, 0, 0)
        found.append(objective.evaluate(random_batch(TEXTS, updates=seed)))
        assert model.training
    assert torch.equal(*found)
    assert found[0].dtype == torch.float32


def test_a_row_without_labels_is_evaluated_by_its_codes_alone(model):
    of_texts, of_codes = (
        PretrainingObjective(model, EXTRACTOR, alpha=alpha).evaluate(random_batch([[4, 5], [], []]))
        for alpha in (0.5, 0.0)
    )
    assert (of_texts == of_codes).tolist() == [False, True, True]
    of_ctc = PretrainingObjective(model, EXTRACTOR, alpha=1.0).evaluate(random_batch([[4, 5], [], []]))
    assert of_texts[0] == pytest.approx(((of_codes + of_ctc) / 2)[0].item(), rel=1e-5)


def test_rows_without_a_text_have_a_target():
    targets = OptionalTexts(CharacterTargets(TextRules(), lambda text: [*map("ab".find, text)]))
    assert [targets(value) for value in (None, " ", "ab")] == [Target(()), Target(()), Target([0, 1])]
    assert targets(" Z").reason == "outside_vocabulary"
    assert (targets.misfit(Target(()), 0), targets.misfit(Target([1, 1]), 2)) == ("", "label_too_long")
    assert targets.counts == {"a": 1, "b": 1, "Z": 1}


def test_texts_are_no_targets_where_no_row_has_one():
    targets = OptionalTexts(None)
    assert (targets("a"), targets.misfit(targets("a"), 0), targets.counts) == (Target(()), "", {})
