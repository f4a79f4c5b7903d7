"""Packages that this command needs, those that single cases need, and how raysp is imported without the latter."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from types import ModuleType
from typing import Any

NEEDED = ("torch", "numpy", "safetensors", "tokenizers", "pyarrow")
OPTIONAL = {
    "pydantic": "settings of outputs are not checked without it",
    "silero_vad": "pip install silero-vad: the output of speech, also in the comparison of packs",
    "soundfile": "rates of decoding",
    "soxr": "rates of decoding",
    "psutil": "rates of decoding",
    "av": "rates of decoding by PyAV",
}
"""What is dropped, or differs, without a package."""


def absent(names: tuple[str, ...]) -> list[str]:
    """Return the packages that are not installed."""
    return [name for name in names if not _is_installed(name)]


def _is_installed(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):  # a finder refuses it, or a stand-in stands there
        return False


def make_importable() -> None:
    """Let the specs of raysp be imported without pydantic, as dataclasses whose values are not checked."""
    if "pydantic" in sys.modules or _is_installed("pydantic"):
        return

    def unchecked(**options: Any) -> Callable[[type], type]:
        return dataclass(frozen=options["frozen"])

    def given(*args: Any, **options: Any) -> Any:
        if "default_factory" in options:
            return field(default_factory=options["default_factory"])
        return field(default=options["default"]) if "default" in options else args[0] if args else None

    pydantic, dataclasses = ModuleType("pydantic"), ModuleType("pydantic.dataclasses")
    names = {"AfterValidator": given, "BeforeValidator": given, "ConfigDict": dict, "Field": given}
    for name, value in {**names, "ValidationError": ValueError, "TypeAdapter": given}.items():
        setattr(pydantic, name, value)
    dataclasses.dataclass = unchecked  # type: ignore[attr-defined]
    sys.modules |= {"pydantic": pydantic, "pydantic.dataclasses": dataclasses}
