"""The page of a comparison: its figures are those of the result, and texts of users stay texts."""

import base64
import re
from itertools import pairwise
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysp
from tests.classifiers import make_classifier
from tests.corpora import label_twice, labelled, rewrite, with_columns
from tests.pages import HOSTILE, Page


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """Two labellings of six spoken digits, one of which skips a row and has another text in the third."""
    folder = tmp_path_factory.mktemp("diff")
    label_twice(folder)
    texts = pq.read_table(folder / "B" / "a.parquet")["pred_text"].to_pylist()
    texts[2] = "another"
    rewrite(folder / "B" / "a.parquet", lambda table: with_columns(table, {"pred_text": texts}))
    return folder


def page_of(found: object, file: Path, **options: object) -> Page:
    return Page(Path(found.write_html(file, **options)).read_text())


@pytest.mark.lengthy
def test_the_facts_are_those_of_the_result(made, tmp_path):
    found = raysp.diff(str(made / "A"), str(made / "B"), by=["speaker_id"], fail_below={"agreement": 0.9})
    page = page_of(found, tmp_path / "page.html")
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
    assert page.after("Limits") == "agreement is 80.00%, expected at least 90.00%: not met"


def test_rows_that_differ_are_played_if_their_recordings_may_be_read(made, tmp_path):
    found = raysp.diff(str(made / "A"), str(made / "B"))
    page = Path(found.write_html(tmp_path / "trusted.html", trust=True)).read_text()
    [(kind, data)] = re.findall(r'<audio controls preload="none" src="data:audio/(\w+);base64,([^"]*)">', page)
    source = pq.read_table(made / "in" / "a.parquet").column("audio")
    assert (base64.b64decode(data), kind) == (source[2].as_py()["bytes"], "wav")
    without = page_of(found, tmp_path / "page.html")
    assert "audio" not in without.tags
    assert without.texts[-1].startswith("The recordings are not here: the source of a sink is read only if")


def pages_with(text: str, folder: Path) -> list[Page]:
    """Return the pages of comparisons of texts and of classes, in which texts of users are one."""
    model = make_classifier(folder / "model", "one", "two")
    source = {"text": [f"one {text}"] * 2, "group": [text] * 2}
    for name in "AB":
        texts = {"id": [f"{text}{row}" for row in range(2)], "pred_text": [f"one {text}" if name == "A" else text] * 2}
        labelled(folder / "texts", texts, [raysp.Transcript()], source, name=name)
        classes = {"pred_label": [f"{text} {name}"] * 2}
        labelled(folder / "classes", classes, [raysp.Classes()], name=name, checkpoint=model)
    found = [
        raysp.diff(str(folder / "texts" / "A"), str(folder / "texts" / "B"), by=["group"]),
        raysp.diff(str(folder / "classes" / "A"), str(folder / "classes" / "B")),
    ]
    return [page_of(one, folder / f"{number}.html") for number, one in enumerate(found)]


def test_texts_of_users_stay_texts_and_differences_are_marked(tmp_path):
    plain, hostile = (pages_with(text, tmp_path / str(number)) for number, text in enumerate(("plain", HOSTILE)))
    assert ("del", "one") in plain[0].marked
    texts = plain[1].texts
    assert texts[texts.index("class in B") + 2 :][:3] == ["plain A", "plain B", "2"]
    for one, other in zip(plain, hostile, strict=True):
        assert (other.attributes, other.tags.keys()) == (one.attributes, one.tags.keys())
        assert not any("\x1b" in text for text in other.texts)
    assert sum("<script>alert(1)</script>" in text for page in hostile for text in page.texts) > 8
