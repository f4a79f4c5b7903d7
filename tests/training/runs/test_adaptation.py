"""Trainings of the adapter layers of a language, next to those of the languages that a checkpoint has."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import raysp
from raysp import CTC, CheckpointError, Schedule, Text, finetune
from raysp.models import load_checkpoint
from tests import kit
from tests.hub_server import lay_out
from tests.recipes import a_recipe, words_table
from tests.training.checkpoints import ENGLISH, of_english, with_french
from tests.training.trained import weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def many_languages(tmp_path_factory) -> Path:
    return of_english(tmp_path_factory.mktemp("many languages"))


def of_language(words, sink, checkpoint: object, adapter: str, *, steps: int = 1, rate: float = 1e-3, **fields):
    objective = CTC(str(checkpoint), **{"text": Text("lower"), "vocabulary": "build", "adapter": adapter, **fields})
    return a_recipe(words, Path(), sink, objective=objective, schedule=Schedule(steps=steps, learning_rate=rate))


def test_a_training_adds_its_language_to_those_of_the_folder_that_it_began_with(words, many_languages, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert finetune(of_language(words, first, many_languages, "tur")).is_done
    assert finetune(of_language(words, second, first, "aze")).is_done
    files = {one.name for one in second.glob("adapter.*")}
    assert files == {f"adapter.{one}.safetensors" for one in ("eng", "tur", "aze")}
    for one, folder in (("eng", many_languages), ("tur", first)):
        name = f"adapter.{one}.safetensors"
        assert (second / name).read_bytes() == (folder / name).read_bytes()
        assert texts_of(second, one) == texts_of(folder, one)
    assert texts_of(second, "aze") == texts_of(second, None)


def texts_of(checkpoint: Path, language: str | None) -> list[str]:
    steps = [raysp.Decode(), raysp.Label(str(checkpoint), outputs=[raysp.Transcript(language=language)])]
    return raysp.Labeller(steps, keep=())(words_table(1)).column("pred_text").to_pylist()


@pytest.mark.drivers
def test_the_adapter_of_a_checkpoint_on_the_hub_is_trained_further(words, many_languages, tmp_path):
    pushed, cache = with_french(many_languages, tmp_path / "pushed"), tmp_path / "cache"
    lay_out(cache, pushed)
    recipe = of_language(words, tmp_path / "out", "owner/name", "fra", vocabulary="keep", steps=3, rate=1e-5)
    line = ["finetune", kit.pipeline_file(tmp_path / "of_the_hub.py", recipe)]
    ran = kit.run_apart(line, HF_HUB_CACHE=str(cache), HF_HUB_OFFLINE="1")
    assert ran.code == 0, ran.err
    before, after = (load_file(one / "adapter.fra.safetensors") for one in (pushed, tmp_path / "out"))
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-3)
    assert any(not torch.equal(after[name], value) for name, value in before.items())
    assert load_checkpoint(tmp_path / "out").text_tokenizer.target_lang == "fra"
    assert "base_model: owner/name\n" in (tmp_path / "out" / "README.md").read_text()  # without the commit


def test_a_kept_language_begins_with_its_own_adapter_whatever_the_other_weights_are(words, many_languages, tmp_path):
    folder = with_french(many_languages, tmp_path / "checkpoint")
    assert finetune(of_language(words, tmp_path / "out", folder, "fra", vocabulary="keep", rate=1e-9)).is_done
    found, adapter = weights(tmp_path / "out"), load_file(folder / "adapter.fra.safetensors")
    for name, value in adapter.items():
        torch.testing.assert_close(found[name], value, rtol=0, atol=1e-6)


@pytest.mark.parametrize("vocabularies", [ENGLISH, {"eng": ENGLISH, "fra": ENGLISH}], ids=["one language", "several"])
def test_a_training_begins_with_no_weights_of_another_language(words, many_languages, tmp_path, vocabularies):
    folder = with_french(many_languages, tmp_path / "checkpoint")
    (folder / "adapter.fra.safetensors").unlink()
    (folder / "vocab.json").write_text(json.dumps(vocabularies))
    file = folder / "tokenizer_config.json"
    target = "fra" if "fra" in vocabularies else None
    file.write_text(json.dumps({**json.loads(file.read_text()), "target_lang": target}))
    with pytest.raises(CheckpointError, match=r"'fra', but adapter layers and head of the weights.* equal those of"):
        finetune(of_language(words, tmp_path / "out", folder, "fra", vocabulary="keep"))
