"""Encoders and text decoders in JAX against their sisters in PyTorch."""

import pytest
import torch

import raysp.models
from tests.models.encoder.test_pretraining_classes import save_as_published
from tests.models.flax.sisters import (
    DECODERS,
    ENCODERS,
    assert_close,
    assert_same_weights,
    save_decoder,
    save_encoder,
    token_ids,
    waves_and_mask,
)
from tests.soaked import some


@pytest.mark.slow
@pytest.mark.parametrize("kind", some(ENCODERS, "wav2vec2 adapters"))
def test_rows_of_a_padded_batch_equal_those_of_the_sister_in_pytorch(kind, tmp_path):
    sister = save_encoder(tmp_path, kind)
    model = raysp.models.FlaxAutoModel.from_pretrained(tmp_path)
    waves, mask = waves_and_mask()
    flags = {"output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        theirs = sister(waves, attention_mask=mask, **flags)
    ours = model(waves.numpy(), mask.numpy(), **flags)
    assert ours.keys() == theirs.keys()
    last, hidden = (
        counts_of(mask.sum(-1)) for counts_of in (sister._get_feat_extract_output_lengths, sister.num_hidden_frames)
    )
    for name in theirs:
        counts = last if name == "last_hidden_state" else hidden
        for mine, value in zip(*(x if isinstance(x, tuple) else (x,) for x in (ours[name], theirs[name])), strict=True):
            assert mine.shape == value.shape, name
            for row, count in enumerate(counts.tolist() if name != "extract_features" else ()):
                places = (row, slice(None), slice(count), slice(count)) if mine.ndim == 4 else (row, slice(count))
                assert_close(mine[places], value[places])
    assert model(waves.numpy(), return_dict=False)[0].shape == theirs[0].shape


@pytest.mark.slow
@pytest.mark.parametrize("kind", DECODERS)
def test_a_text_decoder_equals_its_sister_in_pytorch(kind, tmp_path):
    sister = save_decoder(tmp_path, kind, is_decoder=True)
    model = raysp.models.FlaxAutoModelForCausalLM.from_pretrained(tmp_path)
    ids, mask = token_ids(), torch.ones(3, 7, dtype=torch.long)
    mask[1, 5:] = 0
    with torch.no_grad():
        theirs = sister(ids, mask, output_hidden_states=True, use_cache=False)
    ours = model(ids.numpy(), mask.numpy(), output_hidden_states=True)
    assert ours.keys() == theirs.keys()
    assert_close(ours.logits, theirs.logits)
    for mine, value in zip(ours.hidden_states, theirs.hidden_states, strict=True):
        assert_close(mine, value)
    model.save_pretrained(tmp_path / "again")
    assert_same_weights(sister, type(sister).from_pretrained(tmp_path / "again"))


@pytest.mark.slow
def test_a_text_decoder_attends_to_frames(tmp_path):
    sister = save_decoder(tmp_path, "gpt2", add_cross_attention=True)
    model = raysp.models.FlaxAutoModelForCausalLM.from_pretrained(tmp_path)
    frames, mask = torch.randn(3, 5, 12), torch.ones(3, 5, dtype=torch.long)
    mask[2, 3:] = 0
    with torch.no_grad():
        theirs = sister(token_ids(), encoder_hidden_states=frames, encoder_attention_mask=mask).logits
    named = {"encoder_hidden_states": frames.numpy(), "encoder_attention_mask": mask.numpy()}
    assert_close(model(token_ids().numpy(), **named).logits, theirs)


def test_a_checkpoint_of_pre_training_opens_as_its_encoder_with_a_warning(tmp_path, caplog):
    theirs = save_as_published(tmp_path, "Wav2Vec2ForPreTraining")
    model = raysp.models.FlaxAutoModel.from_pretrained(tmp_path)
    assert "not used by Wav2Vec2Model: project_hid, project_q, quantizer" in caplog.text
    assert not model.new_weights
    stored = theirs.state_dict()["wav2vec2.encoder.layers.1.attention.k_proj.weight"]
    assert_close(model.params["encoder"]["layers"]["1"]["attention"]["k_proj"]["kernel"], stored.T)


@pytest.mark.parametrize("kind", ENCODERS)
def test_weights_written_by_the_flax_class_are_those_of_pytorch(kind, tmp_path):
    sister = save_encoder(tmp_path / "one", kind)
    raysp.models.FlaxAutoModel.from_pretrained(tmp_path / "one", from_pt=True).save_pretrained(tmp_path / "two")
    assert_same_weights(sister, type(sister).from_pretrained(tmp_path / "two", strict=True))


def test_wrong_inputs_are_refused(tmp_path):
    model = raysp.models.FlaxWav2Vec2Model(save_encoder(tmp_path, "wav2vec2").config, _do_init=False)
    waves, mask = waves_and_mask()
    with pytest.raises(ValueError, match=r"shape \(900,\), expected \(B, S\) samples"):
        model(waves[0].numpy())
    with pytest.raises(ValueError, match="input has 10 samples, the model needs at least 45"):
        model(waves[:, :10].numpy())
    with pytest.raises(ValueError, match=r"attention_mask has shape \(3, 800\), expected \(3, 900\)"):
        model(waves.numpy(), mask[:, :800].numpy())
    with pytest.raises(ValueError, match="train=True without dropout_rng, expected a key"):
        model(waves.numpy(), params={}, train=True)
    with pytest.raises(ValueError, match="the model has no parameters"):
        model(waves.numpy())
