"""Programs with models on the stand-in device: processors, generation, losses, gradients and steps of optimizers."""

import copy

import numpy as np
import pytest
import torch

from raysp import models
from raysp.models import AutoModelForCTC, AutoProcessor, UniSpeechConfig, UniSpeechForPreTraining
from tests.corpora import CHECKPOINT
from tests.device.class_cases import CONFIGS, SMALL, WAVES, make_checkpoint
from tests.device.stand_in import NAME, counted

WAVE = (0.1 * np.random.default_rng(0).standard_normal((2, 16000))).astype(np.float32)
OF_WAVES = ("UniSpeech", "Wav2Vec2", "Hubert", "SEWD")


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(CHECKPOINT)


def test_texts_of_ids_on_the_device(processor):
    model = AutoModelForCTC.from_pretrained(CHECKPOINT)
    inputs = processor(list(WAVE), sampling_rate=16000, return_tensors="pt", padding=True)
    with torch.no_grad():
        expected = model(**inputs).logits.argmax(-1)
        ids = model.to(NAME)(**inputs.to(NAME)).logits.argmax(-1)
    with counted() as counts:
        texts = processor.batch_decode(ids)
    assert texts == processor.batch_decode(expected)
    assert processor.decode(ids[0]) == texts[0]
    assert sum(counts.waits.values()) == 1, counts.waits


@pytest.mark.parametrize("kind", ["ParakeetForCTC", "SpeechEncoderDecoderModel"])
def test_other_tokenizers_take_ids_on_the_device(kind, tmp_path):
    make_checkpoint(kind, tmp_path / "checkpoint")
    tokenizer = models.load_checkpoint(tmp_path / "checkpoint").tokenizer
    ids = torch.tensor([[5, 6, 6, 7], [8, 9, 9, 9]])
    assert tokenizer.batch_decode(ids.to(NAME)) == tokenizer.batch_decode(ids)
    assert tokenizer.decode(ids[0].to(NAME)) == tokenizer.decode(ids[0])


def test_a_checkpoint_is_loaded_onto_the_device():
    model = AutoModelForCTC.from_pretrained(CHECKPOINT, device=NAME)
    assert {parameter.device.type for parameter in model.parameters()} == {NAME}


@pytest.mark.parametrize("lengths", [(16000, 16000), (16000, 9000)])
def test_rows_of_one_length_have_no_mask(lengths):
    """The device would have to be asked; the host has the lengths."""
    loaded = models.load_checkpoint(CHECKPOINT, device=NAME)
    waves, counts_of_rows = torch.from_numpy(WAVE).to(NAME), torch.tensor(lengths).to(NAME)
    with torch.inference_mode(), counted() as counts:
        found = loaded.run(waves, counts_of_rows, hidden_states=False, num_samples=lengths)
    layout = found.features["attention_mask"]
    assert (layout.mask is None) == (len({*lengths}) == 1)
    assert (found.frames, counts.waits) == ([49, 49] if lengths[1] == 16000 else [49, 27], {})


def test_states_and_attentions():
    model = AutoModelForCTC.from_pretrained(CHECKPOINT).to(NAME)
    output = model(torch.from_numpy(WAVE).to(NAME), output_attentions=True, output_hidden_states=True)
    assert all(state.device.type == NAME for state in (*output.hidden_states, *output.attentions))


@pytest.mark.parametrize("kind", OF_WAVES)
@pytest.mark.parametrize(
    ("head", "labels"),
    [("CTC", [[5, 6, 7, -100], [8, 9, 10, 11]]), ("SequenceClassification", [0, 2])],
)
def test_losses_and_gradients_are_those_of_the_cpu(kind, head, labels):
    torch.manual_seed(0)
    model = getattr(models, f"{kind}For{head}")(CONFIGS[kind]).eval()
    on_device = copy.deepcopy(model).to(NAME)
    waves, labels = torch.from_numpy(WAVE), torch.tensor(labels)
    loss = model(waves, labels=labels).loss
    loss.backward()
    with counted() as counts:
        found = on_device(waves.to(NAME), labels=labels.to(NAME)).loss
        found.backward()
    assert found.item() == pytest.approx(loss.item(), rel=1e-4)
    expected = dict(model.named_parameters())
    for name, parameter in on_device.named_parameters():
        assert (parameter.grad is None) == (expected[name].grad is None)
        if parameter.grad is not None:
            torch.testing.assert_close(parameter.grad.cpu(), expected[name].grad, rtol=1e-3, atol=1e-4)
    assert sum(counts.waits.values()) <= WAITS[head], counts.waits


WAITS = {"CTC": 4, "SequenceClassification": 1}
"""Waits of a loss with its gradients: labels that are no class or token are refused, and that of CTC reads lengths."""


def test_a_step_of_an_optimizer_on_the_device():
    torch.manual_seed(0)
    model = models.UniSpeechForCTC(CONFIGS["UniSpeech"]).to(NAME).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    waves, labels = torch.from_numpy(WAVE).to(NAME), torch.tensor([[5, 6, 7], [8, 9, 10]]).to(NAME)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = model(waves, labels=labels).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]


def test_pre_training_on_the_device():
    model = UniSpeechForPreTraining(UniSpeechConfig(**SMALL, **WAVES)).to(NAME).train()
    output = model(torch.from_numpy(WAVE).to(NAME))
    assert output.projected_states.device.type == NAME
