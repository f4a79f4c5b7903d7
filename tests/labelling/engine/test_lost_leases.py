"""A command that lost the lease of its sink to another process changes no record and no label shard."""

import shutil

import pytest

import raysp
from tests import kit

VERBS = {
    "run": lambda pipeline, lose: raysp.run(pipeline, engine="here", progress=False, on_plan=lose),
    "retry": lambda pipeline, lose: raysp.retry(
        pipeline.sink.url, pipeline=pipeline, engine="here", progress=False, on_plan=lose
    ),
}


@pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS)
def test_a_command_that_lost_its_lease_changes_nothing(tmp_path, verb):
    pipeline = kit.corpus(tmp_path / "in", 2, faults=["not_audio"]).pipeline(tmp_path / "out")
    raysp.run(pipeline, engine="here", progress=False)
    shutil.copy(tmp_path / "in" / "part-0.parquet", tmp_path / "in" / "part-1.parquet")
    before: dict = {}

    def lose(_: object) -> None:
        last = max((tmp_path / "out" / ".raysp" / "lease").iterdir())
        last.with_name(f"{int(last.name) + 1:08}").write_text("{}")
        before.update(contents(tmp_path / "out"))

    with pytest.raises(raysp.RunError, match="another run took over"):
        verb(pipeline, lose)
    assert contents(tmp_path / "out") == before


def contents(sink) -> dict:
    """Return the content of each file of a sink, without its leases."""
    files = (path for path in sink.rglob("*") if path.is_file() and path.parent.name != "lease")
    return {path: path.read_bytes() for path in files}
