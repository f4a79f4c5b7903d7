"""Comparisons of two sinks, and sinks that cannot be compared."""

import os
import shutil
from pathlib import Path

import jiwer
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import PlanError, SpecError
from tests import corpora, kit
from tests.classifiers import make_classifier
from tests.corpora import CHECKPOINT, DEMO, a_pipeline, rows_table, write_shard

pytestmark = pytest.mark.lengthy

DIGITS = pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 12)
BROKEN = 10
"""A recording that cannot be decoded."""
WRONG = {0: "three one", 7: "six"}
"""Texts that B's labels have in place of the right ones."""


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two labellings of two shards: A of all rows, B without the longest row, with other texts in two rows."""
    folder = tmp_path_factory.mktemp("diff")
    table = corpora.damaged(DIGITS, BROKEN)
    for number, name in enumerate(("a", "b")):
        write_shard(folder / "in" / f"{name}.parquet", table=table.slice(6 * number, 6), row_group_size=3)
    source = raysp.Shards(f"{folder}/in/*.parquet", text="text")
    raysp.run(
        a_pipeline(source, raysp.Parquet(f"{folder}/A", keep=["speaker_id", "audio"])), engine="here", progress=False
    )
    seconds = sorted(labels(folder / "A", "seconds"))
    longest = raysp.Keep(max_seconds=seconds[-2])
    raysp.run(a_pipeline(source, raysp.Parquet(f"{folder}/B"), keep=[longest]), engine="here", progress=False)
    raysp.run(
        a_pipeline(source, raysp.Parquet(f"{folder}/ok", rows="ok"), keep=[longest]), engine="here", progress=False
    )
    for sink in ("B", "ok"):
        rewrite(folder / sink)
    return folder


def rewrite(sink: Path) -> None:
    """Give the rows of `WRONG` other texts."""
    for number, name in enumerate(("a", "b")):

        def with_texts(table: pa.Table, first: int = 6 * number) -> pa.Table:
            texts = zip(table["row"].to_pylist(), table["pred_text"].to_pylist(), strict=True)
            return corpora.with_columns(table, {"pred_text": [WRONG.get(first + row, text) for row, text in texts]})

        corpora.rewrite(sink / f"{name}.parquet", with_texts)


def labels(sink: Path, column: str) -> list:
    """Read a column of the ok rows of all label shards."""
    tables = [pq.read_table(path) for path in sorted(sink.glob("*.parquet"))]
    return [row[column] for table in tables for row in table.to_pylist() if row["status"] == "ok"]


@pytest.fixture
def diff(made):
    def compare(a: str = "A", b: str = "B", **options: object):
        return raysp.diff(str(made / a), str(made / b), **options)

    return compare


class TestRows:
    @pytest.mark.slow
    def test_each_row_is_counted_once_with_the_reason_of_the_other_side(self, diff):
        found = diff()
        assert (found.rows.total, found.rows.compared, found.rows.neither, found.rows.absent) == (12, 10, 1, 0)
        assert (found.rows.only_a, found.rows.only_b) == ({"filtered": 1}, {})
        assert diff("B", "A").rows.only_b == {"filtered": 1}
        assert found.shards.compared == ("a.parquet", "b.parquet")
        assert found.exit_code == 0

    def test_a_sink_of_ok_rows_compares_as_one_of_all_rows(self, diff):
        every, ok = diff(), diff(b="ok")
        assert (ok.rows, ok.columns, ok.seconds) == (every.rows, every.columns, every.seconds)
        assert diff("ok", "A").rows == diff("B", "A").rows

    def test_rows_whose_file_of_left_out_rows_is_gone_are_counted(self, diff, made, tmp_path):
        sink = shutil.copytree(made / "ok", tmp_path / "ok")
        shutil.rmtree(sink / ".raysp" / "errors")
        found = raysp.diff(str(made / "A"), str(sink))
        assert (found.rows.compared, found.rows.absent, found.rows.only_a) == (10, 2, {})
        assert found.columns == diff().columns


class TestTexts:
    def test_the_rates_are_those_of_jiwer_on_the_texts(self, diff, made):
        by_id = {
            sink: dict(zip(labels(made / sink, "id"), labels(made / sink, "pred_text"), strict=True)) for sink in "AB"
        }
        ids = [one for one in by_id["A"] if one in by_id["B"]]
        a, b = ([by_id[sink][one] for one in ids] for sink in "AB")
        texts = dict(zip(DIGITS["id"].to_pylist(), DIGITS["text"].to_pylist(), strict=True))
        right = [texts[one] for one in ids]
        [text, _] = diff(normalise="none").columns
        metrics = {**text.scores.metrics, **text.against.scores.metrics}
        assert len(ids) == 10
        assert {name: one.value for name, one in metrics.items()} == {
            "wer": pytest.approx(jiwer.wer(a, b)),
            "cer": pytest.approx(jiwer.cer(a, b)),
            "agreement": 0.8,
            "wer_a": pytest.approx(jiwer.wer(right, a)),
            "wer_b": pytest.approx(jiwer.wer(right, b)),
            "wer_change": pytest.approx(jiwer.wer(right, b) - jiwer.wer(right, a)),
            "cer_a": pytest.approx(jiwer.cer(right, a)),
            "cer_b": pytest.approx(jiwer.cer(right, b)),
            "cer_change": pytest.approx(jiwer.cer(right, b) - jiwer.cer(right, a)),
        }

    def test_units_of_the_bootstrap_are_the_values_of_a_column(self, diff):
        rows, speakers = diff(column="pred_text"), diff(column="pred_text", over="speaker_id")
        assert (speakers.intervals.over, "draws of the values of speaker_id" in repr(speakers)) == ("speaker_id", True)
        ends = [found.columns[0].scores.metrics["wer"] for found in (rows, speakers)]
        assert ends[0].value == ends[1].value
        assert (ends[0].low, ends[0].high) != (ends[1].low, ends[1].high)


def test_classes_that_changed_are_counted_by_both(tmp_path):
    model = make_classifier(tmp_path / "model", "cat", "dog", "cow")
    sinks = [
        str(corpora.labelled(tmp_path, {"pred_label": rows}, [raysp.Classes()], name=name, checkpoint=model))
        for name, rows in (("A", ["cat", "cat", "dog", "cow"]), ("B", ["dog", "dog", "cat", "cow"]))
    ]
    classes, scores = raysp.diff(*sinks).columns
    assert (classes.kind, scores.kind) == ("class", "number")
    assert classes.scores.counts["equal"] == 1
    assert {(one.a, one.b): one.rows for one in classes.changes} == {("cat", "dog"): 2, ("dog", "cat"): 1}
    assert len(classes.worst) == 3


@pytest.mark.slow
def test_vectors_words_and_columns_of_one_side_only(made, tmp_path):
    outputs = {
        "one": [raysp.Transcript(words=True), raysp.Embedding(), raysp.Embedding("frames", pooling="none")],
        "two": [
            raysp.Transcript(),
            raysp.Embedding(),
            raysp.Embedding("frames", pooling="none"),
            raysp.Embedding("first", layer=0),
        ],
    }
    for name, some in outputs.items():
        steps = [raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=some)]
        raysp.run(a_pipeline(f"{made}/in/a.parquet", str(tmp_path / name), steps=steps), engine="here", progress=False)
    found = raysp.diff(str(tmp_path / "one"), str(tmp_path / "two"))
    assert {one.column: one.kind for one in found.columns} == {"pred_text": "text", "pred_score": "number"}
    left_out = {"embedding": "vectors", "frames": "vectors", "pred_words": "only in A", "first": "only in B"}
    assert found.not_compared == left_out
    with pytest.raises(PlanError, match="output column 'embedding' cannot be compared: vectors; both have pred_text"):
        raysp.diff(str(tmp_path / "one"), str(tmp_path / "two"), column="embedding")
    with pytest.raises(PlanError, match="output column 'first' cannot be compared: only in B; both have pred_text"):
        raysp.diff(str(tmp_path / "one"), str(tmp_path / "two"), column="first")
    none = label_embeddings(made, tmp_path / "three")
    with pytest.raises(
        PlanError, match=r"no output column but vectors is in both: found pred_text, .* and last; compare"
    ):
        raysp.diff(str(tmp_path / "one"), none)


def label_embeddings(made: Path, sink: Path) -> str:
    steps = [raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=[raysp.Embedding("last")])]
    raysp.run(a_pipeline(f"{made}/in/a.parquet", str(sink), steps=steps), engine="here", progress=False)
    return str(sink)


class TestShards:
    @pytest.fixture
    def copies(self, made, tmp_path) -> tuple[Path, Path]:
        a, b = (Path(shutil.copytree(made / name, tmp_path / name)) for name in "AB")
        return a, b

    def test_unfinished_shards_are_named_and_not_compared(self, copies):
        a, b = copies
        (b / "b.parquet").unlink()
        found = raysp.diff(str(a), str(b))
        assert (found.shards.compared, found.shards.unfinished_b) == (("a.parquet",), ("b.parquet",))
        assert (found.rows.total, found.facts["unfinished"]) == (6, "1 shard: b.parquet of B")

    @pytest.mark.slow
    def test_shards_of_other_input_are_named_and_not_compared(self, made, tmp_path):
        shutil.copytree(made / "in", tmp_path / "in")
        write_shard(tmp_path / "in" / "b.parquet", table=rows_table(6))
        shutil.copystat(made / "in" / "a.parquet", tmp_path / "in" / "a.parquet")
        raysp.run(a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out"), engine="here", progress=False)
        found = raysp.diff(str(made / "A"), str(tmp_path / "out"))
        assert (found.shards.compared, found.shards.other_input) == (("a.parquet",), ("b.parquet",))
        os.utime(tmp_path / "in" / "a.parquet", (1, 1))
        raysp.run(a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "other"), engine="here", progress=False)
        with pytest.raises(PlanError, match=r"2 shards that both name, such as a\.parquet, were made from other input"):
            raysp.diff(str(made / "A"), str(tmp_path / "other"))


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "error", "complaint"),
        [
            (
                {"column": "text"},
                PlanError,
                "the output column 'text' is in neither; both have pred_text",
            ),
            ({"by": ["accent"]}, PlanError, "neither has a column 'accent'; their columns are id, .*keep="),
            ({"by": ["audio"]}, PlanError, "column 'audio' holds struct.*, expected single values"),
            ({"normalise": "upper"}, SpecError, "found the normalisation 'upper'"),
            ({"fail_above": {"agreement": 0.1}}, SpecError, "higher values of agreement are better; use fail_below"),
        ],
    )
    def test_an_option_that_does_not_fit(self, diff, options, error, complaint):
        with pytest.raises(error, match=complaint):
            diff(**options)

    def test_the_same_sink_twice_also_by_another_path(self, diff, made, tmp_path):
        (tmp_path / "link").symlink_to(made / "A")
        for other in ("A", "A/", "../" + made.name + "/A", str(tmp_path / "link")):
            with pytest.raises(PlanError, match="found the same sink twice"):
                diff("A", other)


def test_sinks_in_a_store_are_told_apart_by_their_urls(made):
    with kit.failing_files() as files:
        for name in ("A", "B"):
            files.put(made / name, name)
        a, b = (files.url(name) for name in ("A", "B"))
        assert raysp.diff(a, b, trust=True).rows.compared == 10
        with pytest.raises(PlanError, match=f"{a}: found the same sink twice"):
            raysp.diff(a, a, trust=True)


@pytest.mark.parametrize(
    ("a", "b", "verdict"),
    [
        ("one", "one two", "-50.00% (-50.00% to -50.00%): B is better"),
        ("one two", "one", "+50.00% (+50.00% to +50.00%): A is better"),
        ("one two", "one two", "+0.00% (+0.00% to +0.00%): the interval includes 0, so neither is clearly better"),
    ],
)
def test_the_verdict_is_that_of_the_interval(tmp_path, a, b, verdict):
    source = {"text": ["one two"] * 3}
    sinks = [
        str(corpora.labelled(tmp_path, {"pred_text": [text] * 3}, [raysp.Transcript()], source, name=name))
        for name, text in (("A", a), ("B", b))
    ]
    [text, _] = raysp.diff(*sinks).columns
    assert text.against.verdict == verdict


def test_words_and_numbers_are_equal_or_not(tmp_path):
    word = {"word": "one", "start": 0.0, "end": 0.5, "score": 0.9}
    rows = {
        "A": ([[word], [word], [word], []], [0.5, 0.5, 0.5, None]),
        "B": ([[word | {"score": 0.8}], [word | {"end": 0.6}], [word | {"word": "two"}], []], [1.0, 0.5, 0.5, None]),
    }
    output = [raysp.Transcript(words=True)]
    sinks = [
        str(corpora.labelled(tmp_path, {"pred_words": words, "pred_score": scores}, output, name=name))
        for name, (words, scores) in rows.items()
    ]
    agreement = {one.column: one.scores.metrics["agreement"].value for one in raysp.diff(*sinks).columns}
    assert (agreement["pred_words"], agreement["pred_score"]) == (0.5, 0.75)
