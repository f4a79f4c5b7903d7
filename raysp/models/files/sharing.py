"""Upload of saved models and processors to the Hugging Face hub, on request only."""

from abc import ABC, abstractmethod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def upload_saved(value: Any, repo_id: str, **options: Any) -> str:  # noqa: ANN401 - anything with save_pretrained
    """Save a model, configuration or processor into a repository of the hub; options and result as for `upload`."""
    with TemporaryDirectory() as folder:
        value.save_pretrained(folder)
        return upload_folder(folder, repo_id, **options)


def upload_folder(folder: str | Path, repo_id: str, **options: Any) -> str:  # noqa: ANN401 - those of `upload`
    """Upload the files of a folder; options and result as for `raysp.checkpoints.hub_api.upload`."""
    from raysp.checkpoints.hub_api import upload

    return upload(folder, repo_id, **options)


class Shareable(ABC):
    """A value that saves itself into a folder, and so can be uploaded to the hub."""

    @abstractmethod
    def _save(self, folder: Path) -> None:
        """Write the files of the value."""

    def save_pretrained(
        self,
        save_directory: str | Path,
        push_to_hub: bool = False,
        *,
        repo_id: str | None = None,
        **options: Any,  # noqa: ANN401 - those of `upload`
    ) -> None:
        """Write the files that transformers, before and after release 5, reads the value from.

        Args:
            save_directory: Folder, created if missing.
            push_to_hub: Upload the whole folder to the hub.
            repo_id: Repository; None: the folder's name.
            options: As for `push_to_hub`.
        """
        folder = Path(save_directory)
        if not push_to_hub and (repo_id is not None or options):
            raise TypeError(f"{', '.join(['repo_id', *options])} given without push_to_hub=True")
        self._save(folder)
        if push_to_hub:
            upload_folder(folder, repo_id or folder.resolve().name, **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:  # noqa: ANN401 - those of `upload`
        """Save into a repository of the Hugging Face hub; options and result as for `upload`."""
        return upload_saved(self, repo_id, **options)
