import json

import pytest
import torch

from raysp import CheckpointError
from raysp.models import GenerationConfig, SpeechEncoderDecoderModel
from tests.models.decoder_oracles import (
    assert_close,
    make_speech_model,
    save_pair,
    theirs_generated,
    waves_and_mask,
)


def make_pair(kind, folder):
    """Random models whose texts end at different lengths; padding is token 0 for BERT, 1 for the others."""
    oracle = make_speech_model(kind, config_flags={"pad_token_id": 0} if kind == "bert" else {})
    embeddings = oracle.decoder.get_input_embeddings().weight
    with torch.no_grad():
        embeddings[2] += 0.5 * embeddings[4:].mean(0)
    return save_pair(oracle, folder)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    return make_pair("bert", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module", params=["bart", "gpt2"])
def every_pair(request, tmp_path_factory):
    return make_pair(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def model(pair):
    return pair[1]


def both(pair, **options):
    """Generate of a padded batch on both sides."""
    oracle, model = pair
    waves, mask = waves_and_mask()
    torch.manual_seed(4)
    theirs = theirs_generated(oracle, waves, attention_mask=mask, **options)
    torch.manual_seed(4)
    model.generation_config = GenerationConfig(
        **{name: value for name, value in oracle.generation_config.to_dict().items() if name in FIELDS}
    )
    return model.generate(waves, mask, **options), theirs


FIELDS = set(vars(GenerationConfig()))


@pytest.mark.parametrize("options", [{}, {"num_beams": 3, "num_return_sequences": 2, "min_length": 4}])
def test_scores_equal_theirs(every_pair, options):
    options = {"return_dict_in_generate": True, "output_scores": True, "max_new_tokens": 8, **options}
    ours, theirs = both(every_pair, **options)
    assert torch.equal(ours.sequences, theirs.sequences)
    assert_close(ours.scores, theirs.scores)
    if "num_beams" in options:
        assert_close(ours.sequences_scores, theirs.sequences_scores)
        assert torch.equal(ours.beam_indices, theirs.beam_indices.long())
    else:
        assert [*ours] == ["sequences", "scores"]


def without_padding(tokens, pad):
    return tokens[: len(tokens) - next(i for i, token in enumerate(reversed(tokens)) if token != pad)]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_beams": 3, "num_return_sequences": 3, "early_stopping": True},
        {"no_repeat_ngram_size": 2, "num_beams": 2, "length_penalty": 0.3},
        {"do_sample": True, "num_return_sequences": 2, "top_k": 8},
        {"do_sample": True, "num_beams": 2},
    ],
)
def test_a_row_in_a_batch_gives_what_it_gives_alone(pair, options):
    """Rows of different lengths, whose texts end at different times and are dropped from the batch then."""
    _, model = pair
    lengths = (1000, 300, 700, 500, 350)
    waves, mask = waves_and_mask(lengths)
    options = {"max_new_tokens": 16, **options}
    count = options.get("num_return_sequences", 1)

    def generators(rows):
        return [torch.Generator().manual_seed(row) for row in rows] if "do_sample" in options else None

    with pytest.raises(ValueError, match="2 generators given for 5 rows"):
        model.generate(waves, generators=[torch.Generator()] * 2)
    together = model.generate(waves, mask, generators=generators(range(len(lengths))), **options)
    pad = model.generation_config.pad_token_id
    if options.get("num_beams", 1) > 1:
        pad = pad or 2  # beams are filled with the end where padding is token 0
    for row, length in enumerate(lengths):
        alone = model.generate(waves[row : row + 1, :length], generators=generators([row]), **options)
        found = together[row * count : (row + 1) * count]
        assert [without_padding(x, pad) for x in found.tolist()] == [without_padding(x, pad) for x in alone.tolist()]


def test_defaults_follow_the_configuration_until_they_are_set_or_read_from_a_file(model, tmp_path):
    waves, mask = waves_and_mask()
    model.save_pretrained(tmp_path)
    path = tmp_path / "generation_config.json"
    path.unlink(missing_ok=True)
    again = SpeechEncoderDecoderModel.from_pretrained(tmp_path)
    again.config.decoder_start_token_id = 9
    assert again.generate(waves, mask, max_new_tokens=3)[:, 0].tolist() == [9, 9, 9]
    again.generation_config.max_new_tokens = 2
    again.generation_config.decoder_start_token_id = 4
    drawn = [again.generate(waves, do_sample=True, generator=torch.Generator().manual_seed(1)) for _ in range(2)]
    assert drawn[0].shape == (3, 3)
    assert torch.equal(*drawn)
    again.save_pretrained(tmp_path)
    assert SpeechEncoderDecoderModel.from_pretrained(tmp_path).generation_config == again.generation_config
    written = {"max_new_tokens": 4, "num_beams": 2, "transformers_version": "4.30", "typical_p": 1.0}
    path.write_text(json.dumps({**written, "num_beam_groups": 1, "penalty_alpha": None}))
    found = SpeechEncoderDecoderModel.from_pretrained(tmp_path).generation_config
    assert found == GenerationConfig(max_new_tokens=4, num_beams=2)
    path.write_text(json.dumps({"typical_p": 0.5}))
    with pytest.raises(CheckpointError, match=r"config\.json: generation does not support typical_p=0\.5, expected"):
        SpeechEncoderDecoderModel.from_pretrained(tmp_path)


REFUSED = [
    ({"penalty_alpha": 0.6}, "does not support penalty_alpha=0.6, expected options among bad_words_ids, .*"),
    ({"num_return_sequences": 2}, r"num_return_sequences is 2, expected 1 to 1 \(several need sampling or beams\)"),
    ({"num_beams": 2, "num_return_sequences": 3}, "num_return_sequences is 3, expected 1 to 2"),
    ({"top_p": 1.5}, "top_p is 1.5, expected from 0 to 1"),
    ({"early_stopping": "sometimes"}, "early_stopping is 'sometimes', expected a bool or 'never'"),
    ({"max_length": 1}, "max_length is 1, expected above the 1 given tokens"),
    ({"bad_words_ids": [[]]}, "bad_words_ids has an empty list"),
    (
        {"forced_eos_token_id": [2, 9], "suppress_tokens": [9, 2, 4]},
        r"forced_eos_token_id \[2, 9\] is also in suppress_tokens, expected in one of the two",
    ),
    ({"bad_words_ids": [[99]]}, "bad_words_ids has 99, expected ids below the vocabulary's size 50"),
    ({"max_new_tokens": 100}, "found 65 tokens, expected at most max_position_embeddings 64"),
]


def test_options_that_cannot_be_are_named(model):
    for options, message in REFUSED:
        with pytest.raises(ValueError, match=message):
            model.generate(*waves_and_mask(), **{"eos_token_id": [2], "forced_eos_token_id": [2], **options})


BEGUN = {
    "decoder_input_ids": torch.tensor([[3, 8, 9], [3, 3, 8], [3, 8, 8]]),
    "decoder_attention_mask": torch.tensor([[1, 1, 1], [0, 1, 1], [1, 1, 1]]),
    "max_new_tokens": 6,
    "repetition_penalty": 1.3,
}
"""Texts that have begun, one with padding before it."""
SAMPLED = {"do_sample": True, "max_new_tokens": 12}
SETTINGS = [
    {"max_length": 20, "min_length": 10, "no_repeat_ngram_size": 2, "repetition_penalty": 1.3, "eos_token_id": [2, 11]},
    {
        "max_new_tokens": 9, "forced_bos_token_id": 7, "forced_eos_token_id": [2, 9], "bad_words_ids": [[5], [11, 12]],
        "begin_suppress_tokens": [2],
    },
    {"max_length": 20, "num_beams": 5, "length_penalty": -1.0, "early_stopping": "never", "min_new_tokens": 12},
    {
        "max_new_tokens": 9, "num_beams": 2, "repetition_penalty": 0.7, "eos_token_id": 9,
        "bad_words_ids": [[2], [7, 7]], "suppress_tokens": [4, 8, 15, 16], "forced_eos_token_id": 2,
    },
    {**BEGUN, "num_beams": 3},
    {**SAMPLED, "top_p": 0.6, "top_k": 9, "num_return_sequences": 3},
    {**SAMPLED, "num_beams": 2, "num_return_sequences": 2, "top_p": 0.8, "temperature": 2.0},
]  # fmt: skip
"""Settings in company with each other; draws of samples are from the same numbers."""


@pytest.mark.parametrize("options", SETTINGS)
def test_settings_together_equal_theirs(pair, options):
    ours, theirs = both(pair, **options)
    assert torch.equal(ours, theirs)


def test_the_best_of_a_large_vocabulary_are_theirs(tmp_path):
    model = make_speech_model("bert", vocab_size=1500, config_flags={"pad_token_id": 0})
    options = {"num_beams": 3, "max_new_tokens": 6, "num_return_sequences": 2}
    ours, theirs = both(save_pair(model, tmp_path), **options)
    assert torch.equal(ours, theirs)
