"""Crossings of programs, evaluations and rare rows on the stand-in device: the results of the CPU, and what they cost.

`python -m tests.device.test_crossing_cases` prints the costs anew.
"""

import sys
import tempfile
from pathlib import Path

import pytest

from tests.device import stand_in

stand_in.install()

from tests.device import crossing_cases, program_cases  # noqa: E402
from tests.device.conftest import assert_same  # noqa: E402

CASES = {**crossing_cases.CASES, **program_cases.CASES}
COSTS = {
    "masks": (1, 2, 0, 1),
    "pre-training by a program": (3, 6, 0, 1),
    "tokens of logits": (1, 0, 0, 1),
    "texts of ids": (2, 0, 0, 2),
    "texts of ids by pieces": (2, 0, 0, 2),
    "texts of ids of a decoder": (2, 0, 0, 2),
    "phonemes of ids": (2, 0, 0, 2),
    "evaluation: CTC": (2, 4, 0, 2),
    "evaluation: CTC with label priors": (2, 4, 0, 2),
    "evaluation: classes": (2, 3, 0, 2),
    "evaluation: several classes": (2, 3, 0, 2),
    "evaluation: numbers": (2, 3, 0, 2),
    "evaluation: classes of frames": (3, 3, 0, 3),
    "evaluation: speakers": (3, 3, 0, 3),
    "evaluation: texts of a decoder": (22, 5, 0, 2),
    "evaluation: pre-training": (1, 11, 0, 1),
    "evaluation: RNN-T": (3, 7, 1, 1),
    "evaluation: TDT": (3, 7, 1, 1),
    "a prompt with padding": (7, 0, 0, 1),
    "a prompt with padding by beams": (11, 0, 0, 1),
    "texts that end early": (13, 0, 0, 1),
    "samples that end early": (14, 0, 0, 2),
    "beams that end early": (17, 0, 0, 1),
    "sampled beams that end early": (17, 0, 0, 1),
    "a long alignment": (21, 4, 0, 21),
    "windows at pauses": (1, 1, 0, 1),
    "beams over windows at pauses": (1, 1, 0, 1),
    "alignment over windows at pauses": (2, 2, 0, 2),
    "alignment of labels at pauses": (2, 2, 0, 2),
    "beams that differ from the best tokens": (1, 1, 0, 1),
    "a prompt of several tokens": (11, 1, 0, 2),
    "scores of KenLM": (3, 1, 0, 3),
    "losses by labels of the host": (3, 2, 2, 0),
    "tokens that are streamed": (9, 4, 4, 5),
    "pre-training with masks of the device": (3, 5, 0, 2),
    "quantised frames": (4, 5, 0, 3),
    "tables while torch compiles": (2, 2, 2, 2),
    "features of SeamlessM4T by counts of the host": (2, 1, 1, 2),
    "features of Parakeet by counts of the host": (2, 2, 2, 2),
    "features of a processor": (1, 1, 1, 1),
    "a pass of transformers without a labelling": (5, 4, 2, 2),
    "texts by values of the host": (1, 2, 2, 0),
    "next tokens by labels of the host": (1, 2, 2, 0),
    "an encoder and a decoder combined": (0, 2, 2, 0),
    "heads of two devices": (55, 51, 51, 4),
    "moments of an optimizer": (106, 106, 106, 106),
    "deterministic steps": (10, 24, 8, 10),
    "beams with a model of characters": (1, 1, 0, 1),
    "devices without memory": (0, 0, 0, 0),
    "tensors that are sent back": (2, 0, 0, 2),
}
"""Waits, copies to the device, those of them that block, and copies to the host."""


def found(name: str, folder: Path) -> tuple[object, tuple[int, int, int, int]]:
    """Return the result of a case, and what it costs once constants are made."""
    run = CASES[name](folder, stand_in.NAME)
    run()
    with stand_in.counted() as counts:
        result = run()
    costs = (counts.waits, counts.copies_in, counts.blocking, counts.copies_out)
    waits, copies_in, blocking, copies_out = (sum(one.values()) for one in costs)
    return result, (waits, copies_in, blocking, copies_out)


@pytest.mark.parametrize("name", CASES)
def test_results_are_those_of_the_cpu_and_cost_what_they_did(name, tmp_path):
    result, costs = found(name, tmp_path)
    assert_same(result, CASES[name](tmp_path, "cpu")())
    assert costs == COSTS[name]


if __name__ == "__main__":
    for one in CASES:
        with tempfile.TemporaryDirectory() as place:
            sys.stdout.write(f'    "{one}": {found(one, Path(place))[1]},\n')
