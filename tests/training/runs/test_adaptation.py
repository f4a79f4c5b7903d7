"""Whole trainings of a few weights: LoRA, and adapter layers of a language."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

import raysp
from raysp import CTC, CheckpointError, Schedule, Seq2Seq, Text, finetune
from raysp.models import (
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
    Wav2Vec2Processor,
    check_checkpoint,
    load_checkpoint,
)
from tests.hub_server import lay_out
from tests.recipes import SMALL, a_recipe, words_table
from tests.training.objectives.originals import save_decoder
from tests.training.runs.test_objectives import assert_same_logits
from tests.training.trained import planned

MASKS = {"hidden_dropout": 0.1, "layerdrop": 0.2, "mask_time_prob": 0.2}


def trained(words, sink, objective, **fields):
    return a_recipe(words, Path(), sink, objective=objective, **fields)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def committed(sink: Path) -> set[str]:
    """Return the names of the weights of the last committed step."""
    folder = max((sink / ".raysp" / "steps").glob("*.*/"), key=lambda one: int(one.name.partition(".")[0]))
    return {*load_file(folder / "model.safetensors")}


@pytest.mark.slow
def test_a_stopped_training_with_lora_goes_on_and_its_checkpoint_is_a_plain_one(words, headless, tmp_path):
    decoder = save_decoder("gpt2", tmp_path / "decoder")
    objective = Seq2Seq(str(headless), decoder=str(decoder), masks=MASKS, lora=raysp.LoRA(4, dropout=0.1))
    finetune(trained(words, tmp_path / "once", objective, ema=0.9))
    stopped = finetune(trained(words, tmp_path / "out", objective, ema=0.9), should_stop=lambda: True)
    assert (stopped.steps, stopped.is_done) == (1, False)
    assert finetune(trained(words, tmp_path / "out", objective, ema=0.9)).is_done
    once, found = weights(tmp_path / "once"), weights(tmp_path / "out")
    assert once.keys() == found.keys()
    assert all(torch.equal(once[name], value) for name, value in found.items())
    assert_same_logits(tmp_path / "out")
    check_changed(found, weights(headless))
    assert not any("feature_extractor" in name for name in committed(tmp_path / "out"))


def check_changed(found: dict[str, torch.Tensor], before: dict[str, torch.Tensor]) -> None:
    """Check that of the encoder only weights of the attention's projections have changed."""
    changed = set()
    for name, value in before.items():
        [mine] = [one for other, one in found.items() if other in (f"unispeech.{name}", f"encoder.{name}")]
        if not torch.equal(mine, value):
            changed.add(name.rpartition(".attention.")[2])
    assert changed == {f"{one}_proj.weight" for one in ("q", "k", "v", "out")}


TOKENS = ["<pad>", "<s>", "</s>", "<unk>", "|"]
ENGLISH = {token: number for number, token in enumerate([*TOKENS, *"abcdefghijklmnopqrstuvwxyz"])}
STABLE = {**SMALL, "do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}


@pytest.fixture(scope="module")
def many_languages(tmp_path_factory) -> Path:
    """A checkpoint of random weights with adapter layers and a head for English, as MMS has them."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("many languages")
    model = Wav2Vec2ForCTC(Wav2Vec2Config(**{**STABLE, "vocab_size": len(ENGLISH), "adapter_attn_dim": 8}))
    model.save_pretrained(folder)
    model.save_adapter(folder, "eng")
    tokenizer = Wav2Vec2CTCTokenizer({"eng": ENGLISH}, target_lang="eng")
    Wav2Vec2Processor(Wav2Vec2FeatureExtractor(return_attention_mask=True), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def without_adapters(tmp_path_factory) -> Path:
    """A checkpoint of random weights that can have adapter layers, and has none."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("without adapters")
    Wav2Vec2Model(Wav2Vec2Config(**STABLE)).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return folder


def with_french(checkpoint: Path, folder: Path) -> Path:
    """Copy a checkpoint with a further language of one more token, whose weights are in the file of its adapter."""
    shutil.copytree(checkpoint, folder)
    torch.manual_seed(1)
    french = Wav2Vec2ForCTC(Wav2Vec2Config(**{**STABLE, "vocab_size": len(ENGLISH) + 1, "adapter_attn_dim": 8}))
    french.save_adapter(folder, "fra")
    (folder / "vocab.json").write_text(json.dumps({"eng": ENGLISH, "fra": {**ENGLISH, "é": len(ENGLISH)}}))
    return folder


def of_language(checkpoint: object, adapter: str = "tur", **fields) -> CTC:
    return CTC(str(checkpoint), **{"text": Text("lower"), "vocabulary": "build", "adapter": adapter, **fields})


@pytest.mark.slow
@pytest.mark.parametrize("name", ["many_languages", "without_adapters"])
def test_a_stopped_training_of_a_language_goes_on_and_changes_its_adapter_alone(words, request, tmp_path, name):
    checkpoint, sink = request.getfixturevalue(name), tmp_path / "out"
    recipe = trained(words, sink, of_language(checkpoint, masks=MASKS))
    finetune(replace(recipe, sink=raysp.Checkpoint(str(tmp_path / "once"))))
    assert not finetune(recipe, should_stop=lambda: True).is_done
    assert finetune(recipe).is_done
    before, after, adapter = weights(checkpoint), weights(sink), load_file(sink / "adapter.tur.safetensors")
    assert all(torch.equal(after[key], value) for key, value in weights(tmp_path / "once").items())
    parts = {key.rpartition(".")[0].rpartition(".")[2] for key in adapter}
    assert parts == {"norm", "linear_1", "linear_2", "lm_head"}
    assert committed(sink) == adapter.keys()
    for key, value in before.items():
        mine = after[key if key in after else f"wav2vec2.{key}"]
        assert (mine.shape == value.shape and torch.equal(mine, value)) == (key not in adapter), key
    check_loads(sink, languages=["eng", "tur"] if name == "many_languages" else ["tur"])


def check_loads(sink: Path, *, languages: list[str]) -> None:
    """Load a checkpoint in both libraries, and its adapter later."""
    assert check_checkpoint(sink).architecture == "Wav2Vec2ForCTC"
    assert_same_logits(sink)
    assert [*json.loads((sink / "vocab.json").read_text())] == languages
    processor = transformers.AutoProcessor.from_pretrained(sink)
    assert processor.tokenizer.target_lang == "tur"
    loaded = load_checkpoint(sink)
    assert processor.tokenizer("one")["input_ids"] == loaded.tokenizer("one")["input_ids"]
    wave = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    for cls in (Wav2Vec2ForCTC, transformers.Wav2Vec2ForCTC):
        model = cls.from_pretrained(sink).eval()
        model.load_adapter("tur")
        with torch.inference_mode():
            torch.testing.assert_close(model(wave).logits, loaded.model(wave).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_training_adds_its_language_to_those_of_the_folder_that_it_began_with(words, many_languages, tmp_path):
    schedule = Schedule(steps=2)
    first, second = tmp_path / "first", tmp_path / "second"
    assert finetune(trained(words, first, of_language(many_languages), schedule=schedule)).is_done
    assert finetune(trained(words, second, of_language(first, "aze"), schedule=schedule)).is_done
    assert {one.name for one in second.glob("adapter.*")} == {
        f"adapter.{one}.safetensors" for one in ("eng", "tur", "aze")
    }
    for one, folder in (("eng", many_languages), ("tur", first)):
        name = f"adapter.{one}.safetensors"
        assert (second / name).read_bytes() == (folder / name).read_bytes()
        [found], [expected] = (_texts(place, one) for place in (second, folder))
        assert found == expected
    assert _texts(second, "aze") == _texts(second, None)


def _texts(checkpoint: Path, language: str | None) -> list[str]:
    steps = [raysp.Decode(), raysp.Label(str(checkpoint), outputs=[raysp.Transcript(language=language)])]
    labels = raysp.Labeller(steps, keep=())(words_table(1))
    return labels.column("pred_text").to_pylist()


@pytest.mark.slow
def test_the_adapter_of_a_checkpoint_on_the_hub_is_trained_further(words, many_languages, tmp_path, monkeypatch):
    pushed, cache = with_french(many_languages, tmp_path / "pushed"), tmp_path / "cache"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    lay_out(cache, pushed)
    schedule = Schedule(steps=3, learning_rate=1e-5)
    objective = of_language("owner/name", "fra", vocabulary="keep")
    assert finetune(trained(words, tmp_path / "out", objective, schedule=schedule)).is_done
    before, after = (load_file(one / "adapter.fra.safetensors") for one in (pushed, tmp_path / "out"))
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-3)
    assert any(not torch.equal(after[name], value) for name, value in before.items())
    assert load_checkpoint(tmp_path / "out").text_tokenizer.target_lang == "fra"


def test_a_language_that_the_checkpoint_lacks_is_not_kept(words, many_languages, tmp_path):
    folder = Path(shutil.copytree(many_languages, tmp_path / "checkpoint"))
    plan = planned(trained(words, tmp_path / "out", of_language(folder)))
    assert plan.facts["objective"] == "CTC, vocabulary built from the texts, adapter of tur"
    keeping = trained(words, tmp_path / "out", of_language(folder, vocabulary="keep"))
    with pytest.raises(CheckpointError, match=r"adapter.tur.safetensors not found; complete the checkpoint, or set"):
        finetune(keeping)
    (folder / "adapter.tur.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="target_lang is 'tur', expected one of: eng"):
        finetune(keeping)


@pytest.mark.parametrize("vocabulary", ["one language", "several"])
@pytest.mark.parametrize("there", [True, False])
def test_a_training_begins_with_no_weights_of_another_language(words, many_languages, tmp_path, vocabulary, there):
    folder = Path(shutil.copytree(many_languages, tmp_path / "checkpoint"))
    torch.manual_seed(1)
    config = Wav2Vec2Config(**{**STABLE, "vocab_size": len(ENGLISH), "adapter_attn_dim": 8})
    french = Wav2Vec2ForCTC(config)
    if there:
        french.save_adapter(folder, "fra")
    several = vocabulary == "several"
    (folder / "vocab.json").write_text(json.dumps({"eng": ENGLISH, "fra": ENGLISH} if several else ENGLISH))
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "target_lang": "fra" if several else None}))
    schedule = Schedule(steps=1, learning_rate=1e-9)
    recipe = trained(words, tmp_path / "out", of_language(folder, "fra", vocabulary="keep"), schedule=schedule)
    if there and several:  # the weights of the named language, whatever those in model.safetensors are
        assert finetune(recipe).is_done
        found = weights(tmp_path / "out")["lm_head.weight"]
        torch.testing.assert_close(found, french.lm_head.weight.detach(), rtol=0, atol=1e-6)
        with pytest.raises(CheckpointError, match=r"or name one in objective\.adapter"):
            finetune(trained(words, tmp_path / "other", CTC(str(folder))))
        return
    with pytest.raises(CheckpointError, match=r"'fra', but adapter layers and head of the weights.* equal those of"):
        finetune(recipe)
