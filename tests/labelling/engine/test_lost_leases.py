"""A command that lost the lease of its sink to another process changes no record and no label shard."""

import contextlib

import pytest

import raysp
from raysp.sink import layout, lease
from tests.by_promise.test_run_results import damaged
from tests.corpora import a_pipeline, digits_table, write_shard

DIGITS = digits_table(8)
pytestmark = pytest.mark.usefixtures("without_ray")
VERBS = {
    "run": lambda pipeline: raysp.run(pipeline, progress=False),
    "retry": lambda pipeline: raysp.retry(pipeline.sink.url, pipeline=pipeline, progress=False),
    "forget": lambda pipeline: raysp.forget(pipeline.sink.url, ["b"], pipeline=pipeline),
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_a_command_that_lost_its_lease_changes_nothing(tmp_path, monkeypatch, verb):
    table = damaged(DIGITS, 5).slice(2)
    write_shard(tmp_path / "in" / "a.parquet", table=table.set_column(0, "id", [[*"abcdef"]]))
    pipeline = a_pipeline(f"{tmp_path}/in", tmp_path / "out")
    raysp.run(pipeline, progress=False)
    write_shard(tmp_path / "in" / "b.parquet", table=DIGITS)
    held = lease.held

    @contextlib.contextmanager
    def held_for_a_moment(store):
        with held(store) as own:
            store.create(layout.lease_path(own.epoch + 1), b"{}")
            yield own

    monkeypatch.setattr(lease, "held", held_for_a_moment)
    before = contents(tmp_path / "out")
    with pytest.raises(raysp.RunError, match="another run took over"):
        verb(pipeline)
    assert contents(tmp_path / "out") == before


def contents(sink):
    """Return the content of each file of a sink, without its lease."""
    files = (path for path in sink.rglob("*") if path.is_file())
    return {path: path.read_bytes() for path in files if f"/{layout.LEASE}" not in str(path)}
