"""Metadata of model cards, as the Hugging Face hub reads them."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import ModelCardData, metadata_load
from yaml import YAMLError  # type: ignore[import-untyped]

from raysp import bounds


def front_matter(*, base_model: str | None, licence: str | None, tags: Sequence[str]) -> str:
    """Return the metadata of a model card as YAML, without the lines around it."""
    return ModelCardData(library_name="transformers", tags=[*tags], base_model=base_model, license=licence).to_yaml()


def licence_of(folder: Path) -> str | None:
    """Return the licence in the model card of a checkpoint; None if it has none, or none that can be read."""
    readme = folder / "README.md"
    try:
        bounds.check(readme.stat().st_size, bounds.MOST_CARD_BYTES, "bytes")
        found = metadata_load(readme) or {}
    except (OSError, ValueError, RecursionError, YAMLError):
        return None
    given: object = found.get("license")
    names = given if isinstance(given, list) else [given]
    # Aliases of YAML in lists within lists would be written in full.
    if not given or not all(isinstance(one, str) for one in names):
        return None
    return str(given)[: bounds.MOST_NAME_CHARACTERS]
