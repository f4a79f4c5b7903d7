"""The processor and the texts of Parakeet are those of transformers; what does not fit its model is refused."""

import pytest
import torch
import transformers

from raysp import CheckpointError, models
from tests.models.features.test_features import WAVES
from tests.models.tokenizers.word_pieces import save_parakeet


def test_a_checkpoint_is_read_by_both(tmp_path):
    save_parakeet(tmp_path)
    ours, theirs = (library.AutoProcessor.from_pretrained(tmp_path) for library in (models, transformers))
    assert (type(ours), type(ours.tokenizer)) == (models.ParakeetProcessor, models.ParakeetTokenizer)
    assert type(models.AutoTokenizer.from_pretrained(tmp_path)) is models.ParakeetTokenizer
    given = {"audio": WAVES[:2], "text": ["the cat sat", "on the mat."], "sampling_rate": 16000}
    found, expected = ours(**given), theirs(**given)
    assert torch.equal(found.pop("labels"), expected.pop("labels"))
    model = models.ParakeetForCTC.from_pretrained(tmp_path)
    ids = model.generate(**found)
    assert torch.equal(ids, transformers.ParakeetForCTC.from_pretrained(tmp_path).generate(**expected))
    assert (ids[1, model.num_frames(len(WAVES[1])) :] == model.config.pad_token_id).all()
    more = model.generate(**found, return_dict_in_generate=True, output_hidden_states=True)
    assert [*more] == ["sequences", "logits", "hidden_states"]
    assert torch.equal(more.sequences, ids)
    assert ours.batch_decode(ids) == theirs.batch_decode(ids)
    assert len({*ours.batch_decode(ids)}) == 2


def test_features_and_tokens_that_do_not_fit_the_model_are_refused(tmp_path):
    save_parakeet(tmp_path, vocab_size=25)
    with pytest.raises(CheckpointError, match="tokenizer has 20 tokens, but the head has 25 classes"):
        models.check_checkpoint(tmp_path)
    save_parakeet(tmp_path)
    models.ParakeetFeatureExtractor(feature_size=80).save_pretrained(tmp_path)
    (tmp_path / "processor_config.json").unlink()
    with pytest.raises(CheckpointError, match="80 mel bins every 160 samples, the model expects num_mel_bins 16"):
        models.check_checkpoint(tmp_path)
