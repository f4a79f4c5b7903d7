"""Whole trainings of every objective: what comes out, resuming, evaluation, labels by the checkpoint."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
import transformers
from safetensors.torch import load_file

import raysp
from raysp import (
    Classify,
    Evaluation,
    Schedule,
    Seq2Seq,
    Speakers,
    finetune,
)
from raysp.models import load_checkpoint
from tests.corpora import write_shard
from tests.recipes import WORDS, a_recipe, second_shard, words_table
from tests.training.objectives.originals import save_decoder
from tests.training.trained import evaluations_of, tried

MASKS = {"hidden_dropout": 0.1, "layerdrop": 0.2, "mask_time_prob": 0.2}
OBJECTIVES = {
    "single": (Classify, {"column": "speaker"}),
    "speakers": (Speakers, {"column": "speaker", "crop_seconds": 0.5}),
}


DECODERS = ("bert", "gpt2", "bart")


@pytest.fixture(scope="session")
def decoders(tmp_path_factory) -> dict[str, str]:
    """Text models of random weights with their tokenizers, by their kind."""
    folder = tmp_path_factory.mktemp("decoders")
    return {kind: str(save_decoder(kind, folder / kind)) for kind in DECODERS}


@pytest.fixture(params=[*OBJECTIVES, "bert"])
def objective(request, headless, listener, decoders) -> object:
    if request.param in DECODERS:
        generate = {"max_new_tokens": 8}
        return Seq2Seq(str(headless), decoder=decoders[request.param], masks=MASKS, generate=generate)
    cls, fields = OBJECTIVES[request.param]
    return cls(listener if cls is Speakers else str(headless), masks=MASKS, **fields)


def trained(words, sink, objective, **fields):
    return a_recipe(words, Path(), sink, objective=objective, source=raysp.Shards(words, text="text"), **fields)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


@pytest.mark.slow
def test_a_stopped_training_goes_on_and_its_checkpoint_loads_in_both_libraries(words, objective, tmp_path):
    finetune(trained(words, tmp_path / "once", objective))
    stopped = finetune(trained(words, tmp_path / "out", objective), should_stop=lambda: True)
    assert (stopped.steps, stopped.is_done) == (1, False)
    result = finetune(trained(words, tmp_path / "out", objective))
    assert (result.steps, result.is_done) == (4, True)
    once, found = weights(tmp_path / "once"), weights(tmp_path / "out")
    assert once.keys() == found.keys()
    assert all(torch.equal(once[name], value) for name, value in found.items())
    assert_same_logits(tmp_path / "out")


def assert_same_logits(folder: Path) -> None:
    loaded = load_checkpoint(folder)
    theirs, info = getattr(transformers, type(loaded.model).__name__).from_pretrained(folder, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    theirs.eval()
    wave = torch.randn(1, 8000, generator=torch.Generator().manual_seed(0))
    config = loaded.model.config
    writes = type(loaded.model).__name__ == "SpeechEncoderDecoderModel"
    inputs = {"decoder_input_ids": torch.tensor([[config.decoder_start_token_id, 7, 5]])} if writes else {}
    with torch.inference_mode():
        expected, found = theirs(wave, **inputs).logits, loaded.model(wave, **inputs).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.drivers
@pytest.mark.slow
def test_a_checkpoint_of_classes_labels_them(words, headless, tmp_path):
    objective = Classify(str(headless), column="speaker")
    finetune(trained(words, tmp_path / "out", objective))
    card = (tmp_path / "out" / "README.md").read_text()
    assert "- audio-classification\n" in card
    assert load_checkpoint(tmp_path / "out").summary.problem_type == "single_label_classification"
    label = raysp.Label(str(tmp_path / "out"), outputs=[raysp.Classes(top_k=1)])
    sink = raysp.Parquet(str(tmp_path / "labels"))
    write_shard(tmp_path / "in" / "a.parquet", table=words_table(4))
    raysp.run(
        raysp.Pipeline(raysp.Shards(f"{tmp_path}/in/*.parquet"), steps=[raysp.Decode(), label], sink=sink),
        engine="here",
        progress=False,
    )
    table = pq.read_table(tmp_path / "labels" / "a.parquet")
    assert table.num_rows == 4
    assert {*table.column("pred_label").to_pylist()} <= {"s0", "s1", "s2"}


@pytest.mark.slow
def test_the_best_weights_by_a_metric_of_classes_are_exported(words, headless, tmp_path):
    evaluation = Evaluation(second_shard(words, text=None), every=1, best="f1", by=["text"])
    schedule = Schedule(steps=3, learning_rate=3e-3)
    objective = Classify(str(headless), column="speaker")
    recipe = trained(words, tmp_path / "out", objective, evaluation=evaluation, schedule=schedule)
    result = finetune(recipe)
    evaluations = evaluations_of(tmp_path / "out")
    assert [*evaluations] == [0, 1, 2, 3]
    metrics = {done: found["scores"]["metrics"] for done, found in evaluations.items() if done}
    values = {done: found["f1"]["value"] for done, found in metrics.items()}
    chosen = max(values, key=values.get)
    assert (result.best_step, result.best) == (chosen, values[chosen])
    figures = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert figures["best"] == {"metric": "f1", "value": values[chosen], "step": chosen}
    assert metrics[1].keys() == {"accuracy", "f1"}


@pytest.fixture(scope="module")
def writer(words, headless, decoders, tmp_path_factory) -> Path:
    """A trained encoder with a decoder."""
    sink = tmp_path_factory.mktemp("writer") / "out"
    objective = Seq2Seq(str(headless), decoder=decoders["gpt2"], generate={"max_new_tokens": 6})
    evaluation = Evaluation(second_shard(words), every=10)
    schedule = Schedule(steps=2, learning_rate=3e-3)
    result = finetune(trained(words, sink, objective, evaluation=evaluation, schedule=schedule))
    assert result.best > 0
    return sink


@pytest.mark.drivers
@pytest.mark.slow
def test_a_checkpoint_with_a_decoder_is_trained_further(words, writer, tmp_path):
    objective = Seq2Seq(str(writer), freeze="encoder")
    schedule = Schedule(steps=2, learning_rate=3e-3)
    result = tried(trained(words, tmp_path / "out", objective, schedule=schedule), 1)
    assert {reference for reference, _ in result["texts"]} <= {*WORDS}
    assert finetune(trained(words, tmp_path / "out", objective, schedule=schedule)).is_done
    before, after = weights(writer), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    changed = {name.partition(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert "decoder" in changed
    assert "encoder" not in changed


@pytest.mark.drivers
@pytest.mark.slow
def test_a_checkpoint_of_speakers_embeds_recordings(words, listener, tmp_path):
    evaluation = Evaluation(raysp.Shards(words), every=10, best="accuracy")
    schedule = Schedule(steps=2, learning_rate=3e-3)
    objective = Speakers(listener, column="speaker", crop_seconds=0.5)
    result = finetune(trained(words, tmp_path / "out", objective, evaluation=evaluation, schedule=schedule))
    assert 0 <= result.best <= 1
    assert result.left_out["too_short"] > 0
    label = raysp.Label(str(tmp_path / "out"), outputs=[raysp.Embedding(pooling="xvector")])
    write_shard(tmp_path / "in" / "a.parquet", table=words_table(4))
    sink = raysp.Parquet(str(tmp_path / "labels"))
    raysp.run(
        raysp.Pipeline(raysp.Shards(f"{tmp_path}/in/*.parquet"), steps=[raysp.Decode(), label], sink=sink),
        engine="here",
        progress=False,
    )
    [column] = [name for name in pq.read_schema(tmp_path / "labels" / "a.parquet").names if "embedding" in name]
    found = pq.read_table(tmp_path / "labels" / "a.parquet").column(column).to_pylist()
    assert {len(one) for one in found if one is not None} == {12}
