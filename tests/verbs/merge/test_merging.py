"""Merges of labellings: the choice for each row, merges that go on or are killed, and those that are refused."""

import functools
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import ChangedError, PlanError, SpecError
from tests import corpora
from tests.corpora import DEMO, a_pipeline, write_shard

pytestmark = pytest.mark.lengthy

DIGITS = pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 8)
BROKEN = 6
SCORES = {
    "A": [-0.5, -0.5, None, -0.1, -0.2, -0.9, None, -0.5],
    "B": [-0.4, -0.5, -3.0, None, -0.3, -0.1, None, -0.4],
}
"""Scores of the rows; equal ones, nulls, an error row in both, and a row that B skips: the last one."""
SHARDS = ("a.parquet", "b.parquet")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two labellings of two shards, with scores and texts that tell where a row is from."""
    folder = tmp_path_factory.mktemp("merge")
    rows = DIGITS.to_pylist()
    rows[BROKEN]["audio"]["bytes"] = b"nothing"
    table = pa.Table.from_pylist(rows, DIGITS.schema)
    for number, name in enumerate(SHARDS):
        write_shard(folder / "in" / name, table=table.slice(4 * number, 4), row_group_size=3)
    source = raysp.Shards(f"{folder}/in/*.parquet", text="text")
    skipped = raysp.Keep(where=[("id", "!=", rows[7]["id"])])
    raysp.run(a_pipeline(source, raysp.Parquet(f"{folder}/A", keep=["speaker_id"])), engine="here", progress=False)
    raysp.run(
        a_pipeline(source, raysp.Parquet(f"{folder}/B", keep=["speaker_id"]), keep=[skipped]),
        engine="here",
        progress=False,
    )
    ok = raysp.Parquet(f"{folder}/ok", keep=["speaker_id"], rows="ok")
    raysp.run(a_pipeline(source, ok, keep=[skipped]), engine="here", progress=False)
    for sink, scores in {**SCORES, "ok": SCORES["B"]}.items():
        rewrite(folder / sink, sink, scores)
    return folder


def rewrite(sink: Path, name: str, scores: list[float | None]) -> None:
    """Give the ok rows of a sink other scores, and the name of the sink as their text."""
    for number, shard in enumerate(SHARDS):
        corpora.rewrite(sink / shard, lambda table, number=number: _with_scores(table, name, scores[4 * number :]))


def _with_scores(table: pa.Table, name: str, scores: list[float | None]) -> pa.Table:
    rows = list(zip(table["row"].to_pylist(), table["status"].to_pylist(), strict=True))
    texts = [name if status == "ok" else None for _, status in rows]
    values = [scores[row] if status == "ok" else None for row, status in rows]
    return corpora.with_columns(table, {"pred_text": texts, "pred_score": values})


def rows_of(sink: Path) -> list[dict[str, object]]:
    return [row for name in SHARDS for row in pq.read_table(sink / name).to_pylist()]


@pytest.fixture
def merge(made, tmp_path):
    def run(*names: str, to: object = None, by: str = "pred_score"):
        names = names or ("A", "B")
        return raysp.merge(*(str(made / name) for name in names), to=to or str(tmp_path / "to"), by=by)

    return run


class TestChoice:
    @pytest.mark.slow
    @pytest.mark.parametrize("other", ["B", "ok"])
    def test_ok_goes_before_the_score_the_score_before_the_order_and_null_is_the_lowest(
        self, merge, made, tmp_path, other
    ):
        found = merge("A", other)
        rows = rows_of(tmp_path / "to")
        expected = [other, "A", other, "A", "A", other, None, "A"]
        assert [row["pred_text"] for row in rows] == expected
        assert [Path(row["labelling"]["sink"]).name for row in rows] == [one or "A" for one in expected]
        assert (found.rows, found.shards, found.shards_before) == (8, 2, 0)
        assert found.chosen == {str(made / "A"): 5, str(made / other): 3}
        assert [row["id"] for row in rows] == DIGITS.column("id").to_pylist()
        assert [row["row"] for row in rows] == [0, 1, 2, 3] * 2
        assert rows[0]["labelling"]["checkpoint"].endswith("unispeech-digits-ctc")
        assert len(rows[0]["labelling"]["fingerprint"]) == 16

    def test_equal_values_keep_the_labelling_that_is_named_first(self, merge, tmp_path):
        merge("B", "A")
        assert rows_of(tmp_path / "to")[1]["pred_text"] == "B"

    def test_a_merge_of_a_merge_keeps_where_its_rows_are_from(self, merge, made, tmp_path):
        merge()
        again = raysp.merge(str(made / "ok"), str(tmp_path / "to"), to=str(tmp_path / "twice"), by="pred_score")
        rows = rows_of(tmp_path / "twice")
        assert [row["pred_text"] for row in rows] == ["ok", "ok", "ok", "A", "A", "ok", None, "A"]
        assert [Path(row["labelling"]["sink"]).name for row in rows[2:5]] == ["ok", "A", "A"]
        assert again.chosen[str(tmp_path / "to")] == 3


class TestTheResult:
    def test_status_verify_diff_export_and_report_read_it(self, merge, made, tmp_path):
        merge()
        sink = str(tmp_path / "to")
        status = raysp.status(sink)
        assert (status.rows, status.shards_committed, status.is_complete) == (8, 2, True)
        assert raysp.verify(sink).exit_code == raysp.verify(sink, trust=True).exit_code == 0
        found = raysp.diff(str(made / "A"), sink)
        assert (found.rows.total, found.rows.compared) == (8, 7)
        assert raysp.export(sink, to="jsonl", dest=str(tmp_path / "lines")).rows == 7
        raysp.report(sink, tmp_path / "report.html")
        assert raysp.gc(sink, dry_run=True).orphans == ()

    def test_a_run_does_not_go_on_with_it(self, merge, made, tmp_path):
        merge()
        source = raysp.Shards(f"{made}/in/*.parquet", text="text")
        with pytest.raises(ChangedError, match=r"merge\.by"):
            raysp.plan(a_pipeline(source, raysp.Parquet(f"{tmp_path}/to", keep=["speaker_id"])))
        for redo in (raysp.retry, functools.partial(raysp.verify, sample=2)):
            with pytest.raises(ChangedError, match=r"merge\.by"):
                redo(str(tmp_path / "to"), trust=True)

    def test_the_file_of_a_recipe_is_no_place_for_labels(self, raysp_command, made, tmp_path):
        recipe = Path(__file__).parents[3] / "pipelines" / "finetune_ctc.py"
        ran = raysp_command("merge", made / "A", made / "B", "--by", "pred_score", "--to", recipe)
        assert (ran.code, f"{recipe}: a recipe, whose sink holds no labels; expected" in ran.err) == (2, True)


class TestGoingOn:
    def test_the_same_call_again_writes_nothing(self, merge, tmp_path):
        merge()
        before = {name: (tmp_path / "to" / name).stat().st_mtime_ns for name in SHARDS}
        found = merge()
        assert (found.shards, found.shards_before, found.rows) == (2, 2, 0)
        assert {name: (tmp_path / "to" / name).stat().st_mtime_ns for name in SHARDS} == before

    def test_labels_that_changed_since_are_merged_again(self, made, tmp_path):
        copy = shutil.copytree(made / "B", tmp_path / "B")
        sinks = str(made / "A"), str(copy)
        raysp.merge(*sinks, to=str(tmp_path / "to"), by="pred_score")
        rewrite(copy, "C", [0.0] * 8)
        found = raysp.merge(*sinks, to=str(tmp_path / "to"), by="pred_score")
        assert found.shards_before == 0
        assert [row["pred_text"] for row in rows_of(tmp_path / "to")] == [*"CCCCCC", None, "A"]

    def test_a_shard_that_is_not_finished_is_named_and_merged_later(self, made, tmp_path):
        copy = shutil.copytree(made / "B", tmp_path / "B")
        (copy / "b.parquet").rename(tmp_path / "aside")
        sinks = str(made / "A"), str(copy)
        found = raysp.merge(*sinks, to=str(tmp_path / "to"), by="pred_score")
        assert found.not_merged == {"b.parquet": f"not finished in {copy}"}
        (tmp_path / "aside").rename(copy / "b.parquet")
        assert raysp.merge(*sinks, to=str(tmp_path / "to"), by="pred_score").shards_before == 1
        assert np.isin(["A", "B"], [row["pred_text"] for row in rows_of(tmp_path / "to")]).all()


class TestRefusals:
    @pytest.mark.parametrize(
        ("names", "by", "message"),
        [
            (("A",), "pred_score", "found 1 labelling, expected 2 or more"),
            (("A", "A"), "pred_score", "found the same sink twice"),
            (("A", "B"), "pred_text", "by='pred_text': found a column of string, expected numbers; columns of numbers"),
            (("A", "B"), "signal.noise", "by='signal.noise': found no such column"),
        ],
        ids=["one", "twice", "text", "absent"],
    )
    def test_what_cannot_be_merged_is_refused(self, merge, tmp_path, names, by, message):
        with pytest.raises((PlanError, SpecError), match=message):
            merge(*names, by=by)
        assert not (tmp_path / "to").exists()

    def test_columns_that_differ_are_named(self, merge, made, tmp_path):
        source = raysp.Shards(f"{made}/in/*.parquet", text="text")
        label = {"outputs": [raysp.Transcript(words=True)]}
        raysp.run(
            a_pipeline(source, raysp.Parquet(f"{tmp_path}/W", keep=["speaker_id"]), label=label),
            engine="here",
            progress=False,
        )
        with pytest.raises(PlanError, match=r"differ in the columns pred_words \(absent; list<.*merge labellings with"):
            raysp.merge(str(made / "A"), str(tmp_path / "W"), to=str(tmp_path / "to"), by="pred_score")

    def test_another_merge_or_labelling_in_its_place_is_refused(self, merge, made, tmp_path):
        merge()
        with pytest.raises(ChangedError, match=r"merge\.by"):
            merge(by="seconds")
        with pytest.raises(PlanError, match="the same folder"):
            merge(to=str(made / "A" / "more"))
