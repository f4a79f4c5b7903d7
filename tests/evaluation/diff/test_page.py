"""The page of a comparison: its figures are those of the result, and texts of users stay texts."""

import base64
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysp
from raysp.evaluation.diff.diff_result import ClassChange, ColumnDifference, LabelDiff, render
from raysp.evaluation.limits import Limit
from raysp.evaluation.scores import Estimate, Group, Scores, WorstRow
from raysp.labelling.planning.trust import read_recorded
from raysp.text.error_rates import edits
from raysp.work import SinkRequest
from tests.corpora import label_twice
from tests.pages import HOSTILE, Page


@pytest.fixture(scope="module")
def found(tmp_path_factory) -> LabelDiff:
    """The comparison of two labellings of six spoken digits, one of which skips a row."""
    folder = tmp_path_factory.mktemp("diff")
    label_twice(folder)
    return raysp.diff(str(folder / "A"), str(folder / "B"), by=["speaker_id"])


def changed(found: LabelDiff, text: str = "plain", number: int = 3) -> LabelDiff:
    """Return a comparison with worst rows and changed classes, in which texts of users are one."""
    score = Scores(1, {"agreement": Estimate(0.5)}, {"equal": 1})
    row = WorstRow(text, text, 1, 1.0, f"one {text}", f"{text} two", 2, None, edits(f"one {text}", f"{text} two"))
    column = ColumnDifference(
        text,
        "class",
        score,
        {text: (Group(text, score),) * number},
        worst=(row,) * number,
        changes=(ClassChange(text, text, 7),) * number,
    )
    limit = Limit("agreement", 0.9, is_upper=False).compared(0.5)
    a = replace(found.a, sink=text, checkpoint=text)
    return replace(found, a=a, columns=(column,), limits=(limit,), not_compared={text: text})


@pytest.mark.lengthy
def test_the_facts_are_those_of_the_result(found):
    page = Page(render(found))
    assert page.texts[1] == "A: A, B: B"
    assert page.texts[2] == f"{found.rows.compared} of 6 rows compared, 0:02 of audio"
    for name, fact in found.facts.items():
        title = f"{name[0].upper()}{name[1:]}"
        values = [after for before, after in pairwise(page.texts) if before == title]
        assert any(value.startswith(fact[:200]) for value in values), name
    [text, score] = found.columns
    assert page.after("Agreement of A and B") == text.facts["agreement"]
    assert ("Agreement of A and B", score.facts["agreement"]) in pairwise(page.texts)
    assert page.after("WER change, B less A") == text.against.verdict
    change = text.against.scores.value("wer_change")
    assert page.texts.count(change) >= 3  # it leads the page, is drawn, and is in the table
    assert {"By duration", "By speaker_id", "By speaker_id, against the references"} <= {*page.texts}


@pytest.mark.lengthy
def test_differences_classes_and_limits_are_shown(found):
    page = Page(render(changed(found)))
    assert ("del", "one plain") in page.marked
    assert ("ins", "plain two") in page.marked
    assert page.texts[page.texts.index("class in B") + 2 :][:3] == ["plain", "plain", "7"]
    assert page.after("Limits") == "agreement is 50.00%, expected at least 90.00%: not met"


def test_rows_that_differ_are_played_if_their_recordings_may_be_read(found, tmp_path):
    row = WorstRow("x", "a.parquet", 2, 0.3, "one", "two", 1, None, edits("one", "two"))
    differing = replace(found, columns=(replace(found.columns[0], worst=(row,)),))
    page = Path(differing.write_html(tmp_path / "trusted.html", trust=True)).read_text()
    [(kind, data)] = re.findall(r'<audio controls preload="none" src="data:audio/(\w+);base64,([^"]*)">', page)
    source = Path(found.a.sink).parent / "in" / "a.parquet"
    assert base64.b64decode(data) == pq.read_table(source).column("audio")[2].as_py()["bytes"]
    assert kind == "wav"
    without = Page(render(differing, read_recorded(SinkRequest(found.a.sink))))
    assert "audio" not in without.tags
    assert without.texts[-1].startswith("The recordings are not here: the source of a sink is read only if")


def test_texts_of_users_stay_texts(found):
    plain, hostile = Page(render(changed(found))), Page(html := render(changed(found, HOSTILE)))
    assert hostile.attributes == plain.attributes
    assert hostile.tags.keys() == plain.tags.keys()
    assert sum("<script>alert(1)</script>" in text for text in hostile.texts) > 10
    assert "\x1b" not in html
