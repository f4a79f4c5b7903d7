"""The loss of transducers in trainings: rows alone, half precision, targets that do not fit, texts."""

import numpy as np
import pytest
import torch

from raysp.models import AutoConfig, load_checkpoint
from raysp.training.characters import tokenizer_of
from raysp.training.data.micro_batches import MicroBatch
from raysp.training.tasks.transducer_task import TransducerObjective, load_transducer
from tests.models.tokenizers.word_pieces import save_transducer
from tests.ops.test_precision import noise

STILL = dict.fromkeys(("dropout", "activation_dropout", "attention_dropout", "layerdrop"), 0.0)
TARGETS = [[4, 5, 6], [7], [9, 4, 4, 11]]


@pytest.fixture(scope="module", params=["RNNT", "TDT"])
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    save_transducer(path, request.param)
    return path


@pytest.fixture
def objective(folder):
    return objective_of(folder)


def objective_of(folder, **options):
    return TransducerObjective(load_transducer(folder, STILL), load_checkpoint(folder).feature_extractor, **options)


def batch_of(targets=TARGETS):
    return MicroBatch(0, range(len(targets)), noise([1.6, 0.8, 2.0][: len(targets)], seed=5), targets)


def test_a_row_alone_has_the_loss_that_it_has_in_a_batch(objective):
    batch = batch_of()
    together = objective(batch)
    assert together.count == 3
    assert together.total.item() == pytest.approx(together.rows_B.sum().item())
    for place, target in enumerate(TARGETS):
        alone = objective(MicroBatch(0, [place], [batch.waves[place]], [target]))
        torch.testing.assert_close(together.rows_B[place], alone.rows_B[0], rtol=1e-4, atol=1e-4)


def test_all_parts_learn(objective):
    objective(batch_of()).total.backward()
    missing = [name for name, one in objective.model.named_parameters() if one.grad is None or not one.grad.any()]
    assert all("bias" in name for name in missing), missing  # such as those before a norm
    assert not [name for name in missing if name.startswith(("joint", "decoder.lstm", "encoder_projector"))]


def test_half_precision_is_near_and_losses_and_gradients_are_in_float32(folder, objective):
    exact, half = objective(batch_of()), objective_of(folder, dtype=torch.bfloat16)
    losses = half(batch_of())
    assert losses.total.dtype == torch.float32
    assert losses.total.item() == pytest.approx(exact.total.item(), rel=0.1)
    losses.total.backward()
    assert {one.grad.dtype for one in half.model.parameters() if one.grad is not None} == {torch.float32}


def test_a_row_without_a_path_counts_as_zero(folder):
    """RNN-T writes any number of tokens at a frame, so that only a row without frames has none."""
    objective = objective_of(folder)
    if not objective.model.durations:
        assert objective.model.moves.frames_needed(100) == 1
        return
    objective.model.config.durations = [1, 2]
    objective.model.joint.head = torch.nn.Linear(objective.model.config.decoder_hidden_size, 23)
    losses = objective(batch_of([TARGETS[0], [7] * 60]))
    assert losses.rows_B[1].item() == 0
    assert losses.rows_B[0].item() > 0
    losses.total.backward()
    assert all(one.grad.isfinite().all() for one in objective.model.parameters() if one.grad is not None)


@pytest.mark.parametrize("wrong", ["beyond", -1])
def test_a_target_that_the_model_lacks_is_named_with_its_row(objective, wrong):
    size = objective.model.config.vocab_size
    found = size if wrong == "beyond" else wrong
    with pytest.raises(ValueError, match=f"row 1: target {found} found, expected 0 to {size - 1}"):
        objective(batch_of([TARGETS[0], [found]]))


@pytest.mark.lengthy
def test_texts_are_those_of_a_search_in_evaluation_mode(folder):
    objective, tokenizer = objective_of(folder), tokenizer_of(folder)
    objective.model.encoder.config.layerdrop = 0.9
    found = objective.recognise(batch_of(), tokenizer)
    assert objective.model.training
    loaded = load_checkpoint(folder)
    for (text, loss), wave in zip(found, batch_of().waves, strict=True):
        features = loaded.feature_extractor.extract(torch.from_numpy(wave)[None], torch.tensor([len(wave)]))
        frames = loaded.model(**features).pooler_output
        tokens = loaded.model.search(frames, torch.tensor([frames.shape[1]])).tokens_BS[0].tolist()
        shown = [one for one in tokens if one not in (loaded.model.blank, tokenizer.pad_token_id)]
        assert text == tokenizer.decode(shown, group_tokens=False)
        assert np.isfinite(loss)
    assert any(text for text, _ in found)


def test_masks_are_fields_of_the_encoder(folder):
    model = load_transducer(folder, {"layerdrop": 0.25})
    assert model.encoder.config.layerdrop == 0.25
    assert AutoConfig.from_pretrained(folder).encoder_config.layerdrop != 0.25


def test_random_weights_are_others(folder):
    before, after = (load_transducer(folder, {}, seed=1, random_weights=one).state_dict() for one in (False, True))
    assert not torch.equal(before["joint.head.weight"], after["joint.head.weight"])
