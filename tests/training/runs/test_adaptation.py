"""Whole trainings of a few weights: LoRA, and adapter layers of a language."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from safetensors.torch import load_file

import raysp
from raysp import CTC, CheckpointError, Classify, Evaluation, PlanError, Schedule, Seq2Seq, Text, finetune
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
from tests.corpora import write_shard
from tests.hub_server import lay_out
from tests.recipes import SMALL, a_recipe, second_shard, words_table
from tests.soaked import some
from tests.training.conftest import interrupted_amid_an_update
from tests.training.objectives.originals import save_decoder
from tests.training.runs.test_objectives import assert_same_logits
from tests.training.trained import planned

MASKS = {"hidden_dropout": 0.1, "layerdrop": 0.2, "mask_time_prob": 0.2}
LORA = raysp.LoRA(4, dropout=0.1)
KINDS = ("characters", "classes", "texts of a decoder")


@pytest.fixture(params=some(KINDS, "texts of a decoder"))
def objective(request, headless, tmp_path) -> CTC | Classify | Seq2Seq:
    return {
        "characters": lambda: CTC(str(headless), text=Text("lower"), vocabulary="build", masks=MASKS, lora=LORA),
        "classes": lambda: Classify(str(headless), column="speaker", masks=MASKS, lora=LORA),
        "texts of a decoder": lambda: Seq2Seq(
            str(headless), decoder=str(save_decoder("gpt2", tmp_path / "decoder")), masks=MASKS, lora=LORA,
        ),
    }[request.param]()  # fmt: skip


def trained(words, sink, objective, **fields):
    return a_recipe(words, Path(), sink, objective=objective, **fields)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def committed(sink: Path) -> set[str]:
    """Return the names of the weights of the last committed step."""
    folder = max((sink / ".raysp" / "steps").glob("*.*/"), key=lambda one: int(one.name.partition(".")[0]))
    return {*load_file(folder / "model.safetensors")}


@pytest.mark.slow
def test_a_stopped_training_with_lora_goes_on_and_its_checkpoint_is_a_plain_one(words, headless, objective, tmp_path):
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


@pytest.mark.slow
def test_a_training_with_lora_that_was_interrupted_amid_a_step_goes_on_bit_for_bit(words, headless, tmp_path):
    objective = CTC(str(headless), text=Text("lower"), vocabulary="build", masks=MASKS, lora=LORA)
    finetune(trained(words, tmp_path / "once", objective))
    with interrupted_amid_an_update():
        finetune(trained(words, tmp_path / "out", objective))
    assert finetune(trained(words, tmp_path / "out", objective)).is_done
    once, found = weights(tmp_path / "once"), weights(tmp_path / "out")
    assert all(torch.equal(found[name], value) for name, value in once.items())


def check_changed(found: dict[str, torch.Tensor], before: dict[str, torch.Tensor]) -> None:
    """Check that of the encoder only weights of the attention's projections have changed."""
    changed = set()
    for name, value in before.items():
        [mine] = [one for other, one in found.items() if other in (f"unispeech.{name}", f"encoder.{name}")]
        if not torch.equal(mine, value):
            changed.add(name.rpartition(".attention.")[2])
    assert changed == {f"{one}_proj.weight" for one in ("q", "k", "v", "out")}


@pytest.mark.slow
def test_the_best_weights_with_lora_are_exported(words, headless, tmp_path):
    evaluation = Evaluation(second_shard(words), every=2, best="loss")
    objective = CTC(str(headless), text=Text("lower"), vocabulary="build", lora=raysp.LoRA(4, targets=["q_proj"]))
    assert finetune(trained(words, tmp_path / "out", objective, evaluation=evaluation)).is_done
    assert_same_logits(tmp_path / "out")


def test_without_peft_the_plan_names_the_extra(words, headless, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    recipe = trained(words, tmp_path / "out", Classify(str(headless), column="speaker", lora=LORA))
    with pytest.raises(PlanError, match=r"needs the package peft, which is not installed; pip install 'raysp\[lora\]'"):
        finetune(recipe)


def test_wrong_targets_are_refused_by_the_plan(words, headless, tmp_path):
    lora = raysp.LoRA(targets=["query"])
    with pytest.raises(PlanError, match=r"targets=\['query'\], .* the layers are intermediate_dense, k_proj, "):
        finetune(trained(words, tmp_path / "out", Classify(str(headless), column="speaker", lora=lora)))


@pytest.mark.slow
def test_another_lora_is_another_recipe(words, headless, tmp_path):
    recipe = trained(words, tmp_path / "out", Classify(str(headless), column="speaker", lora=LORA))
    plan = planned(recipe)
    assert plan.facts["objective"] == "Classify, of the column speaker, LoRA of rank 4"
    other = replace(recipe, objective=replace(recipe.objective, lora=raysp.LoRA(4)))
    assert planned(other)["fingerprint"] != plan["fingerprint"]


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


@pytest.fixture(scope="module", params=["many_languages", "without_adapters"])
def turkish(request, words, tmp_path_factory) -> tuple[Path, Path]:
    """Folders of the checkpoint to begin with, and of the trained one."""
    checkpoint = request.getfixturevalue(request.param)
    sink = tmp_path_factory.mktemp("turkish") / "out"
    assert finetune(trained(words, sink, of_language(checkpoint, masks=MASKS))).is_done
    return checkpoint, sink


@pytest.mark.slow
def test_only_adapter_layers_and_head_are_trained_and_committed(turkish):
    checkpoint, sink = turkish
    before, after, adapter = weights(checkpoint), weights(sink), load_file(sink / "adapter.tur.safetensors")
    parts = {name.rpartition(".")[0].rpartition(".")[2] for name in adapter}
    assert parts == {"norm", "linear_1", "linear_2", "lm_head"}
    assert committed(sink) == adapter.keys()
    assert all(torch.equal(after[name], value) for name, value in adapter.items())
    for name, value in before.items():
        mine = after[name if name in after else f"wav2vec2.{name}"]
        assert (mine.shape == value.shape and torch.equal(mine, value)) == (name not in adapter), name


@pytest.mark.slow
def test_the_checkpoint_of_a_language_loads_in_both_libraries(turkish):
    checkpoint, sink = turkish
    assert check_checkpoint(sink).architecture == "Wav2Vec2ForCTC"
    assert_same_logits(sink)
    vocabulary = json.loads((sink / "vocab.json").read_text())
    assert [*vocabulary] == [*(["eng"] if (checkpoint / "adapter.eng.safetensors").exists() else []), "tur"]
    processor = transformers.AutoProcessor.from_pretrained(sink)
    assert processor.tokenizer.target_lang == "tur"
    assert processor.tokenizer("one")["input_ids"] == load_checkpoint(sink).tokenizer("one")["input_ids"]


@pytest.mark.slow
@pytest.mark.parametrize("library", ["raysp", "transformers"])
def test_the_adapter_is_loaded_beside_others_of_its_checkpoint(turkish, tmp_path, library):
    checkpoint, sink = turkish
    if not (checkpoint / "adapter.eng.safetensors").exists():
        checkpoint = sink
    shutil.copytree(checkpoint, tmp_path / "both")
    shutil.copy(sink / "adapter.tur.safetensors", tmp_path / "both")
    cls = Wav2Vec2ForCTC if library == "raysp" else transformers.Wav2Vec2ForCTC
    expected = load_checkpoint(sink).model
    found = cls.from_pretrained(tmp_path / "both", target_lang="tur", ignore_mismatched_sizes=True).eval()
    later = cls.from_pretrained(tmp_path / "both").eval()
    later.load_adapter("tur")
    wave = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for model in (found, later):
            torch.testing.assert_close(model(wave).logits, expected(wave).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_a_pipeline_labels_with_the_checkpoint_of_a_language(turkish, tmp_path):
    _, sink = turkish
    write_shard(tmp_path / "in" / "a.parquet", table=words_table(4))
    label = raysp.Label(str(sink), outputs=[raysp.Transcript()])
    out = raysp.Parquet(str(tmp_path / "labels"))
    raysp.run(
        raysp.Pipeline(raysp.Shards(f"{tmp_path}/in/*.parquet"), steps=[raysp.Decode(), label], sink=out),
        engine="here",
        progress=False,
    )
    texts = pq.read_table(tmp_path / "labels" / "a.parquet").column("pred_text").to_pylist()
    assert len(texts) == 4
    assert {*"".join(texts)} <= {*" efghinorstuvwxz"}


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
def test_a_stopped_training_of_a_language_goes_on_bit_for_bit(words, turkish, tmp_path):
    checkpoint, once = turkish
    recipe = trained(words, tmp_path / "out", of_language(checkpoint, masks=MASKS))
    assert not finetune(recipe, should_stop=lambda: True).is_done
    assert finetune(recipe).is_done
    expected, found = weights(once), weights(tmp_path / "out")
    assert all(torch.equal(found[name], value) for name, value in expected.items())


@pytest.mark.slow
@pytest.mark.parametrize("language", some(["eng", "fra"], "fra"))
def test_the_adapter_of_a_checkpoint_is_trained_further(words, many_languages, tmp_path, language):
    folder = with_french(many_languages, tmp_path / "checkpoint")
    schedule = Schedule(steps=3, learning_rate=1e-5)
    objective = of_language(folder, language, vocabulary="keep")
    assert finetune(trained(words, tmp_path / "out", objective, schedule=schedule)).is_done
    before, after = (load_file(one / f"adapter.{language}.safetensors") for one in (folder, tmp_path / "out"))
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-3)
    assert any(not torch.equal(after[name], value) for name, value in before.items())
    check_checkpoint(tmp_path / "out")
    assert load_checkpoint(tmp_path / "out").text_tokenizer.target_lang == language


@pytest.mark.slow
def test_the_file_of_a_language_is_fetched_from_the_hub(words, many_languages, tmp_path, monkeypatch):
    asked, cache, original = [], tmp_path / "cache", huggingface_hub.snapshot_download
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    def recorded(hub_id, *, allow_patterns, **options):
        asked.extend(one for one in allow_patterns if one.startswith("adapter."))
        return original(hub_id, allow_patterns=allow_patterns, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", recorded)
    lay_out(cache, with_french(many_languages, tmp_path / "pushed"))
    schedule = Schedule(steps=1, learning_rate=1e-9)
    recipe = trained(words, tmp_path / "out", of_language("owner/name", "fra", vocabulary="keep"), schedule=schedule)
    assert finetune(recipe).is_done
    before, after = (load_file(one / "adapter.fra.safetensors") for one in (tmp_path / "pushed", tmp_path / "out"))
    torch.testing.assert_close(after["lm_head.weight"], before["lm_head.weight"], rtol=0, atol=1e-6)
    assert {*asked} == {"adapter.fra.safetensors"}  # not that of the tokenizer's language


def test_the_plan_names_the_adapter_and_a_language_that_the_checkpoint_lacks_is_refused(
    words, many_languages, tmp_path
):
    many_languages = Path(shutil.copytree(many_languages, tmp_path / "checkpoint"))
    plan = planned(trained(words, tmp_path / "out", of_language(many_languages)))
    assert plan.facts["objective"] == "CTC, vocabulary built from the texts, adapter of tur"
    keeping = trained(words, tmp_path / "out", of_language(many_languages, vocabulary="keep"))
    with pytest.raises(CheckpointError, match=r"adapter.tur.safetensors not found; complete the checkpoint, or set"):
        finetune(keeping)
    (many_languages / "adapter.tur.safetensors").write_bytes(b"")
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


def test_an_architecture_that_can_have_no_adapter_layers_is_refused(words, tiny, tmp_path):
    with pytest.raises(CheckpointError, match="unispeech has adapter layers only with do_stable_layer_norm=True"):
        finetune(trained(words, tmp_path / "out", of_language(tiny)))
