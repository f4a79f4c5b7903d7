import json

import pytest
import torch

from raysp.models import check_checkpoint, load_checkpoint
from tests.models.oracles import make_oracle, make_pair, random_model, transformers
from tests.models.parity import LENGTHS_OF_SEW_D as LENGTHS
from tests.models.parity import assert_close, check_rows_alone_are_theirs, waves_and_mask


def samples_of(num_squeezed):
    """Return the samples of a row with an odd number of frames, of which two make a squeezed one."""
    return 10 * (2 * num_squeezed + 1) + 11


@torch.inference_mode()
@pytest.mark.parametrize("buckets", [8, 300])
def test_biases_in_tiles_equal_theirs(buckets, tmp_path):
    """Biases are computed for 96 squeezed frames at a time."""
    oracle, model = make_pair("SEWDForCTC", tmp_path, position_buckets=buckets, max_position_embeddings=300)
    check_rows_alone_are_theirs(oracle, model, [samples_of(count) for count in (193, 192, 97, 96, 95, 9, 1)])
    check_rows_alone_are_theirs(oracle, model, LENGTHS)


@torch.inference_mode()
def test_hidden_states_without_padding_between_equal_those_of_rows_alone():
    model = random_model("SEWDModel")
    waves, mask = waves_and_mask(LENGTHS)
    states = model(waves, mask, output_hidden_states=True).hidden_states
    assert len(states) == model.config.num_hidden_layers + 1
    for row, length in enumerate(LENGTHS):
        alone = model(waves[row : row + 1, :length], output_hidden_states=True).hidden_states
        for state, expected in zip(states, alone, strict=True):
            assert_close(state[row, : expected.shape[1]], expected[0], 1e-5)
            assert not state[row, expected.shape[1] :].any()


@torch.inference_mode()
def test_a_batch_without_a_whole_frame_gives_zeros():
    model = random_model("SEWDModel")
    mask = torch.zeros(2, 60, dtype=torch.long)
    mask[:, :3] = 1
    assert not model(torch.randn(2, 60), mask).last_hidden_state.any()


@torch.inference_mode()
@pytest.mark.parametrize(
    ("num_frames", "buckets", "furthest"),
    [(1, 16, 40), (9, 16, 40), (90, 16, 40), (700, 256, 512), (90, 2, 10), (50, -1, 20)],
)
def test_buckets_of_distances_equal_theirs(num_frames, buckets, furthest, tmp_path):
    flags = {"position_buckets": buckets, "max_position_embeddings": furthest}
    oracle, model = make_pair("SEWDModel", tmp_path, **flags)
    waves = waves_and_mask([samples_of(num_frames)])[0]
    assert_close(model(waves)[0], oracle(waves)[0])


def test_an_input_below_one_squeezed_frame_is_refused():
    model = random_model("SEWDForCTC", squeeze_factor=2)
    assert (model.min_samples, model.frame_stride) == (30, 10)
    assert model(torch.randn(1, 30)).logits.shape[1] == 2
    with pytest.raises(RuntimeError, match="29 samples, the model needs at least 30"):
        model(torch.randn(1, 29))
    with torch.device("meta"):
        published = random_model("SEWDModel", **transformers.SEWDConfig(num_hidden_layers=1).to_dict())
    assert (published.min_samples, published.frame_stride) == (400 + 320, 320)


def test_tables_of_distances_follow_their_weights():
    model = random_model("SEWDForCTC", initializer_range=0.3)
    waves, _ = waves_and_mask(LENGTHS)
    with torch.inference_mode():
        before = model(waves).logits
    with torch.no_grad():
        model.sew_d.encoder.encoder.rel_embeddings.weight.add_(torch.randn(32, 32))
        changed = model(waves).logits
        assert (changed - before).abs().max() > 0.01
        again = random_model("SEWDForCTC")
        again.load_state_dict(model.state_dict())
        assert_close(again(waves).logits, changed, 1e-6)
    model.requires_grad_(False)
    model.lm_head.requires_grad_(True)
    model(waves, labels=torch.tensor([[5, 6]] * 4)).loss.backward()
    assert model.lm_head.weight.grad.abs().max() > 0


def test_a_whole_checkpoint_loads_and_is_described(tmp_path):
    make_oracle("SEWDForCTC").save_pretrained(tmp_path)
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNO"]
    (tmp_path / "words.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(tmp_path / "words.json"))
    transformers.Wav2Vec2Processor(transformers.Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(tmp_path)
    summary = check_checkpoint(tmp_path)
    assert (summary.architecture, summary.gives, summary.vocab_size) == (
        "SEWDForCTC",
        ("ctc", "hidden_states"),
        20,
    )
    assert (summary.min_samples, summary.frame_stride, summary.num_layers) == (30, 10, 3)
    loaded = load_checkpoint(tmp_path)
    with torch.inference_mode():
        features = loaded.feature_extractor.extract(waves_and_mask(LENGTHS)[0], torch.tensor(LENGTHS))
        assert loaded.model(**features).logits.shape == (4, loaded.model.num_frames(max(LENGTHS)), 20)
