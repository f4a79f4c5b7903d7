"""Whole trainings in one process: what comes out, resuming, refusals, and rows that fail."""

import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from safetensors.torch import load_file, save_file

import raysp
from raysp import Batching, ChangedError, PlanError, RunError, Schedule, finetune
from raysp.models import check_checkpoint
from raysp.specs import spec
from raysp.training.data.micro_batches import Losses, MicroBatch
from raysp.training.objectives.ctc_task import CTCTask
from raysp.training.objectives.passes import Passes
from tests import kit
from tests.corpora import write_shard
from tests.recipes import a_recipe, words_table, write_words
from tests.training import optimizers
from tests.training.conftest import interrupted_amid_an_update
from tests.training.trained import commits_of, committed_file, error_rows_of, record_of, steps_of, tried

pytestmark = pytest.mark.slow

DROPPING = {"hidden_dropout": 0.1, "layerdrop": 0.2, "mask_time_prob": 0.2}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def steps_until(number: int):
    """Return a request to stop after this many steps."""
    asked = iter(range(1, 1000))
    return lambda: next(asked) >= number


@pytest.fixture(scope="module")
def undisturbed(words, tiny, tmp_path_factory) -> Path:
    sink = tmp_path_factory.mktemp("undisturbed")
    finetune(again(words, tiny, sink))
    return sink


def again(words, tiny, sink, **fields):
    schedule = Schedule(epochs=2, learning_rate=1e-3)
    return a_recipe(words, tiny, sink, **{"schedule": schedule, "objective": {"masks": DROPPING}, **fields})


def test_what_comes_out_is_a_checkpoint_that_raysp_and_transformers_load(undisturbed):
    import transformers

    from raysp.models import load_checkpoint

    summary = check_checkpoint(undisturbed)
    assert (summary.architecture, summary.vocab_size) == ("UniSpeechForCTC", 18)
    ours = load_checkpoint(undisturbed)
    theirs = transformers.UniSpeechForCTC.from_pretrained(undisturbed).eval()
    processor = transformers.AutoProcessor.from_pretrained(undisturbed)
    samples = np.random.default_rng(0).normal(size=8000).astype(np.float32)
    inputs = processor(samples, sampling_rate=16_000, return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**inputs).logits
        found = ours.model(inputs["input_values"]).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
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
    card = (tmp_path / f"{tiny.name}0" / "README.md").read_text()
    assert "base_model" not in card.partition("\n---\n")[0]
    assert "and random weights, trained by raysp" in card


def num_samples(*files: Path) -> list[int]:
    """Return the lengths of the recordings of some shards, of which two at most are equal."""
    recordings = [row["bytes"] for file in files for row in pq.read_table(file)["audio"].to_pylist()]
    found = [soundfile.info(io.BytesIO(recording)).frames for recording in recordings]
    assert len({*found}) >= len(found) - 1
    return found


def seen_of(sink: Path) -> list[list[tuple[int, int]]]:
    """Return rows and samples of the steps of each epoch, of all runs."""
    lines = [
        json.loads(line)
        for file in sorted((sink / ".raysp" / "log").glob("*.jsonl"))
        for line in file.read_text().splitlines()
    ]
    epochs: list[list[tuple[int, int]]] = []
    for line in lines:
        if not epochs or line["step"] == 1:
            epochs.append([])
        epochs[-1].append((line["rows"], round(16_000 * line["audio_seconds"])))
    return epochs


def check_seen_once(sink: Path, *files: Path, failed: int = 0) -> list[list[tuple[int, int]]]:
    """Check that the steps of each epoch have the rows of some shards, and no others but failed samples."""
    lengths, epochs = num_samples(*files), seen_of(sink)
    for steps in epochs:
        assert tuple(map(sum, zip(*steps, strict=True))) == (len(lengths), sum(lengths) + failed)
    return epochs


def shards_of(url: str) -> list[Path]:
    return sorted(Path(url).parent.glob("*.parquet"))


def test_every_row_is_trained_on_once_an_epoch(words, tiny, tmp_path):
    result = finetune(again(words, tiny, tmp_path / "out", batching=Batching(seconds=2.5, micro_batches=2)))
    assert (result.epochs, result.is_done, result.exit_code, result.rows) == (2, True, 0, 30)
    first, second = check_seen_once(tmp_path / "out", *shards_of(words))
    assert len(first) > 6
    assert first != second


def test_a_stopped_training_goes_on_bit_for_bit(words, tiny, undisturbed, tmp_path):
    recipe = again(words, tiny, tmp_path / "out")
    first = finetune(recipe, should_stop=steps_until(3))
    assert (first.steps, first.is_done) == (3, False)
    assert not (tmp_path / "out" / "config.json").exists()
    second = finetune(recipe)
    assert second.is_done
    assert same(weights(tmp_path / "out"), weights(undisturbed))
    assert len(check_seen_once(tmp_path / "out", *shards_of(words))) == 2
    assert [step["done"] for step in steps_of(tmp_path / "out")] == [*range(1, second.steps + 1)]


def test_a_training_by_an_optimiser_of_a_user_goes_on_bit_for_bit(words, tiny, undisturbed, tmp_path):
    schedule = Schedule(epochs=2, learning_rate=1e-3, optimizer=optimizers.nadam)
    whole = a_recipe(words, tiny, tmp_path / "whole", schedule=schedule)
    stopped = a_recipe(words, tiny, tmp_path / "stopped", schedule=schedule)
    finetune(whole)
    assert not finetune(stopped, should_stop=steps_until(3)).is_done
    with pytest.raises(ChangedError, match=r"schedule.optimizer"):
        finetune(replace(stopped, schedule=replace(schedule, optimizer=None)))
    assert finetune(stopped).is_done
    assert same(weights(tmp_path / "stopped"), weights(tmp_path / "whole"))
    assert not same(weights(tmp_path / "stopped"), weights(undisturbed))
    assert "code.tests/training/optimizers.py" in record_of(tmp_path / "whole")["parts"]


def test_a_training_that_is_done_is_only_exported_again(words, tiny, undisturbed, tmp_path):
    recipe = again(words, tiny, tmp_path / "out")
    shutil.copytree(undisturbed, tmp_path / "out")
    (tmp_path / "out" / "config.json").unlink()
    result = finetune(recipe)
    published = json.loads((undisturbed / "metrics.json").read_text())
    assert (result.is_done, result.audio_seconds, result.loss) == (True, 0, pytest.approx(published["loss"]))
    assert seen_of(tmp_path / "out") == seen_of(undisturbed)
    assert same(weights(tmp_path / "out"), weights(undisturbed))
    check_checkpoint(tmp_path / "out")


def test_an_interrupted_step_is_never_committed(words, tiny, undisturbed, tmp_path):
    """Ctrl-C in a program of a user's own may come amid an update."""
    recipe = again(words, tiny, tmp_path / "out")
    with interrupted_amid_an_update():
        finetune(recipe)
    finetune(recipe)
    assert same(weights(tmp_path / "out"), weights(undisturbed))


def test_another_recipe_or_corpus_is_refused_and_restart_begins_anew(tiny, tmp_path):
    url = write_words(tmp_path / "in", 12)
    recipe = a_recipe(url, tiny, tmp_path / "out", schedule=Schedule(steps=2))
    finetune(recipe)
    with pytest.raises(ChangedError, match=r"with another recipe or corpus: `seed` was 0, now 1; undo the change"):
        finetune(replace(recipe, seed=1))
    with pytest.raises(ChangedError, match=r"with another recipe or corpus: `schedule.steps` was 2, now 4; undo the"):
        finetune(replace(recipe, schedule=Schedule(steps=4)))
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
    finetune(recipe, should_stop=steps_until(2))
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


def test_rows_that_cannot_be_decoded_are_left_out_of_every_epoch(tiny, tmp_path):
    """Their headers are whole, so the index does not know."""
    write_words(tmp_path / "in", 20)
    write_shard(tmp_path / "in" / "z.parquet", table=broken_table(6))
    recipe = a_recipe(f"{tmp_path}/in/*.parquet", tiny, tmp_path / "out", schedule=Schedule(epochs=2))
    result = finetune(recipe)
    assert result.rows == 26
    assert len(check_seen_once(tmp_path / "out", tmp_path / "in" / "0.parquet", failed=6 * 8000)) == 2
    assert sum(result.errors.values()) == 12
    assert result.error_examples[0].startswith("z.parquet:")
    listed = error_rows_of(tmp_path / "out")
    assert [(one["shard"], one["row"]) for one in listed] == [("z.parquet", row) for row in range(6)]
    assert {one["error_type"] for one in listed} == {*result.errors}


def broken_table(num_rows: int) -> pa.Table:
    """Make rows that can be decoded only by their headers."""
    table = words_table(num_rows, seed=9)
    cut = pa.array([{"bytes": _broken_flac(), "path": None}] * num_rows, table.schema.field("audio").type)
    return table.set_column(1, "audio", cut)


def _broken_flac() -> bytes:
    """Make a recording whose header is whole, and whose frames are not."""
    import io

    file = io.BytesIO()
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 8000).astype(np.float32)
    soundfile.write(file, samples, 16_000, format="FLAC")
    whole = file.getvalue()
    return whole[:200] + bytes(len(whole) - 200)


def test_a_try_out_writes_nothing_and_shows_texts(words, tiny, tmp_path):
    recipe = a_recipe(words, tiny, tmp_path / "out")
    result = tried(recipe, 2)
    assert (result["steps"], result["is_done"]) == (2, True)
    assert next(reference for reference, _ in result["texts"]) in words_of(words)
    assert not (tmp_path / "out").exists()


def words_of(url: str) -> set[str]:
    return set(pq.read_table(Path(url).parent, columns=["text"]).column("text").to_pylist())


def test_only_the_head_is_trained_at_first(words, headless, tmp_path):
    recipe = a_recipe(words, headless, tmp_path / "out", objective={"freeze_steps": 4})
    finetune(recipe)
    before, after = load_file(headless / "model.safetensors"), weights(tmp_path / "out")
    base = {name.removeprefix("unispeech."): value for name, value in after.items() if not name.startswith("lm_head")}
    assert all(torch.equal(value, before[name]) for name, value in base.items() if name in before)
    longer = a_recipe(words, headless, tmp_path / "more", objective={"freeze_steps": 2})
    finetune(longer)
    moved = {name.removeprefix("unispeech."): value for name, value in weights(tmp_path / "more").items()}
    assert any(not torch.equal(moved[name], value) for name, value in before.items() if name in moved)


def test_a_sink_that_cannot_be_written_any_more_ends_the_training(words, tiny):
    with kit.failing_files() as files:
        recipe = again(words, tiny, files.url("out"))
        finetune(recipe, should_stop=steps_until(2))
        files.fail_at(6, "full")
        with pytest.raises(RunError, match=r"cannot write it \(OSError: \[Errno 28\] .* from the last committed step"):
            finetune(recipe)
        files.revive()
        assert finetune(recipe).is_done


@spec
class BrokenCTC(raysp.CTC):
    """CTC whose loss is not a number for the row 7 of the corpus, or for all rows from the row 7 on."""

    TASK: ClassVar[str] = f"{__name__}:BrokenTask"
    all: bool = False


class BrokenTask(CTCTask):
    """Loss of `BrokenCTC`."""

    seen: ClassVar[set[int]] = set()

    def loss(self, passes: Passes, batch: MicroBatch) -> Losses:
        losses = super().loss(passes, batch)
        self.seen.update(batch.rows)
        broken = torch.tensor([row == 7 or (self.spec.all and 7 in self.seen) for row in batch.rows])
        rows = torch.where(broken, torch.nan, losses.rows_B)
        return replace(losses, total=losses.total + rows.sum() - losses.rows_B.sum(), rows_B=rows)


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
