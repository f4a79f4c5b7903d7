"""The report of a sink of labels: its figures, its size, and that texts of users stay texts."""

import json
import re
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

import raysp
from raysp import PlanError
from tests import kit
from tests.corpora import CHECKPOINT, a_pipeline, rewrite, with_columns, write_shard
from tests.pages import HOSTILE, Page

pytestmark = pytest.mark.lengthy

MOST_BYTES = 300_000
"""Bytes of a page."""
WRONG = {3: "nine two", 14: "", 20: "two eight"}
"""References that differ from the spoken digits."""


def with_references(table: pa.Table) -> pa.Table:
    rows = [{**row, "text": WRONG.get(place, row["text"])} for place, row in enumerate(table.to_pylist())]
    return pa.Table.from_pylist(rows, table.schema)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A labelling in which a recording cannot be decoded."""
    folder = tmp_path_factory.mktemp("report")
    kit.corpus(folder / "in", 23, faults={10: "not_audio"})
    rewrite(folder / "in" / "part-0.parquet", with_references)
    source = raysp.Shards(f"{folder}/in/*.parquet", text="text")
    sink = raysp.Parquet(f"{folder}/out", keep=["speaker_id"])
    raysp.run(a_pipeline(source, sink, name="digits"), engine="here", progress=False)
    return folder


def page_of(sink: Path, **options: object) -> Page:
    return Page(html_of(sink, **options))


def html_of(sink: Path, **options: object) -> str:
    place = Path(raysp.report(str(sink), sink.parent / "report.html", **options))
    return place.read_text()


@pytest.fixture(scope="module")
def page(made) -> Page:
    return page_of(made / "out", trust=True)


@pytest.mark.slow
def test_the_figures_are_those_of_status(page, made):
    found = raysp.status(str(made / "out"))
    assert (found.ok, found.skipped, found.error) == (23, 0, 1)
    assert page.texts[1] == "digits"
    assert page.texts[2] == found.line
    for name in ("shards", "rows", "labels", "reasons", "audio"):
        assert page.after(name) == found.facts[name]
    assert page.after("labels") == "23 ok, 0 skipped, 1 error"
    assert page.after("fingerprint") == found.fingerprint
    assert page.after("checkpoint digest") == found.checkpoint_digest


def test_the_error_rates_are_those_of_an_evaluation(page, made):
    expected = raysp.evaluate(
        str(CHECKPOINT), f"{made}/in/*.parquet", text="text", by=["speaker_id"], engine="here", progress=False
    )
    assert page.after("WER") == expected.scores.described("wer")
    assert expected.scores.metrics["wer"].value > 0
    for group in (*expected.by["speaker_id"], *expected.by["seconds"]):
        scores, place = group.scores, page.texts.index(str(group.value))
        rates = [scores.value("wer"), scores.interval("wer"), scores.value("cer")]
        assert page.texts[place + 2] == str(scores.rows)
        assert page.texts[place + 4 : place + 8] == [f"{scores.counts['words']:,}", *rates]
    assert expected.worst[0].errors == 2
    assert page.after("Worst rows") == "Only in the reference"


def test_other_columns_can_be_chosen_and_the_page_is_in_the_sink_unless_a_file_is_given(made):
    place = raysp.report(str(made / "out"), by=["seconds", "status"])
    assert place == f"{made}/out/.raysp/report.html"
    found = Page(Path(place).read_text())
    assert "By status" in found.texts
    assert "By speaker_id" not in found.texts
    assert raysp.gc(str(made / "out"), dry_run=True).orphans == ()
    line = ["report", made / "out", "--out", made / "r.html", "--by", "speaker_id"]
    ran = kit.run(line)
    assert (ran.code, ran.err, ran.out.strip()) == (0, f"raysp: reading {made}/out ...\n", f"{made}/r.html")
    assert json.loads(kit.run([*line, "--json"]).out)["report"] == f"{made}/r.html"
    assert "By speaker_id" in Page((made / "r.html").read_text()).texts
    with pytest.raises(PlanError, match=r"out: its label shards have no column 'nobody'; their columns are id, "):
        raysp.report(str(made / "out"), by=["nobody"])


def test_a_sink_without_a_label_says_so(tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", 1)
    kit.begun(a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "labels"), tmp_path / "in")
    found = page_of(tmp_path / "labels", by=["speaker_id"])
    assert "No shard is committed yet: there are no labels to show." in found.texts
    assert found.after("The last run was started by")


def relabelled(folder: Path, made: Path, texts: dict[str, str]) -> Path:
    """Copy a sink with other texts in columns of its label shard, where there is a text."""
    shutil.copytree(made / "out", folder / "out")

    def change(table: pa.Table) -> pa.Table:
        old = {name: table.column(name).to_pylist() for name in texts}
        return with_columns(
            table,
            {
                name: [one and f"{texts[name]} {place % 3}" for place, one in enumerate(values)]
                for name, values in old.items()
            },
        )

    rewrite(folder / "out" / "part-0.parquet", change)
    return folder / "out"


COLUMNS = ("id", "pred_text", "text", "speaker_id", "error_message")


def test_texts_of_users_stay_texts(made, tmp_path):
    html = {
        text: html_of(relabelled(tmp_path / str(number), made, dict.fromkeys(COLUMNS, text)))
        for number, text in enumerate(("plain", HOSTILE))
    }
    plain, hostile = (Page(one) for one in html.values())
    assert hostile.attributes == plain.attributes
    assert hostile.tags.keys() == plain.tags.keys()
    assert not hostile.attributes & {"href", "srcset", "data", "action"}
    assert not hostile.tags.keys() & {"script", "link", "iframe", "img", "object", "audio"}
    assert "default-src 'none'" in html[HOSTILE]
    assert not re.search(r"@import|url\(|src=", html["plain"])
    assert sum("<script>alert(1)</script>" in text for text in hostile.texts) >= 5
    assert any("{{ 7 * 7 }}{% raw %}" in text for text in hostile.texts)
    assert "\x1b" not in html[HOSTILE]


@pytest.mark.slow
def test_huge_texts_do_not_make_a_huge_page(made, tmp_path):
    sink = relabelled(tmp_path, made, {name: '"&<' * 20_000 + name for name in COLUMNS})
    record = json.loads((sink / ".raysp/run.json").read_text())
    record["pipeline"]["name"] = "'" * 100_000
    record["runs"] = [{**record["runs"][0], "command": '"' * 100_000, "versions": {"raysp": '"' * 100_000}}]
    (sink / ".raysp/run.json").write_text(json.dumps(record))
    html = html_of(sink, trust=True)
    assert len(html.encode()) <= MOST_BYTES
    assert "more characters" in html
