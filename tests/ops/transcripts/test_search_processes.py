"""Texts that other processes search: those of this process, whatever happens to the other."""

import gc
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import psutil
import pytest
import torch

import raysp
from raysp.models import load_checkpoint
from raysp.ops.transcripts.search_processes import SearchProcesses, packed
from raysp.ops.transcripts.searched_texts import SearchedTexts, SearchSettings
from tests.corpora import CHECKPOINT
from tests.text.beams.arpa_files import write_arpa
from tests.text.beams.frames_of_logits import top_frames

NUMBERS = ["ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE"]
NUM_FRAMES = [40, 0, 23, 1]


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    loaded = load_checkpoint(CHECKPOINT, dtype="float32", device="cpu")
    lm = write_arpa(tmp_path_factory.mktemp("lm") / "words.arpa", [list(pair) for pair in pairwise(NUMBERS)], 2)
    greedy = raysp.Transcript(nbest=3, beams=8, words=True).op(loaded.summary, loaded).greedy
    return SearchSettings(greedy, 20, 8, 3, str(lm), None, None, {"NINE": 1.0})


@pytest.mark.slow
def test_a_batch_of_a_process_that_is_killed_is_without_texts_and_the_next_process_searches_on(settings, caplog):
    frames = top_frames(4 * torch.randn(4, 40, 20, generator=torch.Generator().manual_seed(1)), blank=0)
    before = {*psutil.Process().children()}
    processes = SearchProcesses(1)
    processes.start()
    [process] = {*psutil.Process().children()} - before
    os.kill(process.pid, signal.SIGSTOP)
    with ThreadPoolExecutor(1) as thread:
        found = thread.submit(processes.search, packed(settings), frames, NUM_FRAMES)
        os.kill(process.pid, signal.SIGKILL)
    assert found.result() is None
    assert "a process that searches texts ended with" in caplog.text
    expected = SearchedTexts(settings)(frames, NUM_FRAMES)
    assert expected.columns[0][0] != ""
    with ThreadPoolExecutor(3) as threads:  # two of them are searched together
        answers = [threads.submit(processes.search, packed(settings), frames, NUM_FRAMES) for _ in range(3)]
    for answer in (one.result() for one in answers):
        assert answer.columns == expected.columns
        np.testing.assert_array_equal(answer.counts, expected.counts)
    [process] = {*psutil.Process().children()} - before
    del processes
    gc.collect()
    assert not process.is_running()
