"""The tables of parameters in the models' documents: every default, and that each parameter has its effect.

promises.md lists every promise with the test that shows it.
"""

import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import raysp.models
from raysp import CheckpointError
from raysp.models import SEWDConfig, UniSpeechConfig, Wav2Vec2BertConfig
from raysp.models.base.row_layout import Layout
from tests.models import oracles
from tests.models.promises.promised import CLASSES, TINY, inputs_of, labels_of, seeded

MASKING = {
    "apply_spec_augment": True,
    "mask_time_prob": 0.05,
    "mask_time_length": 10,
    "mask_time_min_masks": 2,
    "mask_feature_prob": 0.0,
    "mask_feature_length": 10,
    "mask_feature_min_masks": 0,
}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SEW_D = {
    "vocab_size": 32,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "squeeze_factor": 2,
    "max_position_embeddings": 512,
    "position_buckets": 256,
    "share_att_key": True,
    "relative_attention": True,
    "pos_att_type": ("p2c", "c2p"),
    "norm_rel_ebd": "layer_norm",
    "hidden_act": "gelu_python",
    "hidden_dropout": 0.1,
    "activation_dropout": 0.1,
    "attention_dropout": 0.1,
    "feat_proj_dropout": 0.0,
    "final_dropout": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-07,
    "feature_layer_norm_eps": 1e-05,
    "feat_extract_norm": "group",
    "feat_extract_activation": "gelu",
    "conv_dim": (64, 128, 128, 128, 128, 256, 256, 256, 256, 512, 512, 512, 512),
    "conv_stride": (5, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1, 2, 1),
    "conv_kernel": (10, 3, 1, 3, 1, 3, 1, 3, 1, 2, 1, 2, 1),
    "conv_bias": False,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    **MASKING,
    "ctc_loss_reduction": "mean",
    "ctc_zero_infinity": False,
    "use_weighted_layer_sum": False,
    "classifier_proj_size": 256,
    **TOKENS,
}
WAV2VEC2_BERT = {
    "vocab_size": None,
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "feature_projection_input_dim": 160,
    "hidden_act": "swish",
    "hidden_dropout": 0.0,
    "activation_dropout": 0.0,
    "attention_dropout": 0.0,
    "feat_proj_dropout": 0.0,
    "final_dropout": 0.1,
    "layerdrop": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-05,
    **MASKING,
    "ctc_loss_reduction": "sum",
    "ctc_zero_infinity": False,
    "use_weighted_layer_sum": False,
    "classifier_proj_size": 768,
    "tdnn_dim": (512, 512, 512, 512, 1500),
    "tdnn_kernel": (5, 3, 3, 1, 1),
    "tdnn_dilation": (1, 2, 3, 1, 1),
    "xvector_output_dim": 512,
    **TOKENS,
    "add_adapter": False,
    "adapter_kernel_size": 3,
    "adapter_stride": 2,
    "num_adapter_layers": 1,
    "adapter_act": "relu",
    "use_intermediate_ffn_before_adapter": False,
    "output_hidden_size": 1024,  # None on the page, which says that it is then hidden_size
    "position_embeddings_type": "relative_key",
    "rotary_embedding_base": 10000,
    "max_source_positions": 5000,
    "left_max_position_embeddings": 64,
    "right_max_position_embeddings": 8,
    "conv_depthwise_kernel_size": 31,
    "conformer_conv_dropout": 0.1,
}
UNISPEECH = {
    "vocab_size": 32,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "hidden_dropout": 0.1,
    "activation_dropout": 0.1,
    "attention_dropout": 0.1,
    "feat_proj_dropout": 0.0,
    "feat_quantizer_dropout": 0.0,
    "final_dropout": 0.1,
    "layerdrop": 0.1,
    "initializer_range": 0.02,
    "layer_norm_eps": 1e-05,
    "feat_extract_norm": "group",
    "feat_extract_activation": "gelu",
    "conv_dim": (512, 512, 512, 512, 512, 512, 512),
    "conv_stride": (5, 2, 2, 2, 2, 2, 2),
    "conv_kernel": (10, 3, 3, 3, 3, 2, 2),
    "conv_bias": False,
    "num_conv_pos_embeddings": 128,
    "num_conv_pos_embedding_groups": 16,
    "do_stable_layer_norm": False,
    **MASKING,
    "num_codevectors_per_group": 320,
    "num_codevector_groups": 2,
    "contrastive_logits_temperature": 0.1,
    "num_negatives": 100,
    "codevector_dim": 256,
    "proj_codevector_dim": 256,
    "diversity_loss_weight": 0.1,
    "ctc_loss_reduction": "mean",
    "ctc_zero_infinity": False,
    "use_weighted_layer_sum": False,
    "classifier_proj_size": 256,
    "num_ctc_classes": 80,
    **TOKENS,
    "replace_prob": 0.5,
}
TABLES = {SEWDConfig: SEW_D, Wav2Vec2BertConfig: WAV2VEC2_BERT, UniSpeechConfig: UNISPEECH}
PARAMETERS = [(config, name) for config, table in TABLES.items() for name in table]


@pytest.mark.parametrize("config", TABLES, ids=lambda config: config.__name__)
def test_every_default_is_that_of_the_page(config):
    found = vars(config())
    assert {name: found[name] for name in TABLES[config]} == TABLES[config]


@pytest.mark.parametrize("config", TABLES, ids=lambda config: config.__name__)
def test_a_configuration_is_a_plain_dict_and_takes_more_than_its_fields(config, tmp_path):
    """`diversity_loss_weight`, which the page of SEW-D describes and its signature lacks, is such a further one."""
    made = config(hidden_size=48, my_own=[1], diversity_loss_weight=0.2)
    values = made.to_dict()
    assert type(values) is dict
    assert (values["hidden_size"], values["my_own"], values["diversity_loss_weight"]) == (48, [1], 0.2)
    assert values["model_type"] == config.model_type
    assert config.from_dict(values) == made
    made.save_pretrained(tmp_path)
    assert config.from_pretrained(tmp_path) == made


def test_classes_have_names_both_ways(tmp_path):
    assert UniSpeechConfig().id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert UniSpeechConfig().label2id == {"LABEL_0": 0, "LABEL_1": 1}
    assert UniSpeechConfig(num_labels=1).id2label == {0: "LABEL_0"}
    named = UniSpeechConfig(id2label={"0": "down", "1": "go", "2": "up"})
    assert (named.num_labels, named.label2id) == (3, {"down": 0, "go": 1, "up": 2})
    named.save_pretrained(tmp_path)
    assert UniSpeechConfig.from_pretrained(tmp_path) == named
    again = UniSpeechConfig.from_pretrained(tmp_path, id2label={0: "yes", 1: "no"})
    assert (again.num_labels, again.label2id) == (2, {"yes": 0, "no": 1})
    assert UniSpeechConfig.from_pretrained(tmp_path, num_labels=2).label2id == {"LABEL_0": 0, "LABEL_1": 1}
    UniSpeechConfig().save_pretrained(tmp_path)
    theirs = oracles.transformers.UniSpeechConfig.from_pretrained(tmp_path)
    assert theirs.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert "id2label" not in (tmp_path / "config.json").read_text()


@pytest.mark.parametrize("name", ["hidden_act", "feat_extract_activation"])
def test_an_activation_is_a_name_and_no_function(name):
    """A configuration is what config.json can hold; theirs refuses a function, too."""
    values = torch.linspace(-3, 3, 50)
    small = TINY[UniSpeechConfig]
    known = {"gelu": F.gelu, "gelu_python": F.gelu, "relu": F.relu, "selu": F.selu, "swish": F.silu}
    known["gelu_new"] = oracles.transformers.activations.NewGELUActivation()
    for act, expected in known.items():  # transformers has forgotten selu, which the pages name
        model = raysp.models.UniSpeechModel(UniSpeechConfig(**{**small, name: act})).eval()
        if name == "feat_extract_activation":
            torch.testing.assert_close(model.feature_extractor.act(values), expected(values))
            continue
        layer, hidden = model.encoder.layers[0].feed_forward, values[:, None].expand(-1, model.config.hidden_size)
        torch.testing.assert_close(layer(hidden), layer.output_dense(expected(layer.intermediate_dense(hidden))))
    with pytest.raises(CheckpointError, match=rf"UniSpeechConfig\.{name} is .*gelu.*, expected str"):
        UniSpeechConfig(**{name: torch.nn.functional.gelu})


# Every parameter does what it says, or is named among those that have nothing to do

WITHOUT_EFFECT = {
    # Read by tokenizers and by `generate` of text decoders alone.
    (SEWDConfig, "bos_token_id"),
    (SEWDConfig, "eos_token_id"),
    (Wav2Vec2BertConfig, "bos_token_id"),
    (Wav2Vec2BertConfig, "eos_token_id"),
    (UniSpeechConfig, "bos_token_id"),
    (UniSpeechConfig, "eos_token_id"),
    (SEWDConfig, "hidden_dropout"),  # "deprecated, not used", the page says
    (Wav2Vec2BertConfig, "max_source_positions"),  # a table that theirs extends; here there is none
    (UniSpeechConfig, "replace_prob"),  # of a mixture that theirs makes and throws away
}
ADAPTER = {"add_adapter": True}
CHANGED = {
    "vocab_size": 21,
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 40,
    "squeeze_factor": 3,
    "max_position_embeddings": 20,
    "position_buckets": 12,
    "share_att_key": False,
    "relative_attention": False,
    "pos_att_type": ("c2p",),
    "norm_rel_ebd": "none",
    "hidden_act": "relu",
    "feat_extract_activation": "relu",
    "feat_extract_norm": "layer",
    "layer_norm_eps": 0.1,
    "feature_layer_norm_eps": 0.1,
    "initializer_range": 0.3,
    "conv_dim": (8, 16, 20),
    "conv_stride": (5, 2, 2),
    "conv_kernel": (10, 4, 2),
    "conv_bias": True,
    "num_conv_pos_embeddings": 12,
    "num_conv_pos_embedding_groups": 2,
    "do_stable_layer_norm": True,
    "apply_spec_augment": False,
    "mask_time_prob": 0.5,
    "mask_time_length": 7,
    "mask_time_min_masks": 6,
    "mask_feature_prob": 0.5,
    "mask_feature_length": 3,
    "mask_feature_min_masks": 6,
    "ctc_loss_reduction": {"mean": "sum", "sum": "mean"},
    "ctc_zero_infinity": True,
    "use_weighted_layer_sum": True,
    "classifier_proj_size": 10,
    "pad_token_id": 5,
    "bos_token_id": 7,
    "eos_token_id": 8,
    "num_codevectors_per_group": 5,
    "num_codevector_groups": 1,
    "contrastive_logits_temperature": 0.5,
    "num_negatives": 3,
    "codevector_dim": 12,
    "proj_codevector_dim": 11,
    "diversity_loss_weight": 0.7,
    "num_ctc_classes": 9,
    "replace_prob": 0.9,
    "feature_projection_input_dim": 12,
    "tdnn_dim": (16, 12, 16, 16, 24),
    "tdnn_kernel": (3, 3, 3, 1, 1),
    "tdnn_dilation": (1, 1, 3, 1, 1),
    "xvector_output_dim": 9,
    "adapter_kernel_size": 5,
    "adapter_stride": 3,
    "num_adapter_layers": 2,
    "adapter_act": "gelu",
    "use_intermediate_ffn_before_adapter": True,
    "output_hidden_size": 24,
    "add_adapter": True,
    "position_embeddings_type": "rotary",
    "rotary_embedding_base": 50,
    "max_source_positions": 30,
    "left_max_position_embeddings": 7,
    "right_max_position_embeddings": 2,
    "conv_depthwise_kernel_size": 5,
    "layerdrop": 0.9,
}
ONLY_WITH = {  # what a parameter needs beside it
    "adapter_kernel_size": ADAPTER,
    "adapter_stride": ADAPTER,
    "num_adapter_layers": ADAPTER,
    "adapter_act": ADAPTER,
    "use_intermediate_ffn_before_adapter": ADAPTER,
    "output_hidden_size": ADAPTER,
    "rotary_embedding_base": {"position_embeddings_type": "rotary"},
    "max_source_positions": {"position_embeddings_type": "relative"},
    "mask_time_min_masks": {"mask_time_prob": 0.01},
    "mask_feature_length": {"mask_feature_prob": 0.3},
    "mask_feature_min_masks": {"mask_feature_prob": 0.01, "mask_feature_length": 3},
}


def observed(config_class, name, flags):
    """Return all that a configuration decides: names, shapes and draws of weights, outputs and losses in both modes."""
    config = config_class(**{**TINY[config_class], **flags})
    try:
        model = seeded(lambda: getattr(raysp.models, name)(config)).eval()
    except CheckpointError as error:  # a head that takes no adapter
        return {name: str(error)}
    inputs = inputs_of(config)
    with torch.no_grad():
        evaluated = seeded(lambda: model(inputs))
        labels = labels_of(name, evaluated[0])
        given = {} if labels is None else {"labels": labels}
        trained = seeded(lambda: model.train()(inputs, **given))
        outputs = [*evaluated.values(), *trained.values()]
        if name.endswith("ForCTC"):
            outputs.append(model.eval()(inputs[:, :100], labels=torch.full((2, 90), 5)).loss)
    return {**model.state_dict(), **{f"{name} {index}": value for index, value in enumerate(outputs)}}


@functools.cache
def observed_before(config_class, name, parameter):
    return observed(config_class, name, ONLY_WITH[parameter] if parameter else {})


def is_same(first, second):
    if first.keys() != second.keys():
        return False
    return all(
        first[name].shape == second[name].shape and torch.equal(first[name].nan_to_num(), second[name].nan_to_num())
        if isinstance(first[name], torch.Tensor) and isinstance(second[name], torch.Tensor)
        else first[name] is second[name] or first[name] == second[name]
        for name in first
    )


def changed_value(config_class, name):
    if name.endswith("_dropout"):
        return 0.5
    value = CHANGED[name]
    return value[TABLES[config_class][name]] if isinstance(value, dict) else value


@pytest.mark.parametrize(("config_class", "name"), PARAMETERS, ids=lambda value: getattr(value, "__name__", value))
def test_every_parameter_has_its_effect(config_class, name):
    flags = {**ONLY_WITH.get(name, {}), name: changed_value(config_class, name)}
    same = all(
        is_same(
            observed_before(config_class, model, name if name in ONLY_WITH else ""),
            observed(config_class, model, flags),
        )
        for model in CLASSES[config_class]
    )
    assert same == ((config_class, name) in WITHOUT_EFFECT)


def test_a_configuration_makes_random_weights_as_it_says():
    """Each time others, by its deviation; only `from_pretrained` reads a file."""
    for config_class, names in CLASSES.items():
        for name in names:
            first, second = (
                getattr(raysp.models, name)(config_class(**TINY[config_class], initializer_range=0.5)).state_dict()
                for _ in range(2)
            )
            drawn = [key for key, value in first.items() if value.numel() > 500 and "intermediate" in key]
            assert drawn, name
            for key in drawn:
                assert 0.4 < first[key].std() < 0.6, key
                assert not torch.equal(first[key], second[key]), key


# SpecAugment


def test_the_number_of_spans_is_their_share_of_the_axis():
    """prob x length of the axis / length of a span, rounded up or down, but at least so many."""

    model = raysp.models.UniSpeechModel(UniSpeechConfig(**TINY[UniSpeechConfig]))

    def counts(prob, span, least=0, places=1000):
        model.config.mask_time_prob, model.config.mask_time_length = prob, span
        model.config.mask_time_min_masks = least
        rows = model.draw_time_mask(Layout.of(torch.zeros(200, places), None)).numpy()
        starts = np.diff(rows.astype(int), prepend=0, axis=1) == 1
        assert rows.sum(1).max() <= span * (int(prob * places / span) + 1 + least)  # spans overlap, and so cover less
        return rows, starts.sum(1)

    np.random.seed(0)
    rows, _ = counts(0.2, 10)
    assert 0.15 < rows.mean() < 0.2
    assert (rows[0] != rows[1]).any()  # drawn for each row by itself
    rows, starts = counts(0.0001, 10, least=3)
    assert (rows.sum(1) <= 30).all()
    assert starts.max() == 3
    assert not counts(0.0001, 10)[0][:, :-1].any() or counts(0.0001, 10)[1].max() <= 1


@pytest.mark.parametrize("config_class", TABLES, ids=lambda config: config.__name__)
def test_spans_cover_what_the_feature_encoder_gives_and_only_in_training(config_class):
    """Along time by the learned vector, along features by zero."""
    still = {name: 0.0 for name in TABLES[config_class] if name.endswith("dropout") or name == "layerdrop"}
    flags = {"mask_time_prob": 0.6, "mask_feature_prob": 0.5, "mask_feature_length": 3}
    config = config_class(**{**TINY[config_class], **still, **flags})
    model = getattr(raysp.models, CLASSES[config_class][0])(config)
    seen = []
    encoder = model.encoder
    encoder.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    inputs = inputs_of(config)
    with torch.no_grad():
        model.eval()(inputs)
        plain = seen.pop()
        seeded(lambda: model.train()(inputs))
        masked = seen.pop()
    vector = model.masked_spec_embed.detach()
    by_time = ((masked == vector) | (masked == 0)).all(-1)
    by_feature = (masked == 0).all(1)
    assert 0.2 < by_time.float().mean() < 0.7
    assert 0.2 < by_feature.float().mean() < 0.7
    kept = ~by_time[:, :, None] & ~by_feature[:, None]
    assert torch.equal(masked[kept], plain[kept])
    config.apply_spec_augment = False
    with torch.no_grad():
        model(inputs)
    assert torch.equal(seen.pop(), plain)
