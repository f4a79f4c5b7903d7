"""Several heads in one checkpoint: each gives what it gives by itself, from one pass of the encoder."""

import json

import pytest
import torch

from raysp import CheckpointError
from raysp.models import (
    UniSpeechConfig,
    UniSpeechForCTC,
    UniSpeechForSequenceClassification,
    check_checkpoint,
    load_checkpoint,
    save_heads,
)
from tests.models.oracles import TINY

CLASSES = {"classifier_proj_size": 24, "id2label": {0: "cat", 1: "dog", 2: "owl"}}


def two_heads(checkpoint, **flags) -> tuple[UniSpeechForCTC, UniSpeechForSequenceClassification]:
    """Make a CTC model and a classifier over its encoder, as after training with the encoder frozen."""
    torch.manual_seed(3)
    ctc = UniSpeechForCTC.from_pretrained(checkpoint)
    classifier = UniSpeechForSequenceClassification(UniSpeechConfig(**{**TINY, **CLASSES, **flags})).init_weights()
    classifier.unispeech = ctc.unispeech
    return ctc, classifier.eval()


@pytest.fixture(params=[False, True], ids=["last layer", "weighted layers"])
def saved(checkpoint, request):
    ctc, classifier = two_heads(checkpoint, use_weighted_layer_sum=request.param)
    save_heads([ctc, classifier], checkpoint)
    return checkpoint, ctc, classifier


def waves() -> torch.Tensor:
    return torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))


def test_each_head_loads_as_it_was(saved):
    folder, ctc, classifier = saved
    loaded = load_checkpoint(folder)
    assert [type(loaded.model), *map(type, loaded.more_heads)] == [type(ctc), type(classifier)]
    with torch.inference_mode():
        for model, original in zip((loaded.model, *loaded.more_heads), (ctc, classifier), strict=True):
            assert torch.equal(model(waves()).logits, original(waves()).logits)
            assert model.base_model is loaded.model.base_model


@torch.inference_mode()
def run(loaded, one: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the logits of both heads by one pass over one row."""
    heads = loaded.run(one, torch.tensor([one.shape[1]]), hidden_states=False).heads
    return heads["ctc"].logits, heads["classes"].logits


def features_of(loaded, one: torch.Tensor) -> torch.Tensor:
    return loaded.feature_extractor.extract(one, torch.tensor([one.shape[1]]))["input_values"]


def test_both_heads_read_one_pass_of_the_encoder(saved):
    folder, ctc, classifier = saved
    loaded, passes = load_checkpoint(folder), []
    loaded.model.unispeech.encoder.layers[0].register_forward_pre_hook(lambda *_: passes.append(1))
    first, second = waves()[:1], waves()[1:, :2600]
    for one in (first, second, first):
        found, features = run(loaded, one), features_of(loaded, one)
        with torch.inference_mode():
            for logits, original in zip(found, (ctc, classifier), strict=True):
                torch.testing.assert_close(logits, original(features).logits, rtol=1e-4, atol=1e-6)
    assert len(passes) == 3
    assert loaded.model(waves()).logits.shape[0] == 2  # a head by itself makes its own pass again
    assert not torch.equal(loaded.more_heads[0](waves()).logits, loaded.more_heads[0](torch.zeros_like(waves())).logits)
    assert len(passes) == 6


def test_heads_over_unlike_encoders_are_refused(checkpoint, tmp_path):
    ctc, classifier = two_heads(checkpoint)
    alone = UniSpeechForSequenceClassification(UniSpeechConfig(**TINY)).init_weights()
    with pytest.raises(CheckpointError, match="the encoders of UniSpeechForSequenceClassification and UniSpeechFor"):
        save_heads([ctc, alone], tmp_path)
    with pytest.raises(CheckpointError, match=r"weights of the same name, classifier.bias, classifier.weight"):
        save_heads([classifier, classifier], tmp_path)


@pytest.mark.parametrize(
    ("architectures", "message"),
    [
        (["UniSpeechForCTC", "Wav2Vec2ForSequenceClassification"], "expected a list with one of"),
        (["UniSpeechForCTC", "UniSpeechModel"], "expected heads over one encoder"),
        (["UniSpeechForCTC"], "unexpected classifier"),
    ],
)
def test_classes_that_do_not_fit_the_weights_are_refused(checkpoint, architectures, message):
    save_heads(two_heads(checkpoint), checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps({**config, "architectures": architectures}))
    with pytest.raises(CheckpointError, match=message):
        check_checkpoint(checkpoint)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(checkpoint)
