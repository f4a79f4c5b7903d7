"""A command that lost the lease of its sink to another process changes no record and no label shard."""

import shutil
from functools import partial

import pytest

import raysp
from tests import kit


def test_a_command_that_lost_its_lease_changes_nothing(tmp_path):
    pipeline = kit.corpus(tmp_path / "in", 2, faults=["not_audio"]).pipeline(sink := tmp_path / "out")
    raysp.run(pipeline, engine="here", progress=False)
    shutil.copy(tmp_path / "in" / "part-0.parquet", tmp_path / "in" / "part-1.parquet")
    for verb in (partial(raysp.run, pipeline), partial(raysp.retry, str(sink), pipeline=pipeline)):
        before: dict = {}

        def lose(_: object, before: dict = before) -> None:
            last = max((sink / ".raysp" / "lease").iterdir())
            last.with_name(f"{int(last.name) + 1:08}").write_text("{}")
            before.update(contents(sink))

        with pytest.raises(raysp.RunError, match="another run took over"):
            verb(engine="here", progress=False, on_plan=lose)
        assert contents(sink) == before != {}
        shutil.rmtree(sink / ".raysp" / "lease")


def contents(sink) -> dict:
    """Return the content of each file of a sink, without its leases."""
    files = (path for path in sink.rglob("*") if path.is_file() and path.parent.name != "lease")
    return {path: path.read_bytes() for path in files}
