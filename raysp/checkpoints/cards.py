"""Metadata of model cards, as the Hugging Face hub reads them."""

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import ModelCardData, metadata_load


def front_matter(*, base_model: str | None, licence: str | None, tags: Sequence[str]) -> str:
    """Return the metadata of a model card as YAML, without the lines around it."""
    return ModelCardData(library_name="transformers", tags=[*tags], base_model=base_model, license=licence).to_yaml()


def licence_of(folder: Path) -> str | None:
    """Return the licence in the model card of a checkpoint; None if it has none."""
    readme = folder / "README.md"
    try:
        found = (metadata_load(readme) if readme.is_file() else None) or {}
    except ValueError:
        return None
    return str(found["license"]) if found.get("license") else None
