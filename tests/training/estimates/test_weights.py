"""Sizes of weights and commits before a training, compared with its model and with its files."""

from pathlib import Path

import pytest

import raysp
from raysp import CTC, Checkpoint, Classify, ClassifyFrames, Pretrain, Schedule, Seq2Seq, Speakers, Text, finetune
from raysp.models import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC, Wav2Vec2Processor
from raysp.text.vocabulary import build, count_characters
from raysp.training.characters import tokenizer_for
from raysp.training.estimates.weight_sizes import model_of, weights_of
from raysp.training.finetuning import plan_recipe
from raysp.training.loop import state
from raysp.training.specs.objectives import trains_few_weights
from tests.recipes import LETTERS, a_recipe
from tests.soaked import some
from tests.training.conftest import SMALL, small_model
from tests.training.objectives.originals import save_decoder

LORA, CONVOLUTIONS = raysp.LoRA(4), "feature_encoder"


@pytest.fixture
def adapted(tmp_path) -> str:
    """A checkpoint that can have adapter layers."""
    tokenizer = tokenizer_for(build(count_characters([LETTERS, " "])))
    fields = {"do_stable_layer_norm": True, "vocab_size": len(tokenizer.get_vocab())}
    small_model(Wav2Vec2ForCTC, Wav2Vec2Config, **{**SMALL, **fields}).save_pretrained(tmp_path / "stable")
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=16_000, do_normalize=True, return_attention_mask=True)
    Wav2Vec2Processor(extractor, tokenizer).save_pretrained(tmp_path / "stable")
    return str(tmp_path / "stable")


OBJECTIVES = ("new head", "kept head", "random weights", "LoRA", "adapter", "classes", "speakers", "frames")
OBJECTIVES += ("pre-training", "decoder", "decoder and LoRA")


@pytest.fixture(params=some(OBJECTIVES, "kept head", "LoRA", "adapter", "frames", "decoder and LoRA"))
def objective(request, tiny, headless, listener, adapted, tmp_path):
    text = {"text": Text("lower")}
    return {
        "new head": lambda: CTC(str(headless), vocabulary="build", **text),
        "kept head": lambda: CTC(str(tiny), freeze=CONVOLUTIONS, **text),
        "random weights": lambda: CTC(str(tiny), vocabulary="build", random_weights=True, **text),
        "LoRA": lambda: CTC(str(tiny), vocabulary="build", lora=LORA, **text),
        "adapter": lambda: CTC(adapted, adapter="tur", vocabulary="build", **text),
        "classes": lambda: Classify(str(headless), column="speaker", freeze="base"),
        "speakers": lambda: Speakers(listener, column="speaker", crop_seconds=0.5),
        "frames": lambda: ClassifyFrames(listener, column="frames"),
        "pre-training": lambda: Pretrain(str(headless), **text),
        "decoder": lambda: Seq2Seq(str(headless), decoder=str(save_decoder("bart", tmp_path / "d")), **text),
        "decoder and LoRA": lambda: Seq2Seq(
            str(headless), decoder=str(save_decoder("gpt2", tmp_path / "d")), freeze=CONVOLUTIONS, lora=LORA, **text
        ),
    }[request.param]()  # fmt: skip


def trained(words, sink, objective, **fields) -> raysp.Finetune:
    source = raysp.Shards(words, text="text")
    return a_recipe(words, Path(), sink, objective=objective, source=source, **fields)


@pytest.mark.slow
def test_a_model_without_values_has_the_weights_of_the_one_that_is_trained(words, objective, tmp_path):
    plan, prepared = plan_recipe(trained(words, tmp_path / "out", objective))
    found, real = model_of(plan, prepared.task), prepared.task.objective(plan).model

    def facts(model):
        parameters = {name: (one.shape, one.requires_grad) for name, one in model.named_parameters()}
        kept = state.weights(model, trained_only=trains_few_weights(objective))
        return parameters, {name: (one.shape, one.dtype) for name, one in kept.items()}, model.new_weights

    assert all(one.is_meta for one in found.parameters())
    assert facts(found) == facts(real)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["whole", "frozen", "few", "averaged", "Adafactor", "SGD"])
def test_a_commit_has_the_size_of_the_files_of_a_training(words, tiny, tmp_path, kind):
    fields = {"frozen": {"freeze": CONVOLUTIONS}, "few": {"lora": LORA}}.get(kind, {})
    objective = CTC(str(tiny), vocabulary="build", text=Text("lower"), **fields)
    recipe = trained(
        words,
        Checkpoint(str(tmp_path / "out"), every=1),
        objective,
        schedule=Schedule(steps=4, optimizer=kind if kind in {"Adafactor", "SGD"} else "AdamW"),
        ema=0.9 if kind == "averaged" else None,
    )
    found = raysp.estimate(recipe).commit
    finetune(recipe)
    folders = [*(tmp_path / "out" / ".raysp" / "steps").glob("*.*/")]
    for folder in folders:
        assert found.files == {file.name: file.stat().st_size for file in folder.iterdir()}
    assert len(folders) == found.kept == 2
    assert found.num_bytes == sum(found.files.values())
    assert found.most_bytes == 3 * found.num_bytes


def test_the_best_evaluation_and_averaged_commits_are_kept_too(words, tiny, tmp_path):
    plan, prepared = plan_recipe(a_recipe(words, tiny, tmp_path / "out", average=5))
    model = model_of(plan, prepared.task)
    assert weights_of(plan.recipe, model).commit.kept == 6  # one between those that are averaged
    evaluation = raysp.Evaluation(raysp.Shards(words, text="text"))
    assert weights_of(a_recipe(words, tiny, tmp_path / "out", evaluation=evaluation), model).commit.kept == 3


def test_bytes_of_what_is_trained(words, tiny, tmp_path):
    plan, prepared = plan_recipe(a_recipe(words, tiny, tmp_path / "out", objective={"freeze": "base"}))
    found = weights_of(plan.recipe, model_of(plan, prepared.task))
    assert found.trained == 4 * 33 * len(prepared.task.tokenizer)  # 32 weights and a bias for each token
    assert found.largest == 4 * 32 * len(prepared.task.tokenizer)
    assert found.model == found.committed > 10 * found.trained
