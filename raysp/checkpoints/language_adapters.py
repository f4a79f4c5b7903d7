"""Languages of a checkpoint of many (MMS, Pratap et al. 2023): its vocabularies, and the files of its adapters.

vocab.json holds a vocabulary for each language, tokenizer_config.json names the one announced (`target_lang`), and
`adapter.<lang>.safetensors` holds the adapter layers and the head of a language. Importable without torch.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from raysp import bounds
from raysp.errors import PlanError

LANGUAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")  # such as "uzb-script_cyrillic"
ADAPTER = re.compile(rf"adapter\.({LANGUAGE.pattern})\.safetensors")
NAMES_SHOWN = 5
OF_VOCABULARY = " (the languages of vocab.json, most of them ISO 639-3 codes)"


def adapter_name(language: str) -> str:
    """Return the name of the file with the adapter layers and the head of a language."""
    return f"adapter.{language}.safetensors"


def adapter_files(folder: Path) -> dict[str, Path]:
    """Return the files of adapters that are in a folder, by language."""
    found = ((ADAPTER.fullmatch(path.name), path) for path in sorted(folder.glob("adapter.*.safetensors")))
    return {match[1]: path for match, path in found if match}


def announced(folder: Path) -> str | None:
    """Return the language of the tokenizer of a checkpoint; None without one. Errors are raised where it is loaded."""
    language = _read(folder / "tokenizer_config.json").get("target_lang")
    return language if isinstance(language, str) and LANGUAGE.fullmatch(language) else None


def languages_of(folder: Path) -> tuple[str, ...]:
    """Return the languages that a checkpoint has a vocabulary for, sorted; empty if it has one vocabulary for all."""
    return tuple(sorted(vocabularies_of(folder)))


def vocabularies_of(folder: Path) -> dict[str, Mapping[str, object]]:
    """Return the vocabularies of a checkpoint by language; empty if it has one for all."""
    found = _read(folder / "vocab.json")
    nested = {str(name): value for name, value in found.items() if isinstance(value, Mapping)}
    return nested if len(nested) == len(found) else {}


def used_adapters(folder: Path, languages: Sequence[str] | None) -> list[Path]:
    """Return the files of adapters that labels depend on.

    Args:
        folder: the checkpoint.
        languages: languages that it is used with; None: the announced one.
    """
    if languages is None:
        languages = [one for one in (announced(folder),) if one is not None]
    return sorted({path for one in languages if (path := folder / adapter_name(one)).is_file()})


def check_known(folder: Path, language: str, languages: Sequence[str]) -> None:
    """Check that a checkpoint has a language.

    Raises:
        PlanError: the checkpoint lacks the language; the message has similar names and the number of languages.
    """
    if why := misnamed(language, languages):
        raise PlanError(f"{folder}: {why}")


def misnamed(language: object, languages: Sequence[str], note: str = OF_VOCABULARY) -> str:
    """Return the reason why a value names no language of a checkpoint, a remedy, and a note; empty if it does."""
    if isinstance(language, str) and language in languages:
        return ""
    if language is None:
        return f"the language is null; give one of the {len(languages):,} of the checkpoint, such as {languages[0]!r}"
    found = similar(str(language), languages)
    near = f", similar to {', '.join(map(repr, found))}" if found else f", such as {languages[0]!r}"
    return f"the checkpoint has no language {str(language)[:60]!r}; give one of its {len(languages):,}{near}{note}"


def similar(language: str, languages: Sequence[str]) -> list[str]:
    """Return the names of languages that are similar to one: those that begin alike first."""
    low = language.strip().lower()
    alike = [one for one in languages if len(low) > 1 and (one.startswith(low) or low.startswith(one))]
    return list(dict.fromkeys([*alike, *difflib.get_close_matches(low, languages, NAMES_SHOWN)]))[:NAMES_SHOWN]


def _read(file: Path) -> Mapping[str, object]:
    try:
        found = bounds.parse_json(file.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
