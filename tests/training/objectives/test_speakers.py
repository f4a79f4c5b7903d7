"""Training of speakers: the margin and its warm-up, crops, and rows for which the original has no gradients."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from raysp import Speakers
from raysp.models import Wav2Vec2FeatureExtractor, Wav2Vec2ForXVector
from raysp.training.data.micro_batches import MicroBatch, seed_micro_batch
from raysp.training.objectives.passes import Passes
from raysp.training.objectives.speakers_task import SpeakersTask
from raysp.training.objectives.task import Criterion
from tests.models.oracles import make_oracle, transformers
from tests.training.criteria import plan_of, speakers_criterion
from tests.training.objectives.originals import ENCODERS, extractor_of, model_pair, random_batch

EXTRACTOR = Wav2Vec2FeatureExtractor(return_attention_mask=True)


def model_of(encoder: str = "wav2vec2 layer"):
    return model_pair(encoder, ENCODERS[encoder][0] + "ForXVector", num_labels=4)[1]


@pytest.fixture(scope="module")
def model():
    return model_of()


@pytest.mark.parametrize(
    ("progress", "margin"), [(0.0, 0.0), (0.05, 0.05), (0.1, 0.1), (0.2, 0.2), (0.5, 0.2), (1.0, 0.2)]
)
def test_the_margin_grows_to_the_given_one_and_replaces_that_of_the_class(model, progress, margin):
    objective = speakers_criterion(model, EXTRACTOR, margin=0.2, margin_warmup=0.2, crop_seconds=None)
    assert objective.task.margin_at(progress) == pytest.approx(margin)
    batch = random_batch([[1], [3], [1]], progress=progress)
    losses = objective(batch)
    output, _ = objective.passes(model, batch.waves)
    cosines = F.normalize(output.logits, dim=1) @ F.normalize(model.objective.weight, dim=0)
    cosines[torch.arange(3), torch.tensor([1, 3, 1])] -= margin
    expected = F.cross_entropy(30 * cosines, torch.tensor([1, 3, 1]), reduction="none")
    torch.testing.assert_close(losses.rows_B, expected, rtol=1e-5, atol=1e-5)
    assert losses.count == 3


class Seen(Passes):
    """Collects the waves that a criterion runs."""

    def __call__(self, run, waves, **arguments):
        self.waves = [*waves]
        return super().__call__(run, waves, **arguments)


def cropped(criterion: Criterion, batch: MicroBatch, *place: int) -> list[np.ndarray]:
    passes = criterion.passes
    seen = Seen(passes.model, passes.feature_extractor, passes.dtype)
    seed_micro_batch(*place)
    criterion.model.train()
    criterion.task.loss(seen, batch)
    criterion.model.eval()
    return seen.waves


def test_crops_are_parts_of_their_rows_drawn_from_the_seed_of_the_micro_batch(model):
    batch = random_batch([[0], [1], [2]])
    crops = [
        cropped(speakers_criterion(model, EXTRACTOR, crop_seconds=0.2), batch, *place)
        for place in [(0, 1, 2, 3), (0, 1, 2, 3), (0, 1, 2, 4)]
    ]
    for crop, wave in zip(crops[0], batch.waves, strict=True):
        assert len(crop) == 3200
        assert np.lib.stride_tricks.sliding_window_view(wave, 3200)[:, :9].tolist().count(crop[:9].tolist()) == 1
    assert all(np.array_equal(one, other) for one, other in zip(crops[0], crops[1], strict=True))
    assert not any(np.array_equal(one, other) for one, other in zip(crops[0], crops[2], strict=True))


@pytest.mark.parametrize("encoder", ["wav2vec2 group", "wav2vec2 layer", "wav2vec2-bert"])
def test_constant_audio_has_finite_gradients(encoder):
    """Whose statistics have a deviation of 0, where a square root has none."""
    model = model_of(encoder)
    with torch.no_grad():
        for layer in model.tdnn:  # all channels are constant and positive, so that nothing hides behind the ReLU
            layer.kernel.weight.zero_()
            layer.kernel.bias.fill_(1.0)
    waves = [np.zeros(8000, np.float32), np.full(9000, 0.5, np.float32), random_batch([[0]]).waves[0]]
    losses = speakers_criterion(model, extractor_of(encoder))(MicroBatch(0, [0, 1, 2], waves, [[0], [1], [2]]))
    losses.total.backward()
    assert torch.isfinite(losses.rows_B).all()
    for name, one in model.named_parameters():
        assert one.grad is None or torch.isfinite(one.grad).all(), name
    assert model.tdnn[-1].kernel.bias.grad.any()


@pytest.mark.slow
def test_other_speakers_have_new_weights_and_all_else_stays(tmp_path):
    names = ["ann", "bob", "eve"]
    make_oracle("Wav2Vec2ForXVector", num_labels=5).save_pretrained(tmp_path / "old")
    task = SpeakersTask(Speakers("old", column="speaker"), names, 0)
    model = task.model(plan_of(tmp_path / "old", seed=3))
    assert isinstance(model, Wav2Vec2ForXVector)
    theirs = transformers.Wav2Vec2ForXVector.from_pretrained(tmp_path / "old")
    assert model.objective.weight.shape == (theirs.config.xvector_output_dim, 3)
    for name, weight in theirs.state_dict().items():
        if name != "objective.weight":
            assert torch.equal(model.state_dict()[name], weight), name
    model.save_pretrained(tmp_path / "new")
    again = task.model(plan_of(tmp_path / "new"))
    assert torch.equal(again.objective.weight, model.objective.weight)
    assert transformers.AutoConfig.from_pretrained(tmp_path / "new").id2label == dict(enumerate(names))
