"""Tokenizers from a sentencepiece file (Kudo and Richardson 2018), as in mBART's checkpoints.

This module reads pieces, scores, algorithm and normalisation table from the protocol buffer. The `tokenizers` library
does the tokenization.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from raysp import bounds
from raysp.errors import CheckpointError

MODEL_FILE = "sentencepiece.bpe.model"  # its name in mBART's checkpoints, though it is a unigram model
NO_TOKENIZER = (
    "add the tokenizer of the checkpoint that the decoder is from: "
    "AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER)"
)
"""Remedy for a checkpoint whose text decoder has no tokenizer."""
Kind = TypeVar("Kind", int, bytes)
UNIGRAM, BYTE_PAIRS = 1, 2
ALGORITHMS = {UNIGRAM: "unigram", BYTE_PAIRS: "byte pairs"}
UNKNOWN, CONTROL, USER_DEFINED = 2, 3, 4  # types of pieces
FIRST_PIECES = ("<unk>", "<s>", "</s>")
SPACE = "▁"
VARINT, EIGHT_BYTES, LENGTH, FOUR_BYTES = 0, 1, 2, 5  # wire types of protocol buffers

LANGUAGES = [
    "ar_AR", "cs_CZ", "de_DE", "en_XX", "es_XX", "et_EE", "fi_FI", "fr_XX", "gu_IN", "hi_IN", "it_IT",
    "ja_XX", "kk_KZ", "ko_KR", "lt_LT", "lv_LV", "my_MM", "ne_NP", "nl_XX", "ro_RO", "ru_RU", "si_LK",
    "tr_TR", "vi_VN", "zh_CN",
]  # fmt: skip
MORE_LANGUAGES = [  # of mBART-50
    "af_ZA", "az_AZ", "bn_IN", "fa_IR", "he_IL", "hr_HR", "id_ID", "ka_GE", "km_KH", "mk_MK", "ml_IN",
    "mn_MN", "mr_IN", "pl_PL", "ps_AF", "pt_XX", "sv_SE", "sw_KE", "ta_IN", "te_IN", "th_TH", "tl_XX",
    "uk_UA", "ur_PK", "xh_ZA", "gl_ES", "sl_SI",
]  # fmt: skip


@dataclass(frozen=True)
class Pieces:
    """Content of a sentencepiece file."""

    scores: Sequence[tuple[str, float]]
    """Pieces with their log-probabilities, by id."""
    normalisation: bytes
    """Normalisation table in sentencepiece's format; empty: texts are not normalised."""
    algorithm: int = UNIGRAM
    types: Sequence[int] = ()
    """Type of each piece."""


def mbart(folder: Path, options: Mapping[str, Any]) -> Tokenizer:
    """Make mBART's tokenizer: the language follows the text and the end token."""
    language = options.get("src_lang") or "en_XX"
    return _multilingual(folder, options, LANGUAGES, ["$A", options["eos_token"], language], language)


def mbart50(folder: Path, options: Mapping[str, Any]) -> Tokenizer:
    """Make mBART-50's tokenizer: the language comes before the text."""
    language = options.get("src_lang") or "en_XX"
    return _multilingual(
        folder, options, [*LANGUAGES, *MORE_LANGUAGES], [language, "$A", options["eos_token"]], language
    )


def _multilingual(
    folder: Path, options: Mapping[str, Any], languages: Sequence[str], order: list[str], language: str
) -> Tokenizer:
    """Make a tokenizer with the ids of fairseq: four special tokens, pieces, languages, mask."""
    if language not in languages:
        raise CheckpointError(f"{folder}: src_lang is {language!r}, expected one of {', '.join(languages)}")
    pieces = read_pieces(folder / MODEL_FILE)
    first = [options[name] for name in ("cls_token", "pad_token", "eos_token", "unk_token")]
    last = [*languages, options["mask_token"]]
    vocab = [*((token, 0.0) for token in first), *pieces.scores[len(FIRST_PIECES) :], *((token, 0.0) for token in last)]
    tokenizer = Tokenizer(models.Unigram(vocab, unk_id=3, byte_fallback=False))
    charsmap = [normalizers.Precompiled(pieces.normalisation)] if pieces.normalisation else []
    tokenizer.normalizer = normalizers.Sequence([*charsmap, normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")]
    )
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    tokenizer.add_special_tokens([AddedToken(code, special=True, normalized=False) for code in languages])
    ids = {token: index for index, (token, _) in enumerate(vocab)}
    tokenizer.post_processor = processors.TemplateProcessing(
        single=order,
        pair=[part for token in order for part in ((token, "$B") if token == "$A" else (token,))],
        special_tokens=[(token, ids[token]) for token in order if token != "$A"],
    )
    return tokenizer


def read_pieces(path: Path) -> Pieces:
    """Read a sentencepiece file.

    Raises:
        CheckpointError: The file is missing, damaged, or of another algorithm.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: not found, nor tokenizer.json: {NO_TOKENIZER}")
    try:
        data = bounds.read_file(path, bounds.MOST_TOKENIZER_BYTES)
    except (OSError, bounds.TooLargeError) as error:
        raise CheckpointError(f"{path}: cannot be read ({error}): copy the file again") from error
    pieces = pieces_of(data, str(path), (UNIGRAM,))
    if tuple(piece for piece, _ in pieces.scores[:3]) != FIRST_PIECES:
        raise CheckpointError(
            f"{path}: the first pieces are {bounds.shortened([piece for piece, _ in pieces.scores[:3]])}, expected "
            f"{list(FIRST_PIECES)!r}: use the file that came with this checkpoint"
        )
    return pieces


def pieces_of(data: bytes, where: str, algorithms: Sequence[int]) -> Pieces:
    """Read the content of a sentencepiece file, of one of these algorithms; `where` names it in errors.

    Raises:
        CheckpointError: The file is damaged, or of another algorithm.
    """
    try:
        pieces = _pieces(data)
        if pieces.algorithm not in algorithms:
            expected = " or ".join(f"{number} ({ALGORITHMS[number]})" for number in algorithms)
            raise ValueError(f"model_type is {pieces.algorithm!r}, expected {expected}")
    except (IndexError, struct.error, ValueError, TypeError, AttributeError, KeyError) as error:
        raise CheckpointError(
            f"{where}: not a sentencepiece model ({bounds.plain(error)}): copy the file again"
        ) from error
    return pieces


def _pieces(data: bytes) -> Pieces:
    """Read a ModelProto: field 1 is the pieces, 2 the training options, 3 the normalisation."""
    scores: list[tuple[str, float]] = []
    types, normalisation, algorithm = [], b"", UNIGRAM
    for number, message in _fields(data):
        if number == 1:
            bounds.check(len(scores) + 1, bounds.MOST_CLASSES, "pieces")
            piece = dict(_fields(_as(bytes, message)))
            bounds.check(len(_as(bytes, piece[1])), bounds.MOST_NAME_CHARACTERS, "bytes in a piece")
            [score] = struct.unpack("<f", _as(bytes, piece.get(2, b"\0\0\0\0")))
            scores.append((_as(bytes, piece[1]).decode(), score))
            types.append(_as(int, piece.get(3, 1)))
        elif number == 2:
            algorithm = _as(int, dict(_fields(_as(bytes, message))).get(3, UNIGRAM))
        elif number == 3:
            normalisation = _as(bytes, dict(_fields(_as(bytes, message))).get(2, b""))
    return Pieces(scores, normalisation, algorithm, types)


def word_pieces(pieces: Pieces, *more: str) -> Tokenizer:
    """Make a tokenizer with the ids of the pieces, then of more special tokens, and without tokens around a text."""
    vocab = {piece: index for index, (piece, _) in enumerate(pieces.scores)}
    unknown = next((index for index, kind in enumerate(pieces.types) if kind == UNKNOWN), 0)
    if pieces.algorithm == UNIGRAM:
        model: models.Model = models.Unigram([*pieces.scores], unk_id=unknown, byte_fallback=True)
    else:
        unknown_piece = pieces.scores[unknown][0]
        merges = byte_pair_merges(pieces.scores)
        model = models.BPE(vocab, merges, unk_token=unknown_piece, fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    charsmap = [normalizers.Precompiled(pieces.normalisation)] if pieces.normalisation else []
    spaces = [normalizers.Strip(left=False, right=True), normalizers.Replace(Regex(" {2,}"), SPACE)]
    tokenizer.normalizer = normalizers.Sequence([*charsmap, *spaces])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=SPACE, prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement=SPACE, prepend_scheme="always")
    kinds = zip(pieces.scores, pieces.types, strict=True)
    own = [(piece, kind == CONTROL) for (piece, _), kind in kinds if kind in (CONTROL, USER_DEFINED)]
    own += [(token, True) for token in more]
    tokenizer.add_tokens([AddedToken(piece, normalized=False, special=special) for piece, special in own])
    return tokenizer


def byte_pair_merges(scores: Sequence[tuple[str, float]]) -> list[tuple[str, str]]:
    """Return the pairs of pieces that form another piece, by decreasing scores."""
    ids = {piece: index for index, (piece, _) in enumerate(scores)}
    ordered = sorted(range(len(scores)), key=lambda index: -scores[index][1])
    merges = []
    for piece in (scores[index][0] for index in ordered):
        halves = ((piece[:place], piece[place:]) for place in range(1, len(piece)))
        merges += sorted(
            (pair for pair in halves if {*pair} <= ids.keys()), key=lambda pair: (ids[pair[0]], ids[pair[1]])
        )
    return merges


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield the fields of a message: numbers, or bytes for other wire types."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, wire = key >> 3, key & 7
        if wire == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if wire not in (EIGHT_BYTES, LENGTH, FOUR_BYTES):
            raise ValueError(f"wire type {wire} at byte {at}")
        size, at = _varint(data, at) if wire == LENGTH else (8 if wire == EIGHT_BYTES else 4, at)
        if at + size > len(data):
            raise ValueError(f"a field of {size} bytes at byte {at} of {len(data)}")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Read a varint (7 bits per byte, lowest first); return it and its end."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError(f"a number of more than ten bytes at byte {at}")


def _as(kind: type[Kind], value: int | bytes) -> Kind:
    if not isinstance(value, kind):
        raise ValueError(f"a field holds {type(value).__name__}, expected {kind.__name__}")
    return value
