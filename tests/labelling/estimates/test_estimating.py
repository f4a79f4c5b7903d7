"""Estimates of runs from samples of rows, compared with what the runs then do."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import PlanError, SpecError
from tests.corpora import AUDIO, a_pipeline, wav, write_shard
from tests.here import run_without_ray
from tests.models.encoder.many_languages import lay_out

RATE = 16_000
SPEAKING = (0.5, 1.0, 1.5, 2.5, 3.0)


def write_rows(path, seconds, *, row_group_size=1000, broken=()) -> None:
    """Write rows with these durations; `broken` ones hold no recording."""
    recordings = [b"x" if row in broken else wav(round(one * RATE), seed=row) for row, one in enumerate(seconds)]
    audio = [{"bytes": one, "path": None} for one in recordings]
    table = pa.table({"id": [f"u{row}" for row in range(len(seconds))], "audio": pa.array(audio, AUDIO)})
    write_shard(path, table=table, row_group_size=row_group_size)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> raysp.Pipeline:
    """A labelled corpus of one piece, with rows of several windows, a broken one, and one that a filter skips."""
    folder = tmp_path_factory.mktemp("labelled")
    seconds = [*np.resize(SPEAKING, 40).tolist(), 6.0]
    write_rows(folder / "in" / "a.parquet", seconds, broken=[3])
    pipeline = a_pipeline(
        f"{folder}/in/*.parquet",
        folder / "out",
        keep=[raysp.Keep(max_seconds=5)],
        label={"outputs": [raysp.Transcript()], "window_seconds": 2.0, "overlap_seconds": 0.5, "batch_seconds": 8.0},
    )
    raysp.run(pipeline, engine="here", progress=False)
    return pipeline


def amount(found) -> tuple[float, float]:
    return found.audio_seconds.value, found.audio_seconds.margin


def pieces_of(pipeline: raysp.Pipeline) -> list[SimpleNamespace]:
    """Return the counts of the pieces in a sink."""
    files = sorted(Path(pipeline.sink.url, ".raysp", "log").iterdir())
    found = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [SimpleNamespace(**one["counts"]) for one in found if one["kind"] == "piece"]


def label_rows(pipeline: raysp.Pipeline) -> pa.Table:
    return pq.read_table(Path(pipeline.sink.url, "a.parquet"))


def again(pipeline: raysp.Pipeline, tmp_path, **label: object) -> raysp.Pipeline:
    """Return the pipeline of a labelled corpus with a new sink."""
    fields = {"window_seconds": 2.0, "overlap_seconds": 0.5, "batch_seconds": 8.0, **label}
    return a_pipeline(
        pipeline.source,
        tmp_path / "new",
        keep=[raysp.Keep(max_seconds=5)],
        label={"outputs": [raysp.Transcript()], **fields},
    )


class TestAgainstTheRun:
    @pytest.mark.slow
    def test_a_sample_of_all_rows_gives_the_passes_the_hours_and_the_outcomes_of_the_run(self, labelled, tmp_path):
        found = raysp.estimate(again(labelled, tmp_path))
        rows = label_rows(labelled).to_pylist()
        ok = [row["seconds"] for row in rows if row["status"] == "ok"]
        assert amount(found) == (pytest.approx(sum(ok)), 0)
        assert found.not_labelled == {"unsupported_format": pytest.approx(1 / 41), "filtered": pytest.approx(1 / 41)}
        assert found.windowed == pytest.approx(sum(one > 2 for one in ok) / len(rows))
        assert found.longest_seconds == max(ok)
        assert sum(bar.share for bar in found.histogram) == pytest.approx(1)

    @pytest.mark.slow
    def test_simulated_windows_and_padding_are_those_of_the_run_whose_receipts_then_give_the_speed(
        self, labelled, tmp_path, monkeypatch
    ):
        run_without_ray(monkeypatch)
        pipeline = again(labelled, tmp_path)
        simulated = raysp.estimate(pipeline).simulation
        ran = raysp.run(pipeline, progress=False)
        pieces = pieces_of(pipeline)
        assert ran.exit_code == 0
        assert simulated.windows == sum(piece.windows for piece in pieces)
        assert simulated.padded_seconds * RATE == pytest.approx(sum(piece.padded_samples for piece in pieces))
        assert simulated.real_seconds * RATE == pytest.approx(sum(piece.real_samples for piece in pieces))
        sink = str(tmp_path / "new")
        found = raysp.estimate(a_pipeline(labelled.source, tmp_path / "other"), like=sink, price=2)
        total = sum(piece.audio_seconds for piece in pieces)
        assert found.speed.rtfx == pytest.approx(total / sum(one.busy_seconds + one.wait_seconds for one in pieces))
        assert found.speed.origin.startswith(f"receipts of 1 run over {sink}: ")
        assert found.cost.device_hours.value * 2 == found.cost.money.value
        again_with_other_cpus = a_pipeline(labelled.source, tmp_path / "other", label={"dtype": "bfloat16"})
        with pytest.raises(
            PlanError, match=r"--like .*: no run with receipts has bfloat16 on cpu.*found float32 on cpu"
        ):
            raysp.estimate(again_with_other_cpus, like=sink)

    @pytest.mark.slow
    def test_packs_of_a_run_are_full_and_their_size_changes_no_label(self, tmp_path, monkeypatch):
        run_without_ray(monkeypatch)
        seconds = (0.3 + 4 * np.random.default_rng(1).beta(1.4, 2.3, 75)).round(2).tolist()
        write_rows(tmp_path / "in" / "a.parquet", seconds)
        tables = []
        for budget in (20.0, 7.0):
            label = {"dtype": "bfloat16", "batch_seconds": budget, "outputs": [raysp.Transcript(), raysp.Embedding()]}
            pipeline = a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / f"out-{budget}", label=label)
            simulated = raysp.estimate(pipeline).simulation
            assert raysp.run(pipeline, progress=False).exit_code == 0
            pieces = pieces_of(pipeline)
            padded = sum(piece.padded_samples for piece in pieces)
            assert simulated.padded_seconds * RATE == pytest.approx(padded)
            assert sum(piece.real_samples for piece in pieces) >= 0.85 * padded  # but for the last packs of pieces
            tables.append(label_rows(pipeline))
        assert tables[0].equals(tables[1])


def seconds_of_shard(number: int) -> list[float]:
    seconds = np.random.default_rng(number).choice([0.1, 0.2, 0.3], 40) + 0.1 * (number % 4)
    return seconds.round(1).tolist()


def twelve_shards(folder: Path) -> raysp.Pipeline:
    """Write twelve shards of four row groups, with rows of 0.1 to 0.6 seconds; shards have rows of like length."""
    for shard in range(12):
        write_rows(folder / "in" / f"{shard:02}.parquet", seconds_of_shard(shard), row_group_size=10)
    return a_pipeline(f"{folder}/in/*.parquet", folder / "out")


class TestSample:
    @pytest.fixture(scope="class")
    def pipeline(self, tmp_path_factory) -> raysp.Pipeline:
        return twelve_shards(tmp_path_factory.mktemp("twelve"))

    @pytest.mark.slow
    def test_the_interval_holds_the_hours_of_all_rows_for_most_seeds(self, pipeline):
        plan = raysp.plan(pipeline)
        exact = sum(sum(seconds_of_shard(shard)) for shard in range(12))
        found = [raysp.estimate(plan, sample=64, seed=seed).audio_seconds for seed in range(20)]
        assert len({one.value for one in found}) > 10  # sums of 64 durations from a few, so that some are equal
        assert all(0.02 < one.margin / one.value < 0.25 for one in found)
        assert sum(abs(one.value - exact) <= one.margin for one in found) >= 16

    @pytest.mark.slow
    def test_the_same_seed_gives_the_same_sample(self, pipeline):
        plan = raysp.plan(pipeline)
        one, other = (raysp.estimate(plan, sample=40, seed=1) for _ in range(2))
        assert one == other
        assert one.rows_sampled < 80

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
        found = raysp.estimate(a_pipeline(f"{tmp_path}/m.jsonl", tmp_path / "out"))
        assert amount(found) == (5403.0, 0)
        assert found.windowed == 1

    def test_the_share_of_rows_that_are_too_short_to_be_cut_at_pauses_is_shown(self, tmp_path):
        write_rows(tmp_path / "in" / "a.parquet", [0.5, 1.0, 1.01, 4.0])
        label = {"outputs": [raysp.Transcript()], "windows": "speech"}
        found = raysp.estimate(a_pipeline(f"{tmp_path}/in", tmp_path / "out", label=label))
        assert found.labelled_whole == 0.5
        assert "50.0% too short to be cut at pauses, labelled whole" in dict(found.facts)["rows"]
        assert raysp.estimate(a_pipeline(f"{tmp_path}/in", tmp_path / "out")).labelled_whole is None


@pytest.mark.slow
def test_passes_are_simulated_by_the_languages_of_rows(tmp_path, monkeypatch):
    run_without_ray(monkeypatch)
    checkpoint = lay_out(tmp_path / "checkpoint", ["aom", "ton", "eun"])
    path = tmp_path / "in" / "a.parquet"
    write_rows(path, [*np.resize(SPEAKING, 30).tolist(), 6.0])
    lang = pa.array([("aom", "ton", "eun")[row * row % 3] for row in range(31)])
    write_shard(path, table=pq.read_table(path).append_column("lang", lang))
    outputs = [raysp.Transcript(language=raysp.Column("lang"))]
    label = raysp.Label(str(checkpoint), outputs=outputs, window_seconds=2.0, overlap_seconds=0.5, batch_seconds=40.0)
    pipeline = a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out", steps=[raysp.Decode(), label])
    found = raysp.estimate(pipeline).simulation
    assert raysp.run(pipeline, progress=False).exit_code == 0
    pieces = pieces_of(pipeline)
    assert found.windows == sum(piece.windows for piece in pieces)
    assert found.padded_seconds * RATE == pytest.approx(sum(piece.padded_samples for piece in pieces))
    assert found.real_seconds * RATE == pytest.approx(sum(piece.real_samples for piece in pieces))


class TestSpeed:
    def test_without_receipts_and_without_a_statement_nothing_is_invented(self, labelled, tmp_path):
        found = raysp.estimate(again(labelled, tmp_path))
        assert (found.speed, found.cost) == (None, None)

    def test_time_hours_and_money_follow_from_a_stated_speed(self, labelled, tmp_path):
        pipeline = again(labelled, tmp_path, pool=raysp.Pool(actors=1, cpus=2))
        found = raysp.estimate(pipeline, rtfx=10, price=3.6)
        assert found.cost.wall_seconds.value == pytest.approx(found.audio_seconds.value / 10)
        assert found.cost.device_hours.value == pytest.approx(found.cost.wall_seconds.value * 2 / 3600)
        assert found.cost.money.value == pytest.approx(found.cost.device_hours.value * 3.6)
        assert (found.cost.device, found.cost.actors) == ("CPU", 1)

    @pytest.mark.slow
    def test_calibrating_measures_the_actor_and_writes_nothing(self, labelled, tmp_path):
        found = raysp.estimate(again(labelled, tmp_path), sample=20, calibrate=True)
        assert found.speed.rtfx > 0
        assert found.speed.decode_rtfx > 0
        assert found.speed.origin.startswith("measured here on ")
        assert not (tmp_path / "new").exists()

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

    def test_labels_of_another_checkpoint_give_no_speed(self, labelled, tiny, tmp_path):
        steps = [raysp.Decode(), raysp.Label(str(tiny), outputs=[raysp.Embedding()])]
        pipeline = a_pipeline(labelled.source, tmp_path / "new", steps=steps)
        with pytest.raises(PlanError, match="its labels were made with another checkpoint"):
            raysp.estimate(pipeline, like=labelled.sink.url)
