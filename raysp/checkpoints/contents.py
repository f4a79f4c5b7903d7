"""Contents of checkpoint folders before a model is built: weights in other formats, and languages with adapters.

In a checkpoint of many languages (MMS, Pratap et al. 2023) vocab.json holds a vocabulary for each language,
tokenizer_config.json names the announced language (`target_lang`), and `adapter.<lang>.safetensors` holds the adapter
layers and the head of a language. Importable without torch.
"""

import difflib
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from raysp import bounds
from raysp.errors import CheckpointError
from raysp.words import listed

PICKLED = re.compile(r"(pytorch_model.*|adapter\..+)\.bin")
_SHOWN = 5


def explanation(name: str, files: Iterable[str]) -> str:
    """Return the message about missing weights: files found, files expected, and a remedy that names the checkpoint."""
    present = sorted(file for file in files if "/" not in file)
    if pickled := [file for file in present if PICKLED.fullmatch(file)]:
        return (
            f"pickled weights ({_some(pickled)}) are refused, since they can run any code, and it has no others; "
            f"expected model.safetensors: convert them with `raysp convert {shlex.quote(name)} FOLDER`, which runs no "
            "code, and use FOLDER"
        )
    for pattern, remedy in _OTHERS:
        if matching := [file for file in present if re.fullmatch(pattern, file)]:
            return f"has no weights that raysp reads, found {_some(matching)}, expected model.safetensors: {remedy}"
    return f"no weights there, found {_some(present) or 'nothing'}; expected model.safetensors: complete the checkpoint"


MERGING = (
    "merge it into the model (peft: PeftModel.from_pretrained(model, folder).merge_and_unload()), and save_pretrained "
    "the result with the processor"
)
"""Remedy for a checkpoint that is an adapter over other weights."""
ADAPTER_CONFIG = "adapter_config.json"
"""File of an adapter of PEFT."""
_OTHERS = (
    (
        r"model\.bin",
        'it is a model of CTranslate2 (faster-whisper): pass backend="ctranslate2" to Label, or use the checkpoint '
        "that it was made from",
    ),
    (
        r"flax_model.*\.msgpack|tf_model.*\.h5",
        "they are those of Flax or TensorFlow: load them with transformers 4 (from_pretrained(..., from_flax=True) or "
        "from_tf=True), and save_pretrained",
    ),
    (
        r".+\.nemo",
        "it is an archive of NeMo: if its model is a FastConformer with a CTC head, RNN-T or TDT, download it and "
        "convert it with `raysp convert FILE.nemo FOLDER`; Canary is not read: use a model such as "
        "nvidia/parakeet-ctc-1.1b",
    ),
    (
        r"adapter_model\.(safetensors|bin)",
        f"it is an adapter of PEFT over the checkpoint that {ADAPTER_CONFIG} names: {MERGING}",
    ),
    (r"model\.\w+\.safetensors", "it is another variant of the weights: copy it as model.safetensors"),
    (
        r".+\.(pt|pth|ckpt)",
        "a .pt, .pth or .ckpt file is a training checkpoint of fairseq or another program, of its own layout: use the "
        "folder in the layout of Hugging Face that its publisher has, or convert it with the script of transformers "
        "for its model",
    ),
    (r".+\.(onnx|gguf|ggml|tflite|mlmodel)", "use the checkpoint that they were exported from"),
)
"""Patterns of names of weights in other formats, with remedies."""
FOREIGN = re.compile("|".join([PICKLED.pattern, *(pattern for pattern, _ in _OTHERS)]))
"""Pattern of the names of all weights in formats that raysp does not read."""


def refuse_adapter(folder: Path) -> None:
    """Raise if a checkpoint is an adapter of PEFT over other weights, which would not be loaded.

    Raises:
        CheckpointError: it is an adapter; the message has a remedy.
    """
    if (folder / ADAPTER_CONFIG).is_file():
        raise CheckpointError(f"{folder}: {ADAPTER_CONFIG} makes it an adapter over other weights: {MERGING}")


def _some(names: Sequence[str]) -> str:
    return bounds.plain(listed(names, _SHOWN) or "")


LANGUAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # such as "uzb-script_cyrillic"
ADAPTER = re.compile(rf"adapter\.({LANGUAGE.pattern})\.safetensors")
NAMES_SHOWN = 5
OF_VOCABULARY = " (the languages of vocab.json, most of them ISO 639-3 codes)"


def adapter_name(language: str) -> str:
    """Return the name of the file with the adapter layers and the head of a language."""
    return f"adapter.{language}.safetensors"


def adapter_files(folder: Path) -> dict[str, Path]:
    """Return the files of adapters that are in a folder, by language."""
    matches = ((ADAPTER.fullmatch(path.name), path) for path in sorted(folder.glob("adapter.*.safetensors")))
    return {match[1]: path for match, path in matches if match}


def announced(folder: Path) -> str | None:
    """Return the language of the tokenizer of a checkpoint; None without one. Errors are raised where it is loaded."""
    language = _read(folder / "tokenizer_config.json").get("target_lang")
    return language if isinstance(language, str) and LANGUAGE.fullmatch(language) else None


def languages_of(folder: Path) -> tuple[str, ...]:
    """Return the languages that a checkpoint has a vocabulary for, sorted; empty if all share a vocabulary."""
    return tuple(sorted(vocabularies_of(folder)))


def vocabularies_of(folder: Path) -> dict[str, Mapping[str, object]]:
    """Return the vocabularies of a checkpoint by language; empty if all languages share a vocabulary."""
    vocabulary = _read(folder / "vocab.json")
    nested = {str(name): value for name, value in vocabulary.items() if isinstance(value, Mapping)}
    return nested if len(nested) == len(vocabulary) else {}


def used_adapters(folder: Path, languages: Sequence[str] | None) -> list[Path]:
    """Return the files of adapters that labels depend on.

    Args:
        folder: the checkpoint.
        languages: languages that it is used with; None: the announced language.
    """
    if languages is None:
        languages = [language for language in (announced(folder),) if language is not None]
    return sorted({path for language in languages if (path := folder / adapter_name(language)).is_file()})


MOST_LISTED = 40
"""Languages in a message."""


def unlisted(language: str, languages: Sequence[str]) -> str:
    """Return the reason why a name is no language of a text decoder, with the first of its languages."""
    more = ", ..." if len(languages) > MOST_LISTED else ""
    return f"language={language!r}, expected one of its {len(languages)}: {', '.join(languages[:MOST_LISTED])}{more}"


def check_spoken(
    folder: Path, language: str | None, task: str | None, languages: Sequence[str], tasks: Sequence[str]
) -> None:
    """Check language and task of a transcript against those of a Whisper; without languages it is for one.

    Raises:
        CheckpointError: it does not have them.
    """
    if (language is not None or task is not None) and not languages:
        raise CheckpointError(
            f"{folder}: language={language!r}, task={task!r}, and this Whisper is for one language; leave them out"
        )
    if language is not None and language not in languages:
        raise CheckpointError(f"{folder}: {unlisted(language, languages)}")
    if task is not None and task not in tasks:
        raise CheckpointError(f"{folder}: task={task!r}, expected one of {', '.join(tasks)}")


def misnamed(language: object, languages: Sequence[str], note: str = OF_VOCABULARY) -> str:
    """Return the reason why a value names no language of a checkpoint, a remedy, and a note; empty if it does."""
    if isinstance(language, str) and language in languages:
        return ""
    if language is None:
        return f"the language is null; give one of the {len(languages):,} of the checkpoint, such as {languages[0]!r}"
    near_names = similar(str(language), languages)
    near = f", similar to {', '.join(map(repr, near_names))}" if near_names else f", such as {languages[0]!r}"
    return f"the checkpoint has no language {str(language)[:60]!r}; give one of its {len(languages):,}{near}{note}"


def similar(language: str, languages: Sequence[str]) -> list[str]:
    """Return the names of languages that are similar to a language, common beginnings first."""
    low = language.strip().lower()
    alike = [name for name in languages if len(low) > 1 and (name.startswith(low) or low.startswith(name))]
    return list(dict.fromkeys([*alike, *difflib.get_close_matches(low, languages, NAMES_SHOWN)]))[:NAMES_SHOWN]


def _read(file: Path) -> Mapping[str, object]:
    try:
        content = bounds.parse_json(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
