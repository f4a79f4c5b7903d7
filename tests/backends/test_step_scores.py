"""Scores of texts that transformers writes greedily, from the steps of the generation: those of a second pass."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import raysp
from raysp.backends.hugging_face import decoded_texts
from tests.backends.theirs import labelling, tiny_whisper, waves
from tests.ops.test_labelling import block_of, labels

LENGTHS = (9_000, 30_000, 14_000, 4_000)


@pytest.fixture(scope="module", params=[True, False], ids=["several languages", "one language"])
def whisper(request, tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("whisper"), multilingual=request.param)


@pytest.fixture
def passes(monkeypatch):
    """Numbers of tokens that second passes read."""
    found = []
    original = decoded_texts.TextWriter._second_pass

    def second_pass(self, given, ids):
        found.append(ids.shape[1])
        return original(self, given, ids)

    monkeypatch.setattr(decoded_texts.TextWriter, "_second_pass", second_pass)
    return found


def scores_of(op, recordings):
    return [row["pred_score"] for row in labels(op, block_of(recordings)).values()]


def test_scores_are_those_of_a_second_pass_which_is_not_made(whisper, passes, monkeypatch):
    recordings = waves(LENGTHS)
    found = scores_of(labelling(whisper, raysp.Transcript()), recordings)
    assert not passes
    monkeypatch.setattr(decoded_texts, "StepScores", lambda model: None)
    np.testing.assert_allclose(found, scores_of(labelling(whisper, raysp.Transcript()), recordings), rtol=0, atol=1e-5)
    assert passes
    assert len({*np.round(found, 4)}) == len(LENGTHS)


@pytest.mark.parametrize("options", [{"generate": {"num_beams": 3}}, {"generate": {}, "dtype": "bfloat16"}])
def test_beams_and_half_precision_are_scored_by_a_second_pass(whisper, passes, options):
    label = {name: value for name, value in options.items() if name != "generate"}
    op = labelling(whisper, raysp.Transcript(generate=options["generate"]), **label)
    assert all(np.isfinite(scores_of(op, waves(LENGTHS))))
    assert passes


@pytest.mark.slow
def test_threads_do_not_take_the_steps_of_each_other(whisper):
    op = labelling(whisper, raysp.Transcript())
    recordings = [waves([one]) for one in LENGTHS]
    alone = [scores_of(op, one) for one in recordings]
    torch.set_num_threads(1)
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            assert [*pool.map(lambda one: scores_of(op, one), recordings)] == [
                [pytest.approx(score, abs=1e-5)] for [score] in alone
            ]
