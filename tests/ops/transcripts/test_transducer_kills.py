"""Runs of transducers whose processes are killed: the next run continues, with the labels of one run."""

import itertools

import pytest

from tests.backends.killed_runs import check_killed
from tests.models.tokenizers.word_pieces import save_transducer
from tests.soaked import some

pytestmark = [pytest.mark.drivers, pytest.mark.slow]


CASES = itertools.product(("TDT", "RNNT"), ("before_piece_staged:2", "after_shard_committed:1"))


@pytest.mark.parametrize(("kind", "moment"), some(CASES, ("RNNT", "after_shard_committed:1")))
def test_a_killed_run_continues_to_the_labels_of_an_undisturbed_one(tmp_path, kind, moment):
    save_transducer(tmp_path / "transducer", kind)
    rows = check_killed(tmp_path, tmp_path / "transducer", "outputs=[raysp.Transcript(words=True)]", moment)
    assert any(row["pred_words"] for row in rows)
