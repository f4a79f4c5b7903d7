"""A local Ray starts while the checkpoint is checked, once there is sure to be work."""

import pyarrow.parquet as pq
import pytest

import raysp
from raysp import run
from tests.corpora import a_pipeline, write_shard
from tests.runs import DEMO


@pytest.fixture
def corpus(tmp_path):
    rows = pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 2)
    write_shard(tmp_path / "in" / "a.parquet", table=rows)
    return tmp_path


@pytest.fixture(autouse=True)
def _on_a_ray_of_its_own(starts, monkeypatch) -> None:
    monkeypatch.setenv("RAYSP_ENGINE", "ray")


def test_a_checkpoint_that_does_not_fit_is_refused_when_ray_has_ended_and_nothing_is_written(corpus, starts):
    pipeline = a_pipeline(f"{corpus}/in", corpus / "out", label={"outputs": [raysp.Classes()]})
    with pytest.raises(raysp.CheckpointError, match="does not support Classes"):
        run(pipeline)
    assert starts.seen == ["started", "ended"]
    assert not (corpus / "out").exists()


def test_a_refusal_is_reported_even_if_ray_does_not_start(corpus, starts):
    starts.failing = 9
    with pytest.raises(raysp.CheckpointError, match="does not support Classes"):
        run(a_pipeline(f"{corpus}/in", corpus / "out", label={"outputs": [raysp.Classes()]}))
    with pytest.raises(raysp.RunError, match="the local Ray did not start"):
        run(a_pipeline(f"{corpus}/in", corpus / "out"))


def test_an_unfit_source_or_checkpoint_is_refused_before_ray_starts(corpus, starts):
    no_model = raysp.Label(f"{corpus}/no-model", outputs=[raysp.Transcript()])
    for pipeline in (
        a_pipeline(f"{corpus}/elsewhere", corpus / "out"),
        a_pipeline(raysp.Shards(f"{corpus}/in", audio="sound"), corpus / "out"),
        a_pipeline(f"{corpus}/in", corpus / "out", steps=[raysp.Decode(), no_model]),
    ):
        with pytest.raises((raysp.PlanError, raysp.CheckpointError)):
            run(pipeline)
    assert starts.seen == []


@pytest.mark.slow
def test_where_all_is_committed_ray_is_not_started(corpus, starts):
    raysp.run(a_pipeline(f"{corpus}/in", corpus / "out"), engine="here", progress=False)
    result = run(a_pipeline(f"{corpus}/in", corpus / "out"))
    assert (result.shards_before, result.rows, starts.seen) == (1, 0, [])
