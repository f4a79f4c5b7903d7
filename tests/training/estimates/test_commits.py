"""Sizes of commits before a training, compared with its files."""

from pathlib import Path

import pytest
from safetensors.torch import load_file

import raysp
from raysp import CTC, Checkpoint, Schedule, Seq2Seq, Speakers, Text, finetune
from raysp.models import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2ForCTC, Wav2Vec2Processor
from tests.recipes import SMALL, a_recipe, letters_tokenizer
from tests.training.objectives.originals import save_decoder
from tests.training.trained import commits_of, committed_file

LORA, CONVOLUTIONS = raysp.LoRA(4), "feature_encoder"


@pytest.fixture
def adapted(tmp_path) -> str:
    """A checkpoint that can have adapter layers."""
    tokenizer = letters_tokenizer()
    fields = {"do_stable_layer_norm": True, "vocab_size": len(tokenizer.get_vocab())}
    Wav2Vec2ForCTC(Wav2Vec2Config(**{**SMALL, **fields})).save_pretrained(tmp_path / "stable")
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=16_000, do_normalize=True, return_attention_mask=True)
    Wav2Vec2Processor(extractor, tokenizer).save_pretrained(tmp_path / "stable")
    return str(tmp_path / "stable")


OBJECTIVES = ("kept head", "LoRA", "adapter", "speakers", "decoder and LoRA")


@pytest.fixture(params=OBJECTIVES)
def objective(request, tiny, headless, listener, adapted, tmp_path):
    text = {"text": Text("lower")}
    return {
        "kept head": lambda: CTC(str(tiny), freeze=CONVOLUTIONS, **text),
        "LoRA": lambda: CTC(str(tiny), vocabulary="build", lora=LORA, **text),
        "adapter": lambda: CTC(adapted, adapter="tur", vocabulary="build", **text),
        "speakers": lambda: Speakers(listener, column="speaker", crop_seconds=0.5),
        "decoder and LoRA": lambda: Seq2Seq(
            str(headless), decoder=str(save_decoder("gpt2", tmp_path / "d")), freeze=CONVOLUTIONS, lora=LORA, **text
        ),
    }[request.param]()  # fmt: skip


def trained(words, sink, objective, **fields) -> raysp.Finetune:
    source = raysp.Shards(words, text="text")
    return a_recipe(words, Path(), sink, objective=objective, source=source, **fields)


@pytest.mark.slow
def test_a_commit_of_every_objective_has_the_estimated_bytes_of_tensors(words, objective, tmp_path):
    recipe = trained(words, tmp_path / "out", objective, schedule=Schedule(steps=1))
    found = raysp.estimate(recipe).commit
    finetune(recipe)
    assert found.num_bytes == tensor_bytes(tmp_path / "out", 1)


def tensor_bytes(sink: Path, done: int) -> int:
    """Return the bytes of the tensors of a committed step, without the counts of the optimiser and the average."""
    files = [load_file(committed_file(sink, done, name)) for name in commits_of(sink)[done]["files"]]
    return sum(tensor.nbytes for file in files for tensor in file.values() if tensor.ndim)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["frozen", "averaged"])
def test_a_training_keeps_as_many_commits_of_that_size(words, tiny, tmp_path, kind):
    fields = {"freeze": CONVOLUTIONS} if kind == "frozen" else {}
    objective = CTC(str(tiny), vocabulary="build", text=Text("lower"), **fields)
    sink, ema = Checkpoint(str(tmp_path / "out"), every=1), 0.9 if kind == "averaged" else None
    recipe = trained(words, sink, objective, schedule=Schedule(steps=3), ema=ema)
    found = raysp.estimate(recipe).commit
    finetune(recipe)
    assert [tensor_bytes(tmp_path / "out", done) for done in commits_of(tmp_path / "out")] == [found.num_bytes] * 2
    assert found.kept == 2
    assert found.most_bytes == 3 * found.num_bytes
