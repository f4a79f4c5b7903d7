"""The tokenizer of CTC models that write pieces of words, of which "▁" or a space begins a word.

The `tokenizers` library splits and joins texts (tokenizer.json); decoding merges repeats and drops blanks first.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from raysp import bounds
from raysp.errors import CheckpointError
from raysp.models.tokenizers.text import TextTokenizer

SPACE = "▁"
MOST_WORDS = 10_000_000
"""Number of words from which pieces are learnt, so that it takes seconds; larger counts are scaled to it."""


class ParakeetTokenizer(TextTokenizer):
    """A tokenizer of word pieces whose padding token is the CTC blank."""

    is_of_ctc = True
    writes_special: bool = True
    """Whether special tokens are text."""
    joint: str = ""
    """Text between the tokens of a word."""

    @property
    def pad_token_id(self) -> int:
        """Id of padding, which is the CTC blank."""
        token = self.tokens["pad_token"]
        index = None if token is None else self.backend.token_to_id(token)
        if index is None:
            raise CheckpointError(f"tokenizer_config.json: pad_token is {token!r}, expected a token of tokenizer.json")
        return index

    def _decode(
        self, ids: npt.NDArray[np.int64], skip_special_tokens: bool, clean: bool, group_tokens: bool = True
    ) -> str:
        """Return the text of frame-wise ids: repeats are merged (`group_tokens`), then blanks dropped."""
        if group_tokens:
            ids = ids[np.append(True, ids[1:] != ids[:-1])[: len(ids)]]
        return super()._decode(ids[ids != self.pad_token_id], skip_special_tokens, clean)

    def added_texts(self, ids: Iterable[int]) -> list[str | None]:
        """Return the text that each id adds to the text before it; None where it completes no character."""
        stream = decoders.DecodeStream(skip_special_tokens=True)
        return [stream.step(self.backend, index) for index in ids]

    # Collapsed ids, without repeats and blanks, for raysp's own steps

    @property
    def encoder(self) -> dict[str, int]:
        """Tokens with their ids."""
        return self.get_vocab()

    @cached_property
    def _first_pieces(self) -> dict[str, int]:
        return {token: index for token, index in self.get_vocab().items() if token.startswith((SPACE, " "))}

    @property
    def word_delimiter_token(self) -> str | None:
        """Token between words: the space of a vocabulary of letters; None if other tokens begin words."""
        return next(iter(self._first_pieces)) if {*self._first_pieces} in ({SPACE}, {" "}) else None

    @property
    def begins_words(self) -> frozenset[int]:
        """Ids of the tokens that begin a word."""
        return frozenset() if self.word_delimiter_token else frozenset(self._first_pieces.values())

    @cached_property
    def _letters(self) -> dict[int, str]:
        letters = {index: token for token, index in self.get_vocab().items()}
        letters |= {index: token[1:] for token, index in self._first_pieces.items()}
        return letters if self.writes_special else {**letters, **dict.fromkeys(self.all_special_ids, "")}

    @cached_property
    def unwritten_ids(self) -> frozenset[int]:
        """Ids of special tokens that texts leave out, also within a word."""
        return frozenset() if self.writes_special else frozenset(self.all_special_ids)

    def decode_collapsed(self, ids: Iterable[int]) -> str:
        """Return the text of collapsed ids."""
        return str(self.backend.decode(list(ids), skip_special_tokens=not self.writes_special)).strip()

    def decode_collapsed_rows(self, ids: npt.NDArray[np.integer], counts: npt.NDArray[np.integer]) -> list[str]:
        """Return the text of each row of collapsed ids (N,); `counts` (B,) holds the ids per row."""
        ends = np.cumsum(counts).tolist()
        rows = [ids[start:end].tolist() for start, end in pairwise([0, *ends])]
        texts = self.backend.decode_batch(rows, skip_special_tokens=not self.writes_special)
        return [text.strip() for text in texts]

    def ids_of_written(self, text: str) -> list[int]:
        """Return the ids of a text, without the space that some tokenizers of letters begin it with."""
        ids: list[int] = self(text, add_special_tokens=False)["input_ids"]
        return ids[1:] if not self.begins_words and self.written_characters(ids[:1]) == [""] else ids

    def written_characters(self, ids: Iterable[int]) -> list[str]:
        """Return the letters of each collapsed id; "" for a token that only marks the start of a word."""
        return [self._letters.get(index, "") for index in ids]


def learn_pieces(words: Mapping[str, int], size: int, special: Sequence[str]) -> ParakeetTokenizer:
    """Return a tokenizer with the pieces of words by byte-pair encoding, the same for the same words in any order.

    Args:
        words: occurrences of each word.
        size: tokens; fewer if the words have no more pairs, and more if their characters alone are more.
        special: tokens that come first: the blank, and the token of unknown characters.
    """
    blank, unknown = special
    backend = Tokenizer(models.BPE(unk_token=unknown))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    backend.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=[*special], show_progress=False)
    backend.train_from_iterator(_repeated(words), trainer)
    return ParakeetTokenizer(backend, "ParakeetTokenizer", unk_token=unknown, pad_token=blank)


def merges_of(tokenizer: ParakeetTokenizer) -> list[str]:
    """Return the pairs of pieces that byte-pair encoding joins, in order, each with a space between its parts."""
    pairs = bounds.parse_record(tokenizer.backend.to_str())["model"]["merges"]
    return [pair if isinstance(pair, str) else " ".join(pair) for pair in pairs]


def _repeated(words: Mapping[str, int]) -> Iterator[str]:
    """Yield texts with the words in order, each as often as it occurs, or its share of `MOST_WORDS`."""
    total = max(MOST_WORDS, sum(words.values()))
    for word in sorted(words):
        yield " ".join([word] * -(-words[word] * MOST_WORDS // total))
