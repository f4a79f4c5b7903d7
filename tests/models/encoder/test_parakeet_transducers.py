"""Parakeet transducers against transformers: logits, searches and files, for configurations drawn at random."""

import copy
import random

import pytest
import torch

from raysp import models
from tests.models.cases import OF_PARAKEET
from tests.models.oracles import make_oracle
from tests.models.parity import assert_close, check_names, inputs_and_mask

pytestmark = pytest.mark.filterwarnings("ignore:Using the model-agnostic default `max_length`")  # theirs, of its own
MELS = (97, 40, 75)
OF_TRANSDUCERS = {
    "blank_token_id": [0, 7, 19],
    "pad_token_id": [2, 0],
    "decoder_hidden_size": [8, 24],
    "num_decoder_layers": [1, 3],
    "hidden_act": ["relu", "tanh", "silu"],
    "max_symbols_per_step": [1, 3, 10],
}
OF_DURATIONS = {"durations": [[0, 1, 2, 3, 4], [0, 1], [1, 2], [0, 1, 2, 4, 8]]}
OF_ENCODER = {key: values for key, values in OF_PARAKEET.items() if key != "hidden_act"}


def drawn_for(kind):
    draw = random.Random(f"{kind} 0")
    table = {**OF_TRANSDUCERS, **(OF_DURATIONS if kind == "TDT" else {}), **OF_ENCODER}
    flags = {key: draw.choice(values) for key, values in table.items()}
    flags["encoder_config"] = {"hidden_act": draw.choice(OF_PARAKEET["hidden_act"])}
    return flags


@torch.no_grad()
def balance(oracle):
    """Let logits depend on frames and tokens alike, and blanks be about as many as tokens."""
    config, head = oracle.config, oracle.joint.head
    features, mask = inputs_and_mask(MELS, config.encoder_config.num_mel_bins)
    tokens = torch.randint(0, 20, (len(MELS), 40))
    oracle.decoder.embedding.weight.mul_(20)
    for layer, values in (
        (oracle.encoder_projector, oracle.get_audio_features(features, mask).pooler_output[:1]),
        (oracle.decoder.decoder_projector, oracle.decoder(tokens)),
    ):
        mean = values.mean((0, 1))
        scale = (values - mean).std().clamp(min=0.05)
        layer.bias.sub_(mean).div_(scale)
        layer.weight.div_(scale)
    logits = oracle(features, mask, decoder_input_ids=tokens).logits
    head.bias.sub_(logits.mean((0, 1, 2)))
    logits = (logits - logits.mean((0, 1, 2)))[..., : config.vocab_size].flatten(0, 2)
    blank = logits[:, config.blank_token_id].clone()
    logits[:, config.blank_token_id] = -torch.inf
    gaps = torch.quantile(logits.amax(-1) - blank, torch.linspace(0.1, 0.9, 9))
    own = head.bias[config.blank_token_id].item()
    shares = []
    for gap in gaps.tolist():
        head.bias[config.blank_token_id] = own + gap
        shares.append(oracle.generate(features[:1]).sequences[0, 1:].eq(config.blank_token_id).float().mean())
    head.bias[config.blank_token_id] = own + gaps[(torch.stack(shares) - 0.5).abs().argmin()]


def make_pair(kind, folder, **flags):
    """Make a model of theirs whose blanks and tokens are about as many, and ours as it loads what theirs saved."""
    oracle = make_oracle(f"ParakeetFor{kind}", **flags)
    config, generation = oracle.config, oracle.generation_config
    generation.decoder_start_token_id = config.blank_token_id
    generation.suppress_tokens = [*range(config.vocab_size, len(oracle.joint.head.bias))] or None
    balance(oracle)
    oracle.save_pretrained(folder)
    return oracle, getattr(models, f"ParakeetFor{kind}").from_pretrained(folder, strict=True)


@torch.no_grad()
def check_outputs(oracle, model, features, mask):
    """Hold the outputs for given tokens to theirs, with a mask and without."""
    tokens = torch.randint(0, 20, (len(MELS), 4), generator=torch.Generator().manual_seed(1))
    oracle.set_attn_implementation("eager")
    asked = {"output_attentions": True, "output_hidden_states": True, "decoder_input_ids": tokens}
    for inputs in ((features, mask), (features,)):
        theirs, ours = oracle(*inputs, **asked), model(*inputs, **asked)
        assert [*ours] == list(theirs.keys())
        frames = oracle._get_subsampling_output_length(mask.sum(-1) if len(inputs) == 2 else torch.tensor([97] * 3))
        for name in ("last_hidden_state", "pooler_output", "logits"):
            for row, count in enumerate(frames):
                assert_close(ours[name][row, :count], theirs[name][row, :count])
        for mine, others in zip(ours.hidden_states, theirs.hidden_states, strict=True):
            assert_close(mine[2, : frames[2]], others[2, : frames[2]])
        assert len(ours.attentions) == len(theirs.attentions)


@torch.no_grad()
def check_searches(oracle, model, features, mask):
    """Hold the steps of a search to theirs, up to the end of each row; theirs goes on behind it, or ends before."""
    for rows, given in ((features, {"attention_mask": mask}), (features[1:2], {})):
        theirs, ours = oracle.generate(rows, **given), model.generate(rows, **given)
        for row, length in enumerate(MELS if given else (97,)):
            spans, num_frames = theirs.durations[row], model._get_feat_extract_output_lengths(length)
            count = int((spans.cumsum(0) - spans < num_frames).sum())
            assert torch.equal(ours.sequences[row, :count], theirs.sequences[row, :count])
            assert torch.equal(ours.durations[row, :count], spans[:count])
            if spans.sum() >= num_frames:
                assert ours.sequences[row, count:].eq(model.config.pad_token_id).all()
                assert not ours.durations[row, count:].any()


def in_their_way(model):
    """Return the model with the rules of the original of TDT: numbers of durations are frames, and tokens unlimited."""
    if not model.durations:
        return model
    model = copy.deepcopy(model)
    model.config.max_symbols_per_step *= max(MELS)
    model.config.durations = [*range(len(model.config.durations))]
    return model


def found(model, path):
    """Return the tokens of each row with their frames, spans and scores."""
    values = (path.tokens_BS, path.frames_BS, path.spans_BS, path.scores_BS)
    rows = zip(*(one.tolist() for one in values), strict=True)
    return [[step for step in zip(*row, strict=True) if step[0] != model.config.blank_token_id] for row in rows]


def assert_equal_paths(ours, others):
    assert [step[:3] for step in ours] == [step[:3] for step in others]
    assert [step[3] for step in ours] == pytest.approx([step[3] for step in others], abs=1e-4)


@torch.no_grad()
def check_rows_alone(model, features, mask):
    """Each row of a batch has the tokens that it has alone, however many frames a step looks at."""
    together = model(features, mask).pooler_output
    num_frames = model._get_feat_extract_output_lengths(mask.sum(-1))
    expected = found(model, model.search(together, num_frames))
    for block in (2, 8):
        blocks = found(model, model.search(together, num_frames, frames_a_step=block))
        for row, others in zip(blocks, expected, strict=True):
            assert_equal_paths(row, others)
    for row, length in enumerate(MELS):
        alone = model(features[row : row + 1, :length]).pooler_output
        path = model.search(alone, torch.tensor([alone.shape[1]]))
        assert_equal_paths(found(model, path)[0], expected[row])
        assert torch.exp(path.scores_BS).le(1).all()


@pytest.mark.parametrize("kind", ["RNNT", "TDT"])
def test_a_random_configuration_gives_their_numbers_and_tokens_and_the_same_rows_alone(kind, tmp_path):
    oracle, model = make_pair(kind, tmp_path / "theirs", **drawn_for(kind))
    features, mask = inputs_and_mask(MELS, model.encoder_config.num_mel_bins)
    check_outputs(oracle, model, features, mask)
    check_searches(oracle, in_their_way(model), features, mask)
    check_rows_alone(model, features, mask)
    check_names(oracle, model, tmp_path / "ours")


@torch.no_grad()
def test_frames_of_durations_and_tokens_of_a_frame_are_those_of_the_configuration(tmp_path):
    """The original takes the number of a duration for its frames; and a row would end after ten times its frames."""
    oracle, model = make_pair("TDT", tmp_path / "durations", durations=[0, 1, 2, 4, 8])
    features = inputs_and_mask((1610,), 16)[0]
    assert (model.generate(features).durations.max(), oracle.generate(features).durations.max()) == (8, 4)
    oracle, model = make_pair("TDT", tmp_path / "symbols", durations=[0, 1], max_symbols_per_step=3)
    for one in (oracle, model):
        one.joint.head.bias[20] += 100.0
        one.joint.head.bias[19] -= 100.0
    features = inputs_and_mask((161,), 16)[0]
    frames = [step[1] for step in found(model, model.search(model(features).pooler_output, torch.tensor([21])))[0]]
    assert frames == [frame for frame in range(21) for _ in range(3)]
    assert oracle.generate(features).durations.sum() == 0
