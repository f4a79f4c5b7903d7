"""Checkpoints of pre-training: each opens as an encoder, and the check agrees with the loader on what is stored."""

import json

import pytest
import safetensors.torch
import torch
import transformers

from raysp import CheckpointError
from raysp.models import (
    SpeechEncoderDecoderModel,
    Wav2Vec2FeatureExtractor,
    check_checkpoint,
    load_checkpoint,
)
from tests.models.oracles import TINY, make_oracle
from tests.models.parity import assert_close

CODES = {"num_codevectors_per_group": 8, "codevector_dim": 16, "proj_codevector_dim": 32}
PRETRAINED = {
    "Wav2Vec2ForPreTraining": ("Wav2Vec2Model", ("project_hid", "project_q", "quantizer")),
    "UniSpeechForPreTraining": ("UniSpeechForPreTraining", ("ctc_proj", "project_hid", "project_q", "quantizer")),
}
OLD_NAMES = {"parametrizations.weight.original0": "weight_g", "parametrizations.weight.original1": "weight_v"}


def save_as_published(folder, name, keep=lambda tensors: tensors, **changes):
    """Write a random model of theirs with the names of weights and the files of published checkpoints."""
    theirs = make_oracle(name, **CODES)
    folder.mkdir(exist_ok=True)
    values = {**json.loads(theirs.config.to_json_string(use_diff=False)), "architectures": [name], **changes}
    (folder / "config.json").write_text(json.dumps(values))
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    tensors = {}
    for full, tensor in keep(theirs.state_dict()).items():
        for new, old in OLD_NAMES.items():
            full = full.replace(new, old)
        tensors[full] = tensor.clone()
    safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return theirs


def waves():
    return torch.randn(2, 3000, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_class_of_pre_training_opens_as_its_encoder(tmp_path, name):
    theirs = save_as_published(tmp_path, name)
    architecture, unused = PRETRAINED[name]
    summary = check_checkpoint(tmp_path)
    assert (summary.architecture, summary.gives) == (architecture, ("hidden_states",))
    assert summary.unused == unused
    loaded = load_checkpoint(tmp_path)
    features = loaded.feature_extractor.extract(waves(), torch.tensor([3000, 3000]))
    with torch.inference_mode():
        found = loaded.run(waves(), torch.tensor([3000, 3000]), hidden_states=True).encoded
        expected = theirs.base_model(**features, output_hidden_states=True)
    assert_close(found.last_hidden_state, expected.last_hidden_state)
    for ours, original in zip(found.hidden_states, expected.hidden_states, strict=True):
        assert_close(ours, original)


@pytest.mark.parametrize("name", PRETRAINED)
def test_an_encoder_that_lacks_a_layer_or_has_one_more_is_refused(tmp_path, name):
    save_as_published(tmp_path, name, num_hidden_layers=3)
    with pytest.raises(CheckpointError, match=r"missing \S*encoder\.layers\.2"):
        check_checkpoint(tmp_path)
    save_as_published(tmp_path, name, num_hidden_layers=1)
    with pytest.raises(CheckpointError, match=r"unexpected \S*encoder\.layers\.1"):
        check_checkpoint(tmp_path)


# Tied heads of text decoders, as published: under either name, or both


TIED = "decoder.lm_head.weight"
SOURCE = "decoder.model.decoder.embed_tokens.weight"


@pytest.fixture
def translator(tmp_path):
    """A wav2vec 2.0 encoder with mBART's decoder; returns the folder and their model."""
    decoder = transformers.MBartConfig(
        vocab_size=40, d_model=32, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=32,
        is_decoder=True, add_cross_attention=True,
    )  # fmt: skip
    encoder = transformers.Wav2Vec2Config(**TINY)
    config = transformers.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id = 2, 1
    theirs = transformers.SpeechEncoderDecoderModel(config).eval()
    theirs.save_pretrained(tmp_path)
    return tmp_path, theirs


def stored(folder, *names):
    """Write the tied head under these of its two names."""
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    value = tensors.get(SOURCE, tensors.get(TIED))
    tensors = {name: tensor for name, tensor in tensors.items() if name not in (TIED, SOURCE)}
    tensors |= {name: value.clone() for name in names}
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("names", [(TIED,), (SOURCE,), (TIED, SOURCE)], ids=["head", "embeddings", "both"])
def test_a_tied_head_opens_under_either_name_or_both(translator, names):
    folder, theirs = translator
    stored(folder, *names)
    with pytest.raises(CheckpointError, match=r"sentencepiece\.bpe\.model: not found"):  # the weights fit
        check_checkpoint(folder)
    model = SpeechEncoderDecoderModel.from_pretrained(folder, strict=True)
    assert not model.new_weights
    ids = torch.tensor([[2, 5, 7]])
    with torch.inference_mode():
        expected = theirs(waves()[:1], decoder_input_ids=ids).logits
        assert_close(model(waves()[:1], decoder_input_ids=ids).logits, expected)


@pytest.mark.parametrize("read", [check_checkpoint, SpeechEncoderDecoderModel.from_pretrained])
def test_a_tied_head_under_neither_name_or_with_two_values_is_refused(translator, read):
    folder, _ = translator
    stored(folder, TIED, SOURCE)
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors[TIED][-1, -1] += 1e-3
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"{TIED} and {SOURCE} hold different values.*set it to false"):
        read(folder)
    stored(folder)
    with pytest.raises(CheckpointError, match=rf"missing {SOURCE}; unexpected none"):
        read(folder)
