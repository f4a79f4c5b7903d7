import pytest
import torch

from tests.models.encoder.encoder_cases import inputs_of
from tests.models.oracles import make_pair, random_model
from tests.models.parity import assert_close, check_rows_alone_are_theirs, inputs_and_mask

CTC = "Wav2Vec2BertForCTC"
INPUTS = inputs_of(CTC)
ADAPTER = {"add_adapter": True}

UNEVEN = {  # where the original's count of frames is not its convolution's
    "wide kernel": {**ADAPTER, "adapter_kernel_size": 5, "adapter_stride": 2},
    "wide stride": {**ADAPTER, "adapter_kernel_size": 3, "adapter_stride": 3},
    "long stride": {**ADAPTER, "adapter_kernel_size": 4, "adapter_stride": 4, "num_adapter_layers": 2},
}


@torch.inference_mode()
@pytest.mark.parametrize("flags", UNEVEN.values(), ids=UNEVEN)
def test_frames_of_any_adapter_are_counted(flags, tmp_path):
    oracle, model = make_pair(CTC, tmp_path, **flags)
    check_rows_alone_are_theirs(oracle, model, INPUTS.lengths, INPUTS.width)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["relative_key", "relative", "rotary", None])
@pytest.mark.parametrize("lengths", [INPUTS.lengths, (33, 32), (40, 40), (1, 0, 25)])
def test_inference_without_padding_equals_training_with_it(kind, lengths):
    model = random_model(CTC, position_embeddings_type=kind)
    features, mask = inputs_and_mask((*lengths, max(lengths) + 1), INPUTS.width)
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


def test_lengths_speak_of_samples():
    model = random_model(CTC)
    assert (model.min_samples, model.frame_stride) == (560, 320)
    assert [model.num_frames(n) for n in (0, 399, 400, 559, 560, 719, 720, 880, 16000)] == [0, 0, 0, 0, 1, 1, 2, 2, 49]
    counts = torch.tensor([0, 100, 559, 560, 16000])
    assert model.num_frames(counts).tolist() == [0, 0, 0, 1, 49]
    adapted = random_model(CTC, add_adapter=True, num_adapter_layers=2)
    assert (adapted.min_samples, adapted.frame_stride) == (560, 1280)
    assert [adapted.num_frames(n) for n in (0, 559, 560, 16000)] == [0, 0, 1, 13]
    speakers = random_model("Wav2Vec2BertForXVector")
    assert speakers.num_frames(speakers.min_samples) == 16
    assert model.config.inputs_to_logits_ratio == 20


def test_explicit_spans_are_masked(tmp_path):
    oracle, model = make_pair("Wav2Vec2BertModel", tmp_path)
    features, _ = INPUTS.drawn()
    spans = torch.rand(features.shape[:2]) < 0.3
    with torch.inference_mode():
        ours, theirs = model(features, mask_time_indices=spans), oracle(features, mask_time_indices=spans)
    assert [*ours] == list(theirs.keys())
    assert_close(ours.last_hidden_state, theirs.last_hidden_state)
    assert_close(ours.extract_features, theirs.extract_features)
    with pytest.raises(ValueError, match="without masked_spec_embed"):
        random_model("Wav2Vec2BertModel", mask_time_prob=0.0)(features, mask_time_indices=spans)
