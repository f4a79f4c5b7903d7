"""Upload of saved models and processors to the Hugging Face hub, on request only."""

from tempfile import TemporaryDirectory
from typing import Any

from raysp.checkpoints.uploading import upload


def upload_saved(value: Any, repo_id: str, **options: Any) -> str:  # noqa: ANN401 - anything with save_pretrained
    """Save a model, configuration or processor into a repository of the hub; options and result as for `upload`."""
    with TemporaryDirectory() as folder:
        value.save_pretrained(folder)
        return upload(folder, repo_id, **options)


class Shareable:
    """A value that saves itself into a folder, and so can be uploaded to the hub."""

    def push_to_hub(self, repo_id: str, **options: Any) -> str:  # noqa: ANN401 - those of `upload`
        """Save into a repository of the Hugging Face hub; options and result as for `upload`."""
        return upload_saved(self, repo_id, **options)
