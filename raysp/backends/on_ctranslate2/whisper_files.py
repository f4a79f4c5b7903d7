"""A folder with a Whisper in CTranslate2's format: described without its weights, and the arrays that it names.

`model.bin` is a list of named arrays after the name of the architecture, as the package's `ModelSpec` writes it. What
a file announces is compared with its size, so a shortened one is refused before the package reads it.
"""

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

from tokenizers import Tokenizer

from raysp.backends.on_ctranslate2.whisper_mels import HOP, RATE
from raysp.capabilities import Capability
from raysp.errors import CheckpointError
from raysp.models.base.configuration import read_json
from raysp.models.labelled_passes import CheckpointSummary

FORMATS = range(3, 7)
"""Versions of the format whose arrays are stored alike."""
MOST_ARRAYS = 100_000
MOST_DIMENSIONS = 8
ITEMS = {0: ("float32", 4), 1: ("int8", 1), 2: ("int16", 2), 3: ("int32", 4), 4: ("float16", 2), 5: ("bfloat16", 2)}
"""Names and bytes of data types by their numbers."""


@dataclass(frozen=True)
class StoredArray:
    """An array of a file."""

    shape: tuple[int, ...]
    dtype: str
    num_bytes: int


def read_stored(file: Path) -> tuple[str, Mapping[str, StoredArray]]:
    """Return the architecture that a file names, such as "WhisperSpec", and its arrays by name.

    Raises:
        CheckpointError: the file is damaged, or of another format.
    """
    size = file.stat().st_size
    try:
        with file.open("rb") as content:
            return _read(content, size)
    except (struct.error, UnicodeDecodeError, ValueError) as error:
        raise CheckpointError(
            f"{file}: no whole model of CTranslate2 ({error}); copy or convert the model again"
        ) from None


def _read(content: BinaryIO, size: int) -> tuple[str, Mapping[str, StoredArray]]:
    [version] = _numbers(content, "<I")
    if version not in FORMATS:
        raise ValueError(f"its format is {version}, expected {FORMATS[0]} to {FORMATS[-1]}")
    architecture = _name(content)
    _revision, count = _numbers(content, "<II")
    if count > MOST_ARRAYS:
        raise ValueError(f"it announces {count:,} arrays, expected at most {MOST_ARRAYS:,}")
    return architecture, dict(_array(content, size) for _ in range(count))


def _array(content: BinaryIO, size: int) -> tuple[str, StoredArray]:
    name = _name(content)
    [rank] = _numbers(content, "<B")
    if rank > MOST_DIMENSIONS:
        raise ValueError(f"{name} has {rank} dimensions, expected at most {MOST_DIMENSIONS}")
    *shape, kind, num_bytes = _numbers(content, f"<{rank}IBI")
    dtype, item = ITEMS.get(kind, ("", 0))
    if item * math.prod(shape) != num_bytes or content.tell() + num_bytes > size:
        raise ValueError(f"{name}, of shape {tuple(shape)}, announces {num_bytes} bytes and does not have them")
    content.seek(num_bytes, 1)
    return name, StoredArray(tuple(shape), dtype, num_bytes)


def _name(content: BinaryIO) -> str:
    [length] = _numbers(content, "<H")
    return content.read(length).decode().rstrip("\0")


def _numbers(content: BinaryIO, form: str) -> tuple[int, ...]:
    return struct.unpack(form, content.read(struct.calcsize(form)))


BACKEND = "ctranslate2"
MODEL, TOKENIZER = "model.bin", "tokenizer.json"
WHISPER = "WhisperSpec"
MULTILINGUAL_TOKENS = 51_865
"""Tokens from which on CTranslate2 takes a Whisper for one of several languages."""
MELS_A_FRAME = 2
LEAST_SAMPLES = 800
"""A twentieth of a second: features need more samples than half a window."""
LAYER = re.compile(r"(encoder|decoder)/layer_\d+/")
TASKS = ("transcribe", "translate")


class WhisperFiles:
    """Configuration, arrays and tokens of a folder.

    Raises:
        CheckpointError: files are missing, damaged, or of another kind of model.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if missing := [name for name in (MODEL, "config.json", TOKENIZER) if not (folder / name).is_file()]:
            raise CheckpointError(
                f"{folder}: {missing[0]} not found, expected a Whisper in CTranslate2's format ({MODEL}, config.json, "
                f"{TOKENIZER}); convert one with ct2-transformers-converter --copy_files {TOKENIZER}"
            )
        architecture, self.arrays = read_stored(folder / MODEL)
        if architecture != WHISPER:
            raise CheckpointError(
                f"{folder / MODEL}: it is a {architecture}, expected {WHISPER}; raysp runs only Whisper by CTranslate2"
            )
        self.config = read_json(folder / "config.json")
        try:
            self.tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:  # the library raises `Exception` itself
            raise CheckpointError(f"{folder / TOKENIZER}: the tokenizers library cannot read it ({error})") from None

    def _shape(self, name: str, rank: int) -> tuple[int, ...]:
        array = self.arrays.get(name)
        if array is None or len(array.shape) != rank:
            raise CheckpointError(
                f"{self.folder / MODEL}: array {name!r} is {array and array.shape}, expected one of {rank} dimensions; "
                "convert the model again"
            )
        return array.shape

    @cached_property
    def num_bins(self) -> int:
        """Number of mel bins of the input."""
        return self._shape("encoder/conv1/weight", 3)[1]

    @cached_property
    def num_frames(self) -> int:
        """Number of input frames, of 10 ms each."""
        return MELS_A_FRAME * self._shape("encoder/position_encodings/encodings", 2)[0]

    @cached_property
    def most_tokens(self) -> int:
        """Number of positions of the decoder."""
        return self._shape("decoder/position_encodings/encodings", 2)[0]

    @property
    def is_multilingual(self) -> bool:
        """Whether a text begins with the tokens of a language and a task."""
        return self._shape("decoder/embeddings/weight", 2)[0] >= MULTILINGUAL_TOKENS

    @cached_property
    def languages(self) -> dict[str, int]:
        """Ids of the tokens of languages, by code such as "en"; empty for a model of one language."""
        if not self.is_multilingual:
            return {}
        tokens = ((self.tokenizer.id_to_token(index), index) for index in self.config.get("lang_ids") or ())
        return {token.strip("<|>"): index for token, index in tokens if token}

    def token(self, name: str) -> int:
        """Return the id of a special token, such as "startoftranscript".

        Raises:
            CheckpointError: the tokenizer has none.
        """
        index = self.tokenizer.token_to_id(f"<|{name}|>")
        if index is None:
            raise CheckpointError(
                f"{self.folder / TOKENIZER}: the token <|{name}|> is missing, expected the tokenizer of this Whisper"
            )
        return index

    def describe(self) -> CheckpointSummary:
        """Return the description of the checkpoint."""
        arrays = self.arrays
        width = self._shape("encoder/conv1/weight", 3)[0]
        vocab_size = self._shape("decoder/embeddings/weight", 2)[0]
        if self.tokenizer.get_vocab_size() > vocab_size:
            raise CheckpointError(
                f"{self.folder}: the tokenizer has {self.tokenizer.get_vocab_size()} tokens, the model {vocab_size}; "
                "use the tokenizer of these weights"
            )
        stride, samples = MELS_A_FRAME * HOP, self.num_frames * HOP
        return CheckpointSummary(
            path=self.folder,
            model_type="whisper",
            architecture="WhisperForConditionalGeneration",
            num_parameters=sum(math.prod(array.shape) for array in arrays.values()),
            sample_rate=RATE,
            vocab_size=vocab_size,
            min_samples=LEAST_SAMPLES,
            frame_stride=stride,
            hidden_size=width,
            num_layers=len({layer[0] for name in arrays if (layer := LAYER.match(name))}),
            gives=(Capability.TEXT_DECODER,),
            dtype=arrays["decoder/embeddings/weight"].dtype,
            weight_bytes=sum(array.num_bytes for array in arrays.values()),
            receptive_samples=stride,
            activations_per_second=RATE / stride * 16 * width,
            backend=BACKEND,
            padded_samples=samples,
            max_samples=samples,
            windows_together=16,
            searches=True,
            writes_times=True,
            finds_silence=True,
            languages=tuple(sorted(self.languages)),
            detects=bool(self.languages),
        )
