"""What `raysp run` returns and prints: its own first labels, and an error where no shard was committed."""

import pytest

import raysp
from tests.commands import write_recipe
from tests.corpora import a_pipeline, damaged, digits_table, write_shard

DIGITS = digits_table()
pytestmark = pytest.mark.usefixtures("without_ray")


def break_pages(shard) -> None:
    """Damage the data of a shard, whose footer stays readable."""
    data = bytearray(shard.read_bytes())
    data[4:-2000] = bytes(len(data) - 2004)
    shard.write_bytes(data)


def test_first_labels_are_rows_of_this_run_that_are_ok(tmp_path, raysp_command):
    write_shard(tmp_path / "in" / "a.parquet", table=DIGITS.slice(0, 3))
    first = raysp.run(a_pipeline(f"{tmp_path}/in/*.parquet", f"{tmp_path}/out"))
    assert first.first_shards == ("a.parquet",)
    write_shard(tmp_path / "in" / "b.parquet", table=damaged(DIGITS.slice(3, 4), 0, 2))
    second = raysp.run(a_pipeline(f"{tmp_path}/in/*.parquet", f"{tmp_path}/out"))
    ids = DIGITS.column("id").to_pylist()
    assert second.first_shards == ("b.parquet",)
    assert second.head().column("id").to_pylist() == [ids[4], ids[6]]
    third = raysp.run(a_pipeline(f"{tmp_path}/in/*.parquet", f"{tmp_path}/out"))
    assert (third.rows, third.first_shards) == (0, ())
    assert third.head().column("id").to_pylist() == [*ids[:3], ids[4], ids[6]]


def test_the_command_prints_rows_of_its_run_and_says_where_none_is_ok(tmp_path, raysp_command):
    recipe = write_recipe(tmp_path)
    ids = DIGITS.column("id").to_pylist()
    write_shard(tmp_path / "in" / "a.parquet", table=damaged(DIGITS.slice(0, 3), 0))
    ran = raysp_command("run", recipe)
    assert (ran.code, [one for one in ids[:3] if one in ran.out.partition("labels       ")[0]]) == (0, ids[1:3])
    write_shard(tmp_path / "in" / "b.parquet", table=damaged(DIGITS.slice(3, 1), 0))
    ran = raysp_command("run", recipe, "--set", "max_error_rate=1")
    assert "no row of this run is ok" in ran.out
    assert ids[1] not in ran.out


def test_a_run_that_commits_no_shard_raises_and_exits_with_1_and_one_that_commits_some_is_partial(
    tmp_path, raysp_command
):
    for name in "ab":
        break_pages(write_shard(tmp_path / "in" / f"{name}.parquet", table=DIGITS.slice(0, 20)))
    pipeline = a_pipeline(f"{tmp_path}/in/*.parquet", f"{tmp_path}/out")
    with pytest.raises(raysp.RunError, match=r"out: no shard was committed: \w.parquet: .* \(and 1 more shard\)"):
        raysp.run(pipeline)
    ran = raysp_command("run", write_recipe(tmp_path))
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.splitlines()[-1].startswith(f"raysp: {tmp_path}/out: no shard was committed: ")
    write_shard(tmp_path / "in" / "c.parquet", table=DIGITS.slice(0, 2))
    for _ in range(2):
        found = raysp.run(pipeline)
        assert (found.exit_code, found.shards_committed, [*found.shards_failed]) == (3, 1, ["a.parquet", "b.parquet"])
