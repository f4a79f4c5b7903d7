"""What `--help` and `--version` show."""

import re

import pytest

import raysp
from tests.commands import check_understood, verbs

VERBS = [
    *(
        "label",
        "plan",
        "run",
        "retry",
        "status",
        "report",
        "export",
        "evaluate",
        "diff",
        "merge",
        "verify",
        "gc",
        "forget",
    ),
    *("finetune", "submit", "jobs", "stop", "inspect", "convert", "models", "doctor"),
]


@pytest.fixture(params=VERBS)
def help_text(request, raysp_command, monkeypatch) -> str:
    monkeypatch.setenv("COLUMNS", "80")
    ran = raysp_command(request.param, "--help")
    assert (ran.code, ran.err) == (0, "")
    return ran.out


def test_every_verb_lists_debug_and_takes_a_screen_at_most(help_text):
    assert re.search(r"^  --debug +Show the traceback", help_text, re.MULTILINE)
    assert len(help_text.splitlines()) < 40
    assert max(map(len, help_text.splitlines())) <= 80


@pytest.mark.parametrize(
    "verb",
    [
        *("label", "plan", "run", "submit", "jobs", "stop", "retry"),
        *("verify", "gc", "status", "report", "evaluate", "diff", "export", "inspect", "convert"),
    ],
)
def test_examples_keep_their_lines(raysp_command, verb):
    examples = raysp_command(verb, "--help").out.partition("Example")[2].partition("Arguments:")[0]
    title, *lines = examples.strip().splitlines()
    assert title in (":", "s:")
    assert lines
    assert all(line.startswith(f"    raysp {verb} ") for line in lines)


def test_the_verbs_are_listed_in_groups_with_a_sentence_each_that_fits_and_an_example(raysp_command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    shown = raysp_command("--help").out
    assert "..." not in shown.partition("Options:")[2]
    assert [verb for group in verbs().values() for verb in group] == VERBS
    lines = [line for line in shown.partition("Options:")[2].splitlines() if line.startswith("  ") and line[2] != "-"]
    assert len(lines) == len(VERBS)
    assert all(re.fullmatch(r"  \w+ +[A-Z].*\.", line) and len(line) <= 80 for line in lines)


def test_an_example_is_a_command():
    assert len(verbs()) == 5
    for example, group in verbs().items():
        program, *command = example.split()
        assert (program, command[0] in group) == ("raysp", True)
        check_understood(*command)


def test_the_version_is_printed(raysp_command):
    ran = raysp_command("--version")
    assert (ran.code, ran.out, ran.err) == (0, f"raysp {raysp.__version__}\n", "")


@pytest.mark.parametrize("arguments", [["plan", "missing.py", "--debug"], ["--debug", "plan", "missing.py"]])
def test_debug_is_accepted_before_and_after_the_verb(raysp_command, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    ran = raysp_command(*arguments)
    assert (ran.code, "Traceback" in ran.err, "no such file" in ran.err.splitlines()[-1]) == (2, True, True)
