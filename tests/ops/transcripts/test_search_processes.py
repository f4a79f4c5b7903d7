"""Texts that other processes search: those of this process, whatever happens to the other."""

import gc
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

import raysp
from raysp.models.loading import load_checkpoint
from raysp.ops.transcribing import Transcribing
from raysp.ops.transcripts.search_processes import SearchProcesses, packed
from raysp.ops.transcripts.searched_texts import SearchedTexts, SearchSettings
from raysp.text.beams.top_frames import top_frames
from tests.corpora import CHECKPOINT
from tests.ops.test_searching import NUMBERS, noisy
from tests.text.beams.arpa_files import write_arpa

NUM_FRAMES = [40, 0, 23, 1]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    loaded = load_checkpoint(CHECKPOINT, dtype="float32", device="cpu", padding="exact")
    pairs = [list(pair) for pair in pairwise(NUMBERS)]
    lm = write_arpa(tmp_path_factory.mktemp("lm") / "words.arpa", pairs, 2)
    greedy = raysp.Transcript(nbest=3, beams=8, words=True).op(loaded).greedy
    assert isinstance(greedy, Transcribing)
    return SearchSettings(greedy, 20, 8, 3, str(lm), None, None, {"NINE": 1.0})


@pytest.fixture
def frames():
    return top_frames(noisy(1, 4, 40), blank=0)


@pytest.fixture
def two():
    return SearchProcesses(2)


def assert_same(found, expected) -> None:
    assert found.columns == expected.columns
    np.testing.assert_array_equal(found.counts, expected.counts)


def test_texts_are_those_of_this_process_to_the_last_bit_in_any_number_of_threads(settings, frames, two):
    expected = SearchedTexts(settings)(frames, NUM_FRAMES)
    assert expected.columns[0][0] != ""
    with ThreadPoolExecutor(5) as threads:
        found = [threads.submit(two.search, packed(settings), frames, NUM_FRAMES) for _ in range(7)]
    for one in found:
        assert_same(one.result(), expected)
    assert 1 <= len(two._idle) <= 2


def test_a_process_that_is_killed_gives_no_texts_and_the_next_one_does(settings, frames, two, caplog):
    two.start()
    [process] = two._idle
    os.kill(process._process.pid, signal.SIGKILL)
    assert two.search(packed(settings), frames, NUM_FRAMES) is None
    assert "a process that searches texts ended with" in caplog.text
    assert_same(two.search(packed(settings), frames, NUM_FRAMES), SearchedTexts(settings)(frames, NUM_FRAMES))


def test_a_process_that_is_killed_before_its_answer_gives_no_texts(settings, frames, two):
    two.start()
    [process] = two._idle
    os.kill(process._process.pid, signal.SIGSTOP)
    killed = threading.Timer(0.2, os.kill, (process._process.pid, signal.SIGKILL))
    killed.start()
    assert two.search(packed(settings), frames, NUM_FRAMES) is None
    killed.join()
    assert two._idle == []


def test_a_process_that_cannot_search_says_why_and_goes_on(settings, frames, two, caplog):
    assert two.search(packed(replace(settings, lm="/nowhere/lm.arpa")), frames, NUM_FRAMES) is None
    assert "a process that searches texts failed: " in caplog.text
    assert "/nowhere/lm.arpa" in caplog.text
    assert len(two._idle) == 1
    assert two.search(packed(settings), frames, NUM_FRAMES) is not None


def test_processes_end_with_their_object():
    processes = SearchProcesses(1)
    processes.start()
    [process] = processes._idle
    pid = process._process.pid
    os.kill(pid, 0)
    del processes, process
    gc.collect()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
