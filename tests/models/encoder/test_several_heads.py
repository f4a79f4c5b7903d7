"""Several heads in one checkpoint: each gives what it gives by itself, from one pass of the encoder."""

import json

import pytest
import torch

from raysp import CheckpointError, models
from tests.models.oracles import TINY
from tests.models.parity import assert_close

CLASSES = {"classifier_proj_size": 24, "id2label": {0: "cat", 1: "dog", 2: "owl"}}
WAVES = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))


def two_heads(checkpoint, **flags) -> tuple[models.UniSpeechForCTC, models.UniSpeechForSequenceClassification]:
    """Make a CTC model and a classifier over its encoder, as after training with the encoder frozen."""
    torch.manual_seed(3)
    ctc = models.UniSpeechForCTC.from_pretrained(checkpoint)
    classifier = models.UniSpeechForSequenceClassification(
        models.UniSpeechConfig(**{**TINY, **CLASSES, **flags})
    ).init_weights()
    classifier.unispeech = ctc.unispeech
    return ctc, classifier.eval()


@torch.inference_mode()
@pytest.mark.parametrize("is_weighted", [False, True], ids=["last layer", "weighted layers"])
def test_each_head_loads_as_it_was_and_both_read_one_pass_of_the_encoder(checkpoint, is_weighted):
    originals = two_heads(checkpoint, use_weighted_layer_sum=is_weighted)
    models.save_heads(originals, checkpoint)
    loaded, passes = models.load_checkpoint(checkpoint), []
    heads = (loaded.model, *loaded.more_heads)
    for model, original in zip(heads, originals, strict=True):
        assert type(model) is type(original)
        assert torch.equal(model(WAVES).logits, original(WAVES).logits)
    loaded.model.unispeech.encoder.layers[0].register_forward_pre_hook(lambda *_: passes.append(1))
    for one in (WAVES[:1], WAVES[1:, :2600], WAVES[:1]):
        samples = torch.tensor([one.shape[1]])
        run = loaded.run(one, samples, hidden_states=False).heads
        features = loaded.feature_extractor.extract(one, samples)["input_values"]
        for name, original in zip(("ctc", "classes"), originals, strict=True):
            assert_close(run[name].logits, original(features).logits)
    assert len(passes) == 3
    for model in heads:  # a head by itself makes its own pass again
        assert not torch.equal(model(WAVES).logits, model(torch.zeros_like(WAVES)).logits)
    assert len(passes) == 7


def test_heads_that_do_not_fit_each_other_are_refused(checkpoint, tmp_path):
    ctc, classifier = two_heads(checkpoint)
    alone = models.UniSpeechForSequenceClassification(models.UniSpeechConfig(**TINY)).init_weights()
    with pytest.raises(CheckpointError, match="the encoders of UniSpeechForSequenceClassification and UniSpeechFor"):
        models.save_heads([ctc, alone], tmp_path)
    with pytest.raises(CheckpointError, match=r"weights of the same name, classifier.bias, classifier.weight"):
        models.save_heads([classifier, classifier], tmp_path)
    models.save_heads([ctc, classifier], checkpoint)
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(
        json.dumps({**config, "architectures": ["UniSpeechForCTC", "UniSpeechModel"]})
    )
    with pytest.raises(CheckpointError, match="expected heads over one encoder"):
        models.check_checkpoint(checkpoint)
