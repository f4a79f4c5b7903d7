import copy

import pytest
import safetensors.torch
import torch

from raysp import CheckpointError, models
from raysp.models import AutoModel, SpeechEncoderDecoderModel
from tests.models.cases import width_of
from tests.models.decoder_oracles import (
    BERT,
    LENGTHS,
    VOCAB,
    assert_close,
    make_speech_model,
    save_pair,
    save_parts,
    token_ids,
    waves_and_mask,
)
from tests.models.oracles import TINY, fields_of, transformers
from tests.models.parity import assert_equal_gradients, check_names, inputs_and_mask


@pytest.fixture(scope="module", params=["bert", "gpt2", "another width"])
def pair(request, tmp_path_factory):
    """Their model of a decoder, and ours; frames of another width than the decoder's are projected."""
    is_narrow = request.param == "another width"
    oracle = make_speech_model("bart", d_model=24) if is_narrow else make_speech_model(request.param)
    return save_pair(oracle, tmp_path_factory.mktemp("pair"))


@pytest.fixture(scope="module")
def bart(tmp_path_factory):
    return save_pair(make_speech_model("bart"), tmp_path_factory.mktemp("one"))


# Against transformers


def labels_of():
    labels = token_ids(3, 6)
    labels[1, 4:] = -100
    return labels


def test_outputs_equal_theirs_and_checkpoints_go_both_ways(pair, tmp_path):
    oracle, model = pair
    waves, mask = waves_and_mask()
    asked = {"labels": labels_of(), "output_hidden_states": True, "output_attentions": True}
    for masks in ({}, {"attention_mask": mask}):
        with torch.inference_mode():
            ours, theirs = model(waves, **masks, **asked), oracle(waves, **masks, **asked)
        assert [*ours] == ["past_key_values" if name == "cache" else name for name in theirs]
        assert_close(ours.loss, theirs.loss)
        assert_close(ours.logits, theirs.logits)
        for name in ("decoder_hidden_states", "decoder_attentions", "cross_attentions", "encoder_last_hidden_state"):
            assert_close(ours[name], theirs[name])
        assert len(ours.encoder_attentions) == len(theirs.encoder_attentions) == 2
        if not masks:
            assert_close(ours.encoder_hidden_states, theirs.encoder_hidden_states)
    check_names(oracle, model, tmp_path)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert not model.tied_weights().keys() & safetensors.torch.load_file(tmp_path / "model.safetensors").keys()


def test_gradients_equal_theirs(tmp_path):
    flags = {"dropout": 0.0, "attention_dropout": 0.0}
    quiet = dict.fromkeys(("hidden_dropout", "activation_dropout", "attention_dropout", "layerdrop"), 0.0)
    encoder_flags = {**quiet, "apply_spec_augment": False}
    oracle, model = save_pair(make_speech_model("bart", encoder_flags=encoder_flags, **flags), tmp_path)
    waves, mask = waves_and_mask()
    model.freeze_feature_encoder()
    oracle.encoder.feature_extractor._freeze_parameters()  # their UniSpeech lacks the method that is to call this
    for side in (oracle.train(), model.train()):
        side(waves, attention_mask=mask, labels=labels_of()).loss.backward()
    assert_equal_gradients(model, oracle, 1e-3)
    assert all(one.grad is None for one in model.encoder.feature_extractor.parameters())


# What the pages promise of forward


@torch.inference_mode()
def test_inputs_have_three_names_and_encoder_outputs_stand_for_them(bart):
    _, model = bart
    waves, mask = waves_and_mask()
    ids = token_ids(3, 6)
    expected = model(waves, mask, ids).logits
    for name in ("inputs", "input_values", "input_features"):
        found = model(**{name: waves}, attention_mask=mask, decoder_input_ids=ids)
        assert torch.equal(found.logits, expected)
    encoded = model.encoder(waves, attention_mask=mask, output_hidden_states=True)
    theirs = transformers.modeling_outputs.Wav2Vec2BaseModelOutput(**encoded)
    for outputs in (encoded, (encoded.last_hidden_state, encoded.hidden_states), theirs, dict(theirs)):
        found = model(encoder_outputs=outputs, attention_mask=mask, decoder_input_ids=ids)
        assert torch.equal(found.logits, expected)
        assert len(found.encoder_hidden_states or ()) == 3
    tokens = model.generate(encoder_outputs=theirs, attention_mask=mask)
    assert torch.equal(tokens, model.generate(waves, mask))
    for wrong in ({}, {"inputs": waves, "input_values": waves}):
        with pytest.raises(ValueError, match="of inputs, input_values and input_features given, expected one"):
            model(**wrong, decoder_input_ids=ids)


@torch.inference_mode()
def test_embeddings_masks_and_keywords_reach_their_part(bart, tmp_path):
    oracle, model = bart
    waves, mask = waves_and_mask()
    ids = token_ids(3, 6)
    embeds = model.get_input_embeddings()(ids)
    assert_close(model(waves, mask, decoder_inputs_embeds=embeds).logits, model(waves, mask, ids).logits)
    id_mask = torch.ones_like(ids)
    id_mask[0, :3] = 0
    ours = model(waves, mask, ids, decoder_attention_mask=id_mask)
    theirs = oracle(waves, mask, ids, decoder_attention_mask=id_mask)
    assert_close(ours.logits[1:], theirs.logits[1:])
    assert_close(ours.logits[0, 3:], theirs.logits[0, 3:])  # before that a token has nothing to attend to
    frames = model.encoder.num_frames(1000)
    hidden = torch.zeros(3, frames, dtype=torch.bool)
    hidden[:, 1] = True
    seen = model(waves, mask, ids, mask_time_indices=hidden)
    assert_close(seen.logits, oracle(waves, mask, ids, mask_time_indices=hidden).logits)
    assert not torch.allclose(seen.logits, model(waves, mask, ids).logits)
    _, bert = save_pair(make_speech_model("bert"), tmp_path)
    types = torch.ones_like(ids)
    typed = bert(waves, mask, ids, decoder_token_type_ids=types)
    assert not torch.allclose(typed.logits, bert(waves, mask, ids).logits)


@torch.inference_mode()
def test_return_dict_false_gives_a_tuple_and_the_configuration_can_ask(bart):
    model = copy.deepcopy(bart[1])
    waves, mask = waves_and_mask()
    named = model(waves, mask, labels=labels_of())
    plain = model(waves, mask, labels=labels_of(), return_dict=False)
    assert isinstance(plain, tuple)
    assert torch.equal(plain[0], named.loss)
    assert torch.equal(plain[1], named.logits)
    model.config.return_dict = False
    assert isinstance(model(waves, mask, labels=labels_of()), tuple)
    model.config.return_dict = True
    model.config.output_attentions = model.config.output_hidden_states = True
    asked = model(waves, mask, labels=labels_of())
    assert len(asked.cross_attentions) == len(asked.decoder_attentions) == len(asked.encoder_attentions) == 2
    frames = asked.encoder_last_hidden_state.shape[1]
    assert asked.cross_attentions[0].shape == (3, 4, 6, frames)
    assert len(asked.decoder_hidden_states) == len(asked.encoder_hidden_states) == 3


def test_labels_are_shifted_and_need_their_tokens(bart):
    model = copy.deepcopy(bart[1])
    labels = torch.tensor([[7, 8, -100]])
    assert model.prepare_decoder_input_ids_from_labels(labels).tolist() == [[3, 7, 8]]
    assert model.prepare_decoder_input_ids_from_labels(torch.tensor([[7, -100, -100]])).tolist() == [[3, 7, 1]]
    waves, _ = waves_and_mask((500,))
    with pytest.raises(ValueError, match=f"label {VOCAB} found, expected below vocab_size {VOCAB}"):
        model(waves, labels=torch.tensor([[5, VOCAB]]))
    model.config.pad_token_id = None
    with pytest.raises(ValueError, match=r"config\.pad_token_id is None, expected the padding token of texts"):
        model(waves, labels=labels)
    model.config.decoder_start_token_id = None
    with pytest.raises(ValueError, match=r"config\.decoder_start_token_id is None, expected the start token of texts"):
        model(waves, labels=labels)


# Making one


def test_a_configuration_is_made_of_two_and_read_by_theirs(tmp_path):
    encoder, decoder = models.UniSpeechConfig(**TINY), models.BertConfig(**BERT)
    config = models.SpeechEncoderDecoderConfig(encoder=encoder, decoder=decoder)
    assert (config.encoder, config.decoder, config.decoder.is_decoder) == (encoder, decoder, False)
    config = models.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder, decoder_start_token_id=4)
    assert config.decoder.is_decoder
    assert config.decoder.add_cross_attention
    config.save_pretrained(tmp_path)
    assert models.AutoConfig.from_pretrained(tmp_path) == config
    theirs = transformers.SpeechEncoderDecoderConfig.from_pretrained(tmp_path)
    assert (theirs.decoder_start_token_id, theirs.decoder.hidden_size, theirs.encoder.hidden_size) == (4, 32, 32)
    assert type(theirs.encoder).__name__ == "UniSpeechConfig"


def test_ready_parts_are_put_together_and_share_their_configuration():
    encoder = AutoModel.from_config(models.UniSpeechConfig(**TINY))
    decoder = models.AutoModelForCausalLM.from_config(
        models.BertConfig(**BERT, is_decoder=True, add_cross_attention=True)
    )
    model = SpeechEncoderDecoderModel(encoder=encoder, decoder=decoder)
    assert model.encoder is encoder
    assert model.decoder.config is model.config.decoder
    model.config.decoder.use_cache = False
    assert model(waves_and_mask()[0], decoder_input_ids=token_ids(3)).past_key_values is None
    model.config.encoder.layer_norm_eps = 0.5
    assert all(m.config is model.config.encoder for m in model.encoder.modules() if hasattr(m, "config"))


def test_parts_that_cannot_be_put_together_are_refused(bart, tmp_path):
    encoder, decoder = save_parts(tmp_path)
    config, narrow, model = models.UniSpeechConfig(**TINY), models.BertConfig(**BERT), bart[1]
    narrow.cross_attention_hidden_size = 20
    of_folders = SpeechEncoderDecoderModel.from_encoder_decoder_pretrained
    of_configs = models.SpeechEncoderDecoderConfig
    with pytest.raises(ValueError, match="encoder_pretrained_model_name_or_path and encoder_model are None"):
        of_folders(None, decoder)
    with pytest.raises(ValueError, match="from_tf=True given, which raysp does not take"):
        of_folders(encoder, decoder, from_tf=True)
    for call, message in (
        (lambda: of_folders(encoder, encoder), "'unispeech', AutoModelForCausalLM expects one of bart"),
        (lambda: of_folders(decoder, decoder), "model_type is 'bert', AutoModel expects one of hubert"),
        (lambda: of_configs(encoder=config, decoder={"model_type": "t5"}), "decoder has model_type 't5', expected one"),
        (
            lambda: of_configs(encoder={"model_type": "x"}, decoder=narrow),
            "encoder has model_type 'x', expected one of",
        ),
        (
            lambda: of_configs.from_encoder_decoder_configs(config, narrow),
            "cross_attention_hidden_size is 20, expected",
        ),
        (
            lambda: SpeechEncoderDecoderModel(model.config, model.decoder),
            "encoder is BartForCausalLM, expected a speech",
        ),
        (
            lambda: SpeechEncoderDecoderModel(model.config, *[model.encoder] * 2),
            "decoder is UniSpeechModel, expected a",
        ),
    ):
        with pytest.raises(CheckpointError, match=message):
            call()


@pytest.mark.parametrize("name", ["HubertModel", "SEWDModel", "UniSpeechModel", "Wav2Vec2Model", "Wav2Vec2BertModel"])
def test_every_encoder_of_the_table_goes_with_a_decoder(name, tmp_path):
    encoder = getattr(models, name).config_class(**fields_of(name, {"num_hidden_layers": 1}))
    config = models.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        encoder, models.BertConfig(**BERT), decoder_start_token_id=3, pad_token_id=0
    )
    model = SpeechEncoderDecoderModel(config).eval()
    inputs, mask = inputs_and_mask(LENGTHS if width_of(name) is None else (40, 25, 31), width_of(name))
    expected = model.generate(inputs, mask, max_new_tokens=5)
    assert model(inputs, mask, labels=labels_of()).loss.isfinite()
    model.save_pretrained(tmp_path)
    assert torch.equal(AutoModel.from_pretrained(tmp_path).generate(inputs, mask, max_new_tokens=5), expected)
    length = int(mask[1].sum())
    alone = model.generate(inputs[1:2, :length], mask[1:2, :length], max_new_tokens=5)
    assert alone[0].tolist() == expected[1][: alone.shape[1]].tolist()
