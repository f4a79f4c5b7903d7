"""The report of a training: what it shows, that users' texts stay texts, and that it needs nothing from outside."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

import raysp
from raysp import PlanError, SpecError, StoreError
from raysp.evaluation.scores import ClassScores, Group
from raysp.pages.page_tables import MOST_GROUPS, MOST_RUNS
from raysp.sink.run_record import RunEntry
from raysp.training.reading.training_report import evaluation_in_detail, render
from raysp.training.sink import evaluation_records, training_record
from tests.evaluation.evaluated import an_evaluation
from tests.pages import HOSTILE, Page
from tests.trainings import RECIPE, Sink


@pytest.fixture
def sink(tmp_path) -> Sink:
    sink = Sink(tmp_path / "model")
    sink.train(range(1, 41))
    sink.export(40)
    return sink


def evaluate(sink: Sink, *steps: int, **fields: object) -> None:
    for done in steps:
        evaluation_records.save(sink.store, done, an_evaluation(**fields), run_id=sink.run.run_id)


def test_it_shows_what_was_trained_on_what(sink):
    page = Page(render(sink.store))
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
        f"{sink.store.url}, with the weights of step 40",
    ]
    assert json.loads(page.after("Recipe")) == RECIPE
    assert page.texts.count(sink.run.versions["torch"]) == 1


def test_evaluation_and_augmentation_of_the_recipe_are_shown(tmp_path):
    augment = [{"type": "Speed", "factors": [0.9, 1.1]}, {"type": "Noise"}]
    sink = Sink(tmp_path / "model", evaluation={"source": {"url": ["a", "b"], "text": "t"}}, augment=augment)
    page = Page(render(sink.store))
    assert page.after("Evaluated on") == "a, b, texts in the column t"
    assert page.after("Augmentation") == "Speed, Noise"


def test_the_place_of_a_row_is_not_repeated():
    row = replace(an_evaluation().worst[0], id="a.parquet:3")
    [shown] = evaluation_in_detail(1, an_evaluation(worst=(row,))).worst
    assert (shown.id, shown.about) == ("a.parquet:3", "3 errors in 4 words, 1.0 s")


def test_it_has_curves_of_the_training(sink):
    page = Page(render(sink.store))
    titles = [text for tag, text in page.marked if tag == "b"]
    assert titles == ["Loss", "Learning rate", "Gradient norm", "Speed", "Waiting for rows"]
    assert page.after("Speed") == "last 50"
    assert page.after("Waiting for rows") == "last 5.0%"
    assert page.tags["svg"] == 5


def test_it_has_curves_tables_and_worst_rows_of_evaluations(sink):
    evaluate(sink, 10, 20)
    page = Page(render(sink.store))
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
    evaluate(sink, 0, hypotheses=["", "", "", ""])
    evaluate(sink, 10, 20)
    html = render(sink.store)
    page = Page(html)
    assert page.after("WER").startswith("best 50.00% (")
    assert page.texts[page.texts.index("WER") + 2] == "95% intervals, 100.00% before training"
    first = re.search(r'aria-label="WER.*?<path d="M([\d.]+) ([\d.]+)L', html, re.DOTALL)
    assert first[1] == "0"


def test_rows_show_words_that_differ_side_by_side():
    found = evaluation_in_detail(1, an_evaluation(["one deux three", "four five more", "six", ""]))
    shown = {row.id: [(part.kind, part.text) for part in row.parts] for row in found.worst}
    assert shown == {
        "u0": [("same", "one"), ("removed", "two"), ("added", "deux"), ("same", "three")],
        "u1": [("same", "four five"), ("added", "more")],
        "u3": [("removed", "seven eight nine zero")],
    }


def test_a_wrong_class_shows_both_classes_and_its_score():
    row = replace(an_evaluation().worst[0], reference="de", hypothesis="fr", score=0.75, edits=(), errors=1)
    [shown] = evaluation_in_detail(1, an_evaluation(worst=(row,))).worst
    assert [(part.kind, part.text) for part in shown.parts] == [("removed", "de"), ("added", "fr")]
    assert shown.about == "1 error, score 0.750, 1.0 s, a.parquet, row 3"


def test_long_tables_are_cut_and_say_so():
    one = an_evaluation().scores
    groups = tuple(Group(f"speaker {i}", one) for i in range(MOST_GROUPS + 3))
    classes = tuple(ClassScores(f"c{i}", 1, 1, None, 0.5, 0.4) for i in range(MOST_GROUPS + 1))
    *_, table, of_classes = evaluation_in_detail(1, an_evaluation(by={"speaker": groups}, classes=classes)).tables
    assert (len(table.rows), table.left_out) == (MOST_GROUPS, "3 more groups")
    assert (of_classes.rows[0], of_classes.left_out) == (("c0", "1", "1", "-", "50.00%", "40.00%"), "1 more class")


def test_only_the_last_runs_are_listed(sink):
    for _ in range(MOST_RUNS):
        training_record.begin(sink.store, RunEntry.now(), recipe=RECIPE, fingerprint="f00d", parts={"seed": 0})
    page = Page(render(sink.store))
    assert "and 1 earlier run" in page.texts
    assert page.texts.count(sink.run.versions["torch"]) == MOST_RUNS


def page_of(folder: Path, text: str) -> str:
    """Render the report of a training in which every text of a user is the same."""
    source = {"url": [text, "b", "c", "d"], "text": text}
    objective = {"type": text, "checkpoint": text, "vocabulary": text, "freeze": text}
    sink = Sink(folder, name=text, source=source, objective=objective)
    sink.train(range(1, 4))
    found = an_evaluation()
    changes = {"id": text, "shard": text, "reference": text, "hypothesis": text, "edits": ()}
    groups = tuple(replace(group, value=text) for group in found.by["speaker"])
    classes = (ClassScores(text, 1, 1, None, None, 0.0),)
    worst = tuple(replace(row, **changes) for row in found.worst)
    evaluate(sink, 2, worst=worst, by={text: groups}, normalisation=text, classes=classes)
    return render(sink.store)


def test_texts_of_users_stay_texts(tmp_path):
    plain, hostile = Page(page_of(tmp_path / "a", "plain")), Page(html := page_of(tmp_path / "b", HOSTILE))
    assert (hostile.tags, hostile.attributes) == (plain.tags, plain.attributes)
    assert len(hostile.texts) == len(plain.texts)
    assert sum("{{ 7 * 7 }}{% raw %}" in text for text in hostile.texts) > 15
    assert "\x1b" not in html


def test_it_needs_nothing_from_outside_and_runs_no_scripts(sink):
    evaluate(sink, 10)
    html = render(sink.store)
    page = Page(html)
    assert not page.attributes & {"src", "href", "srcset", "data", "action"}
    assert not page.tags.keys() & {"script", "link", "iframe", "img", "object"}
    assert "default-src 'none'" in html
    assert not re.search(r"@import|url\(", html)


def test_a_training_that_ended_early_says_so(tmp_path):
    sink = Sink(tmp_path / "model", evaluation={"patience": 1})
    sink.train(range(1, 21))
    sink.commit(30, best_misses=1)
    assert Page(render(sink.store)).texts[2].startswith("Training ended early, 75% done.")


@pytest.mark.parametrize(
    ("steps", "state"), [(0, "Training has stopped, 0% done"), (20, "Training has stopped, 50% done")]
)
def test_a_training_that_is_not_done_has_a_report_too(tmp_path, steps, state):
    sink = Sink(tmp_path / "model", name=None)
    if steps:
        sink.train(range(1, steps + 1))
    page = Page(render(sink.store))
    assert page.texts[1] == "model"
    assert page.texts[2].startswith(state)
    assert ("No step is committed yet." in page.texts) == (not steps)
    assert page.after("Checkpoint") == f"not exported yet to {sink.store.url}"


def test_figures_of_another_program_are_left_out(sink):
    sink.store.replace("metrics.json", b'{"left_out": 1}')
    assert "Rows" not in Page(render(sink.store)).texts


def test_the_file_is_in_the_sink_or_where_it_is_asked_for(sink, tmp_path):
    place = raysp.report(sink.store.url)
    assert place == f"{sink.store.url}/.raysp/report.html"
    before = Path(place).read_text()
    sink.train(range(41, 44))
    raysp.report(sink.store.url)
    assert Path(place).read_text() != before
    assert raysp.report(sink.store, tmp_path / "r.html") == str(tmp_path / "r.html")
    assert (tmp_path / "r.html").read_text() == Path(place).read_text()


def test_what_cannot_be_is_refused(sink, tmp_path):
    with pytest.raises(PlanError, match=r"nowhere: not a sink of raysp: found neither .*recipe.json; give the folder"):
        raysp.report(str(tmp_path / "nowhere"))
    with pytest.raises(SpecError, match=r"by=\['speaker_id'\]: applies to a sink of labels"):
        raysp.report(sink.store, by=["speaker_id"])
    with pytest.raises(StoreError, match=r"nowhere/r\.html: cannot write it"):
        raysp.report(sink.store, tmp_path / "nowhere" / "r.html")


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_the_command_prints_the_path(raysp_command, sink, tmp_path, options):
    ran = raysp_command("report", sink.store.url, "--out", tmp_path / "r.html", *options)
    assert (ran.code, ran.err) == (0, "" if options else f"raysp: reading {sink.store.url} ...\n")
    assert (json.loads(ran.out)["report"] if options else ran.out.strip()) == str(tmp_path / "r.html")
    assert (tmp_path / "r.html").exists()
