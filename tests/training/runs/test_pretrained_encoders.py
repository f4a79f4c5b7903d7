"""Checkpoints of pre-training, as published: trainings begin with their encoder."""

import pytest
import torch
import transformers
from safetensors.torch import load_file

from raysp import Schedule, Seq2Seq, Text, finetune
from raysp.models import Wav2Vec2FeatureExtractor, check_checkpoint
from tests import kit
from tests.recipes import SMALL, a_recipe, write_words
from tests.training.objectives.originals import save_decoder
from tests.training.trained import planned

FIELDS = {"num_codevectors_per_group": 8, "codevector_dim": 16, "proj_codevector_dim": 32, "ctc_zero_infinity": True}
FIELDS |= {"tdnn_dim": (16, 16, 16, 16, 24), "xvector_output_dim": 12}
UNUSED = "project_hid, project_q, quantizer: other heads of the checkpoint"


@pytest.fixture(scope="module")
def words(tmp_path_factory) -> str:
    return write_words(tmp_path_factory.mktemp("words"), 12)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory):
    """A `Wav2Vec2ForPreTraining` of random weights, as transformers saves it."""
    folder = tmp_path_factory.mktemp("pretrained")
    torch.manual_seed(0)
    transformers.Wav2Vec2ForPreTraining(transformers.Wav2Vec2Config(**{**SMALL, **FIELDS})).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def decoder(tmp_path_factory) -> str:
    return str(save_decoder("bert", tmp_path_factory.mktemp("decoder")))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CTC", "Seq2Seq"])
def test_every_training_begins_with_the_encoder_of_pre_training(words, pretrained, decoder, tmp_path, name):
    objective = Seq2Seq(str(pretrained), decoder=decoder, text=Text("lower")) if name == "Seq2Seq" else {}
    recipe = a_recipe(
        words, pretrained, tmp_path / "out", objective=objective, schedule=Schedule(steps=1, learning_rate=1e-9)
    )
    assert planned(recipe).facts["not used"] == UNUSED
    finetune(recipe)
    assert check_checkpoint(tmp_path / "out").unused == ()
    before = load_file(pretrained / "model.safetensors")
    after = load_file(tmp_path / "out" / "model.safetensors")
    prefix = "encoder." if name == "Seq2Seq" else "wav2vec2."
    for layer in ("encoder.layers.1.attention.k_proj.weight", "feature_projection.projection.weight"):
        torch.testing.assert_close(after[prefix + layer], before["wav2vec2." + layer], atol=1e-6, rtol=0)


def test_inspect_names_what_is_not_used(pretrained):
    ran = kit.run(["inspect", pretrained])
    assert (ran.code, ran.err) == (0, "")
    facts = dict(line.strip().split("  ", 1) for line in ran.out.splitlines()[1:])
    assert facts["architecture"].strip() == "Wav2Vec2Model (wav2vec2)"
    assert (facts["outputs"].strip(), facts["not used"].strip()) == ("Embedding", UNUSED)
