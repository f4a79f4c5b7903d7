"""What each command prints of a large corpus with much wrong with it: forty lines, on stdout and stderr together."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests import kit
from tests.commands import RECIPE, write_recipe
from tests.corpora import AUDIO, CHECKPOINT, DEMO, write_shard

MANY = 60
WITH_TEXT = RECIPE.replace("raysp.Shards({source!r})", "raysp.Shards({source!r}, text='text')")
BROKEN = [
    None,
    {"bytes": None, "path": "/clips/a.wav"},
    {"bytes": b"no audio at all", "path": None},
    {"bytes": b"fLaC" + bytes(2000), "path": None},
]


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Shards that cannot be read, that have error rows of several kinds, or no rows; and files of many suffixes."""
    folder = tmp_path / "in"
    folder.mkdir()
    for number in range(MANY):
        (folder / f"broken-{number:03}.parquet").write_bytes(b"PAR1 and no more")
        (folder / f"other.x{number}").write_bytes(b"")
    digits = pq.read_table(min((DEMO / "audio").glob("*.parquet")))["audio"].slice(0, 2).to_pylist()
    for number in range(3):
        audio = pa.array([*digits, *BROKEN], AUDIO)
        table = pa.table({"id": [f"{number}-{row}" for row in range(6)], "audio": audio, "text": ["ONE"] * 6})
        write_shard(folder / f"mixed-{number}.parquet", table=table)
        write_shard(folder / f"empty-{number}.parquet", table=table.slice(0, 0))
    return folder


@pytest.mark.slow
def test_no_command_prints_more_of_a_large_corpus(corpus):
    def shown(code: int, *line: object) -> str:
        ran = kit.run(line)
        printed = ran.out + ran.err
        assert (ran.code, len(printed.splitlines()) <= 40) == (code, True), printed
        return printed

    recipe, out = write_recipe(corpus.parent, WITH_TEXT, source=str(corpus)), corpus.parent / "out"
    assert "... and 55 more shards; --json lists all" in shown(0, "plan", recipe)
    shown(3, "run", recipe, "--rows", 10)
    shown(3, "evaluate", CHECKPOINT, corpus, "--text", "text", "--by", "id")
    assert "to read them by path: raysp retry" in shown(3, "run", recipe, "--set", "max_error_rate=1")
    assert "all shards that can be read are committed" in shown(0, "plan", recipe)
    shown(0, "status", out)
    shown(3, "retry", recipe, "--set", "max_error_rate=1")
    for shard in (*corpus.glob("mixed-*"), *corpus.glob("empty-*")):
        shard.rename(corpus / f"broken-{shard.name}.gone")
    write_shard(corpus / "new.parquet", 1)
    assert "empty-0.parquet and 5 more: no longer in the source; the labels are kept" in shown(0, "plan", recipe)
    (out / ".raysp" / "tmp").mkdir(exist_ok=True)
    for number in range(MANY):
        (out / f"foreign-{number}.parquet").write_bytes(b"PAR1")
        (out / ".raysp" / "tmp" / f"{number}").write_bytes(b"x")
    shown(1, "verify", recipe)
    shown(0, "gc", out)
