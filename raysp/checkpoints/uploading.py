"""Upload of folders to the Hugging Face hub, on request only.

HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN act as in huggingface_hub.
"""

from pathlib import Path

from raysp.errors import StoreError


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
        token: Token in place of HF_TOKEN or the one stored by `hf auth login`.
        revision: Branch; None is the main one.
        create_pr: Open a pull request instead of committing.

    Returns:
        The address of the commit.

    Raises:
        StoreError: The hub is unreachable or rejects the upload.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    hub = HfApi(token=token)
    try:
        found = hub.create_repo(repo_id, private=private, exist_ok=True).repo_id
        commit = hub.upload_folder(
            repo_id=found, folder_path=folder, commit_message=commit_message, revision=revision, create_pr=create_pr
        )
    except (HfHubHTTPError, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise StoreError(
            f"{repo_id!r}: the Hugging Face hub rejects the upload ({type(error).__name__}: {reason}): "
            "log in with `hf auth login`, or correct the name"
        ) from error
    return str(commit.commit_url)
