"""Progress and results of a run in programs and notebooks."""

import re
from xml.etree import ElementTree

import pytest

import raysp
from raysp.labelling.engine.run_result import RunResult
from raysp.sink.receipts import Counts
from tests.corpora import a_pipeline, write_shard


@pytest.fixture
def pipeline(tmp_path) -> raysp.Pipeline:
    for number in range(60):
        write_shard(tmp_path / "in" / f"{number}.parquet", 1)
    return a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out")


def read_table(text: str) -> tuple[str, dict[str, str]]:
    """Parse a table with a title and two columns, which must be well-formed."""
    caption, body = ElementTree.fromstring(text)
    return caption.text, {row[0].text: row[1].text for row in body}


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
