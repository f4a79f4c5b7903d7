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
from tests.models.decoder_oracles import (
    BERT,
    assert_close,
    save_parts,
    token_ids,
    waves_and_mask,
)
from tests.models.oracles import TINY, make_oracle, transformers


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


@pytest.fixture(scope="module")
def adaptable(tmp_path_factory):
    """Folders of encoders by their kind, with hidden_size 32, and of a BERT of that width and of a narrower one."""
    folder = tmp_path_factory.mktemp("adaptable")
    make_oracle("Wav2Vec2ForCTC").save_pretrained(folder / "wav2vec2")
    sizes = {name: TINY[name] for name in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    config = transformers.Wav2Vec2BertConfig(**sizes, intermediate_size=48, feature_projection_input_dim=10)
    transformers.Wav2Vec2BertModel(config).save_pretrained(folder / "wav2vec2-bert")
    for width in (24, 32):
        decoder = transformers.BertModel(transformers.BertConfig(**{**BERT, "hidden_size": width}))
        decoder.save_pretrained(folder / f"bert of {width}")
    return folder


@pytest.mark.parametrize(
    ("encoder", "overrides", "drawn"),
    [
        ("wav2vec2", {"add_adapter": True, "num_adapter_layers": 1, "output_hidden_size": 24}, "adapter."),
        ("wav2vec2", {"num_hidden_layers": 3, "adapter_attn_dim": 4, "do_stable_layer_norm": True}, "encoder.layers."),
        ("wav2vec2-bert", {"add_adapter": True, "use_intermediate_ffn_before_adapter": True}, "intermediate_ffn."),
    ],
)
def test_what_an_override_adds_to_an_encoder_is_drawn(adaptable, encoder, overrides, drawn, caplog):
    # Theirs fails where an adapter's frames, or else the encoder's, are not as wide as it takes them to be.
    width = overrides.get("output_hidden_size", 32) if "add_adapter" in overrides else 32
    paths = adaptable / encoder, adaptable / f"bert of {width}"
    prefixed = {f"encoder_{name}": value for name, value in overrides.items()}
    model = SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(*paths, **prefixed)
    assert "randomly initialised, train them before use" in caplog.text
    theirs = transformers.SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(*map(str, paths), **prefixed).eval()
    expected = {name: value.shape for name, value in theirs.state_dict().items()}
    assert {name: value.shape for name, value in model.state_dict().items()} == expected
    new = AutoModel.from_pretrained(paths[0], **overrides).new_weights
    assert any(drawn in name for name in new)
    drawn_names = {f"encoder.{name}" for name in new}
    for name, value in theirs.encoder.state_dict(prefix="encoder.").items():
        ours = model.state_dict()[name]
        assert ours.isfinite().all() if name in drawn_names else torch.equal(ours, value), name
    model.load_state_dict(theirs.state_dict())
    inputs = torch.randn(2, 50, 10) if encoder == "wav2vec2-bert" else torch.randn(2, 1500)
    with torch.inference_mode():
        found, expected = (one(inputs, decoder_input_ids=token_ids(2)).logits for one in (model, theirs))
    assert_close(found, expected)


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
        (
            (encoder, encoder),
            {},
            CheckpointError,
            "model_type is 'unispeech', AutoModelForCausalLM expects one of bart",
        ),
        ((decoder, decoder), {}, CheckpointError, "model_type is 'bert', AutoModel expects one of hubert"),
    ):
        with pytest.raises(error, match=message):
            SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(*parts, **options)
