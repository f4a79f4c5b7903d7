"""Language models of beam search: their files, and packed copies in the user's cache that processes share.

A checkpoint may come with one in its folder `language_model`, as pyctcdecode saves it: a model in an ARPA or binary
file, `unigrams.txt` with the words that count as known, and `attrs.json` with the weights.
"""

import contextlib
import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysp import bounds
from raysp.checkpoints import hub
from raysp.checkpoints.fetching import (
    cache_folder,
    digest_content,
    digest_files,
    fetch_file,
    fetch_folder,
    kept,
    new_copy,
)
from raysp.errors import CheckpointError
from raysp.storage.store import normalise, scheme_of
from raysp.text.beams import arpa, kenlm
from raysp.text.beams.arpa import Ngrams
from raysp.text.beams.kenlm import Header, KenlmModel, is_binary, read_header

if TYPE_CHECKING:
    from raysp.text.beams.language_model import Weights

FORMAT = 1
"""Version of packed models, increased when their files change."""
KIND = "language_models"
FOLDER, ATTRS, UNIGRAMS = "language_model", "attrs.json", "unigrams.txt"
"""Folder of a checkpoint with its language model, and names of files in it."""
MODEL_ENDINGS = (".arpa", ".arpa.gz", ".bin", ".binary")
OWN_ENDINGS = (*MODEL_ENDINGS, ATTRS, UNIGRAMS)
NUMBERS = {"alpha": 0.5, "beta": 1.5, "unk_score_offset": -10.0}
"""Numbers of attrs.json, with pyctcdecode's defaults."""
MOST_WEIGHT = 1e6
LM_WEIGHT, WORD_BONUS = 0.5, 1.0
"""Weights of a model without weights of its own."""


def locate(
    url: str,
    storage_options: Mapping[str, object] | None = None,
    *,
    name: str = "language model",
    expected: str = "an ARPA file (.arpa or .arpa.gz) or a binary file of KenLM",
) -> Path:
    """Return the path of a language model, fetched once from object storage, or of another file of an output.

    Args:
        url: path or url of the file.
        storage_options: options of its storage.
        name: what the file is, for messages.
        expected: the files that would do, for messages.

    Raises:
        CheckpointError: there is no such file.
        StoreError: it cannot be read.
    """
    try:
        if scheme_of(url):
            return fetch_file(url, storage_options, KIND)
        if (path := Path(normalise(url))).is_file():
            return path
    except CheckpointError:
        pass
    raise CheckpointError(f"{name} {url!r}: no such file; expected {expected}, on a local disk or on object storage")


def locate_own(checkpoint: str, storage_options: Mapping[str, object] | None = None) -> Path | None:
    """Return the folder of the language model that comes with a checkpoint, fetched once; None if there is none.

    Raises:
        CheckpointError: the hub cannot be reached.
        StoreError: it cannot be read.
    """
    if scheme_of(checkpoint):
        return fetch_folder(f"{checkpoint.rstrip('/')}/{FOLDER}", storage_options, KIND, OWN_ENDINGS)
    if (local := Path(normalise(checkpoint))).is_dir():
        folder = local / FOLDER
    elif hub.is_hub_id(checkpoint):
        folder = hub.local_folder(checkpoint, (*hub.CONFIG_FILES, f"{FOLDER}/*")) / FOLDER
    else:
        return None
    return folder if folder.is_dir() else None


@dataclass(frozen=True)
class NamedModel:
    """A language model: that of a checkpoint, or a file alone."""

    file: Path
    alpha: float = LM_WEIGHT
    """Factor of its natural log-probabilities."""
    beta: float = WORD_BONUS
    """Added for each word."""
    unk_score_offset: float = 0.0
    """Added to the decimal logarithm of the probability of each unknown word."""
    score_boundary: bool = True
    """Whether texts begin with `<s>` and end with `</s>`."""
    unigrams: Path | None = None

    @classmethod
    def at(cls, path: str) -> "NamedModel":
        """Return the model of a file, or of a folder as `read_own`."""
        return read_own(Path(path)) if Path(path).is_dir() else cls(Path(path))

    def weights(self, lm_weight: float | None, word_bonus: float | None) -> "Weights":
        """Return the weights of a search, in which `alpha` and `beta` take the places of those that are None."""
        from raysp.text.beams.language_model import Weights  # imports torch

        return Weights(
            self.alpha if lm_weight is None else lm_weight,
            self.beta if word_bonus is None else word_bonus,
            self.unk_score_offset * math.log(10),
            self.score_boundary,
        )

    def words(self) -> list[str] | None:
        """Return the words that count as known; None: all of the model.

        Raises:
            CheckpointError: the file cannot be read.
        """
        if self.unigrams is None:
            return None
        try:
            lines = bounds.read_file(self.unigrams, bounds.MOST_TABLE_BYTES).decode("utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError, bounds.TooLargeError) as error:
            raise CheckpointError(
                f"{self.unigrams}: {error}; expected a word per line in UTF-8: copy it again"
            ) from None
        return [line.strip() for line in lines if line.strip()] or None


def read_own(folder: Path) -> NamedModel:
    """Return the language model of a folder.

    Raises:
        CheckpointError: the folder does not hold one.
    """
    models = sorted(file for file in folder.iterdir() if file.name.endswith(MODEL_ENDINGS))
    if len(models) != 1:
        names = ", ".join(file.name for file in models) or "none"
        raise CheckpointError(
            f"{folder}: found {names}, expected one language model ({', '.join(MODEL_ENDINGS)}): copy the folder again"
        )
    attrs, unigrams = folder / ATTRS, folder / UNIGRAMS
    values = _attrs(attrs) if attrs.is_file() else {}
    return NamedModel(
        models[0],
        **{name: _number(attrs, name, values.get(name, default)) for name, default in NUMBERS.items()},
        score_boundary=_flag(attrs, values.get("score_boundary", True)),
        unigrams=unigrams if unigrams.is_file() else None,
    )


def _attrs(path: Path) -> dict[str, Any]:
    try:
        attrs = bounds.parse_json(bounds.read_file(path, bounds.MOST_JSON_BYTES))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path}: {error}; expected a JSON object: copy it again") from None
    if not isinstance(attrs, dict):
        raise CheckpointError(f"{path}: found {bounds.shortened(attrs)}, expected a JSON object: copy it again")
    return attrs


def _number(path: Path, name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MOST_WEIGHT:
        raise CheckpointError(f"{path}: {name} is {bounds.shortened(value)}, expected a number: copy it again")
    return float(value)


def _flag(path: Path, value: object) -> bool:
    if not isinstance(value, bool):
        raise CheckpointError(f"{path}: score_boundary is {bounds.shortened(value)}, expected true or false")
    return value


def describe_own(folder: Path) -> dict[str, Any]:
    """Return facts of the language model of a folder; facts of its model come from the header alone.

    Raises:
        CheckpointError: the folder does not hold one, or its model is damaged.
    """
    own = read_own(folder)
    is_kenlm = is_binary(own.file)
    header = read_header(own.file) if is_kenlm else Header("ARPA", arpa.counts_of(own.file))
    return {
        "file": own.file.name,
        "kind": f"KenLM, {header.kind}" if is_kenlm else header.kind,
        "order": len(header.counts),
        "ngrams": sum(header.counts),
        "words": header.counts[0],
        "bytes": own.file.stat().st_size,
        **{name: getattr(own, name) for name in (*NUMBERS, "score_boundary")},
    }


def digest(path: Path) -> str:
    """Return the digest of a file's content, or of a folder of a language model."""
    if path.is_dir():
        own = read_own(path)
        tables = [file for file in (path / ATTRS, path / UNIGRAMS) if file.is_file()]
        return digest_files(path, [own.file, *tables])
    return digest_content(path)


@functools.lru_cache(4)
def _opened(path: Path, content: str) -> Ngrams:
    """Return a model mapped from its packed copy, which is written first if missing."""
    with contextlib.suppress(OSError, RuntimeError):  # without a cache it is read into memory
        folder = cache_folder() / KIND / f"{content}-{FORMAT}"
        with kept(folder, "a language model") as is_missing:
            if is_missing:
                model = arpa.parse(path)
                with new_copy(folder) as part:
                    arpa.save(model, part)
        return arpa.load(folder)
    return arpa.parse(path)


def open_model(path: Path) -> Ngrams | KenlmModel:
    """Return the model of an ARPA file, or of a binary file of KenLM.

    Raises:
        CheckpointError: the file is neither, or damaged; an ARPA file's message has the number of the first wrong line.
    """
    content = digest_content(path)
    return _opened_binary(path, content) if is_binary(path) else _opened(path, content)


@functools.lru_cache(4)
def _opened_binary(path: Path, content: str) -> KenlmModel:
    """Return a model; `content`, the digest of the file, is a key of the cache, since the file may be replaced.

    The package trusts the tables of a file, so a separate process opens and scores it first.
    """
    read_header(path)
    if wrong := kenlm.damage_of(path):
        raise kenlm.refusal(path, wrong)
    return KenlmModel(path)
