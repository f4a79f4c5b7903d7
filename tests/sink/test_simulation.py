"""Thousands of histories of the protocol of the sink; and that histories find bugs, by planting some."""

import gc
import logging
import os
import re
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.sink.simulation import bugs_of_labels, bugs_of_trainings
from tests.sink.simulation.actors import ViolationError
from tests.sink.simulation.histories import simulate

WORTH = (
    " crashes ",
    " stops",
    " label 0-2 ",
    "create .raysp/log",
    "is known by its receipt",
    "is known by its footer",
    "create .raysp/stage",
    "create .raysp/lease",
    "somebody removes a.parquet",
    "replace a.parquet",
    " in place of a1",
    " is refused with ",
    "somebody removes .raysp/steps/",
    "somebody cuts",
    "somebody changes",
    "delete .raysp/recipe.json",
    "replace .raysp/steps/",
    "replace model.safetensors",
    "delete adapter.bin",
    "worker create .raysp/steps/",
    " gc delete .raysp/steps/",
)
BUGS = [(bugs, name) for bugs in (bugs_of_labels.BUGS, bugs_of_trainings.BUGS) for name in bugs.planted]


@pytest.fixture(autouse=True)
def folder(tmp_path):
    """Give scratch files a place in memory where there is one; damage and watched leases are no reason to warn here."""
    logging.disable(logging.WARNING)
    gc.collect()
    gc.freeze()  # what other tests left is not looked through again with every history; conftest.py undoes it
    threshold = gc.get_threshold()
    gc.set_threshold(50_000, 20, 100)
    yield Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    gc.set_threshold(*threshold)
    logging.disable(logging.NOTSET)


def new_seeds(capsys: pytest.CaptureFixture[str]) -> range:
    """Choose seeds that no run had, and tell them: RAYSP_SOAK_SEED and RAYSP_SOAK_HISTORIES choose others."""
    start = int(os.environ.get("RAYSP_SOAK_SEED") or time.time_ns() // 1000 % 10**12)
    seeds = range(start, start + int(os.environ.get("RAYSP_SOAK_HISTORIES") or 10_000))
    with capsys.disabled():
        sys.stdout.write(f"\nhistories of RAYSP_SOAK_SEED={seeds.start} to {seeds.stop}\n")
    return seeds


@pytest.mark.slow
@pytest.mark.parametrize("how", ["the same every time", pytest.param("drawn anew", marks=pytest.mark.soak)])
def test_no_history_loses_doubles_mixes_or_replaces_anything(folder, capsys, how):
    """Every second one is of labels, the others are of trainings."""
    seen: Counter[str] = Counter()
    seeds = range(140) if how == "the same every time" else new_seeds(capsys)
    for seed in seeds:
        try:
            story = "\n".join(simulate(seed, folder).story)
        except ViolationError as error:
            raise ViolationError(f"seed {seed}: {error}") from error
        seen.update({word: story.count(word) for word in WORTH})
    # The histories must be worth something: crashes and failures, late ones, retries, damaged and woken ones.
    assert seen[" crashes "] > len(seeds) / 2
    assert all(seen[word] for word in WORTH), seen


@pytest.mark.slow
def test_a_history_follows_from_its_seed(folder):
    for seed in range(4):
        assert simulate(seed, folder).story == simulate(seed, folder).story


@pytest.mark.slow
@pytest.mark.parametrize(("bugs", "name"), BUGS, ids=[name for _, name in BUGS])
def test_a_planted_bug_is_found(folder, bugs, name):
    _, bug = bugs.planted[name]

    def simulate_all() -> None:
        for seed in bugs.seeds(name):
            simulate(seed, folder, bug)

    with pytest.raises(ViolationError) as found:
        simulate_all()
    assert not re.search(r"\w+Error:", str(found.value)), "the planted function fails"
