"""What tasks with texts share: rules, comparison, digests of vocabularies."""

import hashlib
import json
from collections.abc import Mapping

from raysp.errors import PlanError
from raysp.evaluation.recognition import compare_texts
from raysp.evaluation.scores import Comparison
from raysp.specs.text_rules import Text
from raysp.text import vocabulary as vocabularies
from raysp.text.normalisation import TextRules
from raysp.training.characters import HeadTokenizer, letters_of, read_vocabulary, tokenizer_for, tokenizer_of
from raysp.training.planning.objective_checks import BUILD, KEEP
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.tasks.task import WORST_ROWS, PredictedRows
from raysp.words import count

SHOWN_CHARACTERS = 12
"""Characters outside the vocabulary that are shown."""
PIECES = ("parakeet_ctc", "parakeet_encoder")
"""Model types whose tokenizers have pieces of words."""


def rules_of(text: Text) -> TextRules:
    """Return the rules for texts that a spec describes."""
    return TextRules(text.case, text.keep, text.language)


def digest_of(value: object) -> str:
    """Return the hash of a JSON value, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def given_tokenizer(vocabulary: str, plan: TrainingPlan, language: str | None = None) -> HeadTokenizer | None:
    """Return the tokenizer of a vocabulary that does not depend on the texts; None: it is built from them.

    Args:
        vocabulary: field of the objective: "keep", "build", or a url.
        plan: the plan.
        language: name of the language that the vocabulary belongs to; None: it is the only one.

    Raises:
        PlanError: the given vocabulary cannot be used.
    """
    if vocabulary != KEEP and plan.checkpoint.model_type in PIECES:
        raise PlanError(
            f"objective.vocabulary: found {vocabulary!r}, a vocabulary of characters; {plan.checkpoint.architecture} "
            f"has one of pieces of words: use vocabulary={KEEP!r}, which keeps that of its tokenizer.json"
        )
    if vocabulary == BUILD:
        return None
    if vocabulary == KEEP:
        return tokenizer_of(plan.checkpoint.path, language)
    return tokenizer_for(read_vocabulary(vocabulary, plan.recipe.source.storage_options), language)


def described_characters(counts: Mapping[str, int], tokenizer: HeadTokenizer) -> str:
    """Return the size of a vocabulary, and the characters outside it with their occurrences and a remedy."""
    letters = letters_of(tokenizer)
    outside = vocabularies.outside(counts, letters)
    shown = " ".join(f"{character!r} ({number:,})" for character, number in [*outside.items()][:SHOWN_CHARACTERS])
    more = f" and {len(outside) - SHOWN_CHARACTERS:,} more" if len(outside) > SHOWN_CHARACTERS else ""
    cases = [case for case in ("upper", "lower") if all(getattr(one, case)() in letters for one in outside)]
    advice = f"; text=raysp.Text({cases[0]!r}) brings them into it" if cases else ""
    return count(len(tokenizer.get_vocab()), "token") + (f"; outside: {shown}{more}{advice}" if outside else "")


class ComparedTexts:
    """Base of tasks whose predictions are texts."""

    tags = ("automatic-speech-recognition", "raysp")

    def min_samples(self, plan: TrainingPlan) -> int:
        """Return the samples of one frame."""
        return plan.checkpoint.min_samples

    def reference(self, value: object) -> str | None:
        """Return the text."""
        return None if value is None else str(value)

    def compare(self, rows: PredictedRows) -> Comparison:
        """Return the error rates."""
        return compare_texts(
            rows.references,
            rows.texts,
            rows.columns,
            normalise=rows.evaluation.normalise,
            bootstrap=rows.bootstrap,
            worst=WORST_ROWS,
        )
