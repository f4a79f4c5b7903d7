"""What tasks with texts share: rules, comparisons, digests of vocabularies."""

import hashlib
import json
from collections.abc import Sequence

from raysp.evaluation.intervals import Bootstrap
from raysp.evaluation.recognition import compare_texts
from raysp.evaluation.scores import Columns, Comparison
from raysp.specs.objectives import Text
from raysp.specs.recipe import Evaluation
from raysp.text.normalisation import TextRules
from raysp.training.tasks.task import WORST_ROWS, Prediction

TAGS = ("automatic-speech-recognition", "raysp")
"""Tags of model cards."""


def rules_of(text: Text) -> TextRules:
    """Return the rules for texts that a spec describes."""
    return TextRules(case=text.case, keep=text.keep)


def digest_of(value: object) -> str:
    """Return the hash of a JSON value, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def compare(
    references: Sequence[str],
    predictions: Sequence[Prediction],
    columns: Columns,
    evaluation: Evaluation,
    bootstrap: Bootstrap | None,
) -> Comparison:
    """Return the error rates of predicted texts."""
    texts = [one.text for one in predictions]
    return compare_texts(
        references, texts, columns, normalise=evaluation.normalise, bootstrap=bootstrap, worst=WORST_ROWS
    )
