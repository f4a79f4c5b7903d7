"""The first rows of a sink's label shards, as the result of a run returns them."""

import shutil
from pathlib import Path

import pytest

import raysp
from raysp import PlanError
from tests import kit
from tests.corpora import write_label_shard


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Path:
    """A corpus and its sink."""
    folder = tmp_path_factory.mktemp("labelled")
    raysp.run(kit.corpus(folder / "in", 1).pipeline(folder / "out"), engine="here", progress=False)
    return folder


@pytest.fixture
def emptied(labelled, tmp_path):
    """The result of a run that found nothing to do, and its sink, whose label shard is then removed."""
    shutil.copytree(labelled / "out", tmp_path / "out")
    found = kit.Corpus(f"{labelled}/in/*.parquet", None, ()).pipeline(tmp_path / "out")
    result = raysp.run(found, engine="here", progress=False)
    assert (result.rows, result.head().num_rows) == (0, 1)
    (tmp_path / "out" / "part-0.parquet").unlink()
    return result, tmp_path / "out"


def test_rows_come_from_as_many_label_shards_as_it_takes(emptied):
    result, sink = emptied
    for name, rows in (("b", [3, 4]), ("a", [1, 2]), ("c/d", [5, 6])):
        write_label_shard(sink / f"{name}.parquet", {"row": rows})
    for count in range(1, 9):
        assert result.head(count).column("row").to_pylist() == [1, 2, 3, 4, 5, 6][:count]


def test_a_place_without_label_shards_is_refused_unless_it_is_a_sink(emptied):
    result, sink = emptied
    assert result.head().num_rows == 0
    shutil.rmtree(sink)
    with pytest.raises(PlanError, match=r"not a sink of raysp: found neither .raysp/run.json"):
        result.head()
