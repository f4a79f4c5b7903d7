"""Runs of Whisper by CTranslate2 whose processes are killed: the next run continues, with the labels of one run."""

import pytest

from tests.backends.killed_runs import check_killed
from tests.backends.theirs import tiny_whisper
from tests.soaked import soaked

pytestmark = [pytest.mark.drivers, pytest.mark.slow]
OPTIONS = 'backend="ctranslate2", dtype="int8", outputs=[raysp.Transcript(words=True)]'


@pytest.mark.parametrize("moment", ["before_piece_staged:2", *soaked(["after_shard_committed:1"])])
def test_a_killed_run_continues_to_the_labels_of_an_undisturbed_one(tmp_path, moment):
    checkpoint = tiny_whisper(tmp_path / "whisper", multilingual=False)  # converted by the first run
    check_killed(tmp_path, checkpoint, OPTIONS, moment)
