"""Results of runs in programs and notebooks."""

import re
from xml.etree import ElementTree

import pytest

import raysp
from tests.corpora import a_pipeline, write_shard


@pytest.mark.slow
def test_plans_and_results_are_shown_in_a_screen_at_most_and_nothing_in_them_is_markup(tmp_path):
    for number in range(40):
        write_shard(tmp_path / "in" / f"{number}.parquet", 1)
    for number in range(40):
        (tmp_path / "in" / f"<b>{number}&{'x' * 100}.parquet").write_bytes(b"PAR1 junk PAR1")
    pipeline = a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out")
    results = [
        raysp.plan(pipeline),
        raysp.run(pipeline, engine="here", progress=False),
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
        caption, body = ElementTree.fromstring(re.search("<table>.*?</table>", result._repr_html_())[0])
        assert caption.text == name
        for row in body:
            assert [line for line in lines if re.match(rf"  +{row[0].text}( |=)", line)]
