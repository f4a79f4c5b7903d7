"""What `raysp diff` prints, and its exit codes."""

import json
import re

import pytest

import raysp
from tests import kit
from tests.classifiers import make_classifier
from tests.commands import write_recipe
from tests.corpora import CHECKPOINT, a_pipeline, label_twice, labelled

pytestmark = pytest.mark.lengthy

HOSTILE = "\x1b]0;owned\x07[bold]\r\n"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Labels of six spoken digits, and those of the same rows by a pipeline that skips one of them."""
    folder = tmp_path_factory.mktemp("diff")
    label_twice(folder)
    return folder


@pytest.fixture
def diff(raysp_command, made):
    return lambda *arguments: raysp_command("diff", made / "A", made / "B", *arguments)


@pytest.mark.slow
def test_the_rows_the_rates_and_those_against_the_references_are_printed(diff, made):
    ran = diff("--by", "speaker_id")
    assert (ran.code, ran.err) == (0, f"raysp: reading {made}/A and {made}/B ...\n")
    for line in (
        f"A            {made}/A, labels of {CHECKPOINT} (",
        "shards       1 shard compared\n",
        "rows         5 of 6 rows compared, 0:02 of audio\n",
        "ok only in A 1 row; in B 1 filtered\n",
        "normalised   letters: ",
        "intervals    95%, from 1,000 bootstrap draws of rows\n",
        "pred_text, B against A\n",
        "WER          0.00% (0.00% to 0.00%): 0 substitutions, 0 insertions, 0 deletions in 5 words\n",
        "agreement    100.00% (100.00% to 100.00%): 5 of 5 rows\n",
        "WER change   +0.00% (+0.00% to +0.00%): the interval includes 0, so neither is clearly better\n",
        "pred_score, B against A\n",
    ):
        assert line in ran.out
    assert re.search(r"┃ against text ┃ +WER ┃ +95% interval ┃ +CER ┃ +95% interval ┃", ran.out)
    assert re.search(r"┃ speaker_id ┃ rows ┃ words ┃ WER change ┃ +95% interval ┃ WER A ┃ WER B ┃", ran.out)
    assert max(map(len, ran.out.splitlines()[6:])) <= 100


def test_json_has_everything(diff):
    ran = diff("--json", "--fail-above", "wer_change=0.1")
    found = json.loads(ran.out)
    assert (ran.code, ran.err) == (0, "")
    assert found.keys() == {
        "a", "b", "shards", "rows", "seconds", "columns", "not_compared", "normalisation", "intervals", "limits",
        "exit_code",
    }  # fmt: skip
    assert found["rows"] == {
        "total": 6, "compared": 5, "only_a": {"filtered": 1}, "only_b": {}, "neither": 0, "absent": 0,
    }  # fmt: skip
    text, score = found["columns"]
    assert (text["column"], text["kind"], score["kind"]) == ("pred_text", "text", "number")
    assert text["against"]["scores"]["metrics"]["wer_change"] == {"value": 0, "low": 0, "high": 0}
    assert found["limits"] == [{"metric": "wer_change", "limit": 0.1, "is_upper": True, "found": 0, "is_met": True}]


def test_a_limit_that_is_not_met_ends_with_exit_code_1_and_a_sentence(diff, made, tmp_path, raysp_command):
    assert "limit        agreement is 100.00%, expected at least 99.00%\n" in diff("--fail-below", "agreement=0.99").out
    ran = diff("--column", "pred_score", "--fail-above", "wer=0.1")
    assert (ran.code, ran.err.splitlines()[-1]) == (1, "raysp: WER is undefined, expected at most 10.00%: not met")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["--column", "pred"],
            "the output column 'pred' is in neither; both have pred_text, pred_score",
        ),
        (["--by", "accent"], "neither has a column 'accent'"),
        (["--fail-above", "wer"], "--fail-above wer: expected METRIC=SHARE, such as wer=0.2"),
        (["--normalise", "upper"], "found the normalisation 'upper'"),
        (["--worst", "-1"], "Invalid value for '--worst'"),
    ],
)
def test_what_cannot_be_compared_is_refused_with_exit_code_2(diff, arguments, complaint):
    ran = diff(*arguments)
    assert (ran.code, ran.out) == (2, "")
    assert complaint in ran.err


def test_a_sink_may_be_given_by_its_pipeline_file(raysp_command, made, tmp_path):
    file = write_recipe(tmp_path, sink=str(made / "A"))
    ran = raysp_command("diff", file, made / "B", "--json")
    assert json.loads(ran.out)["rows"]["compared"] == 5


def test_no_row_being_ok_in_both_is_said_with_exit_code_3(raysp_command, made, tmp_path):
    nothing = raysp.Keep(max_seconds=0.01)
    raysp.run(a_pipeline(f"{made}/in/*.parquet", tmp_path / "out", keep=[nothing]), engine="here", progress=False)
    ran = raysp_command("diff", made / "A", tmp_path / "out", "--by", "seconds")
    assert (ran.code, ran.err.splitlines()[-1]) == (3, "raysp: no row was compared: none is ok in both")
    assert "ok only in A 6 rows; in B 6 filtered\n" in ran.out
    assert "pred_text" not in ran.out


def test_changes_of_classes_are_harmless_on_a_terminal(tmp_path):
    classifier = make_classifier(tmp_path / "classifier", "cat", "dog", "owl")
    changes = {(HOSTILE, "b"): 3, **{("a", f"{number}"): 1 for number in range(11)}}
    for side, name in enumerate("AB"):
        classes = [pair[side] for pair, times in changes.items() for _ in range(times)]
        columns = {"pred_label": classes, "pred_label_scores": [0.5] * len(classes)}
        labelled(tmp_path, columns, [raysp.Classes()], name=name, checkpoint=classifier)
    said = kit.run(["diff", tmp_path / "A", tmp_path / "B"]).out
    assert re.search(r"│ .*\[bold\].* │ +b │ +3 │", said)
    assert "... and 2 more changes; --json lists all" in said
    assert not {"\x1b", "\x07", "\r"} & {*said}


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_the_comparison_can_be_a_page(diff, tmp_path, options):
    ran = diff("--html", tmp_path / "diff.html", *options)
    assert ran.code == 0
    assert (tmp_path / "diff.html").read_text().startswith("<!doctype html>")
    assert (f"page         {tmp_path}/diff.html\n" in ran.out) == (not options)
