import numpy as np
import pytest

import raysp.models
from tests.models.flax.sisters import speech_encoder_decoder, waves_and_mask

pytestmark = pytest.mark.slow

BEAMS = {"num_beams": 3, "num_return_sequences": 2, "max_new_tokens": 9}
OPTIONS = {
    "greedy with bans": {
        "max_new_tokens": 9,
        "min_new_tokens": 4,
        "begin_suppress_tokens": [4],
        "suppress_tokens": [9, 11],
        "forced_eos_token_id": 2,
    },
    "beams to the end": {**BEAMS, "early_stopping": "never", "forced_bos_token_id": 6, "eos_token_id": [2, 17]},
}


def sisters(decoder, folder):
    sister = speech_encoder_decoder("wav2vec2", decoder)
    sister.save_pretrained(folder)
    return sister, raysp.models.FlaxSpeechEncoderDecoderModel.from_pretrained(folder)


@pytest.mark.parametrize(("decoder", "options"), [("bert", "greedy with bans"), ("bart", "beams to the end")])
def test_tokens_are_those_of_the_sister_in_pytorch(decoder, options, tmp_path):
    sister, model = sisters(decoder, tmp_path)
    inputs = waves_and_mask()
    theirs = sister.generate(*inputs, **OPTIONS[options])
    ours = model.generate(*(x.numpy() for x in inputs), **OPTIONS[options])
    assert np.asarray(ours.sequences).tolist() == theirs.tolist()


def test_what_generate_cannot_do_is_refused(tmp_path):
    _, model = sisters("bert", tmp_path)
    waves, _ = waves_and_mask()
    with pytest.raises(ValueError, match="found 40 tokens, expected at most max_position_embeddings 32: for generate"):
        model.generate(waves.numpy(), max_new_tokens=40)
    for options, name in (
        ({"repetition_penalty": 1.5}, r"repetition_penalty=1\.5"),
        ({"output_scores": True}, "output_scores=True"),
        ({"do_sample": True, "num_beams": 2}, "do_sample=True with num_beams=2"),
    ):
        with pytest.raises(ValueError, match=f"generate of a Flax model does not support {name}: set other options"):
            model.generate(waves.numpy(), **options)
    with pytest.raises(ValueError, match=r"does not support decoder_input_ids=.*expected options among"):
        model.generate(waves.numpy(), decoder_input_ids=[[3]])
    with pytest.raises(ValueError, match="2 of inputs and input_values given, expected one"):
        model.generate(waves.numpy(), input_values=waves.numpy())
