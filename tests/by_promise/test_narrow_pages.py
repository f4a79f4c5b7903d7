"""Pages of reports on a narrow screen: the style sheet keeps numbers whole and lets tables scroll."""

import re

import pytest

import raysp
from tests.corpora import a_pipeline, digits_table, write_shard

pytestmark = pytest.mark.usefixtures("without_ray")


def test_numbers_of_a_report_do_not_break_and_tables_scroll_in_their_own_box(tmp_path):
    digits = digits_table(3)
    write_shard(tmp_path / "in" / "a.parquet", table=digits)
    raysp.run(a_pipeline(raysp.Shards(f"{tmp_path}/in/*.parquet", text="text"), f"{tmp_path}/out"))
    page = tmp_path / "page.html"
    raysp.report(f"{tmp_path}/out", page)
    text = page.read_text()
    narrow = text.partition("@media (max-width: 36rem) {")[2].partition("\n}")[0]
    assert "td" in narrow
    assert not re.search(r"\btd\b[^}]*white-space: normal", narrow.replace("td:first-child", ""))
    assert re.search(r"\.verdict dd \{[^}]*white-space: nowrap", text)
    assert re.search(r"td\.whole:first-child \{[^}]*white-space: nowrap", text)
    assert re.search(r'<tr><td dir="auto" class="whole">\d{4}-\d\d-\d\d \d\d:\d\d UTC</td>', text)
    assert text.count("<table>") == text.count('<div class="scroll"><table>') > 0
