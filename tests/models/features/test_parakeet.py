"""Features, tokenizer and processor of Parakeet against transformers."""

import numpy as np
import pytest
import torch
import transformers

from raysp import CheckpointError, models
from tests.models.parity import assert_close
from tests.models.tokenizers.word_pieces import save_parakeet

LENGTHS = (16000, 9037, 1601, 4800)


def waves(scale=0.1):
    generator = np.random.default_rng(0)
    noise = [scale * generator.standard_normal(length) for length in LENGTHS]
    return [(wave * np.sin(np.arange(len(wave)) / 3000)).astype(np.float32) for wave in noise]


@pytest.fixture
def checkpoint(tmp_path):
    save_parakeet(tmp_path)
    return tmp_path


def test_a_checkpoint_is_read_by_both(checkpoint):
    ours = models.AutoProcessor.from_pretrained(checkpoint)
    theirs = transformers.AutoProcessor.from_pretrained(checkpoint)
    assert (type(ours), type(ours.tokenizer)) == (models.ParakeetProcessor, models.ParakeetTokenizer)
    assert type(theirs).__name__ == "ParakeetProcessor"
    assert type(models.AutoTokenizer.from_pretrained(checkpoint)) is models.ParakeetTokenizer
    audio = waves()
    found, expected = ours(audio, sampling_rate=16000), theirs(audio, sampling_rate=16000)
    assert_close(found["input_features"], expected["input_features"])
    texts = ["the cat sat", "on the mat."]
    labelled = ours(audio[:2], text=texts, sampling_rate=16000)["labels"]
    assert torch.equal(labelled, theirs(audio[:2], text=texts, sampling_rate=16000)["labels"])
    model, original = (
        models.ParakeetForCTC.from_pretrained(checkpoint),
        transformers.ParakeetForCTC.from_pretrained(checkpoint),
    )
    ids = model.generate(**found)
    assert torch.equal(ids, original.generate(**expected))
    assert (ids[2, model.num_frames(1601) :] == model.config.pad_token_id).all()
    more = model.generate(**found, return_dict_in_generate=True, output_hidden_states=True)
    assert [*more] == ["sequences", "logits", "hidden_states"]
    assert torch.equal(more.sequences, ids)
    assert ours.batch_decode(ids) == theirs.batch_decode(ids)
    assert len({*ours.batch_decode(ids)}) > 2


def test_features_and_tokens_that_do_not_fit_the_model_are_refused(tmp_path):
    save_parakeet(tmp_path, vocab_size=25)
    with pytest.raises(CheckpointError, match="tokenizer has 20 tokens, but the head has 25 classes"):
        models.check_checkpoint(tmp_path)
    save_parakeet(tmp_path)
    models.ParakeetFeatureExtractor(feature_size=80).save_pretrained(tmp_path)
    (tmp_path / "processor_config.json").unlink()
    with pytest.raises(CheckpointError, match="80 mel bins every 160 samples, the model expects num_mel_bins 16"):
        models.check_checkpoint(tmp_path)
