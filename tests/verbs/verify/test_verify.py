"""Faults put into a finished sink by hand, each found and named; and whole sinks in which nothing is found."""

import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import ChangedError, PlanError
from tests import kit
from tests.corpora import DEMO, a_pipeline, rewrite, with_columns, write_shard

pytestmark = pytest.mark.lengthy

DIGITS = pq.read_table(min((DEMO / "audio").glob("*.parquet")))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> dict[str, Path]:
    """Two shards, labelled with all rows and with the ok ones only; one recording of the second cannot be decoded."""
    folder = tmp_path_factory.mktemp("verify")
    bad = DIGITS.slice(6, 6).to_pylist()
    bad[4]["audio"]["bytes"] = b"nothing"
    rows = {"a": DIGITS.slice(0, 6), "b": pa.Table.from_pylist(bad, DIGITS.schema)}
    for name, table in rows.items():
        write_shard(folder / "in" / f"{name}.parquet", table=table, row_group_size=3)
    for kind in ("all", "ok"):
        sink = raysp.Parquet(str(folder / kind), keep=["speaker_id"], rows=kind, compression="none")
        raysp.run(a_pipeline(f"{folder}/in/*.parquet", sink), engine="here", progress=False)
    return {"in": folder / "in", "all": folder / "all", "ok": folder / "ok"}


NOT_IN_ORDER = (
    "a.parquet: cannot be read: {0}/a.parquet: this label shard is damaged (its row numbers do not ascend within the 6 "
    "rows of the shard); label its shard again with `raysp retry PIPELINE --shard a.parquet`"
)


@pytest.fixture(params=["all", "ok"])
def sink(request, finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished[request.param], tmp_path / "labels"))


def found(sink: Path, **options) -> list[str]:
    verified = raysp.verify(str(sink), trust=True, **options)
    assert verified.exit_code == bool(verified.differences)
    return list(verified.differences)


@pytest.mark.slow
def test_a_sink_as_it_should_be_has_no_difference(sink):
    verified = raysp.verify(str(sink), sample=5, trust=True)
    assert verified.differences == ()
    assert (verified.shards, verified.rows, verified.sampled, verified.duplicate_ids) == (2, 12, 5, 0)
    assert (verified.orphans, verified.sources_missing, verified.exit_code) == ((), (), 0)


@pytest.mark.slow
def test_a_missing_label_shard(sink):
    (sink / "b.parquet").unlink()
    assert found(sink) == ["b.parquet: not committed: there is no label shard; run again"]


def test_rows_out_of_order(sink):
    rewrite(sink / "a.parquet", lambda table: table.take([0, 2, 1, 3, 4, 5]))
    assert found(sink) == [NOT_IN_ORDER.format(sink)]


def test_a_row_that_is_there_twice(sink):
    rewrite(sink / "a.parquet", lambda table: table.take([0, 1, 1, 2, 3, 4, 5]))
    assert found(sink) == [NOT_IN_ORDER.format(sink)]


def test_a_row_that_is_missing(sink):
    rewrite(sink / "a.parquet", lambda table: table.take([0, 1, 2, 4, 5]))
    assert found(sink)[:2] == [
        "a.parquet: missing: 1 of 6 rows, the first is row 3",
        "a.parquet: its metadata says rows=6, found 5",
    ]


def test_an_id_that_is_not_the_sources(sink):
    ids = DIGITS.column("id").to_pylist()[:6]
    rewrite(sink / "a.parquet", lambda table: table.set_column(0, "id", pa.array([*ids[:5], "other"])))
    assert found(sink) == [f"a.parquet: row 5: id is 'other', in the source it is {ids[5]!r}"]


def test_a_kept_column_that_is_not_the_sources(sink):
    rewrite(sink / "a.parquet", lambda table: table.set_column(1, "speaker_id", pa.array(["x"] * 6)))
    assert found(sink)[0].startswith("a.parquet: row 0: speaker_id is 'x', in the source it is ")


@pytest.mark.slow
def test_a_label_that_the_row_alone_does_not_give(sink):
    def other(table):
        return table.set_column(
            table.schema.get_field_index("pred_text"), "pred_text", pa.array(["FOUR HUNDRED"] * table.num_rows)
        )

    rewrite(sink / "a.parquet", other)
    assert found(sink) == []
    differences = found(sink, sample=11)
    assert len(differences) == 6
    assert all("pred_text is 'FOUR HUNDRED', recomputed alone '" in line for line in differences)
    assert len({tuple(found(sink, sample=3, seed=seed)) for seed in range(4)}) > 1
    assert found(sink, sample=3, seed=1) == found(sink, sample=3, seed=1)


@pytest.fixture(scope="module")
def half(finished, tmp_path_factory) -> Path:
    """A sink in bfloat16."""
    folder = tmp_path_factory.mktemp("half") / "labels"
    raysp.run(
        a_pipeline(f"{finished['in']}/*.parquet", raysp.Parquet(str(folder)), label={"dtype": "bfloat16"}),
        engine="here",
        progress=False,
    )
    return folder


class TestHalfPrecision:
    @pytest.mark.slow
    @pytest.mark.parametrize(("wrong", "equal"), [([], 11), ([2], 10), ([1, 2, 3], 8)])
    def test_rows_are_compared_by_the_share_of_equal_ones(self, half, tmp_path, wrong, equal):
        sink = Path(shutil.copytree(half, tmp_path / "labels"))

        def other(table):
            texts = [f"{text} TEN" if row in wrong else text for row, text in enumerate(table["pred_text"].to_pylist())]
            return table.set_column(table.schema.get_field_index("pred_text"), "pred_text", pa.array(texts))

        rewrite(sink / "a.parquet", other)
        verified = raysp.verify(str(sink), sample=100, trust=True)
        assert (verified.sampled, verified.sampled_equal) == (11, equal)
        assert len(verified.differences) == (len(wrong) > 1)
        if verified.differences:
            assert re.match(
                r"8 of 11 sampled rows are equal when labelled again alone \(72\.7%\), expected at least 90% in "
                r"bfloat16: a\.parquet: row \d: pred_text is '.* TEN', recomputed alone '",
                verified.differences[0],
            )

    @pytest.mark.slow
    def test_the_command_prints_the_rate(self, half):
        ran = kit.run(["verify", half, "--trust", "--sample", 4])
        assert ran.code == 0
        assert re.search(r"4 rows labelled again, each alone: 4 equal \(100\.0%\)", ran.out)


def test_counts_that_the_rows_do_not_bear_out(sink):
    counts = pq.read_metadata(sink / "b.parquet").metadata[b"raysp.counts"].decode()
    rewrite(sink / "b.parquet", counts=counts.replace('"skipped": {}', '"skipped": {"too_short": 7}'))
    assert found(sink) == ["b.parquet: its metadata says skipped={'too_short': 7}, found {}"]


def test_a_reason_on_a_row_that_is_ok(sink):
    def reason(table):
        return table.set_column(table.schema.get_field_index("error_type"), "error_type", pa.array(["x"] * 6))

    rewrite(sink / "a.parquet", reason)
    assert "a.parquet: row 0: error_type must be null exactly where status is ok" in found(sink)


def test_a_label_shard_of_another_pipeline(sink):
    fingerprint = json.loads((sink / ".raysp" / "run.json").read_text())["fingerprint"]
    rewrite(sink / "a.parquet", fingerprint="0123456789abcdef")
    # Its receipt is still there: verify reads every footer.
    assert found(sink) == [f"a.parquet: fingerprint: '0123456789abcdef' -> '{fingerprint}'"]


def test_a_bit_that_flipped_in_a_page(sink):
    path = sink / "a.parquet"
    data = path.read_bytes()
    text = pq.read_table(path).column("pred_text")[2].as_py().encode()
    assert data.count(text)
    path.write_bytes(data.replace(text, bytes([text[0] ^ 2]) + text[1:]))
    assert "a.parquet: cannot be read: " in found(sink)[0]
    assert "CRC" in found(sink)[0]


def test_a_label_shard_cut_short(sink):
    path = sink / "a.parquet"
    path.write_bytes(path.read_bytes()[:-50])
    reason = "it does not end like a Parquet file"
    assert found(sink) == [f"a.parquet: damaged, or not a label shard of raysp ({reason})"]


def test_a_file_that_readers_would_take_for_labels(sink):
    shutil.copy(sink / "a.parquet", sink / "copy.parquet")
    assert found(sink) == ["copy.parquet: readers see this file, but it is not in the sink's plan"]


def test_rows_kept_aside_that_are_gone(finished, tmp_path):
    sink = Path(shutil.copytree(finished["ok"], tmp_path / "labels"))
    shutil.rmtree(sink / ".raysp" / "errors")
    assert "b.parquet: missing: 1 of 6 rows, the first is row 4" in found(sink)


def test_orphans_are_listed_and_are_not_differences(sink):
    orphan = sink / ".raysp" / "tmp" / "0123"
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"x")
    verified = raysp.verify(str(sink), trust=True)
    assert (verified.orphans, verified.exit_code) == ((".raysp/tmp/0123",), 0)


class TestSources:
    @pytest.fixture
    def made(self, tmp_path):
        rows = DIGITS.slice(0, 3).to_pylist()
        rows[1]["id"] = rows[2]["id"] = rows[0]["id"]
        write_shard(tmp_path / "in" / "a.parquet", table=pa.Table.from_pylist(rows, DIGITS.schema))
        write_shard(tmp_path / "in" / "b.parquet", table=pa.Table.from_pylist(rows[:1], DIGITS.schema))
        raysp.run(a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out"), engine="here", progress=False)
        return tmp_path

    def test_duplicate_ids_within_and_across_shards_are_counted_and_are_not_differences(self, made):
        verified = raysp.verify(str(made / "out"), trust=True)
        assert (verified.duplicate_ids, verified.differences) == (3, ())

    def test_a_missing_shard_is_reported_and_its_labels_are_checked(self, made):
        (made / "in" / "b.parquet").unlink()
        verified = raysp.verify(str(made / "out"), trust=True)
        assert (verified.sources_missing, verified.differences, verified.rows) == (("b.parquet",), (), 4)

    def test_a_shard_whose_content_changed_is_a_difference(self, made):
        write_shard(made / "in" / "b.parquet", table=DIGITS.slice(7, 1))
        [difference] = found(made / "out")
        assert "changed since it was planned" in difference

    @pytest.mark.slow
    def test_a_checkpoint_that_changed_cannot_be_compared_with(self, made):
        checkpoint = shutil.copytree(DEMO / "unispeech-digits-ctc", made / "checkpoint")
        steps = [raysp.Decode(), raysp.Label(str(checkpoint), outputs=[raysp.Transcript()])]
        raysp.run(a_pipeline(f"{made}/in/*.parquet", made / "other", steps=steps), engine="here", progress=False)
        vocabulary = json.loads((checkpoint / "vocab.json").read_text())
        (checkpoint / "vocab.json").write_text(json.dumps(vocabulary, indent=9))
        assert found(made / "other") == []
        with pytest.raises(ChangedError, match=r"the files of `steps.1.checkpoint` changed"):
            raysp.verify(str(made / "other"), sample=1, trust=True)


def test_a_folder_without_a_sink_is_refused(tmp_path):
    with pytest.raises(PlanError, match="not a sink of raysp"):
        raysp.verify(str(tmp_path), trust=True)


@pytest.fixture(scope="module")
def word(tmp_path_factory) -> Path:
    """A sink of a word with its times."""
    folder = tmp_path_factory.mktemp("word")
    write_shard(folder / "in" / "a.parquet", table=DIGITS.slice(0, 1))
    label = {"outputs": [raysp.Transcript(words=True)]}
    raysp.run(a_pipeline(f"{folder}/in/*.parquet", folder / "out", label=label), engine="here", progress=False)
    return folder / "out"


def moved(seconds: float):
    return lambda words: [{**one, "start": one["start"] + seconds} for one in words]


@pytest.mark.parametrize(
    ("column", "change", "is_equal"),
    [
        ("pred_text", lambda text: text, True),
        ("pred_text", str.lower, False),
        ("pred_text", lambda text: None, False),
        ("pred_score", lambda score: score - 0.0004, True),
        ("pred_score", lambda score: score - 0.002, False),
        ("pred_words", moved(0.0001), True),
        ("pred_words", moved(0.1), False),
        ("pred_words", lambda words: [{**words[0], "word": "b"}], False),
        ("pred_words", lambda words: words * 2, False),
        ("pred_words", lambda words: [], False),
    ],
)
def test_texts_are_compared_exactly_and_numbers_to_three_digits(word, tmp_path, column, change, is_equal):
    sink = Path(shutil.copytree(word, tmp_path / "labels"))
    rewrite(sink / "a.parquet", lambda table: with_columns(table, {column: [change(table[column][0].as_py())]}))
    differences = found(sink, sample=1)
    assert (differences == []) == is_equal
    assert all(f"row 0: {column} is " in one and ", recomputed alone " in one for one in differences)
