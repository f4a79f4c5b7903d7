"""Whole runs: on a real Ray with pools, damaged shards and killed actors, and what a run that cannot begin leaves."""

import time

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import run
from tests import kit
from tests.labelling.engine.datasets.conftest import alike
from tests.runs import processes, row_hash
from tests.user_specs import Spoken

pytestmark = pytest.mark.slow


@pytest.mark.cluster
def test_label_shards_have_the_rows_of_their_shards_in_order_and_a_damaged_shard_fails_alone(
    local_ray, make_pipeline, small_shards, tmp_path
):
    actors = set()
    damaged = small_shards / "part-3.parquet"
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:4] + b"\xff" * 600 + whole[604:])  # the first page, not the footer
    own = Spoken("speaker_id", most_per_second=1000)  # a user's own step, which here keeps every row
    result = run(
        make_pipeline(small_shards, steps=[own], sink_options={"keep": ["speaker_id"]}),
        on_progress=lambda _: actors.update(processes("ModelActor")),
    )
    assert (result.exit_code, result.shards_committed) == (3, 5)
    assert list(result.shards_failed) == ["part-3.parquet"]
    assert not (tmp_path / "labels" / "part-3.parquet").exists()
    damaged.unlink()
    for source in sorted(small_shards.glob("*.parquet")):
        labels, rows = pq.read_table(tmp_path / "labels" / source.name), pq.read_table(source)
        assert labels.column_names == [
            "id", "speaker_id", "row", "seconds", "status", "error_type", "error_message", "pred_text", "pred_score",
        ]  # fmt: skip
        assert labels.select(["id", "speaker_id"]).equals(rows.select(["id", "speaker_id"]))
        assert labels.column("row").to_pylist() == list(range(20))
        assert set(labels.column("status").to_pylist()) == {"ok"}
    assert actors
    assert psutil.wait_procs(actors, timeout=30)[1] == []  # they ended with the run, on a Ray that goes on


@pytest.mark.drivers
@pytest.mark.cluster
@pytest.mark.parametrize(
    "moments", [pytest.param({2}, id="once"), pytest.param(set(range(1, 11)), id="ten times", marks=pytest.mark.soak)]
)
def test_no_row_is_lost_when_a_model_actor_is_killed(local_ray, make_pipeline, tmp_path, moments):
    corpus = kit.corpus(tmp_path / "corpus", rows=96, shards=12).url
    raysp.run(make_pipeline(corpus, sink="undisturbed"), engine="here", progress=False)
    killed, shown = [], []

    def kill(progress):
        shown.append((progress.rows, progress.share))
        if progress.counts.blocks in moments - {blocks for blocks, _ in killed}:
            deadline = time.monotonic() + 30
            while not (actors := processes("ModelActor")) and time.monotonic() < deadline:
                time.sleep(0.1)  # the one that takes the place of the last one killed
            for actor in actors:
                actor.kill()
                killed.append((progress.counts.blocks, actor))

    result = run(make_pipeline(corpus), on_progress=kill)
    assert len(killed) >= len(moments) - 2  # the last blocks may be done when their moment comes
    assert (result.exit_code, result.rows) == (0, 96)
    assert max(shown) <= (96, 1.0)
    assert row_hash(tmp_path / "labels") == row_hash(tmp_path / "undisturbed")


def test_a_run_is_refused_before_it_plans_while_another_one_plans_and_leaves_no_folder(
    without_ray, make_pipeline, small_shards, monkeypatch, tmp_path
):
    monkeypatch.setenv("RAYSP_BEAT_SECONDS", "0.3")
    planned, few = [], small_shards / "part-[019].parquet"

    def meanwhile() -> None:
        with pytest.raises(raysp.PlanError, match="is running on this sink"):  # so the first one's heart beats
            run(make_pipeline(few), on_plan=planned.append)

    class Waiting(Spoken):
        """A step that is checked for long."""

        def check(self, schema: pa.Schema) -> None:
            meanwhile()

    assert run(make_pipeline(few, steps=[Waiting("speaker_id")])).shards_committed == 2
    assert planned == []
    for made in ((), ("new",), ("new", "labels")):
        tmp_path.joinpath(*made).mkdir(parents=True, exist_ok=True)
        before = [*tmp_path.rglob("*")]
        with pytest.raises(raysp.PlanError, match="no such file or folder"):
            run(make_pipeline(tmp_path / "missing", sink=str(tmp_path / "new" / "labels")))
        assert [*tmp_path.rglob("*")] == before


def test_an_error_of_the_program_in_the_decoder_ends_the_run_with_its_traceback(
    small_shards, without_ray, make_pipeline, monkeypatch, tmp_path
):
    monkeypatch.setenv("RAYSP_DECODER_FAULTS", "RIFF=TypeError")
    with pytest.raises(raysp.RunError, match="TypeError in the decoder") as caught:
        run(make_pipeline(small_shards))
    assert "Traceback (most recent call last)" in str(caught.value)
    assert not [*(tmp_path / "labels").glob("*.parquet")]


def test_labels_do_not_depend_on_the_threads_of_torch(without_ray, make_pipeline, tmp_path):
    corpus = kit.corpus(tmp_path / "corpus", 10).url
    outputs = [raysp.Transcript(words=True), raysp.Embedding()]
    one, other = (
        run(make_pipeline(corpus, outputs=outputs, pool=raysp.Pool(cpus=cpus)), rows=10, progress=False).table
        for cpus in (1, 2)
    )
    assert one["pred_text"][:3].to_pylist() == ["THREE", "FIVE", "FOUR"]
    assert other["pred_text"].equals(one["pred_text"])
    assert alike(other.to_pylist(), one.to_pylist())
