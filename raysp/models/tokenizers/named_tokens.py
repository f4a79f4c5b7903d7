"""Tokens of languages and tasks, by their names, in the vocabularies of decoders."""

import re
from collections.abc import Mapping, Sequence

from raysp.errors import CheckpointError

FORMS = ("{}", "<|{}|>", "<{}>", "[{}]", "__{}__", "<2{}>", ">>{}<<")
"""Spellings of a name: as it is, of Whisper and GPT-2, of T5 and custom tokens, of BERT, of M2M-100, of MADLAD, of
Marian."""
WITH_REGION = re.compile(r"[a-z]{2,3}_[A-Z][A-Za-z]+")
"""Languages of mBART and NLLB, such as "de_DE" and "deu_Latn"."""
MOST_NAMED = 12


def token_of(name: str, field: str, vocabulary: Mapping[str, int], special: Sequence[str]) -> int:
    """Return the id of the one token that a name stands for.

    A word of letters only counts as it is if it is a special token, since "de" may be a piece of a word; "de" also
    stands for "de_DE".

    Args:
        name: such as "de", "de_DE", "<|de|>" or "translate".
        field: name of the setting, for the message.
        vocabulary: ids by token.
        special: special tokens of the tokenizer.

    Raises:
        CheckpointError: the vocabulary has no such token, or several.
    """
    spelled = [form.format(name) for form in FORMS if form != "{}" or name in special or not name.isalnum()]
    found = [token for token in spelled if token in vocabulary]
    found = found or [token for token in vocabulary if WITH_REGION.fullmatch(token) and token.startswith(f"{name}_")]
    if len(found) == 1:
        return vocabulary[found[0]]
    if found:
        raise CheckpointError(f"{field}={name!r} stands for {', '.join(map(repr, sorted(found)))}; give one of them")
    others = [token for token in vocabulary if WITH_REGION.fullmatch(token)]
    others = others or [token for token in special if re.fullmatch(r"\W{1,2}\w+\W{1,2}", token)]
    known = ", ".join(map(repr, sorted(others)[:MOST_NAMED])) or "no token of a language or task"
    raise CheckpointError(f"{field}={name!r} is not a token of the decoder's vocabulary; it has {known}")


def is_language(token: str) -> bool:
    """Return whether a token is a language in the spelling of mBART."""
    return WITH_REGION.fullmatch(token) is not None
