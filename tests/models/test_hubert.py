import torch
import transformers

from raysp.models import HubertConfig, HubertModel, check_checkpoint
from raysp.models.base.row_layout import Layout
from tests.models.encoder.encoder_cases import HEADS
from tests.models.oracles import TINY, make_pair
from tests.models.parity import (
    assert_close,
    waves_and_mask,
)


def test_padding_leaks_through_the_batch_norm_in_their_way_alone(tmp_path):
    oracle, model = make_pair("HubertModel", tmp_path, **HEADS["Hubert"]["batch norm, odd, layer"][1])
    waves, mask = waves_and_mask()
    with torch.inference_mode():
        ours, theirs = model(waves, mask)[0], oracle(waves, mask)[0]
        alone = oracle(waves[3:, :800])[0][0]
    assert_close(ours[3, : len(alone)], alone)
    assert (theirs[3, : len(alone)] - alone).abs().max() > 1e-3


def test_training_masks_no_spans_in_padding(tmp_path):
    _, model = make_pair("HubertModel", tmp_path, mask_time_prob=0.4, mask_time_length=3)
    _, mask = waves_and_mask()
    num_frames = model.num_frames(mask.shape[1])
    valid = model.frame_layout(Layout.of(mask, mask), num_frames).valid(mask.device)
    drawn = model.draw_time_mask(Layout.of(valid, valid))
    assert drawn.any()
    assert not (drawn & ~valid)[:, :-1].any()


def test_outputs_have_no_features_before_projection():
    model = HubertModel(HubertConfig(**TINY)).init_weights().eval()
    assert [*model(waves_and_mask()[0])] == ["last_hidden_state"]


def test_a_checkpoint_without_a_head_is_described(tmp_path):
    HubertModel(HubertConfig(**TINY, conv_pos_batch_norm=True)).init_weights().save_pretrained(tmp_path)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(tmp_path)
    summary = check_checkpoint(tmp_path)
    assert (summary.architecture, summary.vocab_size, summary.gives) == (
        "HubertModel",
        None,
        ("hidden_states",),
    )
    assert (summary.min_samples, summary.frame_stride, summary.dtype) == (40, 30, "float32")
