"""What `--help`, `--version` and `models` show."""

import json
import re

import pytest

import raysp
from tests import kit
from tests.commands import check_understood, verbs

VERBS = [verb for group in verbs().values() for verb in group]


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_a_verb_takes_a_screen_at_most_and_its_examples_keep_their_lines(verb):
    ran = kit.run([verb, "--help"], COLUMNS="80")
    assert (ran.code, ran.err) == (0, "")
    assert re.search(r"^  --debug +Show the traceback", ran.out, re.MULTILINE)
    assert len(ran.out.splitlines()) < 40
    assert max(map(len, ran.out.splitlines())) <= 80
    examples = ran.out.partition("\n  Example")[2].partition("Arguments:")[0].partition("Options:")[0].strip()
    assert all(line.startswith(f"    raysp {verb} ") for line in examples.splitlines()[1:])


def test_every_verb_is_listed_in_a_group_with_an_example_that_is_a_command():
    shown = kit.run("--help", COLUMNS="80").out.partition("Options:")[2]
    lines = [line for line in shown.splitlines() if line.startswith("  ") and line[2] != "-"]
    assert len(lines) == len(VERBS) > 20
    assert all(re.fullmatch(r"  \w+ +[A-Z].*\.", line) and len(line) <= 80 for line in lines)
    for example, group in verbs().items():
        program, *command = example.split()
        assert (program, command[0] in group) == ("raysp", True)
        check_understood(*command)


def test_the_version_is_printed_and_without_arguments_the_help():
    ran = kit.run("--version")
    assert (ran.code, ran.out, ran.err) == (0, f"raysp {raysp.__version__}\n", "")
    ran = kit.run("")
    assert (ran.code, ran.err, "Usage: raysp" in ran.out) == (2, "", True)


def test_models_lists_what_transformers_runs_and_what_is_refused_with_the_reason():
    shown = kit.run("models").out
    assert len(shown.splitlines()) <= 24
    assert re.search(r"^  hubert +Transcript, Align, Embedding, Classes$", shown, re.MULTILINE)
    words = " ".join(shown.split())
    assert "granite_speech5_ctc, lasr_ctc, moonshine, omniasr_ctc" in words
    assert "fun_asr_nano, granite_speech, granite_speech_plus: its features need torchaudio" in words
    facts = json.loads(kit.run("models --json").out)
    assert "whisper" in facts["others"]
    assert "random noise" in facts["refused"]["vibevoice_asr"]
