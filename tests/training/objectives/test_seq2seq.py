"""Training of encoders with decoders: the loss of tokens, warm starts, and texts that `generate` writes afterwards."""

import pytest
import torch

from raysp import CheckpointError
from raysp.models import SpeechEncoderDecoderModel, TextTokenizer, Wav2Vec2FeatureExtractor
from raysp.text.error_rates import TextRules
from raysp.text.targets import OUTSIDE
from raysp.training.objectives.seq2seq_task import (
    TokenTargets,
    special_ids,
)
from raysp.training.objectives.starting_model import freeze
from tests.models.oracles import make_oracle, transformers
from tests.training.criteria import encoder_decoder, seq2seq_criterion
from tests.training.objectives.originals import decoder_pair, extractor_of, random_batch, save_decoder

EXTRACTOR = Wav2Vec2FeatureExtractor(return_attention_mask=True)


@pytest.fixture(scope="module", params=["bert", "gpt2", "bart"])
def parts(request, tmp_path_factory):
    """An encoder with a CTC head, and a text model with its tokenizer."""
    folder = tmp_path_factory.mktemp("parts")
    make_oracle(feat_extract_norm="layer").save_pretrained(folder / "encoder")
    decoder = save_decoder(request.param, folder / "decoder")
    return request.param, folder / "encoder", decoder, TextTokenizer.from_pretrained(decoder)


def test_a_text_with_a_special_token_of_the_decoder_is_left_out(parts):
    kind, _, _, tokenizer = parts
    config = {"bert": {}, "gpt2": {}, "bart": {"decoder_start_token_id": 2}}[kind]
    special = special_ids(tokenizer, type("Config", (), config)())
    targets = TokenTargets(TextRules(), tokenizer, special, most=64)
    assert tokenizer.all_special_tokens
    for token in tokenizer.all_special_tokens:
        assert targets(f"the {token} cat") == ((), OUTSIDE)
    assert targets("the cat").reason == ""


def test_prompt_tokens_begin_every_text(parts, tmp_path):
    _, encoder, decoder, tokenizer = parts
    prompt = ["t", "h"]
    model = encoder_decoder(encoder, tokenizer, decoder=decoder, prompt_tokens=prompt)
    ids = [tokenizer.get_vocab()[token] for token in prompt]
    tokens = TokenTargets(TextRules(), tokenizer, special_ids(tokenizer, model.config), 64, prompt)
    assert tokens.ids("the")[:2] == ids
    wave = torch.randn(1, 4000)
    assert model.eval().generate(wave, max_new_tokens=3)[0, 1] == ids[0]
    with pytest.raises(CheckpointError, match=r"'<xx>': not in the decoder's vocabulary"):
        encoder_decoder(encoder, tokenizer, decoder=decoder, prompt_tokens=["<xx>"])


def test_both_libraries_generate_the_same_after_a_warm_start(parts, tmp_path):
    _, encoder, decoder, tokenizer = parts
    model = encoder_decoder(encoder, tokenizer, decoder=decoder, generate={"max_new_tokens": 12}).eval()
    model.save_pretrained(tmp_path)
    theirs = transformers.SpeechEncoderDecoderModel.from_pretrained(tmp_path)
    wave = torch.randn(2, 4000, generator=torch.Generator().manual_seed(0))
    mine = model.generate(wave)
    assert mine.tolist() == theirs.generate(wave).tolist()
    again = SpeechEncoderDecoderModel.from_pretrained(tmp_path)
    assert again.generate(wave).tolist() == mine.tolist()


def test_a_whole_checkpoint_keeps_its_options_and_takes_those_given(parts, tmp_path):
    _, encoder, decoder, tokenizer = parts
    first = encoder_decoder(encoder, tokenizer, decoder=decoder, generate={"num_beams": 3, "max_length": 40})
    first.save_pretrained(tmp_path)
    masks = {"mask_time_prob": 0.3, "layerdrop": 0.25}
    again = encoder_decoder(tmp_path, tokenizer, masks=masks, generate={"max_length": 30})
    assert (again.generation_config.num_beams, again.generation_config.max_length) == (3, 30)
    config = again.encoder.config
    assert (config.mask_time_prob, config.layerdrop) == (0.3, 0.25)
    for name, weight in first.stored_weights().items():
        assert torch.equal(again.state_dict()[name], weight), name


@pytest.mark.parametrize("part", ["feature_encoder", "encoder"])
def test_a_frozen_part_has_no_gradients_and_all_else_has(part):
    _, model = decoder_pair("wav2vec2 group", "bart")
    freeze(model, part)
    frozen = {id(one) for one in model.parameters() if not one.requires_grad}
    assert frozen
    seq2seq_criterion(model, extractor_of("wav2vec2 group"))(random_batch([[4, 5, 2]])).total.backward()
    for name, one in model.named_parameters():
        if "masked_spec_embed" not in name:
            assert (one.grad is None) == (id(one) in frozen), name


def losses_of(model, targets, **options):
    return seq2seq_criterion(model, EXTRACTOR, **options)(random_batch(targets))


@pytest.fixture(scope="module")
def model():
    return decoder_pair("wav2vec2 layer", "bart")[1]


def test_rows_without_tokens_have_no_loss(model):
    losses = losses_of(model, [[], [4, 2]])
    assert (losses.rows_B[0].item(), losses.count) == (0.0, 2)
    empty = losses_of(model, [[], []])
    assert (empty.total.item(), empty.count) == (0.0, 0)
    empty.total.backward()
    assert all(not one.grad.any() for one in model.parameters() if one.grad is not None)
    model.zero_grad()
