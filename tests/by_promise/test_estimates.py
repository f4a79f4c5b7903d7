"""Estimates of runs from samples of rows, compared with the runs: hours, rows left out, speed and cost."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import raysp
from raysp import PlanError, SpecError
from tests import kit
from tests.corpora import AUDIO, CHECKPOINT, a_pipeline, wav, write_shard
from tests.golden.checkpoints import encoder_decoder
from tests.kit import pipeline_file, rows, run

RATE = 16_000
SPEAKING = (0.5, 1.0, 1.5, 2.5, 3.0)
TEXTS = raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()])
TIMES = raysp.Label(str(CHECKPOINT), outputs=[raysp.Align("pred_text")])


def write_rows(path: Path, seconds: Sequence[float], *, row_group_size: int = 1000, broken: Sequence[int] = ()) -> None:
    """Write rows with these durations; `broken` ones hold no recording."""
    recordings = [b"x" if row in broken else wav(round(one * RATE), seed=row) for row, one in enumerate(seconds)]
    audio = [{"bytes": one, "path": None} for one in recordings]
    table = pa.table({"id": [f"u{row}" for row in range(len(seconds))], "audio": pa.array(audio, AUDIO)})
    write_shard(path, table=table, row_group_size=row_group_size)


def made(source: object, sink: Path, *steps: object) -> raysp.Pipeline:
    return a_pipeline(source, sink, steps=[raysp.Decode(), raysp.Keep(max_seconds=5), *(steps or (TEXTS,))])


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> raysp.Pipeline:
    """A labelled corpus of one piece, with a broken row and one that a filter skips."""
    folder = tmp_path_factory.mktemp("labelled")
    write_rows(folder / "in" / "a.parquet", [*np.resize(SPEAKING, 40).tolist(), 6.0], broken=[3])
    found = made(f"{folder}/in/*.parquet", folder / "out")
    raysp.run(found, engine="here", progress=False)
    return found


def amount(found: Any) -> tuple[float, float]:
    return found.audio_seconds.value, found.audio_seconds.margin


def times(sink: object) -> tuple[float, float]:
    """Return the seconds of audio of a sink, and those that models took for it, by the log of its run."""
    files = sorted(Path(str(sink), ".raysp", "log").iterdir())
    lines = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    counts = [line["counts"] for line in lines if line["kind"] == "piece"]
    return (
        sum(one["audio_seconds"] for one in counts),
        sum(one["busy_seconds"] + one["wait_seconds"] for one in counts),
    )


def test_a_sample_of_all_rows_gives_the_hours_and_the_outcomes_of_the_run(labelled, tmp_path):
    found = raysp.estimate(made(labelled.source, tmp_path / "new"))
    seconds = [row["seconds"] for row in rows(labelled.sink.url) if row["status"] == "ok"]
    assert amount(found) == (pytest.approx(sum(seconds)), 0)
    assert found.not_labelled == {"unsupported_format": pytest.approx(1 / 41), "filtered": pytest.approx(1 / 41)}
    assert found.error_share == pytest.approx(1 / 41)
    assert (found.mean_seconds, found.longest_seconds) == (pytest.approx(np.mean(seconds)), max(seconds))
    assert dict(found.facts)["left out"] == "2.4% unsupported_format, 2.4% filtered"


def seconds_of_shard(number: int) -> list[float]:
    seconds = np.random.default_rng(number).choice([0.1, 0.2, 0.3], 40) + 0.1 * (number % 4)
    return seconds.round(1).tolist()


class TestSample:
    @pytest.fixture(scope="class")
    def pipeline(self, tmp_path_factory) -> raysp.Pipeline:
        """Twelve shards of four row groups, with rows of 0.1 to 0.6 seconds; shards have rows of like length."""
        folder = tmp_path_factory.mktemp("twelve")
        for shard in range(12):
            write_rows(folder / "in" / f"{shard:02}.parquet", seconds_of_shard(shard), row_group_size=10)
        return a_pipeline(f"{folder}/in/*.parquet", folder / "out")

    @pytest.mark.slow
    def test_the_interval_holds_the_hours_of_all_rows_for_most_seeds(self, pipeline):
        plan = raysp.plan(pipeline)
        exact = sum(sum(seconds_of_shard(shard)) for shard in range(12))
        found = [raysp.estimate(plan, sample=64, seed=seed).audio_seconds for seed in range(10)]
        assert len({one.value for one in found}) > 5  # sums of 64 durations from a few, so that some are equal
        assert all(0.02 < one.margin / one.value < 0.25 for one in found)
        assert sum(abs(one.value - exact) <= one.margin for one in found) >= 8

    @pytest.mark.slow
    def test_a_shard_that_changed_is_named_and_the_others_are_sampled(self, pipeline, tmp_path):
        shutil.copytree(Path(pipeline.sink.url).parent / "in", tmp_path / "in")
        plan = raysp.plan(a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out"))
        (tmp_path / "in" / "03.parquet").write_bytes(b"gone")
        found = raysp.estimate(plan)
        assert [one.partition(": ")[0].rpartition("/")[2] for one in found.unread] == ["03.parquet"]
        assert found.rows_sampled > 100

    def test_durations_of_a_manifest_give_exact_hours_and_missing_files_are_errors(self, tmp_path):
        lines = [{"audio_filepath": f"{n}.wav", "duration": 1800 + n} for n in range(3)]
        (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, lines)))
        assert amount(raysp.estimate(a_pipeline(f"{tmp_path}/m.jsonl", tmp_path / "out"))) == (5403.0, 0)


class TestSpeed:
    def test_time_hours_and_money_follow_from_a_stated_speed(self, labelled, tmp_path):
        label = raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()], pool=raysp.Pool(actors=1, cpus=2))
        found = raysp.estimate(made(labelled.source, tmp_path / "new", label), rtfx=10, price=3.6)
        assert found.cost.wall_seconds.value == pytest.approx(found.audio_seconds.value / 10)
        assert found.cost.device_hours.value == pytest.approx(found.cost.wall_seconds.value * 2 / 3600)
        assert found.cost.money.value == pytest.approx(found.cost.device_hours.value * 3.6)
        assert (found.cost.device, found.cost.actors) == ("CPU", 1)

    def test_receipts_give_the_speed_of_all_label_steps(self, labelled, tmp_path):
        two = made(labelled.source, tmp_path / "out", TEXTS, TIMES)
        raysp.run(two, engine="here", progress=False)
        audio, took = times(tmp_path / "out")
        assert audio == times(labelled.sink.url)[0]
        found = raysp.estimate(made(labelled.source, tmp_path / "new", TEXTS, TIMES), like=str(tmp_path / "out"))
        assert found.speed.rtfx == pytest.approx(audio / took)
        assert found.speed.origin.startswith(f"receipts of 1 run over {tmp_path}/out: ")
        half = raysp.Label(str(CHECKPOINT), outputs=[raysp.Align("pred_text")], dtype="bfloat16")
        other = made(labelled.source, tmp_path / "new", TEXTS, half)
        with pytest.raises(
            PlanError,
            match=r"no run .* used float32 on cpu, .*, then bfloat16 on cpu, as .*, then float32 on cpu\. Name",
        ):
            raysp.estimate(other, like=str(tmp_path / "out"))

    @pytest.mark.slow
    def test_calibrating_measures_all_label_steps_and_writes_nothing(self, labelled, tmp_path):
        one = raysp.estimate(made(labelled.source, tmp_path / "new"), sample=8, calibrate=True)
        assert one.speed.origin.startswith("measured here on ")
        assert one.speed.memory_bytes > 1e8
        encoder_decoder("gpt2")(tmp_path / "decoder")
        slow = {"max_new_tokens": 60, "min_new_tokens": 60}  # some ten times the work of the first model
        later = [
            raysp.Label(str(tmp_path / "decoder"), outputs=[raysp.Transcript(name=name, generate=slow)])
            for name in ("a", "b", "c")
        ]
        steps = TEXTS, raysp.Keep(where=[("pred_text", "!=", "X")]), *later
        four = raysp.estimate(made(labelled.source, tmp_path / "new", *steps), sample=8, calibrate=True)
        assert 0 < four.speed.rtfx < 0.7 * one.speed.rtfx
        assert not (tmp_path / "new").exists()

    def test_rows_that_cannot_be_labelled_are_not_calibrated_on(self, tmp_path):
        file = pipeline_file(tmp_path / "a.py", kit.corpus(tmp_path / "in", 0, ["nan_samples"]).pipeline("out"))
        refused = run(["plan", file, "--calibrate"])
        assert (refused.code, "--calibrate: no sampled row can be labelled; raise --sample" in refused.err) == (2, True)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"sample": 0}, "sample: found 0, expected at least 1 row"),
            ({"rtfx": 0.0}, "rtfx: found 0, expected a number above 0"),
            ({"price": -1.0}, "price: found -1, expected a number above 0"),
            ({"rtfx": 2.0, "calibrate": True}, "found rtfx and calibrate, expected one of them"),
        ],
        ids=["sample", "rtfx", "price", "two"],
    )
    def test_what_cannot_be_meant_is_refused(self, labelled, options, message):
        with pytest.raises(SpecError, match=message):
            raysp.estimate(labelled, **options)
