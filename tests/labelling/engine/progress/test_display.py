"""Progress and results of a run in programs and notebooks."""

import io
import re
from xml.etree import ElementTree

import pytest
from rich.console import Console

import raysp
from raysp.labelling.engine.display import Display, progress_line
from raysp.labelling.engine.run_progress import Progress
from raysp.labelling.engine.run_result import RunResult
from raysp.sink.receipts import Counts
from tests.corpora import a_pipeline, write_shard

STATE = Progress(rows_total=4, shards_total=1, staged=Counts(rows=2, audio_seconds=3.0, blocks=1))


@pytest.fixture
def pipeline(tmp_path) -> raysp.Pipeline:
    for number in range(60):
        write_shard(tmp_path / "in" / f"{number}.parquet", 1)
    return a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out")


@pytest.mark.parametrize("kind", ["terminal", "notebook"])
def test_a_terminal_has_one_live_line(kind, monkeypatch):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=kind == "terminal", force_jupyter=False, width=200)
    if kind == "notebook":
        console.is_jupyter = True
        monkeypatch.setattr("importlib.util.find_spec", lambda name: name == "ipywidgets")
    display = Display(console)
    assert display._live is not None
    if kind == "terminal":
        with display:
            display.start()
            display.progress(STATE)
        assert progress_line(STATE)[:20] in stream.getvalue()


def read_table(text: str) -> tuple[str, dict[str, str]]:
    """Parse a table with a title and two columns, which must be well-formed."""
    caption, body = ElementTree.fromstring(text)
    return caption.text, {row[0].text: row[1].text for row in body}


def test_a_result_is_a_table_in_a_notebook_in_which_nothing_is_markup():
    values = ("out/<b>&\x1b[1m", "0" * 16, 1, 0, 0, {"a": "<script>"}, Counts(3), 1.0)
    title, facts = read_table(RunResult(*values)._repr_html_())
    assert title == "RunResult"
    assert facts["labels"] == "out/<b>&\ufffd[1m: 0 of 1 shard committed"
    assert facts["failed"] == "a: <script>"


@pytest.mark.slow
def test_plans_and_results_are_shown_in_a_screen_at_most(pipeline):
    raysp.run(pipeline, engine="here", progress=False)
    failed = {f"{number}.parquet": "x" * 500 for number in range(1000)}
    values = (pipeline.sink.url, "0" * 16, 1, 0, 0, failed, Counts(3), 1.0)
    results = [
        raysp.plan(pipeline),
        RunResult(*values),
        raysp.status(pipeline.sink.url),
        raysp.verify(pipeline.sink.url, pipeline=pipeline),
        raysp.gc(pipeline.sink.url, dry_run=True),
    ]
    for result in results:
        lines = repr(result).splitlines()
        name = type(result).__name__
        assert lines[0].rstrip("(") == name
        assert len(lines) <= 30
        assert max(map(len, lines)) <= 140, max(lines, key=len)
        title, facts = read_table(re.search("<table>.*?</table>", result._repr_html_())[0])
        assert title == name
        for fact in facts:
            assert [line for line in lines if re.match(rf"  +{fact}( |=)", line)]
