"""Speech encoders and text decoders that are put together from checkpoints of their own."""

import pytest
import torch

from raysp import CheckpointError
from raysp.models import (
    AutoModel,
    AutoModelForCausalLM,
    BertConfig,
    SpeechEncoderDecoderModel,
    UniSpeechConfig,
)
from tests.models.decoder_oracles import BERT, save_parts, token_ids, waves_and_mask
from tests.models.oracles import TINY, transformers


def test_ready_parts_are_put_together_and_share_their_configuration():
    encoder = AutoModel.from_config(UniSpeechConfig(**TINY))
    decoder = AutoModelForCausalLM.from_config(BertConfig(**BERT, is_decoder=True, add_cross_attention=True))
    model = SpeechEncoderDecoderModel(encoder=encoder, decoder=decoder)
    assert model.encoder is encoder
    assert model.encoder.config is model.config.encoder
    assert model.decoder.config is model.config.decoder
    model.config.decoder.use_cache = False
    assert model(waves_and_mask()[0], decoder_input_ids=token_ids(3)).past_key_values is None
    model.config.encoder.layer_norm_eps = 0.5
    assert all(m.config is model.config.encoder for m in model.encoder.modules() if hasattr(m, "config"))


def test_checkpoints_are_put_together(tmp_path):
    encoder, decoder = save_parts(tmp_path)
    model = SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(
        encoder, decoder, encoder_layerdrop=0.5, decoder_hidden_dropout_prob=0.3, output_attentions=True
    )
    assert not model.training
    assert (model.config.encoder.layerdrop, model.config.decoder.hidden_dropout_prob) == (0.5, 0.3)
    assert model.config.output_attentions
    assert model.config.decoder.is_decoder
    assert model.config.decoder.add_cross_attention
    theirs = transformers.SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(str(encoder), str(decoder))
    assert model.state_dict().keys() == theirs.state_dict().keys()
    for name, value in theirs.state_dict().items():
        if "crossattention" not in name:
            assert torch.equal(model.state_dict()[name], value), name
    config = BertConfig.from_pretrained(decoder, is_decoder=True, add_cross_attention=True, layer_norm_eps=0.5)
    given = SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(encoder, decoder, decoder_config=config)
    assert given.config.decoder.layer_norm_eps == 0.5


def test_what_cannot_be_put_together_is_refused(tmp_path):
    encoder, decoder = save_parts(tmp_path)
    for parts, options, error, message in (
        ((None, decoder), {}, ValueError, "encoder_pretrained_model_name_or_path and encoder_model are None"),
        (
            (encoder, decoder),
            {"from_tf": True},
            ValueError,
            "from_tf=True given, which raysp does not take: `raysp con",
        ),
        ((encoder, encoder), {}, CheckpointError, "'unispeech', AutoModelForCausalLM expects one of bart"),
        ((decoder, decoder), {}, CheckpointError, "model_type is 'bert', AutoModel expects one of hubert"),
    ):
        with pytest.raises(error, match=message):
            SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(*parts, **options)
