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


def with_worst(sink: Sink, *rows: dict[str, object]) -> Page:
    """Return the report of a sink with an evaluation that has these worst rows."""
    sink.evaluate(10, worst=[*rows])
    return page_of(sink)


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


def test_evaluation_and_augmentation_of_the_recipe_are_shown(tmp_path):
    augment = [{"type": "Speed", "factors": [0.9, 1.1]}, {"type": "Noise"}]
    sink = Sink(tmp_path / "model", evaluation={"source": {"url": ["a", "b"], "text": "t"}}, augment=augment)
    page = page_of(sink)
    assert page.after("Evaluated on") == "a, b, texts in the column t"
    assert page.after("Augmentation") == "Speed, Noise"


def test_the_place_of_a_row_is_not_repeated(sink):
    page = with_worst(sink, {**EVALUATION["worst"][0], "id": "a.parquet:3"})
    assert page.after("a.parquet:3") == "3 errors in 4 words, 1.0 s"


def test_it_has_curves_of_the_training(sink):
    page = page_of(sink)
    titles = [text for tag, text in page.marked if tag == "b"]
    assert titles == ["Loss", "Learning rate", "Gradient norm", "Speed", "Waiting for rows"]
    assert page.after("Speed") == "last 50"
    assert page.after("Waiting for rows") == "last 5.0%"
    assert page.tags["svg"] == 5


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


def test_curves_begin_with_the_weights_before_training(sink):
    sink.evaluate(0, wer=1.0)
    sink.evaluate(10, 20)
    html = html_of(sink)
    page = Page(html)
    assert page.after("WER").startswith("best 50.00% (")
    assert page.texts[page.texts.index("WER") + 2] == "95% intervals, 100.00% before training"
    first = re.search(r'aria-label="WER.*?<path d="M([\d.]+) ([\d.]+)L', html, re.DOTALL)
    assert first[1] == "0"


def a_row(row: int, reference: str, hypothesis: str, *edits: dict[str, object]) -> dict[str, object]:
    texts = {"reference": reference, "hypothesis": hypothesis, "edits": [*edits], "errors": 1}
    return {**EVALUATION["worst"][0], "id": f"u{row}", "row": row, **texts}


def parts_of(page: Page, row: str, number: int) -> list[tuple[str, str]]:
    """Return the parts of the texts of a row, with their tags."""
    first = page.texts.index(row) + 2
    return [
        ({"del": "removed", "ins": "added"}.get(tag, "same"), text) for tag, text in page.marked[first : first + number]
    ]


def test_rows_show_words_that_differ_side_by_side(sink):
    rows = [
        a_row(
            0,
            "one two three",
            "one deux three",
            {"kind": "substitute", "reference": "two", "hypothesis": "deux", "start": 1},
        ),
        a_row(1, "four five", "four five more", {"kind": "insert", "reference": "", "hypothesis": "more", "start": 2}),
        a_row(3, "seven eight", "", {"kind": "delete", "reference": "seven eight", "hypothesis": "", "start": 0}),
    ]
    page = with_worst(sink, *rows)
    assert parts_of(page, "u0", 4) == [("same", "one"), ("removed", "two"), ("added", "deux"), ("same", "three")]
    assert parts_of(page, "u1", 2) == [("same", "four five"), ("added", "more")]
    assert parts_of(page, "u3", 1) == [("removed", "seven eight")]


def test_a_wrong_class_shows_both_classes_and_its_score(sink):
    page = with_worst(sink, {**a_row(3, "de", "fr"), "score": 0.75})
    assert parts_of(page, "u3", 2) == [("removed", "de"), ("added", "fr")]
    assert page.after("u3") == "1 error, score 0.750, 1.0 s, a.parquet, row 3"


def a_class(name: str, **fields: object) -> dict[str, object]:
    figures = {"rows": 1, "predicted": 1, "precision": None, "recall": 0.5, "f1": 0.4}
    return {"name": name, **figures, **fields}


MOST_GROUPS = 20
"""Rows of a table."""
MOST_RUNS = 10


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


def test_only_the_last_runs_are_listed(sink):
    for number in range(MOST_RUNS):
        sink.begin(f"20260102T00000000{number:04}Z-0a1b2c")
    page = page_of(sink)
    assert "and 1 more run" in page.texts
    assert page.texts.count(sink.run["versions"]["torch"]) == MOST_RUNS


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


def test_texts_of_users_stay_texts(tmp_path):
    plain, hostile = Page(html_of_texts(tmp_path / "a", "plain")), Page(html := html_of_texts(tmp_path / "b", HOSTILE))
    assert (hostile.tags, hostile.attributes) == (plain.tags, plain.attributes)
    assert len(hostile.texts) == len(plain.texts)
    assert sum("{{ 7 * 7 }}{% raw %}" in text for text in hostile.texts) > 15
    assert "\x1b" not in html


def test_it_needs_nothing_from_outside_and_runs_no_scripts(sink):
    sink.evaluate(10)
    html = html_of(sink)
    page = Page(html)
    assert not page.attributes & {"src", "href", "srcset", "data", "action"}
    assert not page.tags.keys() & {"script", "link", "iframe", "img", "object"}
    assert "default-src 'none'" in html
    assert not re.search(r"@import|url\(", html)


def test_a_training_that_ended_early_says_so(tmp_path):
    sink = Sink(tmp_path / "model", evaluation={"patience": 1})
    sink.train(range(1, 21))
    sink.commit(30, best_misses=1)
    assert page_of(sink).texts[2].startswith("Training ended early, 75% done.")


@pytest.mark.parametrize(
    ("steps", "state"), [(0, "Training has stopped, 0% done"), (20, "Training has stopped, 50% done")]
)
def test_a_training_that_is_not_done_has_a_report_too(tmp_path, steps, state):
    sink = Sink(tmp_path / "model", name=None)
    if steps:
        sink.train(range(1, steps + 1))
    page = page_of(sink)
    assert page.texts[1] == "model"
    assert page.texts[2].startswith(state)
    assert ("No step is committed yet." in page.texts) == (not steps)
    assert page.after("Checkpoint") == f"not exported yet to {sink.url}"


def test_figures_of_another_program_are_left_out(sink):
    sink.files.write("metrics.json", b'{"left_out": 1}')
    assert "Rows" not in page_of(sink).texts


def test_the_file_is_in_the_sink_or_where_it_is_asked_for(sink, tmp_path):
    place = raysp.report(sink.url)
    assert place == f"{sink.url}/.raysp/report.html"
    before = Path(place).read_text()
    sink.train(range(41, 44))
    raysp.report(sink.url)
    assert Path(place).read_text() != before
    assert raysp.report(sink.url, tmp_path / "r.html") == str(tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text() == Path(place).read_text()


def test_what_cannot_be_is_refused(sink, tmp_path):
    with pytest.raises(PlanError, match=r"nowhere: not a sink of raysp: found neither .*recipe.json; give the folder"):
        raysp.report(str(tmp_path / "nowhere"))
    with pytest.raises(SpecError, match=r"by=\['speaker_id'\]: applies to a sink of labels"):
        raysp.report(sink.url, by=["speaker_id"])
    with pytest.raises(StoreError, match=r"nowhere/r\.html: cannot write it"):
        raysp.report(sink.url, tmp_path / "nowhere" / "r.html")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_the_command_prints_the_path(raysp_command, sink, tmp_path, options):
    ran = raysp_command("report", sink.url, "--out", tmp_path / "r.html", *options)
    assert (ran.code, ran.err) == (0, "" if options else f"raysp: reading {sink.url} ...\n")
    assert (json.loads(ran.out)["report"] if options else ran.out.strip()) == str(tmp_path / "r.html")
    assert (tmp_path / "r.html").exists()
