import pytest
import torch

import raysp.models
from tests.models.encoder.test_pretraining_classes import save_as_published
from tests.models.flax.sisters import (
    ENCODERS,
    assert_close,
    assert_same_weights,
    features_and_mask,
    save_encoder,
    waves_and_mask,
)

FREQUENT = ("sew-d", "wav2vec2-bert relative")
"""Those that `make test` compiles alone; others have a head or a decoder there."""


@pytest.fixture(params=ENCODERS)
def kind(request):
    return request.param


def inputs_of(model):
    return features_and_mask() if model.input_axes.count(",") == 2 else waves_and_mask()


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[] if kind in FREQUENT else pytest.mark.soak) for kind in ENCODERS]
)
def test_rows_of_a_padded_batch_equal_those_of_the_sister_in_pytorch(kind, tmp_path):
    sister = save_encoder(tmp_path, kind)
    model = raysp.models.FlaxAutoModel.from_pretrained(tmp_path)
    inputs, mask = inputs_of(sister)
    flags = {"output_hidden_states": True, "output_attentions": True}
    with torch.no_grad():
        theirs = sister(inputs, attention_mask=mask, **flags)
    ours = model(inputs.numpy(), mask.numpy(), **flags)
    assert ours.keys() == theirs.keys()
    lengths = mask.sum(-1)
    last = sister._get_feat_extract_output_lengths(lengths)
    hidden = lengths if inputs.dim() == 3 else sister.num_hidden_frames(lengths)
    for name in theirs.keys():  # noqa: SIM118 - values are iterated otherwise
        counts = last if name == "last_hidden_state" else hidden
        for mine, value in zip(*(x if isinstance(x, tuple) else (x,) for x in (ours[name], theirs[name])), strict=True):
            assert mine.shape == value.shape, name
            for row, count in enumerate(counts.tolist() if name != "extract_features" else ()):
                places = (row, slice(None), slice(count), slice(count)) if mine.ndim == 4 else (row, slice(count))
                assert_close(mine[places], value[places])


def test_a_checkpoint_of_pre_training_opens_as_its_encoder_with_a_warning(tmp_path, caplog):
    theirs = save_as_published(tmp_path, "Wav2Vec2ForPreTraining")
    model = raysp.models.FlaxAutoModel.from_pretrained(tmp_path)
    assert "not used by Wav2Vec2Model: project_hid, project_q, quantizer" in caplog.text
    assert not model.new_weights
    stored = theirs.state_dict()["wav2vec2.encoder.layers.1.attention.k_proj.weight"]
    assert_close(model.params["encoder"]["layers"]["1"]["attention"]["k_proj"]["kernel"], stored.T)
    with_head = raysp.models.FlaxAutoModelForCTC.from_pretrained(tmp_path)
    assert with_head.new_weights == {"lm_head.weight", "lm_head.bias"}
    assert "randomly initialised, train them before use: lm_head.bias, lm_head.weight" in caplog.text


def test_weights_written_by_the_flax_class_are_those_of_pytorch(kind, tmp_path):
    sister = save_encoder(tmp_path / "one", kind)
    raysp.models.FlaxAutoModel.from_pretrained(tmp_path / "one", from_pt=True).save_pretrained(tmp_path / "two")
    assert_same_weights(sister, type(sister).from_pretrained(tmp_path / "two", strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["unispeech", "wav2vec2-bert"])
def test_a_ctc_head_equals_its_sister_in_pytorch(kind, tmp_path):
    sister = save_encoder(tmp_path, kind, "ForCTC")
    model = raysp.models.FlaxAutoModelForCTC.from_pretrained(tmp_path)
    inputs, mask = inputs_of(sister)
    with torch.no_grad():
        theirs = sister(inputs, attention_mask=mask).logits
    assert_close(model(inputs.numpy(), mask.numpy()).logits, theirs)
    assert model(inputs.numpy(), return_dict=False)[0].shape == theirs.shape


def test_wrong_inputs_are_refused(tmp_path):
    model = raysp.models.FlaxWav2Vec2Model(save_encoder(tmp_path, "wav2vec2").config, _do_init=False)
    waves, mask = waves_and_mask()
    with pytest.raises(ValueError, match=r"shape \(900,\), expected \(B, S\): add the batch axis"):
        model(waves[0].numpy())
    with pytest.raises(ValueError, match="input has 10 samples, the model needs at least 45"):
        model(waves[:, :10].numpy())
    with pytest.raises(ValueError, match=r"attention_mask has shape \(3, 800\), expected \(3, 900\)"):
        model(waves.numpy(), mask[:, :800].numpy())
    with pytest.raises(ValueError, match="train=True without dropout_rng, expected a key"):
        model(waves.numpy(), params={}, train=True)
    with pytest.raises(ValueError, match="the model has no parameters"):
        model(waves.numpy())
