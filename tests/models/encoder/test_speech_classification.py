"""The head of `Wav2Vec2ForSpeechClassification`; a published checkpoint of it is in tests/published."""

import json

import pytest
import torch

from raysp import CheckpointError
from raysp.models import Wav2Vec2FeatureExtractor, check_checkpoint, load_checkpoint
from tests.models.oracles import random_model
from tests.models.parity import assert_close, waves_and_mask

POOLED = {
    "mean": lambda frames: frames.mean(1),
    "sum": lambda frames: frames.sum(1),
    "max": lambda frames: frames.amax(1),
}
LENGTHS = (3000, 2000)


def saved(folder, family, mode, **changes):
    model = random_model(f"{family}ForSpeechClassification", pooling_mode=mode, num_labels=3, problem_type="regression")
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True, do_normalize=False).save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))
    return model


@torch.inference_mode()
@pytest.mark.parametrize(("family", "mode"), [("Wav2Vec2", "mean"), ("Hubert", "sum"), ("Wav2Vec2", "max")])
def test_numbers_are_those_of_the_pooled_frames_of_each_row_alone(tmp_path, family, mode):
    model = saved(tmp_path, family, mode)
    loaded, (waves, mask) = load_checkpoint(tmp_path), waves_and_mask(LENGTHS)
    assert type(loaded.model) is type(model)
    [run] = loaded.run(waves, mask.sum(1), hidden_states=False).heads.values()
    for row, length in enumerate(LENGTHS):
        frames = model.base_model(waves[row : row + 1, :length]).last_hidden_state
        head = model.classifier
        expected = head.out_proj(torch.tanh(head.dense(POOLED[mode](frames))))[0]
        for logits in (run.logits, model(waves, mask).logits):
            assert_close(logits[row], expected)


def test_a_layout_that_is_not_certain_is_refused_with_the_names(tmp_path):
    for changes, message in (
        ({"pooling_mode": "median"}, "pooling_mode is 'median', expected one of mean, sum, max"),
        ({"add_adapter": True}, "does not support add_adapter"),
        ({"architectures": ["Wav2Vec2ForSequenceClassification"]}, r"missing projector.*unexpected classifier\.dense"),
        ({"architectures": ["HubertForSpeechClassification"]}, "expected a list with one of"),
    ):
        saved(tmp_path, "Wav2Vec2", "mean", **changes)
        with pytest.raises(CheckpointError, match=message):
            check_checkpoint(tmp_path)
