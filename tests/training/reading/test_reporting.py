"""The report of a training: what it shows, that users' texts stay texts, and that it needs nothing from outside."""

import json
import re
from pathlib import Path

import pytest

import raysp
from raysp import PlanError, SpecError, StoreError
from tests.pages import HOSTILE, Page
from tests.trainings import EVALUATION, RECIPE, Sink


@pytest.fixture
def sink(tmp_path) -> Sink:
    sink = Sink(tmp_path / "model")
    sink.train(range(1, 41))
    sink.export(40)
    return sink


def html_of(sink: Sink) -> str:
    return Path(raysp.report(sink.url)).read_text()


def page_of(sink: Sink) -> Page:
    return Page(html_of(sink))


def test_it_shows_what_was_trained_on_what(sink):
    page = page_of(sink)
    assert page.texts[:2] == ["words", "words"]  # title and heading
    assert re.fullmatch(r"Training is done\. Last commit \d{4}-\d\d-\d\d \d\d:\d\d UTC", page.texts[2])
    names = ("Begun with", "Trained for", "Corpus", "Rows", "Length", "Batches", "Learning rate", "Checkpoint")
    assert [page.after(name) for name in names] == [
        "owner/encoder",
        "CTC, vocabulary: build",
        "/in/*.parquet, texts in the column text",
        "300 rows, 20:34 of audio; 2 left out (too_long)",
        "40 steps, 4 of 4 epochs; 1:06:40 of audio in 1:20",
        "at most 320 padded seconds a step, 8 micro-batches",
        "at most 0.0003",
        f"{sink.url}, with the weights of step 40",
    ]
    assert json.loads(page.after("Recipe")) == RECIPE
    assert page.texts.count(sink.run["versions"]["torch"]) == 1


def test_it_has_curves_tables_and_worst_rows_of_evaluations(sink):
    sink.evaluate(10, 20)
    page = page_of(sink)
    assert [text for tag, text in page.marked if tag == "b"][:3] == ["WER", "CER", "Loss"]
    assert page.texts.count("Evaluation at step 10") == 1  # the first of equal ones is the best
    assert page.after("WER").startswith("best 50.00% (")
    assert page.after("By duration") == "seconds"
    [row] = [i for i, text in enumerate(page.texts) if text == "ben"]
    assert page.texts[row + 1 : row + 4] == ["1", "2", "50.00%"]
    differing = [(tag, text) for tag, text in page.marked if tag in ("del", "ins")]
    assert differing[2:] == [("del", "seven eight nine"), ("del", "five"), ("del", "two")]
    assert page.after("u3") == "3 errors in 4 words, 1.0 s, a.parquet, row 3"


def a_class(name: str, **fields: object) -> dict[str, object]:
    figures = {"rows": 1, "predicted": 1, "precision": None, "recall": 0.5, "f1": 0.4}
    return {"name": name, **figures, **fields}


MOST_GROUPS = 20
"""Rows of a table."""


def test_long_tables_are_cut_and_say_so(sink):
    groups = [{"value": f"speaker {i}", "scores": EVALUATION["scores"]} for i in range(MOST_GROUPS + 3)]
    sink.evaluate(10, by={"speaker": groups}, classes=[a_class(f"c{i}") for i in range(MOST_GROUPS + 1)], worst=[])
    page = page_of(sink)
    assert sum(text.startswith("speaker ") for text in page.texts) == MOST_GROUPS
    assert "and 3 more groups" in page.texts
    first = page.texts.index("c0")
    assert page.texts[first : first + 6] == ["c0", "1", "1", "-", "50.00%", "40.00%"]
    assert f"c{MOST_GROUPS - 1}" in page.texts
    assert f"c{MOST_GROUPS}" not in page.texts
    assert "and 1 more class" in page.texts


def html_of_texts(folder: Path, text: str) -> str:
    """Render the report of a training in which every text of a user is the same."""
    source = {"url": [text, "b", "c", "d"], "text": text}
    objective = {"type": text, "checkpoint": text, "vocabulary": text, "freeze": text}
    sink = Sink(folder, name=text, source=source, objective=objective)
    sink.train(range(1, 4))
    changes = {"id": text, "shard": text, "reference": text, "hypothesis": text, "edits": []}
    groups = [{**group, "value": text} for group in EVALUATION["by"]["speaker"]]
    worst = [{**row, **changes} for row in EVALUATION["worst"]]
    sink.evaluate(2, worst=worst, by={text: groups}, normalisation=text, classes=[a_class(text, recall=None, f1=0.0)])
    return html_of(sink)


def test_texts_of_users_stay_texts_and_nothing_from_outside_is_needed(tmp_path):
    plain, hostile = Page(html_of_texts(tmp_path / "a", "plain")), Page(html := html_of_texts(tmp_path / "b", HOSTILE))
    assert (hostile.tags, hostile.attributes) == (plain.tags, plain.attributes)
    assert len(hostile.texts) == len(plain.texts)
    assert sum("{{ 7 * 7 }}{% raw %}" in text for text in hostile.texts) > 15
    assert "\x1b" not in html
    assert not hostile.attributes & {"src", "href", "srcset", "data", "action"}
    assert not hostile.tags.keys() & {"script", "link", "iframe", "img", "object"}
    assert "default-src 'none'" in html
    assert not re.search(r"@import|url\(", html)


def test_what_cannot_be_is_refused(sink, tmp_path):
    with pytest.raises(PlanError, match=r"nowhere: not a sink of raysp: found neither .*recipe.json; give the folder"):
        raysp.report(str(tmp_path / "nowhere"))
    with pytest.raises(SpecError, match=r"by=\['speaker_id'\]: applies to a sink of labels"):
        raysp.report(sink.url, by=["speaker_id"])
    with pytest.raises(StoreError, match=r"nowhere/r\.html: cannot write it"):
        raysp.report(sink.url, tmp_path / "nowhere" / "r.html")
