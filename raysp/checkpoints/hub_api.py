"""Requests to the Hugging Face hub: contents of repositories, downloads and uploads.

HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE and HF_TOKEN act as in huggingface_hub, which only this module imports for
checkpoints: import this module only where a request is made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import HfApi, ModelCardData, constants, errors, metadata_load
from yaml import YAMLError  # type: ignore[import-untyped]

from raysp import bounds
from raysp.checkpoints.access import Access
from raysp.errors import CheckpointError, StoreError
from raysp.storage.hub_answers import bounded_answers, no_bars_without_terminal

_SECONDS = 10.0


def download(name: str, hub_id: str, revision: str | None, files: Sequence[str], access: Access) -> str:
    """Return the folder of a hub id's files, downloaded unless cached; `name` is the id as the user names it.

    Raises:
        CheckpointError: the hub does not provide the files.
    """
    below = f"{access.subfolder.strip('/')}/" if access.subfolder else ""
    try:
        with no_bars_without_terminal(), bounded_answers():
            return huggingface_hub.snapshot_download(
                hub_id,
                revision=revision,
                allow_patterns=[below + file for file in files],
                token=access.token,
                cache_dir=access.cache_dir,
                local_files_only=access.local_files_only,
                force_download=access.force_download,
            )
    except Exception as error:  # includes errors of the HTTP client of the library
        reason = str(error).strip().partition("\n")[0]
        advice = _advice(error, revision, access)
        raise CheckpointError(
            f"{name!r}: no such folder, and it cannot be loaded from the Hugging Face hub ({type(error).__name__}: "
            f"{reason}): {advice}. Files requested, of those that exist: {', '.join(files)}"
        ) from error


def _advice(error: Exception, revision: str | None, access: Access) -> str:
    """Return the remedy for an error of the hub."""
    if isinstance(error, errors.GatedRepoError):
        return "accept its terms on its page and log in (hf auth login, or HF_TOKEN)"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "correct the name; log in (hf auth login, or HF_TOKEN) if it is private; or give a folder"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no revision {revision!r}: give a branch, tag or commit that it has"
    if access.local_files_only:
        return (
            f"some of its files are not in the cache {access.cache_dir or constants.HF_HUB_CACHE}, and "
            "local_files_only=True disables downloads: omit it once, or give a folder with these files"
        )
    if is_offline():
        return (
            f"some of its files are not in the cache {constants.HF_HUB_CACHE}, and HF_HUB_OFFLINE disables "
            "downloads: download it once without HF_HUB_OFFLINE, or give a folder with these files"
        )
    return (
        "check that this machine can reach the hub (HF_ENDPOINT, proxies), or download the files and give their folder"
    )


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE disables requests."""
    return bool(constants.HF_HUB_OFFLINE)


@dataclass(frozen=True)
class Repository:
    """A revision of a repository."""

    name: str
    """Hub id, with a revision unless it is the main branch."""
    files: tuple[str, ...]
    """Names of its files."""

    @property
    def has_safetensors(self) -> bool:
        """Whether it has weights that raysp reads."""
        return any(name.startswith("model") and name.endswith(".safetensors") for name in self.files)


def describe(hub_id: str, revision: str | None, token: str | bool | None = None) -> Repository | None:
    """Return the hub's description of a repository; None if requests are disabled or fail."""
    if is_offline():
        return None
    hub: Any = HfApi(token=token)
    try:
        with bounded_answers():
            main = hub.model_info(hub_id, timeout=_SECONDS)
            is_main = revision in (None, "main", main.sha)
            info = main if is_main else hub.model_info(hub_id, revision=revision, timeout=_SECONDS)
            files = tuple(str(file.rfilename) for file in info.siblings or ())
    except Exception:
        return None
    return Repository(hub_id if is_main else f"{hub_id}@{revision}", files)


def upload(
    folder: str | Path,
    repo_id: str,
    *,
    commit_message: str = "Upload by raysp",
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    create_pr: bool = False,
) -> str:
    """Upload the files of a folder to a repository of the hub, which is created if missing.

    Args:
        folder: Folder to upload, with all its files.
        repo_id: "owner/name", or a name of the logged-in user's.
        commit_message: Message of the commit.
        private: Whether a new repository is private; None: the default of the hub.
        token: Token in place of HF_TOKEN or the token stored by `hf auth login`.
        revision: Branch; None is the main branch.
        create_pr: Open a pull request instead of committing.

    Returns:
        The address of the commit.

    Raises:
        StoreError: The hub is unreachable or rejects the upload.
    """
    hub = HfApi(token=token)
    try:
        created = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
        commit = hub.upload_folder(
            repo_id=created, folder_path=folder, commit_message=commit_message, revision=revision, create_pr=create_pr
        )
    except (errors.HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise StoreError(
            f"{repo_id!r}: the Hugging Face hub rejects the upload ({type(error).__name__}: {reason}): "
            "log in with `hf auth login`, or correct the name"
        ) from error
    return str(commit.commit_url)


def front_matter(*, base_model: str | None, licence: str | None, tags: Sequence[str]) -> str:
    """Return the metadata of a model card as YAML, without the lines around it."""
    return ModelCardData(library_name="transformers", tags=[*tags], base_model=base_model, license=licence).to_yaml()


def licence_of(folder: Path) -> str | None:
    """Return the licence in the model card of a checkpoint; None without a readable licence."""
    readme = folder / "README.md"
    try:
        bounds.check(readme.stat().st_size, bounds.MOST_CARD_BYTES, "bytes")
        metadata = metadata_load(readme) or {}
    except (OSError, ValueError, RecursionError, YAMLError):
        return None
    licence: object = metadata.get("license")
    names = licence if isinstance(licence, list) else [licence]
    # Aliases of YAML in lists within lists would be written in full.
    if not licence or not all(isinstance(name, str) for name in names):
        return None
    return str(licence)[: bounds.MOST_NAME_CHARACTERS]
