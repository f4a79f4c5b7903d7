"""A real node of Ray that is asked for its card, and that has another one when the run begins."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.corpora import write_shard
from tests.labelling.engine.clusters import NO_TOKENS, ROOT
from tests.labelling.planning.cards.test_pack_use import CARD, HALF_SIZE, RUNS, SUMMARY, write


@pytest.mark.cluster
@pytest.mark.drivers
def test_a_node_is_asked_for_its_card_and_memory_and_an_actor_on_another_card_refuses_to_load(tmp_path):
    card, tool, sink = tmp_path / "card", tmp_path / "bin" / "nvidia-smi", tmp_path / "out"
    card.write_text(f"{CARD.card}, {CARD.driver}\n")
    tool.parent.mkdir()
    memory = 4 * (SUMMARY.num_parameters + 400 * SUMMARY.activations_per_second) / 2**20  # for the smaller packs alone
    tool.write_text(f'#!/bin/sh\ncase "$1" in *memory*) echo {memory:.0f} ;; *) cat {card} ;; esac\n')
    tool.chmod(0o755)
    write(tmp_path, RUNS, HALF_SIZE)
    write_shard(tmp_path / "in" / "a.parquet", 3)
    path = os.pathsep.join([str(tool.parent), os.environ["PATH"]])
    environment = {**NO_TOKENS, "PATH": path, "RAYSP_CERTIFICATES": str(tmp_path), "PYTHONPATH": str(ROOT)}
    module = "tests.labelling.planning.cards.node_of_a_card"
    command = [sys.executable, "-m", module, str(tmp_path / "in"), str(sink), str(card)]
    ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stderr
    assert f"\n{CARD} on 1 node: certificate of 2026-11-25, " in ran.stdout
    assert "\nwindows go in packs of 15,104 frames: the certificate of 2026-11-25 shows" in ran.stdout
    other = replace(CARD, card="NVIDIA L4")
    assert (
        f": RunError: device='cuda': found {other}, expected {CARD}, by whose certificates this run has" in ran.stdout
    )
    assert "Run again: committed labels are kept" in ran.stdout
    assert [*Path(sink).glob("*.parquet")] == []
