import copy

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp.errors import CheckpointError
from raysp.models import (
    Wav2Vec2BertConfig,
    Wav2Vec2BertForAudioFrameClassification,
    Wav2Vec2BertForCTC,
    Wav2Vec2BertForSequenceClassification,
    Wav2Vec2BertForXVector,
    Wav2Vec2BertModel,
)
from raysp.models.base.capabilities import Capability
from raysp.models.encoder import relative_attention
from tests.models import oracles  # noqa: F401 - quiets transformers while it is imported

TINY = {
    "vocab_size": 20,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "feature_projection_input_dim": 10,
    "conv_depthwise_kernel_size": 7,
    "left_max_position_embeddings": 12,
    "right_max_position_embeddings": 3,
    "classifier_proj_size": 12,
    "tdnn_dim": (16, 16, 16, 16, 24),
    "xvector_output_dim": 14,
}
LENGTHS = (61, 37, 50, 17)
ADAPTER = {"add_adapter": True}

VARIANTS = {
    "relative_key": {},
    "relative": {"position_embeddings_type": "relative"},
    "relative beyond its table": {"position_embeddings_type": "relative", "max_source_positions": 20},
    "rotary": {"position_embeddings_type": "rotary", "rotary_embedding_base": 100},
    "no positions": {"position_embeddings_type": None},
    "one-sided": {"left_max_position_embeddings": 5, "right_max_position_embeddings": 0},
    "wide table": {"left_max_position_embeddings": 200, "right_max_position_embeddings": 100},
    "long convolution": {"conv_depthwise_kernel_size": 31},
    "gelu": {"hidden_act": "gelu"},
    "wide epsilon": {"layer_norm_eps": 0.1},
    "no mask embedding": {"mask_time_prob": 0.0},
    "adapter": ADAPTER,
    "adapter behind a feed-forward": {**ADAPTER, "use_intermediate_ffn_before_adapter": True},
    "two adapters": {**ADAPTER, "num_adapter_layers": 2, "adapter_act": "gelu"},
    "narrow adapter": {**ADAPTER, "output_hidden_size": 24, "position_embeddings_type": "relative"},
}
UNEVEN = {  # where the original's count of frames is not its convolution's
    "wide kernel": {**ADAPTER, "adapter_kernel_size": 5, "adapter_stride": 2},
    "wide stride": {**ADAPTER, "adapter_kernel_size": 3, "adapter_stride": 3},
    "long stride": {**ADAPTER, "adapter_kernel_size": 4, "adapter_stride": 4, "num_adapter_layers": 2},
}


def make_oracle(kind=transformers.Wav2Vec2BertForCTC, **flags):
    torch.manual_seed(0)
    model = kind(transformers.Wav2Vec2BertConfig(**{**TINY, **flags})).eval()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(params=VARIANTS, scope="session")
def pair(request, tmp_path_factory):
    oracle = make_oracle(**VARIANTS[request.param])
    folder = tmp_path_factory.mktemp("wav2vec2-bert")
    oracle.save_pretrained(folder)
    return oracle, Wav2Vec2BertForCTC.from_pretrained(folder)


def features_and_mask(lengths=LENGTHS, seed=1):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return torch.randn(*mask.shape, 10, generator=generator) * mask[:, :, None], mask.long()


def assert_close(ours, theirs, tolerance=1e-4):
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=tolerance)


def in_reference(model):
    model = copy.deepcopy(model)
    model.padding = "reference"
    return model


@torch.no_grad()  # the original would keep tensors of inference mode
def test_logits_without_a_mask_equal_theirs(pair):
    oracle, model = pair
    features, _ = features_and_mask()
    assert_close(model(features).logits, oracle(features).logits)
    assert_close(model(features[:1, :3]).logits, oracle(features[:1, :3]).logits)


@torch.no_grad()  # the original would keep tensors of inference mode
def test_reference_padding_equals_theirs_with_all_states_and_attentions(pair):
    oracle, model = pair
    features, mask = features_and_mask()
    asked = {"output_hidden_states": True, "output_attentions": True}
    ours, theirs = in_reference(model)(features, mask, **asked), oracle(features, mask, **asked)
    assert ours.keys() == list(theirs.keys())
    assert len(ours.hidden_states) == len(theirs.hidden_states) == 4
    assert len(ours.attentions) == len(theirs.attentions) == 3
    assert_close(ours.logits, theirs.logits)
    for mine, other in zip(ours.hidden_states + ours.attentions, theirs.hidden_states + theirs.attentions, strict=True):
        assert_close(mine, other)


@torch.no_grad()  # the original would keep tensors of inference mode
def test_exact_padding_equals_theirs_alone(pair):
    oracle, model = pair
    features, mask = features_and_mask()
    features = features + (1 - mask)[:, :, None] * 7.0  # whatever stands behind a row's end has no part in it
    logits = model(features, mask).logits
    for row, length in enumerate(LENGTHS):
        alone = oracle(features[row : row + 1, :length]).logits[0]
        found = logits[row, : len(alone)]
        assert_close(found, alone)
        assert torch.equal(found.argmax(-1), alone.argmax(-1))
        assert model._get_feat_extract_output_lengths(length) == len(alone)


@torch.inference_mode()
@pytest.mark.parametrize("flags", UNEVEN.values(), ids=UNEVEN)
def test_exact_padding_counts_the_frames_of_any_adapter(flags, tmp_path):
    oracle = make_oracle(**flags)
    oracle.save_pretrained(tmp_path)
    model = Wav2Vec2BertForCTC.from_pretrained(tmp_path)
    features, mask = features_and_mask()
    logits = model(features, mask).logits
    for row, length in enumerate(LENGTHS):
        alone = oracle(features[row : row + 1, :length]).logits[0]
        assert_close(logits[row, : len(alone)], alone)
        assert model._get_feat_extract_output_lengths(length) == len(alone)
    model.padding = "reference"
    counts = torch.tensor(LENGTHS)
    assert torch.equal(model._get_feat_extract_output_lengths(counts), oracle._get_feat_extract_output_lengths(counts))


def test_loss_and_gradients_equal_theirs(pair):
    oracle, model = pair
    model = in_reference(model)
    features, mask = features_and_mask()
    labels = torch.tensor([[5, 6, 6, 7], [8, -100, -100, -100], [0, 9, 9, 0], [3, 4, -100, -100]])
    theirs, ours = oracle(features, mask, labels=labels), model(features, mask, labels=labels)
    assert_close(ours.loss, theirs.loss)
    assert_close(model(features, labels=labels).loss, oracle(features, labels=labels).loss)
    oracle.zero_grad()
    theirs.loss.backward()
    ours.loss.backward()
    expected = {name: parameter.grad for name, parameter in oracle.named_parameters() if parameter.grad is not None}
    found = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert found.keys() == expected.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, expected[name], atol=2e-3, rtol=1e-3, msg=name)


def test_weights_have_their_names_in_both_directions(pair, tmp_path):
    oracle, model = pair
    assert model.state_dict().keys() == oracle.state_dict().keys()
    model.save_pretrained(tmp_path)
    again = transformers.Wav2Vec2BertForCTC.from_pretrained(tmp_path)
    for name, value in oracle.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


HEADS = {
    "sequence": (transformers.Wav2Vec2BertForSequenceClassification, Wav2Vec2BertForSequenceClassification, {}),
    "frames": (transformers.Wav2Vec2BertForAudioFrameClassification, Wav2Vec2BertForAudioFrameClassification, {}),
    "x-vector": (transformers.Wav2Vec2BertForXVector, Wav2Vec2BertForXVector, {}),
    "x-vector behind an adapter": (transformers.Wav2Vec2BertForXVector, Wav2Vec2BertForXVector, ADAPTER),
}


@torch.inference_mode()
@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("head", HEADS)
def test_heads_equal_theirs_in_reference_and_theirs_alone_in_exact(head, weighted, tmp_path):
    their_class, our_class, flags = HEADS[head]
    flags = {**flags, "use_weighted_layer_sum": weighted, "num_labels": 5}
    oracle = make_oracle(their_class, **flags)
    oracle.save_pretrained(tmp_path)
    model = our_class.from_pretrained(tmp_path)
    assert model.state_dict().keys() == oracle.state_dict().keys()
    lengths = (61, 40, 50, 33)
    features, mask = features_and_mask(lengths)
    labels = torch.tensor([0, 1, 2, 3])
    if head == "frames":
        labels = torch.nn.functional.one_hot(torch.randint(0, 5, features.shape[:2]), 5)
    found = model(features, mask, labels=labels, output_hidden_states=True)
    assert len(found.hidden_states) == 4
    assert found.loss.isfinite()
    for row, length in enumerate(lengths):
        alone = oracle(features[row : row + 1, :length])
        name = "embeddings" if "embeddings" in alone else "logits"
        mine = getattr(found, name)[row]
        assert_close(mine[:length] if head == "frames" else mine, alone[name][0])
    ours = in_reference(model)(features, mask, labels=labels)
    theirs = oracle(features, mask, labels=labels)
    assert_close(ours.loss, theirs.loss)
    assert ours.keys() == [name for name in theirs if name not in ("hidden_states", "attentions")]
    for name in ours.keys():  # noqa: SIM118 - iterating an output gives its values
        assert_close(ours[name], theirs[name])
    assert_close(model(features).logits, oracle(features).logits)


def random_model(kind=Wav2Vec2BertForCTC, **flags):
    torch.manual_seed(0)
    return kind(Wav2Vec2BertConfig(**{**TINY, **flags})).init_weights().eval()


@pytest.mark.slow
@torch.inference_mode()
@settings(max_examples=25, deadline=None)
@given(
    lengths=st.lists(st.integers(0, 80), min_size=1, max_size=5),
    kind=st.sampled_from(["relative_key", "relative", "rotary", None]),
    add_adapter=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_row_alone_equals_the_row_in_any_batch(lengths, kind, add_adapter, seed):
    model = random_model(position_embeddings_type=kind, add_adapter=add_adapter)
    lengths = [max(lengths[0], 1), *lengths[1:]]
    features, mask = features_and_mask(lengths, seed)
    features = features + (1 - mask)[:, :, None] * 7.0
    logits = model(features, mask).logits
    assert logits.isfinite().all()
    for row, length in enumerate(lengths):
        if length:
            alone = model(features[row : row + 1, :length]).logits[0]
            assert_close(logits[row, : len(alone)], alone, 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["relative_key", "relative", "rotary", None])
@pytest.mark.parametrize("lengths", [LENGTHS, (33, 32), (40, 40), (1, 0, 25)])
def test_inference_without_padding_equals_training_with_it(kind, lengths):
    model = random_model(position_embeddings_type=kind)
    features, mask = features_and_mask((*lengths, max(lengths) + 1))
    features, mask = features[:-1], mask[:-1]
    expected = model(features, mask, output_hidden_states=True)
    with torch.no_grad():
        found = model(features, mask, output_hidden_states=True)
    for row, length in enumerate(lengths):
        reading = slice(0, length + 1)  # an odd log-mel frame makes a frame that only reads others
        assert_close(found.logits[row, reading], expected.logits[row, reading], 1e-5)
        assert (found.hidden_states[-1][row, length + 1 :] == 0.0).all()
        for mine, other in zip(found.hidden_states, expected.hidden_states, strict=True):
            assert_close(mine[row, reading], other[row, reading], 1e-5)


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["relative_key", "relative"])
@pytest.mark.parametrize("scores", [1, 3000, 10000])
def test_biases_in_blocks_equal_one_bias_for_all(kind, scores, monkeypatch):
    model = random_model(position_embeddings_type=kind)
    features, mask = features_and_mask()
    expected = model(features, mask).logits
    monkeypatch.setattr(relative_attention, "BLOCK_SCORES", scores)
    assert_close(model(features, mask).logits, expected, 1e-5)


def test_lengths_speak_of_samples():
    model = random_model()
    assert (model.min_samples, model.frame_stride) == (560, 320)
    assert [model.num_frames(n) for n in (0, 399, 400, 559, 560, 719, 720, 880, 16000)] == [0, 0, 0, 0, 1, 1, 2, 2, 49]
    counts = torch.tensor([0, 100, 559, 560, 16000])
    assert model.num_frames(counts).tolist() == [0, 0, 0, 1, 49]
    adapted = random_model(add_adapter=True, num_adapter_layers=2)
    assert (adapted.min_samples, adapted.frame_stride) == (560, 1280)
    assert [adapted.num_frames(n) for n in (0, 559, 560, 16000)] == [0, 0, 1, 13]
    speakers = random_model(Wav2Vec2BertForXVector)
    assert speakers.num_frames(speakers.min_samples) == 16
    assert model.config.inputs_to_logits_ratio == 20


@torch.inference_mode()
def test_the_shortest_input_of_an_x_vector_has_a_deviation():
    speakers = random_model(Wav2Vec2BertForXVector)
    features = torch.randn(1, 16, 10)
    assert speakers(features).embeddings.isfinite().all()
    assert speakers(features[:, :15]).embeddings.isnan().any()


def test_masks_may_be_of_any_type():
    model = random_model()
    features, mask = features_and_mask()
    with torch.inference_mode():
        expected = model(features, mask).logits
        for dtype in (torch.bool, torch.int32, torch.uint8):
            assert torch.equal(model(features, mask.to(dtype)).logits, expected)


def test_training_augments_as_theirs_does(tmp_path):
    flags = {"mask_time_prob": 0.4, "mask_feature_prob": 0.2, "mask_time_length": 3, "mask_feature_length": 4}
    still = {"conformer_conv_dropout": 0.0, "final_dropout": 0.0, "layerdrop": 0.0}
    oracle = make_oracle(**flags, **still).train()
    oracle.save_pretrained(tmp_path)
    model = Wav2Vec2BertForCTC.from_pretrained(tmp_path, padding="reference").train()
    features, mask = features_and_mask()
    np.random.seed(3)
    theirs = oracle(features, mask).logits
    np.random.seed(3)
    ours = model(features, mask).logits
    assert_close(ours, theirs)
    assert (ours - model.eval()(features, mask).logits).abs().max() > 0.1


def test_explicit_spans_are_masked(tmp_path):
    oracle = make_oracle().wav2vec2_bert
    oracle.save_pretrained(tmp_path)
    model = Wav2Vec2BertModel.from_pretrained(tmp_path)
    features, _ = features_and_mask()
    spans = torch.rand(features.shape[:2]) < 0.3
    with torch.inference_mode():
        ours, theirs = model(features, mask_time_indices=spans), oracle(features, mask_time_indices=spans)
    assert ours.keys() == list(theirs.keys())
    assert_close(ours.last_hidden_state, theirs.last_hidden_state)
    assert_close(ours.extract_features, theirs.extract_features)
    with pytest.raises(ValueError, match="without masked_spec_embed"):
        random_model(Wav2Vec2BertModel, mask_time_prob=0.0)(features, mask_time_indices=spans)


def test_dropout_layerdrop_and_checkpointing_act_in_training_alone():
    model = random_model(apply_spec_augment=False, layerdrop=0.5, add_adapter=True)
    features, mask = features_and_mask()
    assert torch.equal(model(features).logits, model(features).logits)
    model.train()
    assert not torch.equal(model(features).logits, model(features).logits)
    model.config.layerdrop = 0.0
    gradients = []
    for change in (model.gradient_checkpointing_disable, model.gradient_checkpointing_enable):
        change()
        model.zero_grad()
        torch.manual_seed(5)
        model(features, mask, labels=torch.tensor([[5, 6]] * 4)).loss.backward()
        layer = model.wav2vec2_bert.encoder.layers[0]
        gradients.append(layer.self_attn.distance_embedding.weight.grad.clone())
    assert_close(*gradients)
    assert gradients[0].abs().max() > 0


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["relative_key", "relative", "rotary", None])
def test_bfloat16_stays_near_float32(kind):
    model = random_model(position_embeddings_type=kind)
    features, mask = features_and_mask()
    expected = model(features, mask).logits
    logits = copy.deepcopy(model).to(torch.bfloat16)(features, mask).logits  # features come as float32
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - expected)[0].abs().max() < 0.05 * expected.abs().max() + 0.05


def test_random_weights_have_the_spread_of_theirs():
    flags = {"hidden_size": 64, "position_embeddings_type": "relative", "num_labels": 50}
    theirs = transformers.Wav2Vec2BertForXVector(transformers.Wav2Vec2BertConfig(**{**TINY, **flags})).state_dict()
    ours = random_model(Wav2Vec2BertForXVector, **flags).state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        if value.numel() > 500:
            assert 0.8 < ours[name].std() / value.std() < 1.25, name


def test_published_sizes_and_defaults_are_theirs():
    with torch.device("meta"):
        model = Wav2Vec2BertModel(Wav2Vec2BertConfig(num_hidden_layers=1))
        theirs = transformers.Wav2Vec2BertModel(transformers.Wav2Vec2BertConfig(num_hidden_layers=1))
    assert {name: value.shape for name, value in model.state_dict().items()} == {
        name: value.shape for name, value in theirs.state_dict().items()
    }
    ours_of, theirs_of = Wav2Vec2BertConfig().to_dict(), transformers.Wav2Vec2BertConfig().to_dict()
    for name in Wav2Vec2BertConfig.__annotations__.keys() - {"model_type"}:
        expected = theirs_of[name]
        assert ours_of[name] == (list(expected) if isinstance(expected, tuple) else expected), name


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"position_embeddings_type": "absolute"}, "position_embeddings_type is 'absolute'"),
        ({"num_attention_heads": 5}, "num_attention_heads is 5"),
        ({"conv_depthwise_kernel_size": 8}, "expected an odd number"),
        ({"use_intermediate_ffn_before_adapter": True}, "without add_adapter"),
        ({"add_adapter": True, "output_hidden_size": 30}, "num_attention_heads is 4"),
        ({"add_adapter": True, "adapter_stride": 0}, "below 1"),
        ({"tdnn_kernel": (1,)}, "differ in length"),
    ],
)
def test_wrong_configurations_are_refused(flags, message):
    with pytest.raises(CheckpointError, match=message):
        Wav2Vec2BertConfig(**{**TINY, **flags})


def test_heads_refuse_what_they_cannot_do():
    with pytest.raises(CheckpointError, match="vocab_size is None"):
        random_model(vocab_size=None)
    for kind in (Wav2Vec2BertForSequenceClassification, Wav2Vec2BertForAudioFrameClassification):
        with pytest.raises(CheckpointError, match="does not support add_adapter"):
            random_model(kind, add_adapter=True)
    with pytest.raises(ValueError, match="label 20 found, expected below vocab_size 20"):
        random_model()(features_and_mask()[0], labels=torch.full((4, 2), 20))


def test_heads_say_what_they_give():
    kinds = {
        Wav2Vec2BertModel: (),
        Wav2Vec2BertForCTC: (Capability.CTC,),
        Wav2Vec2BertForSequenceClassification: (Capability.CLASSES,),
        Wav2Vec2BertForAudioFrameClassification: (Capability.FRAME_CLASSES,),
        Wav2Vec2BertForXVector: (Capability.XVECTOR,),
    }
    assert {kind: kind.gives for kind in kinds} == kinds


def test_a_language_brings_its_own_head(tmp_path):
    random_model(adapter_attn_dim=8).save_pretrained(tmp_path)
    other = random_model(adapter_attn_dim=8, vocab_size=27)
    torch.nn.init.normal_(other.lm_head.weight)
    other.save_adapter(tmp_path, "spa")
    model = Wav2Vec2BertForCTC.from_pretrained(tmp_path, target_lang="spa")
    assert (model.target_lang, model.config.vocab_size) == ("spa", 27)
    assert torch.equal(model.lm_head.weight, other.lm_head.weight)
    later = Wav2Vec2BertForCTC.from_pretrained(tmp_path)
    later.load_adapter("spa")
    with torch.inference_mode():
        assert torch.equal(later(features_and_mask()[0]).logits, model(features_and_mask()[0]).logits)
    with pytest.raises(ValueError, match="target_lang 'spa' requested, but Wav2Vec2BertForCTC has no adapter layers"):
        Wav2Vec2BertForCTC(Wav2Vec2BertForCTC.config_class(**TINY), target_lang="spa")
