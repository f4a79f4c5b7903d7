"""What holds for every encoder and head: the numbers of transformers, and rows that do not depend on others."""

from functools import cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import raysp.models
from tests.models.cases import CASES, CODES, LAYER, OPTIONS, SPEAKERS, batch_of, labels_of, lengths_of, width_of
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

NORMS = ["group", "layer"]


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Return their model of a case, and ours loaded from what theirs saved, which are made once."""

    @cache
    def made(key):
        name, flags = CASES[key]
        return make_pair(name, tmp_path_factory.mktemp("case"), **flags)

    return made


@pytest.fixture(params=CASES)
def case(request, pair):
    """A class, lengths and width of its rows; their model and ours."""
    name, flags = CASES[request.param]
    (oracle, model), lengths, width = pair(request.param), lengths_of(name), width_of(name, flags)
    if width is None:  # adapters with wide kernels and strides need longer rows
        lengths = [length + max(0, model.min_samples - min(lengths)) for length in lengths]
    return name, lengths, width, oracle, model


def test_outputs_equal_theirs_and_those_of_each_row_alone(case):
    name, lengths, width, oracle, model = case
    check_outputs(oracle, model, lengths, width)
    if name.endswith("PreTraining"):  # whose perplexity is that of the batch
        check_rows_alone_are_theirs(oracle, model, lengths, width)
    else:
        check_rows_alone(model, lengths, width=width, output_hidden_states=True, output_attentions=True)


@pytest.mark.parametrize("case", [key for key in CASES if key.endswith("0")], indirect=True)
def test_weights_have_their_names_in_both_directions(case, tmp_path):
    check_names(*case[3:], tmp_path)


@pytest.mark.parametrize(
    "case", [k for k, (name, _) in CASES.items() if labels_of(name, 1) is not None and k[-1] in "01"], indirect=True
)
def test_loss_and_gradients_equal_theirs(case):
    name, lengths, width, oracle, model = case
    num_frames = model.num_frames(max(lengths)) if width is None else max(lengths)
    check_gradients(oracle, model, labels_of(name, num_frames, model.config.num_labels), lengths, width)


@pytest.mark.parametrize(
    "case", [key for key, (name, _) in CASES.items() if width_of(name) is None and key.endswith("0")], indirect=True
)
@torch.inference_mode()
def test_the_shortest_input_is_as_documented(case):
    model = case[4]
    assert model(torch.randn(1, model.min_samples))[0].isfinite().all()
    if not getattr(model.config, "add_adapter", False) and not case[0].endswith("XVector"):
        with pytest.raises(RuntimeError, match=f"{model.min_samples - 1} samples, the model needs at least"):
            model(torch.randn(1, model.min_samples - 1))
    assert model.num_frames(3001) == model.base_model(torch.randn(1, 3001))[0].shape[1]
    assert model.num_frames(model.min_samples + 3 * model.frame_stride) == model.num_frames(model.min_samples) + 3
    counts = torch.tensor([0, 100, 399, 400, 16000, 480001])
    assert [model.num_frames(int(count)) for count in counts] == model.num_frames(counts).tolist()


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        *(("UniSpeechForCTC", {"feat_extract_norm": norm, "num_conv_pos_embedding_groups": 16}) for norm in NORMS),
        ("HubertForCTC", {"conv_pos_batch_norm": True}),
        ("SEWDForCTC", {}),
        *(("Wav2Vec2BertForCTC", {"position_embeddings_type": kind}) for kind in ("relative", "rotary")),
        ("ParakeetForCTC", {}),
    ],
)
@torch.inference_mode()
def test_bfloat16_stays_near_float32_and_masks_may_be_of_any_type(name, flags):
    model = random_model(name, **flags)
    inputs, mask = batch_of(name)
    expected = model(inputs, mask).logits
    for dtype in (torch.bool, torch.int32, torch.uint8):
        assert torch.equal(model(inputs, mask.to(dtype)).logits, expected)
    logits = model.to(torch.bfloat16)(inputs, mask).logits  # of inputs in float32
    assert logits.dtype == model.dtype == torch.bfloat16
    assert (logits.float() - expected)[0].abs().max() < 0.05 * expected.abs().max() + 0.05


@pytest.mark.parametrize(
    ("name", "flags", "lengths"),
    [
        ("SEWDForCTC", {"position_buckets": 2, "max_position_embeddings": 300}, (520, 300)),
        ("SEWDForCTC", {"position_buckets": 300, "max_position_embeddings": 300}, (140, 90, 133, 101, 140)),
        ("Wav2Vec2BertForCTC", {"position_embeddings_type": "relative_key"}, (520, 300)),
        ("Wav2Vec2BertForCTC", {"position_embeddings_type": "relative"}, (140, 90, 133, 101, 140)),
    ],
)
def test_biases_in_blocks_equal_theirs_and_one_bias_for_all(name, flags, lengths, tmp_path):
    """Without gradients a part of the rows or heads has its bias at a time, of 512 frames by as many at most."""
    oracle, model = make_pair(name, tmp_path, num_hidden_layers=1, **flags)
    width = width_of(name)
    lengths = [length if width else 20 * length + 21 for length in lengths]
    inputs, mask = inputs_and_mask(lengths, width)
    with torch.inference_mode():  # first: later, memory may hold the values of a block that is left out
        model(torch.zeros_like(inputs), mask)
        found = [model(*call).logits for call in ((inputs, mask), (inputs,))]
    for logits, call in zip(found, ((inputs, mask), (inputs,)), strict=True):
        expected = model(*call).logits
        assert expected.requires_grad
        assert_close(logits, expected.detach(), 1e-5)
    check_rows_alone_are_theirs(oracle, model, lengths, width)


# Frames and rows that are few or uneven


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("Wav2Vec2BertForCTC", {"adapter_kernel_size": 5, "adapter_stride": 2}),
        ("Wav2Vec2ForCTC", {"adapter_kernel_size": 4, "adapter_stride": 4, "num_adapter_layers": 2}),
    ],
)
def test_frames_of_any_adapter_are_counted(name, flags, tmp_path):
    """Where the original's count of frames is not its convolution's."""
    oracle, model = make_pair(name, tmp_path, add_adapter=True, **flags)
    check_rows_alone_are_theirs(oracle, model, lengths_of(name), width_of(name))


@torch.inference_mode()
def test_rows_without_a_frame_give_zeros_and_do_not_touch_the_others():
    model = random_model("SEWDModel")
    mask = torch.zeros(2, 60, dtype=torch.long)
    mask[:, :3] = 1
    assert not model(torch.randn(2, 60), mask).last_hidden_state.any()
    model = random_model()
    waves, mask = inputs_and_mask((2000, 5, 0), None)
    logits = model(waves, mask).logits
    assert logits.isfinite().all()
    assert_close(logits[:1], model(waves[:1]).logits, 1e-5)


@torch.inference_mode()
def test_a_quiet_high_band_survives_a_loud_low_one(tmp_path):
    """Folding the group norm must not lose a filter that sees a millionth of the power."""
    oracle, model = make_pair("UniSpeechModel", tmp_path)
    waves = torch.cumsum(torch.randn(1, 16000, dtype=torch.float64), 1).float()
    waves = (waves - waves.mean()) / waves.std()
    kernel = torch.tensor([1.0, -4, 6, -4, 1, 0, 0, 0, 0, 0])
    for one in (oracle, model):
        weight = one.get_parameter("feature_extractor.conv_layers.0.conv.weight")
        weight.copy_(kernel.expand_as(weight))
    expected = oracle.double()(waves.double()).extract_features.float()
    assert_close(model(waves).extract_features, expected, 1e-2)


# Training


def still(name):
    """Return flags that turn off what training draws, but for SpecAugment."""
    fields = vars(getattr(raysp.models, name).config_class())
    return {field: 0.0 for field in fields if field.endswith("_dropout") or field == "layerdrop"}


@pytest.mark.parametrize("name", ["UniSpeechForCTC", "SEWDForCTC", "Wav2Vec2BertForCTC"])
def test_training_augments_as_theirs_does(name, tmp_path):
    flags = {"mask_time_prob": 0.4, "mask_feature_prob": 0.2, "mask_time_length": 3, "mask_feature_length": 4}
    flags |= {"feat_extract_norm": "layer"} if width_of(name) is None else {}
    oracle, model = make_pair(name, tmp_path, **flags, **still(name))
    inputs, mask = batch_of(name)
    lengths = model._get_feat_extract_output_lengths(mask.sum(-1)).tolist()
    for call in ((inputs,), (inputs, mask)) if name == "UniSpeechForCTC" else ((inputs,),):
        outputs = []
        for one in (oracle.train(), model.train()):
            np.random.seed(3)
            outputs.append(one(*call).logits)
        for row, count in enumerate(lengths if len(call) == 2 else [None] * len(lengths)):  # no spans in padding
            assert_close(outputs[1][row, :count], outputs[0][row, :count])
    assert (outputs[1] - model.eval()(inputs).logits)[0].abs().max() > 0.1


@pytest.mark.parametrize(
    ("name", "flags", "weight"),
    [
        ("UniSpeechForCTC", {"hidden_dropout": 0.3}, "unispeech.encoder.layers.0.attention.q_proj"),
        ("Wav2Vec2ForCTC", LAYER, "wav2vec2.feature_extractor.conv_layers.1.conv"),
        ("SEWDForCTC", {}, "sew_d.encoder.encoder.rel_embeddings"),
        ("Wav2Vec2BertForCTC", {}, "wav2vec2_bert.encoder.layers.0.self_attn.distance_embedding"),
        ("ParakeetForCTC", {}, "encoder.layers.0.feed_forward1.linear1"),
    ],
)
def test_dropout_acts_in_training_and_checkpointing_changes_no_gradients(name, flags, weight):
    model = random_model(name, **flags, **({} if "Parakeet" in name else {"apply_spec_augment": False}))
    inputs, mask = batch_of(name)
    getattr(model.config, "encoder_config", model.config).layerdrop = 0.0
    assert torch.equal(model(inputs).logits, model(inputs).logits)
    assert not torch.equal(model.train()(inputs).logits, model(inputs).logits)
    gradients, calls, layers = [], [], []
    first = next(module for name, module in model.named_modules() if name.endswith(("encoder.layers.0", ".layer.0")))
    first.register_forward_pre_hook(lambda *_: calls.append(1))
    for change in (model.gradient_checkpointing_disable, model.gradient_checkpointing_enable):
        change()
        model.zero_grad()
        torch.manual_seed(5)
        model(inputs, mask, labels=torch.tensor([[5, 6]] * 4)).loss.backward()
        gradients.append(model.get_parameter(f"{weight}.weight").grad.clone())
        layers.append(len(calls))
    assert layers == [1, 3]  # the layer is computed again
    assert_close(*gradients)
    assert gradients[0].abs().max() > 0
    with pytest.raises(ValueError, match="use_reentrant is True, expected False"):
        model.gradient_checkpointing_enable({"use_reentrant": True})


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("ParakeetForCTC", {"dropout": 0.0, **still("ParakeetEncoder")}),
        ("HubertForCTC", {"conv_pos_batch_norm": True, "apply_spec_augment": False, **still("HubertForCTC")}),
    ],
)
def test_batch_norms_keep_rows_apart_and_statistics_unchanged_in_training(name, flags):
    model = random_model(name, **flags)
    inputs, mask = batch_of(name)
    expected = model(inputs, mask).logits
    before = {name: value.clone() for name, value in model.named_buffers()}
    assert_close(model.train()(inputs, mask).logits, expected)
    alone = model(inputs[1:2, : lengths_of(name)[1]]).logits[0]
    assert_close(alone, expected[1, : len(alone)])
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


@pytest.mark.parametrize("norm", NORMS)
def test_a_frozen_front_end_has_no_gradients_and_passes_those_of_its_input(norm):
    model = random_model("Wav2Vec2ForCTC", feat_extract_norm=norm, **still("Wav2Vec2ForCTC"), apply_spec_augment=False)
    waves, mask = batch_of("Wav2Vec2ForCTC")
    gradients = []
    for _ in range(2):
        given = waves.clone().requires_grad_()
        logits = model.train()(given, mask).logits
        logits[0].square().sum().backward()
        gradients.append((logits[0].detach(), given.grad[0]))
        model.zero_grad()
        model.freeze_feature_encoder()
    for first, second in zip(*gradients, strict=True):
        assert_close(second, first, 1e-4)
    model(waves, mask, labels=torch.tensor([[5]] * 4)).loss.backward()
    trained = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    unused = {"wav2vec2.masked_spec_embed"}  # without SpecAugment
    assert trained == {name for name, _ in model.named_parameters() if "feature_extractor" not in name} - unused
    model.freeze_base_model()
    assert {name for name, one in model.named_parameters() if one.requires_grad} == {"lm_head.weight", "lm_head.bias"}


# Labels


UNFIT = [
    ("UniSpeechForCTC", {}, [[5], [20]], "label 20 found, expected below vocab_size 20"),
    ("UniSpeechForCTC", {}, [[5], [-1]], "label -1 found, expected tokens or -100"),
    ("UniSpeechForSequenceClassification", {"num_labels": 3}, [0.5, 1.0], r"labels have shape \(2,\), expected"),
    ("UniSpeechForSequenceClassification", {"problem_type": "ranking"}, [0, 1], "problem_type is 'ranking', expec"),
    ("Wav2Vec2ForXVector", SPEAKERS, [4, 0], "label 4 found, expected below num_labels 4"),
    ("Wav2Vec2ForAudioFrameClassification", {}, [[0, 1]] * 2, r"labels have shape \(2, 2\), expected one-hot"),
]


def test_labels_that_do_not_fit_are_refused():
    for name, flags, labels, message in UNFIT:
        with pytest.raises(ValueError, match=message):
            random_model(name, **flags)(batch_of(name)[0][:2], labels=torch.tensor(labels))


@torch.no_grad()
def test_losses_follow_the_problem_or_else_the_facts_and_leave_out_padding():
    inputs, mask = batch_of("UniSpeechForCTC")
    labels = torch.tensor([[5, 6, 19], [7, -100, -100], [5, 5, -100], [9, -100, -100]])
    for flags, found in (({"ctc_loss_reduction": "sum"}, sum), ({"ctc_loss_reduction": "mean"}, None)):
        model = random_model(**flags)
        alone = [model(inputs[row : row + 1, : mask[row].sum()], labels=labels[row : row + 1]).loss for row in range(4)]
        expected = sum(alone) if found else sum(alone) / 4
        assert_close(model(inputs, mask, labels=labels).loss, expected)
    short, many = inputs[:1, :100], torch.full((1, 90), 5)
    assert random_model()(short, labels=many).loss.isinf()
    assert random_model(ctc_zero_infinity=True)(short, labels=many).loss == 0
    numbers, marks = torch.tensor([1.0, 0.5, -1.0, 2.0]), torch.tensor([[1.0, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]])
    name, classes = "UniSpeechForSequenceClassification", torch.tensor([0, 2, 1, -100])
    for flags, target, loss in (
        ({"num_labels": 1}, numbers, lambda logits: F.mse_loss(logits[:, 0], numbers)),
        ({"num_labels": 3}, classes, lambda logits: F.cross_entropy(logits, classes)),
        ({"num_labels": 3}, marks, lambda logits: F.binary_cross_entropy_with_logits(logits, marks)),
        (
            {"num_labels": 3, "problem_type": "multi_label_classification"},
            marks.long(),
            lambda logits: F.binary_cross_entropy_with_logits(logits, marks),
        ),
        ({"num_labels": 3, "problem_type": "regression"}, marks, lambda logits: F.mse_loss(logits, marks)),
    ):
        output = random_model(name, **flags)(inputs, mask, labels=target)
        assert_close(output.loss, loss(output.logits))
    model = random_model("Wav2Vec2ForAudioFrameClassification", num_labels=3)
    frames = labels_of("AudioFrameClassification", model.num_frames(inputs.shape[1]), 3)
    output, counts = model(inputs, mask, labels=frames), model.num_frames(mask.sum(-1))
    valid = torch.arange(frames.shape[1]) < counts[:, None]
    assert_close(output.loss, F.cross_entropy(output.logits[valid], frames.argmax(-1)[valid]))


# Configurations and initial weights

WIDE = {"hidden_size": 64}
SPREADS = [
    ("UniSpeechForPreTraining", {**CODES, "num_codevectors_per_group": 200}),
    ("Wav2Vec2ForXVector", {**WIDE, **SPEAKERS}),
    ("Wav2Vec2BertForXVector", {**WIDE, "position_embeddings_type": "relative", "num_labels": 50}),
    ("ParakeetForCTC", {"initializer_range": 0.3}),
]


@pytest.mark.parametrize(("name", "flags"), SPREADS)
def test_random_weights_have_the_spread_of_theirs(name, flags):
    cls = getattr(transformers, name)
    theirs = cls(cls.config_class(**fields_of(name, flags))).state_dict()
    ours = random_model(name, **flags).state_dict()
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        if "pos_conv_embed" in key and not flags.get("conv_pos_batch_norm"):
            continue  # theirs writes that draw to a copy, and so loses it
        if value.numel() > 500:
            assert 0.8 < ours[key].std() / value.std() < 1.25, key
            assert abs(ours[key].mean() - value.mean()) < 0.1, key


TEXTS = {"BertLMHeadModel", "GPT2LMHeadModel", "BartForCausalLM", "MBartForCausalLM", "SpeechEncoderDecoderModel"}
"""Classes of test_text_decoders.py and test_speech_encoder_decoder.py."""
OWN = {f"{family}ForSpeechClassification" for family in ("Wav2Vec2", "Hubert")}
"""Classes that transformers has not: tests/golden and tests/published."""


def test_every_public_class_is_compared_with_theirs():
    names = [name for name in raysp.models.__all__ if name[0].isupper() and not name.startswith("Flax")]
    found = {name for name in names if issubclass(getattr(raysp.models, name), torch.nn.Module)}
    assert found == {*OPTIONS, *TEXTS, *OWN, "ParakeetForRNNT", "ParakeetForTDT"}


CONFIGURATIONS = ["UniSpeech", "Wav2Vec2", "Hubert", "SEWD", "Wav2Vec2Bert"]
OTHERS = ["Bert", "GPT2", "Bart", "MBart", "ParakeetCTC", "ParakeetEncoder", "ParakeetRNNT", "ParakeetTDT"]


@pytest.mark.parametrize("family", [*CONFIGURATIONS, *OTHERS])
def test_defaults_of_configurations_and_published_sizes_are_theirs(family):
    ours, theirs = (getattr(models, f"{family}Config")().to_dict() for models in (raysp.models, transformers))
    for name in ours.keys() & theirs.keys() - {"id2label", "label2id", "encoder_config"}:
        assert ours[name] == (list(theirs[name]) if isinstance(theirs[name], tuple) else theirs[name]), name
    if family in CONFIGURATIONS:
        assert getattr(raysp.models, f"{family}Config").__annotations__.keys() - {"model_type"} <= theirs.keys()
        with torch.device("meta"):
            sizes, expected = (
                getattr(library, f"{family}Model")(
                    getattr(library, f"{family}Config")(num_hidden_layers=1)
                ).state_dict()
                for library in (raysp.models, transformers)
            )
        assert {key: value.shape for key, value in sizes.items()} == {key: v.shape for key, v in expected.items()}


@pytest.mark.parametrize(("norm", "kernels"), zip(NORMS, [(10, 3, 2), (9, 4, 1)], strict=True))
def test_a_front_end_gives_the_same_with_and_without_gradients(norm, kernels):
    flags = {"conv_dim": (6, 8, 10), "conv_stride": (5, 2, 1), "conv_kernel": kernels, "conv_bias": norm == "layer"}
    model = random_model("UniSpeechModel", feat_extract_norm=norm, num_hidden_layers=1, **flags)
    for num_frames in (1, 97, 255, 256, 257, 513):
        waves = torch.randn(2, model.min_samples + (num_frames - 1) * model.frame_stride + 3)
        expected = model(waves).extract_features
        assert expected.requires_grad
        with torch.inference_mode():
            assert_close(model(waves).extract_features, expected.detach(), 1e-5)
