import numpy as np
import pytest
import torch

import raysp.models
from tests.models.flax.sisters import DECODERS, speech_encoder_decoder, token_ids, waves_and_mask
from tests.soaked import some

pytestmark = pytest.mark.slow

BEAMS = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 9}
OPTIONS = {
    "greedy": {"max_new_tokens": 9},
    "greedy with bans": {
        "max_new_tokens": 9,
        "repetition_penalty": 1.5,
        "min_new_tokens": 4,
        "bad_words_ids": [[5], [7, 8]],
        "begin_suppress_tokens": [4],
        "suppress_tokens": [9, 11],
        "forced_eos_token_id": 2,
    },
    "beams": {**BEAMS, "early_stopping": True, "length_penalty": 0.5, "no_repeat_ngram_size": 2},
    "beams to the end": {**BEAMS, "early_stopping": "never", "forced_bos_token_id": 6, "eos_token_id": [2, 17]},
}


@pytest.fixture(scope="module")
def sisters(tmp_path_factory):
    """Models with each decoder, made once."""
    made = {}

    def pair(decoder):
        if decoder not in made:
            folder = tmp_path_factory.mktemp(decoder)
            sister = speech_encoder_decoder("wav2vec2", decoder)
            sister.save_pretrained(folder)
            made[decoder] = sister, raysp.models.FlaxSpeechEncoderDecoderModel.from_pretrained(folder)
        return made[decoder]

    return pair


PAIRS = [*zip(DECODERS, OPTIONS, strict=True)]


@pytest.mark.parametrize(("decoder", "options"), some(PAIRS, PAIRS[1], PAIRS[3]))
def test_tokens_and_their_probabilities_are_those_of_the_sister_in_pytorch(sisters, decoder, options):
    sister, model = sisters(decoder)
    inputs = waves_and_mask()
    theirs = sister.generate(*inputs, **OPTIONS[options])
    ours = model.generate(*(x.numpy() for x in inputs), **OPTIONS[options])
    assert np.asarray(ours.sequences).tolist() == theirs.tolist()
    texts = len(theirs) // len(inputs[0])
    with torch.inference_mode():
        waves, mask = (x.repeat_interleave(texts, 0) for x in inputs)
        logits = sister(waves, mask, decoder_input_ids=theirs[:, :-1]).logits
    expected = logits.log_softmax(-1).gather(-1, theirs[:, 1:, None])[:, :, 0].numpy()
    found = np.asarray(ours.log_probs)[:, 1:]
    lengths = (found != 0).sum(-1, keepdims=True)
    ends = OPTIONS[options].get("eos_token_id", [sister.config.eos_token_id])
    is_text = np.arange(found.shape[1]) < lengths
    assert ((lengths[:, 0] == found.shape[1]) | np.isin(theirs[:, 1:].numpy(), ends).any(-1)).all()
    np.testing.assert_allclose(found, expected * is_text, rtol=1e-4, atol=1e-4)


@pytest.mark.soak
def test_a_padded_prompt_gives_the_tokens_of_pytorch(sisters):
    prompt, mask = token_ids(length=4), torch.ones(3, 4, dtype=torch.long)
    prompt[1, :2], mask[1, :2] = 1, 0
    options = {"max_new_tokens": 6, "decoder_start_token_id": 1, "repetition_penalty": 1.7}
    prompts = {"decoder_input_ids": prompt, "decoder_attention_mask": mask}
    sister, model = sisters("gpt2")
    theirs = sister.generate(*waves_and_mask(), **prompts, **options)
    waves, wave_mask = waves_and_mask()
    arrays = {name: value.numpy() for name, value in prompts.items()}
    ours = model.generate(waves.numpy(), wave_mask.numpy(), **arrays, **options).sequences
    assert np.asarray(ours).tolist() == theirs.tolist()


@pytest.mark.soak
def test_samples_of_a_row_do_not_depend_on_its_batch(sisters, jax):
    _, model = sisters("bert")
    waves, mask = (x.numpy() for x in waves_and_mask((900, 900, 900)))
    keys = jax.random.split(jax.random.key(5), 3)
    options = {"do_sample": True, "top_k": 7, "top_p": 0.9, "temperature": 0.8, "max_new_tokens": 6}
    together = np.asarray(model.generate(waves, mask, prng_key=keys, **options).sequences)
    turned = np.asarray(model.generate(waves[::-1], mask, prng_key=keys[::-1], **options).sequences)
    assert together.tolist() == turned[::-1].tolist()
    assert len({tuple(text) for text in together.tolist()}) == 3
    with pytest.raises(ValueError, match="prng_key has 2 keys, expected one, or one for each of the 3 rows"):
        model.generate(waves, mask, prng_key=keys[:2], **options)


def test_a_batch_of_mixed_lengths_compiles_few_programs(sisters, jax):
    """A corpus of 1 to 30 seconds at 50 frames a second, in batches of 8 rows and a last one of fewer."""
    _, model = sisters("bart")
    stride, compiled = 30, []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
    generator = np.random.default_rng(0)
    longest = generator.integers(50, 1500, 40) * stride
    shapes = {model_shape(model, rows, length) for rows, length in zip([8] * 39 + [5], longest, strict=True)}
    assert len(shapes) <= 12
    for length in (stride * 200, stride * 250, stride * 256):  # one size of the grid
        model.generate(np.ones((5, length), np.float32), max_new_tokens=2)
    assert len(compiled) <= 3  # the program, and the default key
    before = len(compiled)
    model.generate(np.ones((6, stride * 230), np.float32), max_new_tokens=2)
    assert len(compiled) == before


def model_shape(model, rows, length):
    from raysp.models.flax.encoders import speech_batch

    return speech_batch(model._speech, np.empty((rows, length), np.float32), None, False).inputs.shape


def test_what_generate_cannot_do_is_refused(sisters):
    _, model = sisters("bert")
    waves, _ = waves_and_mask()
    with pytest.raises(ValueError, match="found 40 tokens, expected at most max_position_embeddings 32: for generate"):
        model.generate(waves.numpy(), max_new_tokens=40)
    with pytest.raises(ValueError, match="output_scores is True without beams, expected False"):
        model.generate(waves.numpy(), output_scores=True)
    with pytest.raises(ValueError, match="2 of inputs, input_values and input_features given, expected one"):
        model.generate(waves.numpy(), input_values=waves.numpy())
