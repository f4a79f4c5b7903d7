"""Uploads of folders to data sets of the Hugging Face hub.

HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN act as in huggingface_hub, which this module imports: import it only where a
folder is uploaded.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from huggingface_hub import HfApi, errors, get_token

from raysp.errors import SpecError, StoreError
from raysp.storage.hub_answers import bounded_answers, no_bars_without_terminal
from raysp.storage.options import resolve
from raysp.storage.store import HOME

_URL = re.compile(r"hf://datasets/([^/@]+/[^/@]+)(?:@([^/]+))?(?:/(.+))?")
OPTIONS = ("token", "private")
"""Names of the storage options of an upload."""


@dataclass(frozen=True)
class HubDataset:
    """A data set of the hub, or a folder in it, to which files are uploaded."""

    url: str
    name: str
    """Owner and name."""
    revision: str | None
    folder: str
    """Folder in the repository; empty for its root."""
    private: bool
    """Whether the repository is private if it is created."""
    hub: HfApi

    @classmethod
    def of(cls, url: str, options: Mapping[str, object]) -> Self:
        """Return the data set of a url, `hf://datasets/owner/name`, with `@branch` and `/folder` if wanted.

        Raises:
            SpecError: the url names no data set, or an option is unknown.
            StoreError: there is no token.
        """
        match = _URL.fullmatch(url.rstrip("/"))
        if match is None:
            raise SpecError(f"{url}: names no data set of the hub, expected hf://datasets/OWNER/NAME")
        name, revision, folder = match.groups()
        values = resolve(options)
        if unknown := [option for option in values if option not in OPTIONS]:
            raise SpecError(f"{url}: found the option {unknown[0]!r}, expected one of {', '.join(OPTIONS)}")
        token = values.get("token") or get_token()
        if not isinstance(token, str):
            raise StoreError(
                f"{url}: found no token for the Hugging Face hub; set HF_TOKEN, log in with `hf auth login`, or add "
                "--dest-option token=env:NAME"
            )
        private = str(values.get("private", True)).lower() != "false"
        return cls(url, name, revision, folder or "", private, HfApi(token=token))

    def create(self) -> None:
        """Create the repository if it is missing.

        Raises:
            StoreError: the hub is unreachable, or rejects the token or the name.
        """
        with self._explained():
            self.hub.create_repo(self.name, repo_type="dataset", private=self.private, exist_ok=True)

    def upload(self, folder: Path) -> None:
        """Commit the files of a folder at once, without its records; files that the hub has are not sent again.

        Raises:
            StoreError: the hub is unreachable, or rejects the upload.
        """
        with self._explained():
            self.hub.upload_folder(
                repo_id=self.name,
                repo_type="dataset",
                folder_path=folder,
                path_in_repo=self.folder or None,
                revision=self.revision,
                commit_message="Export by raysp",
                ignore_patterns=[f"{HOME}**"],
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise StoreError with the remedy for an error of the hub."""
        try:
            with no_bars_without_terminal(), bounded_answers():
                yield
        except (errors.HfHubHTTPError, OSError, ValueError) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            reason = " ".join(str(error).split())[:300]
            raise StoreError(
                f"{self.url}: the Hugging Face hub refuses the upload ({type(error).__name__}: {reason}); "
                f"{self._remedy(status)}"
            ) from error

    def _remedy(self, status: int | None) -> str:
        owner = self.name.partition("/")[0]
        remedies: dict[int | None, str] = {
            401: "its token is not valid: set HF_TOKEN to another one",
            403: f"the token may not write there: use one with write access to {owner!r}, or another owner",
            404: f"there is no owner {owner!r}, or no such branch: correct the url",
        }
        unreached = "check that this machine can reach the hub (HF_ENDPOINT, HF_HUB_OFFLINE, proxies), and export again"
        return remedies.get(status, unreached)
