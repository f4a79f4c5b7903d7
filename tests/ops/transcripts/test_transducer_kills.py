"""Runs of transducers whose processes are killed: the next run continues, with the labels of one run."""

import pytest

from tests.backends.killed_runs import check_killed
from tests.models.tokenizers.word_pieces import save_transducer

pytestmark = [pytest.mark.drivers, pytest.mark.slow]


@pytest.mark.parametrize(
    ("kind", "moment"),
    [
        ("TDT", "before_block_staged:2"),
        ("RNNT", "after_shard_committed:1"),
        pytest.param("RNNT", "before_block_staged:2", marks=pytest.mark.soak),
        pytest.param("TDT", "after_shard_committed:1", marks=pytest.mark.soak),
    ],
)
def test_a_killed_run_continues_to_the_labels_of_an_undisturbed_one(tmp_path, kind, moment):
    save_transducer(tmp_path / "transducer", kind)
    rows = check_killed(tmp_path, tmp_path / "transducer", "outputs=[raysp.Transcript(words=True)]", moment)
    assert any(row["pred_words"] for row in rows)
