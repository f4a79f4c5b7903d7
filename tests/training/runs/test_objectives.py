"""Trainings of every objective: a stopped one publishes the files of one without a stop, for both libraries."""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

import raysp
from raysp import CTC, Classify, Evaluation, LoRA, Schedule, Seq2Seq, Shards, Speakers, Text, finetune
from raysp.models import load_checkpoint
from tests.recipes import MASKS, WORDS, a_recipe, second_shard, write_words
from tests.training import optimizers
from tests.training.checkpoints import of_english, parakeet, without_adapters
from tests.training.conftest import Places
from tests.training.objectives.originals import save_decoder
from tests.training.trained import (
    commits_of,
    committed_file,
    evaluations_of,
    published,
    record_of,
    same,
    steps_of,
    stopping_after,
    weights,
)

sys.path.insert(0, str(Path(raysp.__file__).parents[1] / "pipelines" / "transducer"))
from transducer import Transducer

pytestmark = pytest.mark.slow

LOWER = Text("lower")
SHORT, PROMPT = {"max_new_tokens": 8}, ["t", "h"]


def dev(at: Places, text: str | None = "text", **fields: Any) -> Evaluation:
    return Evaluation(second_shard(at.words, text=text), **fields)


def pieces(at: Places) -> dict[str, Any]:
    """Pieces that are learnt, with all that is drawn in a training, an average and mixed epochs."""
    sounds = write_words(at.folder / "sounds", 4)
    return {
        "objective": CTC(str(at.tiny), vocabulary="bpe:30", text=LOWER, masks=MASKS),
        "augment": [
            raysp.Speed((0.9, 1.1)),
            raysp.Gain((-3, 3)),
            raysp.Noise(sounds, snr=(5, 10), share=0.5),
            raysp.Room(Shards(sounds, id=None), share=0.5),
        ],
        "mix": raysp.Mix({"0*": 1, "1*": 1}),
        "schedule": Schedule(steps=5, learning_rate=1e-3),
        "evaluation": dev(at, every=3, best="loss"),
        "ema": 0.9,
    }


def lora(at: Places) -> dict[str, Any]:
    decoder = save_decoder("gpt2", at.folder / "decoder")
    lora = LoRA(4, dropout=0.1)
    objective = Seq2Seq(str(at.headless), decoder=str(decoder), masks=MASKS, lora=lora, generate=SHORT)
    return {"objective": objective, "ema": 0.2}


def texts(at: Places) -> dict[str, Any]:
    decoder = save_decoder("bert", at.folder / "decoder")
    fields = {"masks": MASKS, "generate": SHORT, "prompt_tokens": PROMPT}
    return {"objective": Seq2Seq(str(at.headless), decoder=str(decoder), **fields)}


def language(at: Places, write: Callable[[Path], Path]) -> dict[str, Any]:
    return {
        "objective": CTC(
            str(write(at.folder / "checkpoint")), text=LOWER, vocabulary="build", adapter="tur", masks=MASKS
        )
    }


def classes(at: Places) -> dict[str, Any]:
    schedule = Schedule(steps=3, learning_rate=3e-3)
    evaluation = dev(at, None, every=1, best="f1", by=["text"])
    objective = Classify(str(at.headless), column="speaker", masks=MASKS)
    return {"objective": objective, "evaluation": evaluation, "schedule": schedule}


def speakers(at: Places) -> dict[str, Any]:
    """Speakers, by an optimiser of a user whose state is not one tensor for each weight."""
    objective = Speakers(at.listener, column="speaker", crop_seconds=0.5, masks=MASKS)
    schedule = Schedule(steps=4, learning_rate=1e-3, optimizer=optimizers.adafactor)
    return {"objective": objective, "schedule": schedule}


# Checks of single cases ----------------------------------------------------------------------------------------------


def check_average(sink: Path, at: Places) -> None:
    """Check the weights that come out: the average at the step of the best evaluation."""
    best = json.loads((sink / "metrics.json").read_text())["best"]
    losses = {done: found["loss"] for done, found in evaluations_of(sink).items() if done}
    assert best == {"metric": "loss", "value": min(losses.values()), "step": min(losses, key=losses.__getitem__)}
    found, average = weights(sink), load_file(committed_file(sink, best["step"], "ema.safetensors"))
    assert same(found, {name: average[name] for name in found})
    assert not same(found, load_file(committed_file(sink, best["step"], "model.safetensors")))
    check_decay(sink, 5 / 14)  # the fifth update forgets faster than by 0.9
    assert type(transformers.AutoTokenizer.from_pretrained(sink)).__name__ == "ParakeetTokenizer"


def check_decay(sink: Path, kept: float) -> None:
    """Check that the last update of the average kept this share of it."""
    last = max(commits_of(sink))
    before, after = (load_file(committed_file(sink, done, "ema.safetensors")) for done in (last - 1, last))
    for name, value in load_file(committed_file(sink, last, "model.safetensors")).items():
        expected = kept * before[name].double() + (1 - kept) * value
        torch.testing.assert_close(after[name], expected.float(), rtol=1e-5, atol=1e-6)


def check_lora(sink: Path, at: Places) -> None:
    """Check that of the encoder only the projections of the attention have changed."""
    found, changed = weights(sink), set()
    for name, value in weights(at.headless).items():
        [mine] = [one for other, one in found.items() if other in (f"unispeech.{name}", f"encoder.{name}")]
        if not torch.equal(mine, value):
            changed.add(name.rpartition(".attention.")[2])
    assert changed == {f"{one}_proj.weight" for one in ("q", "k", "v", "out")}
    assert not any("feature_extractor" in name for name in committed(sink))
    check_decay(sink, 0.2)


def check_language(sink: Path, at: Places) -> None:
    """Check that the adapter of the language, which is committed alone, is all that has changed."""
    after, adapter = weights(sink), load_file(sink / "adapter.tur.safetensors")
    parts = {key.rpartition(".")[0].rpartition(".")[2] for key in adapter}
    assert parts == {"norm", "linear_1", "linear_2", "lm_head"}
    assert committed(sink) == adapter.keys()
    for key, value in weights(at.folder / "checkpoint").items():
        mine = after[key if key in after else f"wav2vec2.{key}"]
        assert (mine.shape == value.shape and torch.equal(mine, value)) == (key not in adapter), key
    had_english = (at.folder / "checkpoint" / "adapter.eng.safetensors").exists()
    assert [*json.loads((sink / "vocab.json").read_text())] == [*(["eng"] if had_english else []), "tur"]
    processor, loaded = transformers.AutoProcessor.from_pretrained(sink), load_checkpoint(sink)
    assert processor.tokenizer.target_lang == "tur"
    assert processor.tokenizer("one")["input_ids"] == loaded.tokenizer("one")["input_ids"]
    wave = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    for library in (raysp.models, transformers):
        model = library.Wav2Vec2ForCTC.from_pretrained(sink).eval()
        model.load_adapter("tur")
        with torch.inference_mode():
            torch.testing.assert_close(model(wave).logits, loaded.model(wave).logits, rtol=1e-4, atol=1e-4)


def check_classes(sink: Path, at: Places) -> None:
    """Check that the weights with the best value of the metric are those that come out, and name the classes."""
    values = {done: one["scores"]["metrics"]["f1"]["value"] for done, one in evaluations_of(sink).items() if done}
    best = json.loads((sink / "metrics.json").read_text())["best"]
    assert [*values] == [1, 2, 3]
    assert best == {"metric": "f1", "value": max(values.values()), "step": max(values, key=values.__getitem__)}
    config = transformers.AutoConfig.from_pretrained(sink)
    assert (config.id2label, config.problem_type) == ({0: "s0", 1: "s1", 2: "s2"}, "single_label_classification")
    assert {name: getattr(config, name) for name in MASKS} == MASKS
    assert "- audio-classification\n" in (sink / "README.md").read_text()


def check_prompt(sink: Path, at: Places) -> None:
    """Check that every text begins with the tokens of the prompt."""
    written = load_checkpoint(sink).model.generate(torch.randn(1, 4000))[0].tolist()
    assert written[1] == transformers.AutoTokenizer.from_pretrained(sink).get_vocab()["t"]


def check_code(sink: Path, at: Places) -> None:
    """Check that modules of users are part of the fingerprint."""
    of_objective, of_optimizer = (
        {"code.transducer.py", "code.transducer_loss.py"},
        {"code.tests/training/optimizers.py"},
    )
    parts = record_of(sink)["parts"].keys()
    assert of_objective <= parts or of_optimizer <= parts


@dataclass(frozen=True)
class Case:
    """An objective with the fields of its recipe, and what else comes out of it."""

    fields: Callable[[Places], dict[str, Any]]
    check: Callable[[Path, Places], None] = field(default=lambda sink, at: None)


CASES = {
    "pieces that are learnt": Case(pieces, check_average),
    "pieces of Parakeet": Case(
        lambda at: {"objective": CTC(str(parakeet(at.folder / "checkpoint")), vocabulary="keep")}
    ),
    "LoRA": Case(lora, check_lora),
    "a first language": Case(lambda at: language(at, without_adapters), check_language),
    "a further language": Case(lambda at: language(at, of_english), check_language),
    "texts of a decoder": Case(texts, check_prompt),
    "classes": Case(classes, check_classes),
    "speakers": Case(speakers, check_code),
    "own: RNNT": Case(
        lambda at: {"objective": Transducer(str(parakeet(at.folder / "checkpoint", "RNNT")))}, check_code
    ),
    "own: TDT": Case(lambda at: {"objective": Transducer(str(parakeet(at.folder / "checkpoint", "TDT")))}, check_code),
}


def committed(sink: Path) -> set[str]:
    """Return the names of the weights of the last committed step."""
    return {*load_file(committed_file(sink, max(commits_of(sink)), "model.safetensors"))}


@pytest.mark.parametrize("name", CASES)
def test_a_stopped_training_goes_on_and_publishes_the_same_files(at, name):
    case = CASES[name]
    once, out, fields = at.folder / "once" / "model", at.folder / "out" / "model", case.fields(at)
    whole = finetune(a_recipe(at.words, Path(), raysp.Checkpoint(str(once), every=1), **fields))
    recipe = a_recipe(at.words, Path(), raysp.Checkpoint(str(out), every=1), **fields)
    first = finetune(recipe, should_stop=stopping_after(2))
    assert (first.steps, first.is_done) == (2, False)
    last = finetune(recipe)
    assert (last.steps, last.is_done) == (whole.steps, True)
    expected, found = published(once), published(out)
    assert expected.keys() == found.keys()
    assert [file for file in expected if expected[file] != found[file]] == []
    curves = [[(step["loss"], step["rows"]) for step in steps_of(sink)] for sink in (once, out)]
    assert curves[0] == curves[1]
    assert_same_logits(out)
    case.check(out, at)


def assert_same_logits(folder: Path) -> None:
    """Compare the logits of a checkpoint with those of transformers, which must find all of its weights."""
    loaded = load_checkpoint(folder)
    kind = type(loaded.model).__name__
    theirs, info = getattr(transformers, kind).from_pretrained(folder, output_loading_info=True)
    assert not {*info["missing_keys"], *info["unexpected_keys"]}
    shape = (1, 80, 80) if kind.startswith("Parakeet") else (1, 8000)
    given = [torch.randn(shape, generator=torch.Generator().manual_seed(0))]
    start = getattr(loaded.model, "blank", getattr(loaded.model.config, "decoder_start_token_id", None))
    inputs = {} if start is None else {"decoder_input_ids": torch.tensor([[start, 7, 5]])}
    with torch.inference_mode():
        expected, found = theirs.eval()(*given, **inputs).logits, loaded.model(*given, **inputs).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    if kind == "SpeechEncoderDecoderModel":
        assert loaded.model.generate(*given).tolist() == theirs.generate(*given).tolist()


@pytest.mark.parametrize(("kind", "head"), [(Classify, "classifier.weight"), (Speakers, "objective.weight")])
def test_a_head_with_the_same_classes_stays_and_one_with_others_is_new(words, listener, tmp_path, kind, head):
    def trained(checkpoint: object, sink: str, column: str, seed: int) -> dict[str, torch.Tensor]:
        schedule, objective = Schedule(steps=1, learning_rate=1e-30), kind(str(checkpoint), column=column)
        finetune(a_recipe(words, Path(), tmp_path / sink, objective=objective, schedule=schedule, seed=seed))
        return weights(tmp_path / sink)

    first = trained(listener, "first", "speaker", 0)
    again, other = (trained(tmp_path / "first", sink, sink, 1) for sink in ("speaker", "text"))
    torch.testing.assert_close(again, first, rtol=0, atol=1e-20)
    assert sorted(other[head].shape) == sorted({10 if size == 3 else size for size in first[head].shape})
    assert {*transformers.AutoConfig.from_pretrained(tmp_path / "text").id2label.values()} == {*WORDS}
    for name in first:
        if not name.startswith(head.partition(".")[0]):
            torch.testing.assert_close(other[name], first[name], rtol=0, atol=1e-20)


def test_a_whole_writer_keeps_its_options_and_its_frozen_encoder(words, headless, tmp_path):
    decoder = save_decoder("gpt2", tmp_path / "decoder")
    writer = Seq2Seq(str(headless), decoder=str(decoder), generate={"num_beams": 3, "max_length": 40})
    further = Seq2Seq(str(tmp_path / "first"), freeze="encoder", generate={"max_length": 30}, masks=MASKS)
    for sink, objective in (("first", writer), ("second", further)):
        schedule = Schedule(steps=1, learning_rate=1e-3, warmup=0.0)
        finetune(a_recipe(words, Path(), tmp_path / sink, objective=objective, schedule=schedule))
    options = transformers.GenerationConfig.from_pretrained(tmp_path / "second")
    assert (options.num_beams, options.max_length) == (3, 30)
    config = transformers.AutoConfig.from_pretrained(tmp_path / "second").encoder
    assert {name: getattr(config, name) for name in MASKS} == MASKS
    before, after = weights(tmp_path / "first"), weights(tmp_path / "second")
    assert before.keys() == after.keys()
    changed = {name.partition(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert "decoder" in changed
    assert "encoder" not in changed
