"""The tokenizer of CTC models that write phonemes: symbols of one or more characters with spaces between them.

Texts are not turned into phonemes, which takes a pronunciation dictionary or espeak; phonemes are taken as they are.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from raysp.models.base.batches import BatchFeature
from raysp.models.tokenizers.ctc import Wav2Vec2CTCTokenizer, without_extra_spaces
from raysp.models.tokenizers.described import AddedToken

SPACE = " "
"""Text between phonemes, regardless of `phone_delimiter_token`, as in transformers."""


class Wav2Vec2PhonemeCTCTokenizer(Wav2Vec2CTCTokenizer):
    """A tokenizer of phonemes.

    Attributes:
        phone_delimiter_token: Token between phonemes, where texts are turned into phonemes elsewhere.
        word_delimiter_token: Token between words, which texts do not show; None: the vocabulary has none.
        do_phonemize: Whether the checkpoint expects texts to be turned into phonemes before they are encoded.
        phonemizer_lang: Language of the phonemes, for espeak.
        phonemizer_backend: Program that turns texts into phonemes.
    """

    special_names = ("bos_token", "eos_token", "unk_token", "pad_token")
    named_tokens = (*special_names, "word_delimiter_token", "phone_delimiter_token")
    option_types = {  # noqa: RUF012 - as in the class above
        "do_phonemize": bool,
        "phonemizer_lang": str,
        "phonemizer_backend": str,
        "clean_up_tokenization_spaces": bool,
    }
    joint = SPACE

    def __init__(
        self,
        vocab: Mapping[str, Any] | str | Path,
        bos_token: str | None = "<s>",
        eos_token: str | None = "</s>",
        unk_token: str | None = "<unk>",
        pad_token: str | None = "<pad>",
        phone_delimiter_token: str | None = " ",
        word_delimiter_token: str | None = None,
        do_phonemize: bool = True,
        phonemizer_lang: str = "en-us",
        phonemizer_backend: str = "espeak",
        added_tokens: Mapping[int, AddedToken] | None = None,
        extra_special_tokens: Sequence[str] = (),
        clean_up_tokenization_spaces: bool = False,
        **settings: Any,  # noqa: ANN401 - as in the class above
    ) -> None:
        """Make a tokenizer from a vocabulary or the path of its JSON file."""
        self.phone_delimiter_token = phone_delimiter_token
        self.do_phonemize = do_phonemize
        self.phonemizer_lang = phonemizer_lang
        self.phonemizer_backend = phonemizer_backend
        super().__init__(
            vocab,
            bos_token,
            eos_token,
            unk_token,
            pad_token,
            word_delimiter_token,
            added_tokens=added_tokens,
            extra_special_tokens=extra_special_tokens,
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
            **settings,
        )

    def _kept_whole(self) -> Iterable[str]:
        """Return no tokens: phonemes are separated by spaces, so no token occurs within another."""
        return ()

    # Phonemes to ids

    def _encoded(
        self,
        text: Any,  # noqa: ANN401 - as in the class above
        *,
        do_phonemize: bool | None = None,
        phonemizer_lang: str | None = None,  # of no effect: it is the language of `do_phonemize`
        **options: Any,  # noqa: ANN401 - as in the class above
    ) -> BatchFeature:
        """Return `input_ids` and `attention_mask` of phonemes separated by spaces, or of each in a list.

        Args:
            text: Phonemes.
            do_phonemize: Whether `text` is in letters; None: as the checkpoint says.
            phonemizer_lang: Language of a text in letters.
            options: As for `Wav2Vec2CTCTokenizer`.

        Raises:
            ValueError: `text` is in letters.
        """
        if self.do_phonemize if do_phonemize is None else do_phonemize:
            raise ValueError(f"do_phonemize is true, {self.expected}; pass do_phonemize=False with phonemes")
        return super()._encoded(text, **options)

    @property
    def expected(self) -> str:
        """Clause on why texts cannot be encoded, and which inputs can."""
        special = {*self.all_special_tokens, self.word_delimiter_token}
        shown = [token for _, token in sorted(self.decoder.items()) if token not in special][:4]
        return (
            f"and raysp does not turn text into phonemes ({self.phonemizer_backend}): expected phonemes separated by "
            f"spaces, such as {SPACE.join(shown)!r}"
        )

    def _characters(self, text: str) -> list[str]:
        return [phoneme for phoneme in text.strip().split(SPACE) if phoneme.strip()]

    def ids_of_written(self, text: str) -> list[int]:
        """Return the ids of phonemes separated by spaces."""
        return [self._id(phoneme) for phoneme in text.split()]

    # Ids to phonemes

    def _writes(self, index: int) -> str:
        token = self._token(index)
        return "" if token in (self.pad_token, self.word_delimiter_token) else token

    def decode_collapsed(self, ids: Iterable[int]) -> str:
        """Return the text of collapsed ids, without repeats and blanks."""
        return SPACE.join(filter(None, map(self._written.__getitem__, ids))).strip()

    def decode_collapsed_rows(self, ids: npt.NDArray[np.integer], counts: npt.NDArray[np.integer]) -> list[str]:
        """Return the text of each row of collapsed ids (N,); `counts` (B,) holds the ids per row."""
        ends = np.cumsum(counts).tolist()
        return [self.decode_collapsed(ids[start:end].tolist()) for start, end in pairwise([0, *ends])]

    def _decode(
        self,
        ids: npt.NDArray[np.int64],
        skip_special_tokens: bool,
        clean: bool,
        group_tokens: bool = True,
        filter_word_delimiter_token: bool = True,
    ) -> str:
        """Return the text of frame-wise ids: repeats are merged, then blanks and delimiters of words dropped.

        `skip_special_tokens` drops special tokens, blanks included, before repeats are merged.
        """
        dropped = {*self.all_special_ids} if skip_special_tokens else set()
        tokens = [self._token(index) for index in ids.tolist() if index not in dropped]
        tokens = [token for token, _ in groupby(tokens)] if group_tokens else tokens
        hidden = {self.pad_token, *([self.word_delimiter_token] if filter_word_delimiter_token else ())}
        text = SPACE.join(token for token in tokens if token not in hidden).strip()
        return without_extra_spaces(text) if clean else text

    # Files

    def _settings(self) -> dict[str, Any]:
        return {
            "do_phonemize": self.do_phonemize,
            "phone_delimiter_token": self.phone_delimiter_token,
            "phonemizer_backend": self.phonemizer_backend,
            "phonemizer_lang": self.phonemizer_lang,
        }
