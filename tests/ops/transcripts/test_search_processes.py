"""Texts that other processes search: those of this process, whatever happens to the other."""

import gc
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest

import raysp
from raysp.models import load_checkpoint
from raysp.ops.transcribing import Transcribing
from raysp.ops.transcripts.search_processes import SearchProcesses, packed
from raysp.ops.transcripts.searched_texts import SearchedTexts, SearchSettings
from tests.corpora import CHECKPOINT
from tests.ops.test_searching import NUMBERS, noisy
from tests.text.beams.arpa_files import write_arpa
from tests.text.beams.frames_of_logits import top_frames

NUM_FRAMES = [40, 0, 23, 1]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    loaded = load_checkpoint(CHECKPOINT, dtype="float32", device="cpu")
    pairs = [list(pair) for pair in pairwise(NUMBERS)]
    lm = write_arpa(tmp_path_factory.mktemp("lm") / "words.arpa", pairs, 2)
    greedy = raysp.Transcript(nbest=3, beams=8, words=True).op(loaded.summary, loaded).greedy
    assert isinstance(greedy, Transcribing)
    return SearchSettings(greedy, 20, 8, 3, str(lm), None, None, {"NINE": 1.0})


@pytest.fixture
def frames():
    return top_frames(noisy(1, 4, 40), blank=0)


@pytest.fixture
def one():
    """A process that has started."""
    made = SearchProcesses(1)
    made.start()
    return made


def assert_same(found, expected) -> None:
    assert found.columns == expected.columns
    np.testing.assert_array_equal(found.counts, expected.counts)


@pytest.mark.slow
def test_batches_of_a_process_that_is_killed_are_without_texts_and_the_next_process_searches_on(
    settings, frames, one, caplog
):
    [process] = one._idle
    os.kill(process._process.pid, signal.SIGSTOP)
    with ThreadPoolExecutor(3) as threads:
        found = [threads.submit(one.search, packed(settings), frames, NUM_FRAMES) for _ in range(3)]
        while len(one._waiting) < 2:
            time.sleep(0.01)
        os.kill(process._process.pid, signal.SIGKILL)
    answers = [answer.result() for answer in found]
    assert "a process that searches texts ended with" in caplog.text
    expected = SearchedTexts(settings)(frames, NUM_FRAMES)
    assert expected.columns[0][0] != ""
    assert answers.count(None) == 1
    for answer in (one.search(packed(settings), frames, NUM_FRAMES), *filter(None, answers)):
        assert_same(answer, expected)


def test_processes_end_with_their_object():
    processes = SearchProcesses(1)
    processes.start()
    [process] = processes._idle
    pid = process._process.pid
    del processes, process
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
