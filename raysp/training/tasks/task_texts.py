"""Parts shared by tasks with texts: rules, comparison, digests of vocabularies."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import ClassVar

from raysp.errors import PlanError
from raysp.evaluation.comparing import Task as Compared
from raysp.models.loading import LoadedCheckpoint
from raysp.models.tokenizers.pieces import SPACE, ParakeetTokenizer, learn_pieces
from raysp.ops.forward import OutputOp
from raysp.specs.outputs.transcript import Transcript
from raysp.specs.text_rules import Text
from raysp.text import targets as vocabularies
from raysp.text.error_rates import TextRules
from raysp.text.targets import PAD, UNKNOWN, CharacterTargets, contains_any
from raysp.training.characters import HeadTokenizer, letters_of, read_vocabulary, tokenizer_for, tokenizer_of
from raysp.training.planning.objective_checks import BUILD, KEEP
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import pieces_of
from raysp.words import count

SHOWN_CHARACTERS = 12
"""Characters outside the vocabulary that are shown."""
PIECES = ("parakeet_ctc", "parakeet_encoder")
"""Model types whose tokenizers have pieces of words."""
PIECES_RESERVED = (PAD, UNKNOWN, SPACE)
"""Tokens of pieces that texts cannot contain."""


def rules_of(text: Text) -> TextRules:
    """Return the rules for texts that a spec describes."""
    return TextRules(text.case, text.keep, text.language)


def digest_of(value: object) -> str:
    """Return the hash of a JSON value, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def given_tokenizer(vocabulary: str, plan: TrainingPlan, language: str | None = None) -> HeadTokenizer | None:
    """Return the tokenizer of a vocabulary that does not depend on the texts; None: it is built from them.

    Args:
        vocabulary: field of the objective: "keep", "build", "bpe:500", or a url.
        plan: the plan.
        language: name of the language that the vocabulary belongs to; None: it is the only one.

    Raises:
        PlanError: the vocabulary cannot be used.
    """
    if pieces_of(vocabulary):
        return None
    if vocabulary != KEEP and plan.checkpoint.model_type in PIECES:
        raise PlanError(
            f"objective.vocabulary: found {vocabulary!r}, a vocabulary of characters; {plan.checkpoint.architecture} "
            f"has one of pieces of words: use vocabulary={KEEP!r}, which keeps that of its tokenizer.json, or "
            "'bpe:1024'"
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
    cases = [case for case in ("upper", "lower") if all(getattr(letter, case)() in letters for letter in outside)]
    advice = f"; text=raysp.Text({cases[0]!r}) brings them into it" if cases else ""
    return count(len(tokenizer.get_vocab()), "token") + (f"; outside: {shown}{more}{advice}" if outside else "")


def learnt_tokenizer(counts: Mapping[str, int], size: int) -> ParakeetTokenizer:
    """Return the tokenizer of a vocabulary "bpe:500".

    Args:
        counts: occurrences of each word.
        size: number of tokens.

    Raises:
        PlanError: the words have more characters.
    """
    words = learnt_words(counts)
    characters = {*"".join(words)}
    if size < (least := len(characters) + len(PIECES_RESERVED)):
        raise PlanError(
            f"objective.vocabulary: found 'bpe:{size}'; the texts have {count(len(characters), 'character')}: set it "
            f"to 'bpe:{least}' or more, or keep fewer characters by objective.text"
        )
    return learn_pieces(words, size, (PAD, UNKNOWN))


def learnt_words(counts: Mapping[str, int]) -> dict[str, int]:
    """Return the words of which pieces are learnt, with their occurrences."""
    return {word: number for word, number in counts.items() if not contains_any(PIECES_RESERVED, word)}


def word_targets(rules: TextRules) -> CharacterTargets:
    """Return targets that count words, of which pieces are learnt; until then each word is one token."""
    return CharacterTargets(rules, _words, count=lambda text: Counter(text.split()))


def _words(text: str) -> Sequence[int]:
    return [-1] if contains_any(PIECES_RESERVED, text) else range(len(text.split()))


class ComparedTexts:
    """Base of tasks whose predictions are texts."""

    tags = ("automatic-speech-recognition", "raysp")
    compared: ClassVar[Compared] = "recognition"

    def min_samples(self, plan: TrainingPlan) -> int:
        """Return the samples of one frame."""
        return plan.checkpoint.min_samples

    def label_ops(self, loaded: LoadedCheckpoint) -> list[OutputOp]:
        """Return the op of the text."""
        return [Transcript().op(loaded.summary, loaded)]
