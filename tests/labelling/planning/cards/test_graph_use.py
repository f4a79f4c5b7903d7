"""Whether passes of a run are graphs: where a certificate shows equal bits, and a sentence of the plan where not."""

from typing import Any

import pytest

import raysp
from raysp import SpecError
from raysp.cluster.cards import Card
from raysp.labelling.planning.certified import Cards, Certified, graph_use
from raysp.models import check_checkpoint
from raysp.models.base.certificates import Certificate, GraphRuns
from tests.corpora import CHECKPOINT

CARD = Card("a card", "1", "2", "3")
RUNS = GraphRuns("UniSpeechForCTC", "bfloat16", rows=4, frames=49, passes=3, unequal=0)


def use(*runs: GraphRuns, dtype: str = "bfloat16", device: str = "cuda", certificate: bool = True, **given: Any) -> Any:
    label = raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()], **given)
    measured = Certificate("a card", "1", "2", "3", "0.1", "2026-11-25", (), {}, (), runs)
    found = Cards((Certified(CARD, measured if certificate else None),), unknown="")
    return graph_use(label, check_checkpoint(CHECKPOINT), dtype=dtype, device=device, cards=found)


def test_a_certificate_of_the_class_and_dtype_turns_them_on():
    found = use(RUNS)
    assert found.is_on
    assert str(found) == (
        "passes of recurring shapes run as graphs: the certificate of 2026-11-25 shows that they keep bits"
    )


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"graphs": "never"}, "graphs='never'"),
        ({"certificate": False}, "no certificate of the card is known (`python -m benchmarks gpu`"),
        ({"dtype": "float32"}, "does not show for UniSpeechForCTC in float32 that they keep bits"),
    ],
)
def test_a_sentence_says_why_they_are_off(given, why):
    found = use(RUNS, **given)
    assert not found.is_on
    assert str(found).startswith("passes run without graphs: ")
    assert why in str(found)


@pytest.mark.parametrize(
    "runs",
    [
        (),
        (GraphRuns("UniSpeechForCTC", "bfloat16", 4, 49, passes=3, unequal=1), RUNS),
        (GraphRuns("UniSpeechForCTC", "bfloat16", 4, 49, passes=0, unequal=0),),
        (GraphRuns("Wav2Vec2ForCTC", "bfloat16", 4, 49, passes=3, unequal=0),),
    ],
)
def test_what_was_not_measured_or_differed_leaves_them_off(runs):
    assert not use(*runs).is_on


def test_weights_that_are_exchanged_by_row_and_cpus_have_none():
    label = raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript(language=raysp.Column("language"))])
    found = graph_use(label, check_checkpoint(CHECKPOINT), dtype="float32", device="cuda", cards=Cards())
    assert found is not None
    assert str(found) == "passes run without graphs: weights are exchanged for the language of each row"
    assert use(RUNS, device="cpu") is None


def test_other_choices_are_refused():
    with pytest.raises(SpecError, match="'auto' or 'never'"):
        raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()], graphs="always")
