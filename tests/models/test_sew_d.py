import copy

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.errors import CheckpointError
from raysp.models import (
    SEWDConfig,
    SEWDForCTC,
    SEWDForSequenceClassification,
    SEWDModel,
    check_checkpoint,
    load_checkpoint,
)
from raysp.models.base.capabilities import Capability
from raysp.models.encoder import relative_attention
from raysp.models.encoder.disentangled import Distances
from tests.models import oracles

TINY = {
    "vocab_size": 20,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "position_buckets": 16,
    "max_position_embeddings": 40,
    "conv_dim": (8, 16, 24),
    "conv_stride": (5, 2, 1),
    "conv_kernel": (10, 3, 1),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 12,
}
LENGTHS = (1201, 700, 1002, 330)  # 119, 69, 99 and 31 frames, all odd

VARIANTS = {
    "group": {},
    "layer": {"feat_extract_norm": "layer", "conv_bias": True},
    "keys apart": {"share_att_key": False},
    "c2p": {"pos_att_type": ("c2p",)},
    "p2c": {"pos_att_type": ("p2c",)},
    "p2c apart": {"pos_att_type": ("p2c",), "share_att_key": False},
    "neither": {"pos_att_type": ()},
    "no distances": {"relative_attention": False},
    "no buckets": {"position_buckets": -1, "max_position_embeddings": 24},
    "many buckets": {"position_buckets": 300, "max_position_embeddings": 512},
    "few positions": {"max_position_embeddings": 12},
    "max_relative_positions": {"max_relative_positions": 30},
    "plain table": {"norm_rel_ebd": "none"},
    "joined norms": {"norm_rel_ebd": "Layer_Norm | none"},
    "no squeezing": {"squeeze_factor": 1},
    "squeezed by three": {"squeeze_factor": 3},
    "convolution beside": {"conv_kernel_size": 3, "hidden_dropout_prob": 0.1, "conv_act": "gelu", "conv_groups": 2},
    "no projection": {"hidden_size": 24, "num_attention_heads": 3},
    "odd positions": {"num_conv_pos_embeddings": 15},
    "relu": {"hidden_act": "relu", "feat_extract_activation": "relu"},
    "wide epsilon": {"layer_norm_eps": 0.1, "feature_layer_norm_eps": 0.2},
    "no mask embedding": {"mask_time_prob": 0.0},
}


def make_oracle(kind=transformers.SEWDForCTC, **flags):
    torch.manual_seed(0)
    model = kind(transformers.SEWDConfig(**{**TINY, **flags})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(params=VARIANTS, scope="session")
def pair(request, tmp_path_factory):
    oracle = make_oracle(**VARIANTS[request.param])
    folder = tmp_path_factory.mktemp("sew-d")
    oracle.save_pretrained(folder)
    return oracle, SEWDForCTC.from_pretrained(folder)


def waves_and_mask(lengths=LENGTHS, seed=1):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.randn(mask.shape, generator=generator) * mask, mask.long()


def assert_close(ours, theirs, tolerance=1e-4):
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


def assert_rows_equal_rows_alone(logits, model, waves, lengths, tolerance=1e-4):
    for row, length in enumerate(lengths):
        alone = model(waves[row : row + 1, :length]).logits[0]
        found = logits[row, : len(alone)]
        assert_close(found, alone, tolerance)
        assert torch.equal(found.argmax(-1), alone.argmax(-1))


def in_reference(model):
    model = copy.deepcopy(model)
    model.padding = "reference"
    return model


@torch.inference_mode()
def test_logits_without_a_mask_equal_theirs(pair):
    oracle, model = pair
    waves, _ = waves_and_mask()
    assert_close(model(waves).logits, oracle(waves).logits)
    assert_close(model(waves[:1, :300]).logits, oracle(waves[:1, :300]).logits)


@torch.inference_mode()
def test_reference_padding_equals_theirs_with_all_states_and_attentions(pair):
    oracle, model = pair
    waves, mask = waves_and_mask()
    ours = in_reference(model)(waves, mask, output_hidden_states=True, output_attentions=True)
    theirs = oracle(waves, mask, output_hidden_states=True, output_attentions=True)
    assert ours.keys() == list(theirs.keys())
    assert len(ours.hidden_states) == len(theirs.hidden_states) == 4
    assert len(ours.attentions) == len(theirs.attentions) == 3
    assert_close(ours.logits, theirs.logits)
    for mine, other in zip(ours.hidden_states + ours.attentions, theirs.hidden_states + theirs.attentions, strict=True):
        assert_close(mine, other)


@torch.inference_mode()
def test_exact_padding_equals_theirs_alone(pair):
    oracle, model = pair
    waves, mask = waves_and_mask()
    waves += (1 - mask) * 7.0  # whatever stands behind a row's end has no part in it
    assert_rows_equal_rows_alone(model(waves, mask).logits, oracle, waves, LENGTHS)


def test_loss_and_gradients_equal_theirs(pair):
    oracle, model = pair
    model = in_reference(model)
    waves, mask = waves_and_mask()
    labels = torch.tensor([[5, 6, 6, 7], [8, -100, -100, -100], [0, 9, 9, 0], [3, 4, -100, -100]])
    theirs, ours = oracle(waves, mask, labels=labels), model(waves, mask, labels=labels)
    assert_close(ours.loss, theirs.loss)
    oracle.zero_grad()
    theirs.loss.backward()
    ours.loss.backward()
    expected = {name: parameter.grad for name, parameter in oracle.named_parameters() if parameter.grad is not None}
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-3, rtol=1e-3, msg=name)


def test_weights_have_their_names_in_both_directions(pair, tmp_path):
    oracle, model = pair
    assert model.state_dict().keys() == oracle.state_dict().keys()
    model.save_pretrained(tmp_path)
    again = transformers.SEWDForCTC.from_pretrained(tmp_path)
    for name, value in oracle.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


@torch.inference_mode()
@pytest.mark.parametrize("padding", ["exact", "reference"])
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("factor", [2, 3])
def test_sequence_classes_equal_theirs(padding, weighted, factor, tmp_path):
    flags = {"use_weighted_layer_sum": weighted, "squeeze_factor": factor, "num_labels": 5}
    oracle = make_oracle(transformers.SEWDForSequenceClassification, **flags)
    oracle.save_pretrained(tmp_path)
    model = SEWDForSequenceClassification.from_pretrained(tmp_path, padding=padding)
    assert model.state_dict().keys() == oracle.state_dict().keys()
    waves, mask = waves_and_mask()
    labels = torch.tensor([0, 1, 2, 3])
    ours = model(waves, mask, labels=labels, output_hidden_states=True)
    if padding == "reference":
        theirs = oracle(waves, mask, labels=labels, output_hidden_states=True)
        assert_close(ours.logits, theirs.logits)
        assert_close(ours.loss, theirs.loss)
        assert len(ours.hidden_states) == len(theirs.hidden_states)
    alone = torch.cat([oracle(waves[row : row + 1, :length]).logits for row, length in enumerate(LENGTHS)])
    is_close = torch.allclose(ours.logits, alone, atol=1e-4)
    assert is_close == (padding == "exact")
    assert_close(model(waves).logits, oracle(waves).logits)


def random_model(kind=SEWDForCTC, **flags):
    torch.manual_seed(0)
    return kind(SEWDConfig(**{**TINY, **flags})).init_weights().eval()


@pytest.mark.slow
@torch.inference_mode()
@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 1500), min_size=1, max_size=5),
    norm=st.sampled_from(["group", "layer"]),
    factor=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_a_row_alone_equals_the_row_in_any_batch(lengths, norm, factor, seed):
    model = random_model(feat_extract_norm=norm, squeeze_factor=factor)
    lengths = [max(lengths[0], model.min_samples), *lengths[1:]]
    waves, mask = waves_and_mask(lengths, seed)
    waves += (1 - mask) * 7.0
    logits = model(waves, mask).logits
    assert logits.isfinite().all()
    for row, length in enumerate(lengths):
        if length >= model.min_samples:
            alone = model(waves[row : row + 1, :length]).logits[0]
            assert len(alone) == model.num_frames(length)
            assert_close(logits[row, : len(alone)], alone, 1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("scores", [1, 3000, 40000])
def test_biases_in_blocks_equal_one_bias_for_all(scores, monkeypatch):
    model = random_model()
    waves, mask = waves_and_mask()
    expected = model(waves, mask).logits
    monkeypatch.setattr(relative_attention, "BLOCK_SCORES", scores)
    assert_close(model(waves, mask).logits, expected, 1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("tile", [1, 7, 59, 200])
@pytest.mark.parametrize("num_frames", [1, 9, 59])
def test_tiles_of_biases_equal_a_product_with_all_distances(num_frames, tile, monkeypatch):
    monkeypatch.setattr(relative_attention, "TILE_FRAMES", tile)
    frames, table = torch.randn(2, 3, num_frames, 8), torch.randn(3, 2 * num_frames - 1, 8)
    expected = relative_attention.skewed(frames @ table.transpose(1, 2))
    assert_close(relative_attention.tiled(frames, table), expected, 1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("buckets", [8, 300])
@pytest.mark.parametrize("tile", [3, 20])
def test_biases_gathered_and_in_tiles_equal_theirs(buckets, tile, monkeypatch, tmp_path):
    monkeypatch.setattr(relative_attention, "TILE_FRAMES", tile)
    theirs = make_oracle(position_buckets=buckets, max_position_embeddings=300)
    theirs.save_pretrained(tmp_path)
    model = SEWDForCTC.from_pretrained(tmp_path)
    table = model.sew_d.encoder.encoder._normalised_table()
    assert Distances.of(model.config, table, 59).reading == ("gathered" if buckets == 8 else "tiled")
    waves, mask = waves_and_mask()
    logits = model(waves, mask).logits
    for row, length in enumerate(LENGTHS):
        alone = theirs(waves[row : row + 1, :length]).logits[0]
        assert_close(logits[row, : len(alone)], alone)


@torch.inference_mode()
def test_hidden_states_without_padding_between_equal_those_of_rows_alone():
    model = random_model(SEWDModel)
    waves, mask = waves_and_mask()
    states = model(waves, mask, output_hidden_states=True).hidden_states
    assert len(states) == model.config.num_hidden_layers + 1
    for row, length in enumerate(LENGTHS):
        alone = model(waves[row : row + 1, :length], output_hidden_states=True).hidden_states
        for state, expected in zip(states, alone, strict=True):
            assert_close(state[row, : expected.shape[1]], expected[0], 1e-5)
            assert not state[row, expected.shape[1] :].any()


@torch.inference_mode()
def test_a_batch_without_a_whole_frame_gives_zeros():
    model = random_model(SEWDModel)
    mask = torch.zeros(2, 60, dtype=torch.long)
    mask[:, :3] = 1
    assert not model(torch.randn(2, 60), mask).last_hidden_state.any()


@pytest.mark.parametrize(
    ("num_frames", "buckets", "furthest"),
    [(1, 16, 40), (9, 16, 40), (90, 16, 40), (700, 256, 512), (90, 2, 10), (50, -1, 20)],
)
def test_buckets_of_distances_equal_theirs(num_frames, buckets, furthest):
    theirs = transformers.models.sew_d.modeling_sew_d.build_relative_position(
        num_frames, num_frames, bucket_size=buckets, max_position=furthest
    )[0]
    ours = relative_attention.by_distance(relative_attention.log_buckets(num_frames, buckets, furthest))
    assert torch.equal(ours, theirs)


def test_an_input_below_one_squeezed_frame_is_refused():
    model = random_model(squeeze_factor=2)
    assert (model.min_samples, model.frame_stride) == (30, 10)
    assert model(torch.randn(1, 30)).logits.shape[1] == 2
    with pytest.raises(RuntimeError, match="29 samples, the model needs at least 30"):
        model(torch.randn(1, 29))


def test_published_sizes_have_their_receptive_field():
    with torch.device("meta"):
        model = SEWDModel(SEWDConfig(num_hidden_layers=1))
        theirs = transformers.SEWDModel(transformers.SEWDConfig(num_hidden_layers=1))
    assert (model.min_samples, model.frame_stride) == (400 + 320, 320)
    assert {name: value.shape for name, value in model.state_dict().items()} == {
        name: value.shape for name, value in theirs.state_dict().items()
    }
    theirs_of = transformers.SEWDConfig(num_hidden_layers=1).to_dict()
    ours_of = SEWDConfig(num_hidden_layers=1).to_dict()
    for name in SEWDConfig.__annotations__.keys() - {"model_type"}:
        expected = theirs_of[name]
        assert ours_of[name] == (list(expected) if isinstance(expected, tuple) else expected), name


def test_training_augments_as_theirs_does(tmp_path):
    flags = {"mask_time_prob": 0.4, "mask_feature_prob": 0.2, "mask_time_length": 3, "mask_feature_length": 4}
    still = dict.fromkeys(["activation_dropout", "attention_dropout", "feat_proj_dropout", "final_dropout"], 0.0)
    oracle = make_oracle(**flags, **still).train()
    oracle.save_pretrained(tmp_path)
    model = SEWDForCTC.from_pretrained(tmp_path, padding="reference").train()
    waves, mask = waves_and_mask()
    np.random.seed(3)
    theirs = oracle(waves, mask).logits
    np.random.seed(3)
    ours = model(waves, mask).logits
    assert_close(ours, theirs)
    assert (ours - model.eval()(waves, mask).logits).abs().max() > 0.1


def test_dropout_and_checkpointing_act_in_training_alone():
    model = random_model(apply_spec_augment=False)
    waves, mask = waves_and_mask()
    assert torch.equal(model(waves).logits, model(waves).logits)
    model.train()
    assert not torch.equal(model(waves).logits, model(waves).logits)
    gradients = []
    for change in (model.gradient_checkpointing_disable, model.gradient_checkpointing_enable):
        change()
        model.zero_grad()
        torch.manual_seed(5)
        model(waves, mask, labels=torch.tensor([[5, 6]] * 4)).loss.backward()
        gradients.append(model.sew_d.encoder.encoder.rel_embeddings.weight.grad.clone())
    assert_close(*gradients)
    assert gradients[0].abs().max() > 0


def test_tables_of_distances_follow_their_weights():
    model = random_model(initializer_range=0.3)
    waves, _ = waves_and_mask()
    with torch.inference_mode():
        before = model(waves).logits
    with torch.no_grad():
        model.sew_d.encoder.encoder.rel_embeddings.weight.add_(torch.randn(32, 32))
        changed = model(waves).logits
        assert (changed - before).abs().max() > 0.01
        again = random_model()
        again.load_state_dict(model.state_dict())
        assert_close(again(waves).logits, changed, 1e-6)
    model.requires_grad_(False)
    model.lm_head.requires_grad_(True)
    model(waves, labels=torch.tensor([[5, 6]] * 4)).loss.backward()
    assert model.lm_head.weight.grad.abs().max() > 0


@torch.inference_mode()
def test_bfloat16_stays_near_float32():
    model = random_model()
    waves, mask = waves_and_mask()
    expected = model(waves, mask).logits
    logits = copy.deepcopy(model).to(torch.bfloat16)(waves, mask).logits
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - expected)[0].abs().max() < 0.05 * expected.abs().max() + 0.05


def test_wrong_configurations_and_labels_are_refused():
    with pytest.raises(CheckpointError, match="expected one length"):
        SEWDConfig(conv_dim=(8,))
    with pytest.raises(CheckpointError, match="squeeze_factor is 0"):
        SEWDConfig(squeeze_factor=0)
    with pytest.raises(CheckpointError, match="num_attention_heads is 7"):
        SEWDConfig(num_attention_heads=7)
    with pytest.raises(CheckpointError, match="attention_head_size"):
        SEWDConfig(attention_head_size=7)
    with pytest.raises(ValueError, match="label 20 found, expected below vocab_size 20"):
        random_model()(waves_and_mask()[0], labels=torch.full((4, 2), 20))


def test_heads_say_what_they_give():
    assert [kind.gives for kind in (SEWDModel, SEWDForCTC, SEWDForSequenceClassification)] == [
        (),
        (Capability.CTC,),
        (Capability.CLASSES,),
    ]


def test_a_language_brings_its_own_head(tmp_path):
    random_model(adapter_attn_dim=8).save_pretrained(tmp_path)
    other = random_model(adapter_attn_dim=8, vocab_size=27)
    torch.nn.init.normal_(other.lm_head.weight)
    other.save_adapter(tmp_path, "spa")
    model = SEWDForCTC.from_pretrained(tmp_path, target_lang="spa")
    assert (model.target_lang, model.config.vocab_size) == ("spa", 27)
    assert torch.equal(model.lm_head.weight, other.lm_head.weight)
    later = SEWDForCTC.from_pretrained(tmp_path)
    later.load_adapter("spa")
    with torch.inference_mode():
        assert torch.equal(later(waves_and_mask()[0]).logits, model(waves_and_mask()[0]).logits)
    with pytest.raises(ValueError, match="target_lang 'spa' requested, but SEWDForCTC has no adapter layers"):
        SEWDForCTC(SEWDForCTC.config_class(**TINY), target_lang="spa")


def test_a_whole_checkpoint_loads_and_is_described(tmp_path):
    make_oracle().save_pretrained(tmp_path)
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNO"]
    (tmp_path / "words.json").write_text(oracles.json.dumps({token: index for index, token in enumerate(tokens)}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(tmp_path / "words.json"))
    transformers.Wav2Vec2Processor(transformers.Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(tmp_path)
    summary = check_checkpoint(tmp_path)
    assert (summary.architecture, summary.gives, summary.vocab_size) == (
        "SEWDForCTC",
        (Capability.CTC, Capability.HIDDEN_STATES),
        20,
    )
    assert (summary.min_samples, summary.frame_stride, summary.num_layers) == (30, 10, 3)
    loaded = load_checkpoint(tmp_path)
    with torch.inference_mode():
        features = loaded.feature_extractor.extract(waves_and_mask()[0], torch.tensor(LENGTHS))
        assert loaded.model(**features).logits.shape == (4, loaded.model.num_frames(max(LENGTHS)), 20)
