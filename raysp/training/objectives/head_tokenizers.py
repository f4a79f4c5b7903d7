"""Tokenizers of trained CTC heads: the checkpoint's, or a tokenizer of a built or supplied vocabulary."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from raysp import bounds
from raysp.errors import CheckpointError, PlanError, StoreError
from raysp.models.tokenizers.ctc import Wav2Vec2CTCTokenizer
from raysp.models.tokenizers.named_tokenizers import read_ctc_tokenizer
from raysp.models.tokenizers.phonemes import Wav2Vec2PhonemeCTCTokenizer
from raysp.models.tokenizers.pieces import SPACE, ParakeetTokenizer, learn_pieces
from raysp.storage.store import split_url
from raysp.storage.stores import open_store
from raysp.text import targets as vocabularies
from raysp.text.error_rates import TextRules
from raysp.text.targets import BAR, DELIMITER, PAD, UNKNOWN, CharacterTargets, contains_any
from raysp.words import count, listed

PADS, UNKNOWNS = (PAD, "[PAD]"), (UNKNOWN, "[UNK]")
"""Usual names of the blank, and of unknown characters."""
SHOWN_CHARACTERS = 12
"""Characters outside the vocabulary that are shown."""
PIECES = ("parakeet_ctc", "parakeet_encoder")
"""Model types whose tokenizers have pieces of words."""
PIECES_RESERVED = (PAD, UNKNOWN, SPACE)
"""Tokens of pieces that texts cannot contain."""
HeadTokenizer = Wav2Vec2CTCTokenizer | ParakeetTokenizer
"""Tokenizer of a CTC head that can be trained: of characters, or of pieces of words."""


def tokenizer_of(folder: Path, language: str | None = None) -> HeadTokenizer:
    """Return the tokenizer of a checkpoint, for a language if it has several.

    Raises:
        CheckpointError: it has several, and not this one; or it expects texts to be turned into phonemes.
    """
    tokenizer = read_ctc_tokenizer(folder)
    assert isinstance(tokenizer, HeadTokenizer)
    if isinstance(tokenizer, Wav2Vec2PhonemeCTCTokenizer) and tokenizer.do_phonemize:
        raise CheckpointError(
            f"{folder}: do_phonemize is true in tokenizer_config.json, {tokenizer.expected}; set it to false there if "
            f"the texts are such phonemes, or use vocabulary='build' for texts in letters"
        )
    if language is not None and isinstance(tokenizer, Wav2Vec2CTCTokenizer) and tokenizer.is_multilingual:
        tokenizer.set_target_lang(language)
    return tokenizer


def tokenizer_for(vocabulary: Mapping[str, int], language: str | None = None) -> Wav2Vec2CTCTokenizer:
    """Return a tokenizer of a vocabulary with a blank, an unknown token and `DELIMITER`.

    Args:
        vocabulary: ids of tokens.
        language: name of the language that it belongs to in vocab.json; None: it is the only one.
    """
    return Wav2Vec2CTCTokenizer(
        vocabulary if language is None else {language: vocabulary},
        target_lang=language,
        bos_token=None,
        eos_token=None,
        unk_token=next(token for token in UNKNOWNS if token in vocabulary),
        pad_token=next(token for token in PADS if token in vocabulary),
        word_delimiter_token=DELIMITER,
    )


def read_vocabulary(url: str, storage_options: Mapping[str, object]) -> dict[str, int]:
    """Read a vocab.json.

    Raises:
        PlanError: it cannot be read, its ids are not 0, 1, ..., or a blank, unknown token or delimiter is missing.
    """
    folder, name = split_url(url)
    try:
        ids = bounds.parse_json(open_store(folder, storage_options).read(name))
    except (StoreError, ValueError) as error:
        raise PlanError(f"objective.vocabulary: {url}: {error}; expected 'keep', 'build' or a vocab.json") from error
    if not isinstance(ids, dict) or sorted(ids.values(), key=str) != sorted(range(len(ids)), key=str):
        raise PlanError(
            f"objective.vocabulary: {url}: found {bounds.shortened(ids)}, expected an object of tokens with the ids "
            "0, 1, 2, ..., each once"
        )
    for names in (PADS, UNKNOWNS, (DELIMITER,)):
        if not any(token in ids for token in names):
            raise PlanError(f"objective.vocabulary: {url}: found none of the tokens {', '.join(names)}; add one")
    return ids


def letters_of(tokenizer: HeadTokenizer) -> set[str]:
    """Return the characters that a tokenizer can write, as `count_characters` names them."""
    vocabulary = tokenizer.get_vocab()
    letters = vocabulary.keys() - reserved_of(tokenizer)
    has_spaces = tokenizer.word_delimiter_token in vocabulary
    if tokenizer.begins_words or tokenizer.joint:
        letters, has_spaces = {*"".join(letters)}, True
    names = {BAR if letter == DELIMITER else letter for letter in letters}
    return names | {DELIMITER} if has_spaces else names


def reserved_of(tokenizer: HeadTokenizer) -> frozenset[str]:
    """Return the tokens that a text cannot contain, since the tokenizer reads them as a blank or the end of a word."""
    pieces = {SPACE} if tokenizer.begins_words else set()
    return frozenset(token for token in (*tokenizer.all_special_tokens, *pieces) if token.strip())


def encode_of(tokenizer: HeadTokenizer) -> Callable[[str], list[int]]:
    """Return a function from a text to the ids of its tokens, -1 for characters without one of their own."""
    vocabulary = {token: number for token, number in tokenizer.get_vocab().items() if token != tokenizer.unk_token}
    reserved = reserved_of(tokenizer)

    def encode(text: str) -> list[int]:
        if contains_any(reserved, text):
            return [-1]
        return [vocabulary.get(token, -1) for token in tokenizer.tokenize(text)]

    return encode


def described_characters(counts: Mapping[str, int], tokenizer: HeadTokenizer) -> str:
    """Return the size of a vocabulary, and the characters outside it with their occurrences and a remedy."""
    letters = letters_of(tokenizer)
    outside = vocabularies.outside(counts, letters)
    shown = listed([f"{character!r} ({number:,})" for character, number in outside.items()], SHOWN_CHARACTERS)
    cases = [case for case in ("upper", "lower") if all(getattr(letter, case)() in letters for letter in outside)]
    advice = f"; text=raysp.Text({cases[0]!r}) brings them into it" if cases else ""
    return count(len(tokenizer.get_vocab()), "token") + (f"; outside: {shown}{advice}" if outside else "")


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
