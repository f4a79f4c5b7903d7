"""What holds for every encoder and head: the numbers of transformers, and rows that do not depend on others.

`encoder_cases.CASES` has the models. What one architecture alone does is tested in its own file.
"""

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import raysp.models
from raysp import CheckpointError
from tests.models.encoder.encoder_cases import CASES, CODES, SPEAKERS, inputs_of, labels_of
from tests.models.oracles import fields_of, make_pair, random_model, transformers
from tests.models.parity import (
    assert_close,
    check_gradients,
    check_names,
    check_outputs,
    check_rows_alone,
    check_rows_alone_are_theirs,
    inputs_and_mask,
)

CTC = ["UniSpeechForCTC", "Wav2Vec2ForCTC", "HubertForCTC", "SEWDForCTC", "Wav2Vec2BertForCTC", "ParakeetForCTC"]
POSITIONS = ["relative_key", "relative", "rotary", None]
NORMS = ["group", "layer"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Return their model of a class and flags, and ours loaded from what theirs saved, which are made once."""
    return cache(lambda name, **flags: make_pair(name, tmp_path_factory.mktemp(name), **flags))


@pytest.fixture(params=CASES)
def case(request, pair):
    """A class and its inputs; their model and ours."""
    name, flags = CASES[request.param]
    return name, inputs_of(name, flags), *pair(name, **flags)


def test_outputs_states_and_attentions_equal_theirs(case):
    _, inputs, oracle, model = case
    check_outputs(oracle, model, inputs.lengths, inputs.width, inputs.short)


def test_a_row_in_a_batch_equals_the_row_alone_and_theirs(case):
    name, inputs, oracle, model = case
    check_rows_alone_are_theirs(oracle, model, inputs.lengths, inputs.width)
    if not name.endswith("PreTraining"):  # whose perplexity is that of the batch
        for option in ("output_hidden_states", "output_attentions"):
            check_rows_alone(model, inputs.lengths, width=inputs.width, **{option: True})


def test_weights_have_their_names_in_both_directions(case, tmp_path):
    check_names(*case[2:], tmp_path)


# No loss without labels; the loss of pre-training is in test_unispeech_heads, those of Parakeet in test_parakeet.
LABELLED = [key for key, (name, _) in CASES.items() if labels_of(name, 1) is not None and "Parakeet" not in name]


@pytest.mark.parametrize("case", LABELLED, indirect=True)
def test_loss_and_gradients_equal_theirs(case):
    name, inputs, oracle, model = case
    num_frames = max(inputs.lengths) if inputs.width else model.num_frames(max(inputs.lengths))
    check_gradients(oracle, model, labels_of(name, num_frames), inputs.lengths, inputs.width)


made = cache(random_model)
RANDOM_ROWS = {
    "UniSpeechForCTC": (4000, {"feat_extract_norm": NORMS}),
    "SEWDForCTC": (1500, {"feat_extract_norm": NORMS, "squeeze_factor": [1, 2, 3]}),
    "Wav2Vec2BertForCTC": (80, {"position_embeddings_type": POSITIONS, "add_adapter": [False, True]}),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", RANDOM_ROWS)
@torch.inference_mode()
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_row_alone_equals_the_row_in_any_batch(name, data):
    longest, options = RANDOM_ROWS[name]
    model = made(name, **data.draw(st.fixed_dictionaries({k: st.sampled_from(v) for k, v in options.items()})))
    width = inputs_of(name).width
    least = model.min_samples if width is None else 1
    first, *others = data.draw(st.lists(st.integers(0, longest), min_size=1, max_size=5))
    lengths = [max(first, least), *others]
    inputs, mask = inputs_and_mask(lengths, width, data.draw(st.integers(0, 99)))
    inputs += (1 - mask if width is None else 1 - mask[:, :, None]) * 7.0  # values after a row's end have no effect
    logits = model(inputs, mask).logits
    assert logits.isfinite().all()
    for row, length in enumerate(lengths):
        if length >= least:
            alone = model(inputs[row : row + 1, :length]).logits[0]
            assert len(alone) == model._get_feat_extract_output_lengths(length)
            assert_close(logits[row, : len(alone)], alone, 1e-5)


@pytest.mark.parametrize(
    "case", [key for key, (name, _) in CASES.items() if inputs_of(name).width is None], indirect=True
)
@torch.inference_mode()
def test_the_shortest_input_is_as_documented(case):
    model = case[3]
    assert model(torch.randn(1, model.min_samples))[0].isfinite().all()
    assert model.num_frames(3001) == model.base_model(torch.randn(1, 3001))[0].shape[1]
    assert model.num_frames(model.min_samples + 3 * model.frame_stride) == model.num_frames(model.min_samples) + 3


@pytest.mark.parametrize("name", ["Wav2Vec2ForXVector", "Wav2Vec2BertForXVector"])
@torch.inference_mode()
def test_an_x_vector_of_fewer_frames_than_the_shortest_input_has_no_deviation(name):
    model = random_model(name, **(SPEAKERS if name == "Wav2Vec2ForXVector" else {}))
    one = torch.randn(1, model.min_samples) if inputs_of(name).width is None else torch.randn(1, 16, 10)
    assert model(one).embeddings.isfinite().all()
    assert model(one[:, :-1]).embeddings.isnan().all()


@pytest.mark.parametrize("name", CTC)
@torch.inference_mode()
def test_masks_may_be_of_any_type(name):
    model = random_model(name)
    inputs, mask = inputs_of(name).drawn()
    expected = model(inputs, mask).logits
    for dtype in (torch.bool, torch.int32, torch.uint8):
        assert torch.equal(model(inputs, mask.to(dtype)).logits, expected)


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        *(("UniSpeechForCTC", {"feat_extract_norm": norm}) for norm in NORMS),
        ("SEWDForCTC", {}),
        *(("Wav2Vec2BertForCTC", {"position_embeddings_type": kind}) for kind in POSITIONS),
    ],
)
@torch.inference_mode()
def test_bfloat16_stays_near_float32(name, flags):
    model = random_model(name, **flags)
    inputs, mask = inputs_of(name).drawn()
    expected = model(inputs, mask).logits
    logits = model.to(torch.bfloat16)(inputs, mask).logits  # of inputs in float32
    assert logits.dtype == model.dtype == torch.bfloat16
    assert (logits.float() - expected)[0].abs().max() < 0.05 * expected.abs().max() + 0.05


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("SEWDForCTC", {}),
        *(("Wav2Vec2BertForCTC", {"position_embeddings_type": kind}) for kind in ("relative_key", "relative")),
    ],
)
@pytest.mark.parametrize("lengths", [(520, 300), (300, 251, 100), (250, 249, 120), (140, 90, 133, 101, 140)])
def test_biases_in_blocks_equal_one_bias_for_all(name, flags, lengths):
    """Without gradients a part of the rows or heads has its bias at a time, of 512 frames by as many at most."""
    model = random_model(name, **flags)
    width = inputs_of(name).width
    inputs, mask = inputs_and_mask([length if width else 20 * length for length in lengths], width)
    with torch.inference_mode():  # first: later, memory may hold the values of a block that is left out
        model(torch.zeros_like(inputs), mask)
        found = [model(*call).logits for call in ((inputs, mask), (inputs,))]
    for logits, call in zip(found, ((inputs, mask), (inputs,)), strict=True):
        expected = model(*call).logits
        assert expected.requires_grad
        assert_close(logits, expected.detach(), 1e-5)


# Training


def still(name):
    """Return flags that turn off what training draws, but for SpecAugment."""
    fields = vars(getattr(raysp.models, name).config_class())
    return {field: 0.0 for field in fields if field.endswith("_dropout") or field == "layerdrop"}


@pytest.mark.parametrize("name", ["UniSpeechForCTC", "SEWDForCTC", "Wav2Vec2BertForCTC"])
def test_training_augments_as_theirs_does(name, tmp_path):
    flags = {"mask_time_prob": 0.4, "mask_feature_prob": 0.2, "mask_time_length": 3, "mask_feature_length": 4}
    oracle, model = make_pair(name, tmp_path, **flags, **still(name))
    inputs, _ = inputs_of(name).drawn()
    outputs = []
    for one in (oracle.train(), model.train()):
        np.random.seed(3)
        outputs.append(one(inputs).logits)
    theirs, ours = outputs
    assert_close(ours, theirs)
    assert (ours - model.eval()(inputs).logits).abs().max() > 0.1


@pytest.mark.parametrize(
    ("name", "flags", "weight"),
    [
        ("UniSpeechForCTC", {"hidden_dropout": 0.3, "layerdrop": 0.5}, "unispeech.encoder.layers.0.attention.q_proj"),
        ("SEWDForCTC", {}, "sew_d.encoder.encoder.rel_embeddings"),
        (
            "Wav2Vec2BertForCTC",
            {"layerdrop": 0.5, "add_adapter": True},
            "wav2vec2_bert.encoder.layers.0.self_attn.distance_embedding",
        ),
    ],
)
def test_dropout_layerdrop_and_checkpointing_act_in_training_alone(name, flags, weight):
    model = random_model(name, apply_spec_augment=False, **flags)
    inputs, mask = inputs_of(name).drawn()
    assert torch.equal(model(inputs).logits, model(inputs).logits)
    model.train()
    assert not torch.equal(model(inputs).logits, model(inputs).logits)
    model.config.layerdrop = 0.0
    gradients = []
    for change in (model.gradient_checkpointing_disable, model.gradient_checkpointing_enable):
        change()
        model.zero_grad()
        torch.manual_seed(5)
        model(inputs, mask, labels=torch.tensor([[5, 6]] * 4)).loss.backward()
        gradients.append(model.get_parameter(f"{weight}.weight").grad.clone())
    assert_close(*gradients)
    assert gradients[0].abs().max() > 0


# Configurations, initial weights, heads

WIDE = {"hidden_size": 64}
SPREADS = [
    ("UniSpeechForCTC", WIDE),
    ("UniSpeechForPreTraining", {**CODES, "num_codevectors_per_group": 200}),
    ("HubertForCTC", {**WIDE, "conv_bias": True, "conv_pos_batch_norm": True}),
    ("HubertForCTC", {**WIDE, "conv_bias": True}),
    ("Wav2Vec2ForXVector", {**WIDE, **SPEAKERS}),
    ("Wav2Vec2BertForXVector", {**WIDE, "position_embeddings_type": "relative", "num_labels": 50}),
    ("ParakeetForCTC", {"initializer_range": 0.3}),
]


@pytest.mark.parametrize(("name", "flags"), SPREADS)
def test_random_weights_have_the_spread_of_theirs(name, flags):
    cls = getattr(transformers, name)
    theirs, ours = (
        cls(cls.config_class(**fields_of(name, flags))).state_dict(),
        random_model(name, **flags).state_dict(),
    )
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        if "pos_conv_embed" in key and not flags.get("conv_pos_batch_norm"):
            continue  # theirs writes that draw to a copy, and so loses it
        if value.numel() > 500:
            assert 0.8 < ours[key].std() / value.std() < 1.25, key
            assert abs(ours[key].mean() - value.mean()) < 0.1, key


CONFIGURATIONS = ["UniSpeech", "Wav2Vec2", "Hubert", "SEWD", "Wav2Vec2Bert"]


@pytest.mark.parametrize("family", CONFIGURATIONS)
def test_defaults_of_configurations_are_theirs(family):
    ours, theirs = (getattr(models, f"{family}Config")().to_dict() for models in (raysp.models, transformers))
    for name in ours.keys() & theirs.keys() - {"id2label", "label2id"}:
        assert ours[name] == (list(theirs[name]) if isinstance(theirs[name], tuple) else theirs[name]), name
    assert getattr(raysp.models, f"{family}Config").__annotations__.keys() - {"model_type"} <= theirs.keys()


@pytest.mark.parametrize("family", CONFIGURATIONS)
def test_published_sizes_are_theirs(family):
    with torch.device("meta"):
        ours, theirs = (
            getattr(models, f"{family}Model")(getattr(models, f"{family}Config")(num_hidden_layers=1)).state_dict()
            for models in (raysp.models, transformers)
        )
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in theirs.items()}


@pytest.mark.parametrize(
    ("family", "flags", "message"),
    [
        ("UniSpeech", {"hidden_size": "768"}, "UniSpeechConfig.hidden_size is '768', expected int"),
        ("UniSpeech", {"conv_bias": 1}, "conv_bias is 1, expected bool"),
        ("UniSpeech", {"conv_dim": [512, None]}, r"conv_dim\[1\] is None"),
        ("UniSpeech", {"conv_stride": [5, 2]}, "expected one length for all three"),
        ("UniSpeech", {"num_attention_heads": 7}, "num_attention_heads is 7, expected a divisor of hidden_size 768"),
        ("UniSpeech", {"num_attention_heads": 0}, "num_attention_heads is 0"),
        ("Wav2Vec2", {"tdnn_dim": (4, 5)}, "expected one length for all three"),
        ("Wav2Vec2", {"adapter_stride": 0}, "a kernel, stride or dilation is below 1"),
        ("SEWD", {"conv_dim": (8,)}, "expected one length"),
        ("SEWD", {"squeeze_factor": 0}, "squeeze_factor is 0"),
        ("SEWD", {"num_attention_heads": 7}, "num_attention_heads is 7"),
        ("SEWD", {"attention_head_size": 7}, "attention_head_size"),
        ("Wav2Vec2Bert", {"position_embeddings_type": "absolute"}, "position_embeddings_type is 'absolute'"),
        ("Wav2Vec2Bert", {"num_attention_heads": 5}, "num_attention_heads is 5"),
        ("Wav2Vec2Bert", {"conv_depthwise_kernel_size": 8}, "expected an odd number"),
        ("Wav2Vec2Bert", {"use_intermediate_ffn_before_adapter": True}, "without add_adapter"),
        ("Wav2Vec2Bert", {"add_adapter": True, "output_hidden_size": 30}, "num_attention_heads is 16"),
        ("Wav2Vec2Bert", {"add_adapter": True, "adapter_stride": 0}, "adapter_stride is 0, expected at least 1"),
        ("Wav2Vec2Bert", {"tdnn_kernel": (1,)}, "expected one length for all three"),
    ],
)
def test_wrong_configurations_are_refused(family, flags, message):
    with pytest.raises(CheckpointError, match=message):
        getattr(raysp.models, f"{family}Config")(**flags)


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("UniSpeechForCTC", {"hidden_act": "softsign"}, "activation is 'softsign', expected one of gelu"),
        (
            "UniSpeechForCTC",
            {"feat_extract_norm": "batch"},
            "feat_extract_norm is 'batch', expected 'group' or 'layer'",
        ),
        (
            "UniSpeechForPreTraining",
            {**CODES, "num_codevector_groups": 3},
            "codevector_dim is 8, expected a multiple of num_codevector_groups 3",
        ),
        ("Wav2Vec2BertForCTC", {"vocab_size": None}, "vocab_size is None"),
        *(
            (f"{family}For{head}", {"add_adapter": True}, f"{family}For{head} does not support add_adapter")
            for family in ("Wav2Vec2", "Wav2Vec2Bert")
            for head in ("SequenceClassification", "AudioFrameClassification")
        ),
    ],
)
def test_models_that_cannot_be_are_refused(name, flags, message):
    with pytest.raises(CheckpointError, match=message):
        random_model(name, **flags)


HEADS = {
    "Model": (),
    "ForCTC": ("ctc",),
    "ForSequenceClassification": ("classes",),
    "ForAudioFrameClassification": ("frame_classes",),
    "ForXVector": ("xvector",),
}


@pytest.mark.parametrize("family", CONFIGURATIONS)
def test_heads_declare_their_outputs(family):
    for head, gives in HEADS.items():
        cls = getattr(raysp.models, family + head) if family + head in raysp.models.__all__ else None
        assert cls is None or cls.gives == gives
        assert cls is not None or head in ("ForAudioFrameClassification", "ForXVector")


@pytest.mark.parametrize("name", ["SEWDForCTC", "Wav2Vec2BertForCTC"])
@torch.inference_mode()
def test_a_language_brings_its_own_head(name, tmp_path):
    cls = getattr(raysp.models, name)
    random_model(name, adapter_attn_dim=8).save_pretrained(tmp_path)
    other = random_model(name, adapter_attn_dim=8, vocab_size=27)
    torch.nn.init.normal_(other.lm_head.weight)
    other.save_adapter(tmp_path, "spa")
    model = cls.from_pretrained(tmp_path, target_lang="spa")
    assert (model.target_lang, model.config.vocab_size) == ("spa", 27)
    assert torch.equal(model.lm_head.weight, other.lm_head.weight)
    later = cls.from_pretrained(tmp_path)
    later.load_adapter("spa")
    inputs, _ = inputs_of(name).drawn()
    assert torch.equal(later(inputs).logits, model(inputs).logits)
    with pytest.raises(ValueError, match=f"target_lang 'spa' requested, but {name} has no adapter layers"):
        cls(cls.config_class(**fields_of(name, {})), target_lang="spa")
