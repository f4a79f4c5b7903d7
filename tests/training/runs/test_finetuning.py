"""Whole trainings in one process: what comes out, refusals, and rows that fail."""

import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

import raysp
from raysp import Batching, ChangedError, PlanError, RunError, Schedule, finetune
from raysp.models import check_checkpoint
from tests import kit
from tests.corpora import write_shard
from tests.recipes import MASKS, a_recipe, words_table, write_words
from tests.training.broken import BrokenCTC, BrokenTask, UnusableCTC
from tests.training.optimizers import Interruptible, interruptible
from tests.training.trained import commits_of, committed_file, same, steps_of, stopping_after, weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def undisturbed(words, tiny, tmp_path_factory) -> Path:
    sink = tmp_path_factory.mktemp("undisturbed")
    finetune(again(words, tiny, sink))
    return sink


def again(words, tiny, sink, **fields):
    schedule = Schedule(epochs=2, learning_rate=1e-3, optimizer=interruptible)
    return a_recipe(words, tiny, sink, **{"schedule": schedule, "objective": {"masks": MASKS}, **fields})


def test_what_comes_out_is_a_checkpoint_whose_card_names_no_place_of_this_machine(undisturbed):
    summary = check_checkpoint(undisturbed)
    assert (summary.architecture, summary.vocab_size) == ("UniSpeechForCTC", 18)
    figures = json.loads((undisturbed / "metrics.json").read_text())
    assert (figures["epochs"], figures["rows"]) == (2, 30)
    card = (undisturbed / "README.md").read_text()
    assert "base_model" not in card.partition("\n---\n")[0]  # of a folder: the hub refuses a path there
    assert figures["fingerprint"] in card
    assert not {sign for sign in (str(undisturbed.parent), str(Path.home()), '"/', "`/", "file://") if sign in card}


def test_random_weights_are_those_of_the_seed_and_not_of_the_checkpoint(words, tiny, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tiny, other)
    ones = {name: torch.ones_like(one) for name, one in weights(tiny).items()}
    save_file(ones, other / "model.safetensors")
    found = {}
    for checkpoint, seed in ((tiny, 0), (other, 0), (tiny, 1)):
        sink = tmp_path / f"{checkpoint.name}{seed}"
        schedule, objective = Schedule(steps=1, learning_rate=1e-9), {"random_weights": True}
        finetune(again(words, checkpoint, sink, schedule=schedule, objective=objective, seed=seed))
        found[checkpoint, seed] = weights(sink)
    assert same(found[tiny, 0], found[other, 0])
    assert not same(found[tiny, 0], found[tiny, 1])
    assert not same(found[tiny, 0], weights(tiny))
    assert "and random weights, trained by raysp" in (tmp_path / f"{tiny.name}0" / "README.md").read_text()


def test_every_row_is_trained_on_once_an_epoch(words, tiny, tmp_path):
    result = finetune(again(words, tiny, tmp_path / "out", batching=Batching(seconds=2.5, micro_batches=2)))
    assert (result.epochs, result.is_done, result.exit_code, result.rows) == (2, True, 0, 30)
    audio = [
        row["bytes"]
        for file in Path(words).parent.glob("*.parquet")
        for row in pq.read_table(file)["audio"].to_pylist()
    ]
    lengths = [soundfile.info(io.BytesIO(recording)).frames for recording in audio]
    assert len({*lengths}) >= len(lengths) - 1
    steps = [(one["rows"], round(16_000 * one["audio_seconds"])) for one in steps_of(tmp_path / "out")]
    first, second = steps[: len(steps) // 2], steps[len(steps) // 2 :]
    for epoch in (first, second):
        assert tuple(map(sum, zip(*epoch, strict=True))) == (len(lengths), sum(lengths))
    assert len(first) > 6
    assert first != second


def test_a_training_that_is_done_is_only_exported_again(words, tiny, undisturbed, tmp_path):
    recipe = again(words, tiny, tmp_path / "out")
    shutil.copytree(undisturbed, tmp_path / "out")
    (tmp_path / "out" / "config.json").unlink()
    result = finetune(recipe)
    expected = json.loads((undisturbed / "metrics.json").read_text())
    assert (result.is_done, result.audio_seconds, result.loss) == (True, 0, pytest.approx(expected["loss"]))
    assert steps_of(tmp_path / "out") == steps_of(undisturbed)
    assert same(weights(tmp_path / "out"), weights(undisturbed))
    check_checkpoint(tmp_path / "out")


def test_an_interrupted_step_is_never_committed(words, tiny, undisturbed, tmp_path):
    """Ctrl-C in a program of a user's own may come amid an update."""
    recipe = again(words, tiny, tmp_path / "out")
    Interruptible.left = 4
    with pytest.raises(KeyboardInterrupt):
        finetune(recipe)
    finetune(recipe)
    assert same(weights(tmp_path / "out"), weights(undisturbed))


def test_a_training_that_the_caller_ends_commits_before_the_error_is_handled(words, tiny, tmp_path):
    def end(progress):
        raise KeyError(progress.done)

    sink = raysp.Checkpoint(str(tmp_path / "out"), every=100)
    with pytest.raises(KeyError) as caught:
        finetune(again(words, tiny, sink), on_progress=end)
    assert caught.value.__traceback__  # which holds the training
    assert [*commits_of(tmp_path / "out")] == [1]


def test_another_recipe_or_corpus_is_refused_and_restart_begins_anew(tiny, tmp_path):
    url = write_words(tmp_path / "in", 12)
    recipe = a_recipe(url, tiny, tmp_path / "out", schedule=Schedule(steps=2))
    finetune(recipe)
    with pytest.raises(ChangedError, match=r"with another recipe or corpus: `seed` was 0, now 1; undo the change"):
        finetune(replace(recipe, seed=1))
    with pytest.raises(ChangedError, match=r"with another recipe or corpus: `schedule.steps` was 2, now 4; undo the"):
        finetune(replace(recipe, schedule=Schedule(steps=4)))
    with pytest.raises(ChangedError, match=r"vocabulary_digest.*objective.vocabulary"):
        finetune(replace(recipe, objective=replace(recipe.objective, vocabulary="bpe:20")))
    others = {"augment": [raysp.Gain()], "ema": 0.5, "schedule": replace(recipe.schedule, optimizer=interruptible)}
    for name, value in others.items():
        with pytest.raises(ChangedError, match=rf"with another recipe or corpus: `{name}"):
            finetune(replace(recipe, **{name: value}))
    second = tmp_path / "in" / "1.parquet"
    write_shard(second, table=words_table(9, seed=100))
    with pytest.raises(ChangedError, match=r"1 shard is new: 1\.parquet"):
        finetune(recipe)
    assert finetune(recipe, restart=True).rows == 21
    second.rename(tmp_path / "away")
    write_shard(second, table=words_table(8, seed=100))
    with pytest.raises(ChangedError, match=r"1 shard of source has another version .*: 1\.parquet; put the earlier"):
        finetune(recipe)
    (tmp_path / "away").rename(second)
    assert finetune(replace(recipe, pool=raysp.Pool(1, cpus=1), name="another")).is_done


def test_a_shard_that_is_away_is_named_and_the_training_goes_on_once_it_is_back(tiny, tmp_path):
    url = write_words(tmp_path / "in", 12, 9, 8)
    recipe = a_recipe(url, tiny, tmp_path / "out")
    finetune(recipe, should_stop=stopping_after(2))
    away = tmp_path / "in" / "1.parquet"
    away.rename(tmp_path / "away")
    with pytest.raises(ChangedError) as found:
        finetune(recipe)
    message = str(found.value)
    assert "1 shard of the 3 with which it began is missing: 1.parquet. The training continues over" in message
    assert "bring the missing ones back, and run the same command again" in message
    assert "anew" not in message
    assert "Also changed" not in message
    with pytest.raises(ChangedError, match=r"is missing: 1\.parquet\..* Also changed: `seed` was 0, now 1; undo that"):
        finetune(replace(recipe, seed=1))
    away.write_bytes(b"damaged")
    with pytest.raises(ChangedError, match=r"is missing: 1\.parquet \(cannot be read: .*1\.parquet"):
        finetune(recipe)
    (tmp_path / "away").rename(away)
    assert finetune(recipe).is_done


@pytest.mark.parametrize("restart", [False, True])
def test_a_sink_of_labels_is_refused_and_stays_as_it_is(words, tiny, tmp_path, restart):
    (tmp_path / "out" / ".raysp").mkdir(parents=True)
    (tmp_path / "out" / ".raysp" / "run.json").write_text("{}")
    with pytest.raises(PlanError, match="a sink of labels; choose another folder for the checkpoint"):
        finetune(a_recipe(words, tiny, tmp_path / "out"), restart=restart)
    files = [path.name for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert files == ["run.json"]


def test_a_training_that_diverged_says_so_and_names_no_row(words, tiny, tmp_path):
    schedule = Schedule(steps=40, learning_rate=1e12, warmup=0.0, clip=None, shape="constant")
    with pytest.raises(RunError) as found:
        finetune(a_recipe(words, tiny, tmp_path / "out", schedule=schedule))
    message = str(found.value)
    assert "The training diverged: " in message
    assert "the weights are at fault and not the rows. " in message
    assert re.search(r"The loss (grew since step \d+, from|was finite until step \d+, with) \d", message)
    assert ".parquet" not in message
    assert "Lower schedule.learning_rate" in message


def test_only_the_head_is_trained_at_first(words, headless, tmp_path):
    sink = tmp_path / "out"
    finetune(a_recipe(words, headless, raysp.Checkpoint(str(sink), every=2), objective={"freeze_steps": 2}))
    before = load_file(headless / "model.safetensors")
    first, last = load_file(committed_file(sink, 2, "model.safetensors")), weights(sink)
    assert all(torch.equal(value, before[name]) for name, value in of_base(first, before))
    assert any(not torch.equal(value, before[name]) for name, value in of_base(last, before))


def of_base(found: dict[str, torch.Tensor], before: dict[str, torch.Tensor]) -> list[tuple[str, torch.Tensor]]:
    """Return the weights that a model without a head has, by their names there."""
    named = [(name.removeprefix("unispeech."), value) for name, value in found.items()]
    return [(name, value) for name, value in named if name in before]


def test_a_sink_that_cannot_be_written_any_more_ends_the_training(words, tiny):
    with kit.failing_files() as files:
        recipe = again(words, tiny, files.url("out"))
        finetune(recipe, should_stop=stopping_after(2))
        files.fail_at(6, "full")
        with pytest.raises(RunError, match=r"cannot write it \(OSError: \[Errno 28\] .* from the last committed step"):
            finetune(recipe)
        files.revive()
        assert finetune(recipe).is_done


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        (False, r"the loss is nan .* at fault: 0.parquet:7\. Lower schedule"),
        (True, r"diverged: no row of the \d+ of the step has a finite loss and gradient, so"),
    ],
)
def test_a_loss_that_is_not_finite_ends_the_training_before_the_update_and_names_the_rows(
    words, tiny, tmp_path, whole, message
):
    BrokenTask.seen.clear()
    objective = BrokenCTC(str(tiny), text=raysp.Text("lower"), vocabulary="build", all=whole)
    sink = raysp.Checkpoint(str(tmp_path / "out"), every=1)
    with pytest.raises(RunError, match=message):
        finetune(a_recipe(words, tiny, sink, objective=objective, batching=Batching(seconds=3, micro_batches=1)))
    assert not (tmp_path / "out" / "config.json").exists()
    for done in commits_of(tmp_path / "out"):
        committed = load_file(committed_file(tmp_path / "out", done, "model.safetensors"))
        assert all(torch.isfinite(value).all() for value in committed.values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("itself", "returned a value of type NoneType, expected Losses"),
        ("exit", r"called sys.exit\(no\)"),
        ("total", r"returned a total of shape \(\) and requires_grad=False, expected a scalar to differentiate"),
        ("count", r"returned the count 0\.0, expected the number of rows or tokens, above 0"),
        ("rows_B", r"returned rows_B of shape \(0,\), expected a loss for each of \d+ rows"),
    ],
)
def test_losses_that_no_step_can_use_are_refused(words, tiny, tmp_path, field, message):
    objective = UnusableCTC(str(tiny), text=raysp.Text("lower"), vocabulary="build", field=field)
    with pytest.raises(raysp.RunError, match=rf"UnusableTask\.loss {message}\. Correct the objective"):
        finetune(a_recipe(words, tiny, tmp_path / "out", objective=objective))
    assert not (tmp_path / "out" / "model.safetensors").exists()
