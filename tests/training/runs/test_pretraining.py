"""Whole pre-trainings: rows with and without texts, the terms of the loss, evaluation, and what comes out."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
import transformers
from safetensors.torch import load_file

import raysp
from raysp import CTC, Batching, CheckpointError, Evaluation, PlanError, Pretrain, Schedule, SpecError, Text, finetune
from raysp.models import check_checkpoint
from tests.corpora import AUDIO, CHECKPOINT, DEMO, wav, write_shard
from tests.recipes import WORDS, a_recipe, second_shard, words_table, write_words
from tests.training.trained import (
    commits_of,
    committed_weights,
    evaluations_of,
    events_of,
    planned,
    scalars,
    steps_of,
    tried,
)

pytestmark = pytest.mark.slow

TERMS = ("contrast", "diversity", "ctc")
VOCABULARY = 3 + len({letter for word in WORDS for letter in word})


def a_pretraining(words, checkpoint, sink, **fields):
    """Make a recipe of two steps; `objective` has fields of Pretrain."""
    objective = Pretrain(str(checkpoint), **{"text": Text("lower"), **fields.pop("objective", {})})
    given = {"schedule": Schedule(steps=2, learning_rate=1e-3), **fields}
    return a_recipe(words, Path(), sink, objective=objective, **given)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def written(folder: Path, texts: list[str | None]) -> str:
    write_shard(folder / "a.parquet", table=words_table(len(texts), texts=texts))
    return f"{folder}/*.parquet"


@pytest.fixture(scope="module")
def pretrained(words, headless, tmp_path_factory) -> Path:
    sink = tmp_path_factory.mktemp("pretrained") / "out"
    assert finetune(a_pretraining(words, headless, sink)).is_done
    return sink


@pytest.fixture(scope="module")
def without_texts(words, headless, tmp_path_factory) -> Path:
    """A checkpoint that was trained on a source without a column of texts."""
    sink = tmp_path_factory.mktemp("without texts") / "out"
    assert finetune(a_pretraining(words, headless, sink, source=raysp.Shards(words))).is_done
    return sink


@pytest.mark.soak
def test_codes_and_texts_of_real_digits_are_learnt(tmp_path):
    recipe = a_pretraining(
        None,
        CHECKPOINT,
        tmp_path / "out",
        source=raysp.Shards(f"{DEMO}/audio/*00000*.parquet", text="text"),
        objective={"text": Text("upper"), "masks": {"mask_time_prob": 0.5, "num_negatives": 10}},
        schedule=Schedule(steps=24, learning_rate=1e-3, head_rate=1.0),
        batching=Batching(seconds=8, micro_batches=2),
    )
    finetune(recipe)
    found = steps_of(tmp_path / "out")
    terms = (lambda step: step["terms"]["contrast"], lambda step: step["terms"]["ctc"])
    for value in (lambda step: step["loss"], *terms):
        assert np.mean([*map(value, found[-4:])]) < 0.9 * np.mean([*map(value, found[:4])])


def test_the_terms_of_each_step_are_recorded(pretrained):
    found = steps_of(pretrained)
    assert [[*step["terms"]] for step in found] == [[*TERMS]] * 2
    shown = {tag for events in events_of(pretrained).values() for tag, _ in scalars(events)}
    assert {f"train/{name}" for name in TERMS} < shown
    assert {*TERMS} < commits_of(pretrained)[2]["metrics"].keys()
    # All rows have a text, so that both parts have the weight 1/2.
    assert found[0]["loss"] == pytest.approx(sum(found[0]["terms"].values()) / 2, rel=1e-4)


def test_the_checkpoint_has_the_vocabulary_of_the_texts(pretrained):
    theirs, info = transformers.UniSpeechForPreTraining.from_pretrained(pretrained, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert theirs.config.num_ctc_classes == theirs.config.vocab_size == VOCABULARY
    tokenizer = transformers.AutoProcessor.from_pretrained(pretrained).tokenizer
    assert tokenizer("six").input_ids == [tokenizer.get_vocab()[letter] for letter in "six"]
    assert tokenizer.pad_token_id == theirs.config.pad_token_id == 0
    assert check_checkpoint(pretrained).architecture == "UniSpeechForPreTraining"
    card = (pretrained / "README.md").read_text()
    assert "pre-trained by raysp" in card
    assert "- pretraining\n" in card


def test_the_checkpoint_begins_a_training_of_texts(words, pretrained, tmp_path):
    objective = CTC(str(pretrained), text=Text("lower"), vocabulary="build", masks={"mask_time_prob": 0.05})
    recipe = a_recipe(
        words, Path(), tmp_path / "out", objective=objective, schedule=Schedule(steps=1, learning_rate=1e-9)
    )
    assert finetune(recipe).is_done
    before, after = weights(pretrained), weights(tmp_path / "out")
    encoder = [name for name in after if name.startswith("unispeech.")]
    assert len(encoder) == len(after) - 2
    for name in encoder:
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-6)


def test_the_vocabulary_and_the_head_of_a_checkpoint_are_kept(words, pretrained, tmp_path):
    schedule = Schedule(steps=1, learning_rate=1e-9)
    kept = a_pretraining(words, pretrained, tmp_path / "out", objective={"vocabulary": "keep"}, schedule=schedule)
    finetune(kept)
    before, after = weights(pretrained), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=0, atol=1e-6)


def test_the_vocabulary_of_a_recogniser_is_kept_with_a_new_head(words, tiny, tmp_path):
    heads = []
    for rate in (1e-3, 1e-30):
        schedule = Schedule(steps=2, learning_rate=rate)
        sink = tmp_path / f"{rate}"
        finetune(a_pretraining(words, tiny, sink, objective={"vocabulary": "keep"}, schedule=schedule))
        heads.append(weights(sink)["ctc_proj.weight"])
    assert len(json.loads((sink / "vocab.json").read_text())) == len(heads[0]) == 29
    assert not torch.equal(*heads)


def test_rows_without_a_text_are_trained_on(headless, tmp_path):
    url = written(tmp_path / "in", ["one", None, "", " ", "two"])
    found = planned(a_pretraining(url, headless, tmp_path / "out"))
    assert (found["left_out"], found["rows_trained"]) == ({}, 5)
    assert {*found["vocabulary"]} == {"<pad>", "<unk>", "|", *"onetw"}


def test_texts_that_ctc_could_not_read_are_left_out(tiny, tmp_path):
    url = written(tmp_path / "in", ["one", "größe", "two " * 30, None])
    found = planned(a_pretraining(url, tiny, tmp_path / "out", objective={"vocabulary": "keep"}))
    assert found["left_out"] == {"outside_vocabulary": 1, "label_too_long": 1}
    assert found.facts["characters"] == "29 tokens; outside: 'ß' (1) 'ö' (1)"


def test_a_source_without_texts_trains_all_but_the_head(without_texts, headless, tmp_path, words):
    assert not (without_texts / "vocab.json").exists()
    assert [step["terms"]["ctc"] for step in steps_of(without_texts)] == [0, 0]
    schedule = Schedule(steps=2, learning_rate=1e-30)  # so that no weight but a zero changes
    still = a_pretraining(words, headless, tmp_path / "out", source=raysp.Shards(words), schedule=schedule)
    assert planned(still).facts["characters"] == "no row has a text: the CTC head is not trained"
    finetune(still)
    before, after = weights(tmp_path / "out"), weights(without_texts)
    same = {name for name, value in after.items() if torch.equal(before[name], value)}
    assert same == {"ctc_proj.weight", "ctc_proj.bias"}


def test_texts_change_the_weights_and_the_fingerprint(pretrained, without_texts):
    of_both = [weights(folder)["unispeech.masked_spec_embed"] for folder in (pretrained, without_texts)]
    assert not torch.equal(*of_both)
    figures = [json.loads((folder / "metrics.json").read_text()) for folder in (pretrained, without_texts)]
    assert figures[0]["fingerprint"] != figures[1]["fingerprint"]


def test_a_column_that_holds_nulls_alone_is_a_source_without_texts(without_texts, headless, tmp_path):
    url = written(tmp_path / "in", [None] * 12)
    assert finetune(a_pretraining(url, headless, tmp_path / "out")).is_done
    assert not (tmp_path / "out" / "vocab.json").exists()


@pytest.mark.parametrize("text", ["text", None])
def test_the_weights_with_the_lowest_loss_are_exported(words, headless, tmp_path, text):
    url = written(tmp_path / "dev", ["one", None, "six", ""])
    evaluation = Evaluation(raysp.Shards(url, text=text), every=1, best="loss", by=["speaker"])
    recipe = a_pretraining(
        words,
        headless,
        tmp_path / "out",
        source=raysp.Shards(words, text=text),
        schedule=Schedule(steps=3, learning_rate=2e-3),
        evaluation=evaluation,
    )
    result = finetune(recipe)
    recorded = evaluations_of(tmp_path / "out")
    assert [*recorded] == [0, 1, 2, 3]  # the first before any step
    assert [(one["scores"]["rows"], one["scores"]["metrics"]) for one in recorded.values()] == [(4, {})] * 4
    losses = [one["loss"] for done, one in recorded.items() if done]
    assert len({*losses}) == 3
    assert (result.metric, result.best, result.best_step) == ("loss", min(losses), 1 + losses.index(min(losses)))


def test_an_evaluation_of_the_same_weights_gives_the_same_loss_and_changes_no_weight(words, headless, tmp_path):
    evaluation = Evaluation(second_shard(words), every=1, best="loss")
    losses = {}
    for name, given in {"with": evaluation, "again": evaluation, "without": None}.items():
        finetune(a_pretraining(words, headless, tmp_path / name, evaluation=given))
        losses[name] = [one["loss"] for one in evaluations_of(tmp_path / name).values()]
    assert losses["with"] == losses["again"]
    assert (len(losses["with"]), losses["without"]) == (3, [])
    found = [committed_weights(tmp_path / name, 2) for name in losses]
    for name, value in found[0].items():
        assert torch.equal(value, found[1][name])
        assert torch.equal(value, found[2][name])


def test_a_try_out_shows_no_texts(words, headless, tmp_path):
    result = tried(a_pretraining(words, headless, tmp_path / "out"), 1)
    assert result["texts"] == []
    assert result["loss"] > 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("checkpoint", "fields", "error", "message"),
    [
        (
            "listener",
            {},
            CheckpointError,
            "of model_type 'wav2vec2'; Pretrain needs a checkpoint of model_type 'unis",
        ),
        ("headless", {"vocabulary": "keep"}, CheckpointError, "vocab.json not found, so there is no vocabulary to kee"),
        ("headless", {"masks": {"mask_time_prob": 0.0}}, PlanError, "objective.masks: .* mask_time_prob 0.0, expected"),
        ("headless", {"vocabulary": "nowhere/vocab.json"}, PlanError, "objective.vocabulary: .*nowhere/vocab.json"),
    ],
)
def test_what_cannot_be_pretrained_is_refused(words, request, tmp_path, checkpoint, fields, error, message):
    with pytest.raises(error, match=message):
        finetune(a_pretraining(words, request.getfixturevalue(checkpoint), tmp_path / "out", objective=fields))


def test_a_vocabulary_that_is_not_that_of_the_head_is_refused(words, pretrained, tmp_path):
    changed = shutil.copytree(pretrained, tmp_path / "changed", ignore=shutil.ignore_patterns(".raysp"))
    config = json.loads((changed / "config.json").read_text())
    (changed / "config.json").write_text(json.dumps({**config, "pad_token_id": 1}))
    with pytest.raises(
        CheckpointError, match=r"18 tokens with the blank 0, the head 18 with the blank 1 \(config.json"
    ):
        finetune(a_pretraining(words, changed, tmp_path / "out", objective={"vocabulary": "keep"}))


def test_unknown_fields_of_masks_are_refused(words, headless, tmp_path):
    masks = {"mask_time_prob": 0.5, "mask_tiem": 1}
    with pytest.raises(PlanError, match=r"objective.masks: .*mask_tiem"):
        finetune(a_pretraining(words, headless, tmp_path / "out", objective={"masks": masks}))


def test_a_column_of_numbers_is_no_text(headless, tmp_path):
    table = words_table(3)
    table = table.set_column(table.column_names.index("text"), "text", pa.array([1, 2, 3]))
    write_shard(tmp_path / "in" / "a.parquet", table=table)
    with pytest.raises(PlanError, match=r"column 'text' holds int64, expected strings"):
        finetune(a_pretraining(f"{tmp_path}/in/*.parquet", headless, tmp_path / "out"))


def test_a_metric_of_texts_is_refused(headless):
    with pytest.raises(SpecError, match=r"found evaluation.best='wer'; Pretrain has loss"):
        a_pretraining("in", headless, "out", evaluation=Evaluation(raysp.Shards("dev", text="text")))


def test_other_objectives_still_need_texts(tiny):
    with pytest.raises(SpecError, match=r"source.text is not set; give the column of the reference texts"):
        a_recipe("in", tiny, "out", source=raysp.Shards("in"))


def test_recordings_of_a_frame_or_two_are_trained_on(headless, tmp_path):
    url = write_words(tmp_path / "in", 6)

    recordings = [{"bytes": wav(n), "path": None} for n in (400, 720, 1040, 300)]
    table = pa.table({"id": list("abcd"), "audio": pa.array(recordings, AUDIO), "text": ["", None, "a", None]})
    write_shard(tmp_path / "in" / "short.parquet", table=table)
    result = finetune(a_pretraining(url, headless, tmp_path / "out"))
    assert (result.rows, result.left_out) == (9, {"too_short": 1})
