"""Requests to the Hugging Face hub: bounds on its answers, what a repository holds, and uploads on request.

HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN act as in huggingface_hub.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from raysp import bounds
from raysp.errors import StoreError

_CHUNK_BYTES = 1 << 16
MOST_PULL_REQUESTS = 8
"""Pull requests that are looked at for safetensors, the oldest first."""
_SECONDS = 10.0


class _Budget:
    """Hook of an HTTP client that reads answers of the API within a number of bytes. Files are left to streaming."""

    def __init__(self) -> None:
        self._left = bounds.MOST_ANSWERS_BYTES

    def __call__(self, response: Any, *_: object, **__: object) -> None:  # noqa: ANN401 - of httpx or requests
        if not urlsplit(str(response.url)).path.startswith(_api_path()):
            return
        body = bytearray()
        for chunk in _chunks(response):
            body += chunk
            self._left -= len(chunk)
            if self._left < 0:
                response.close()
                raise bounds.TooLargeError(
                    f"the hub's answers have more than {bounds.MOST_ANSWERS_BYTES:,} bytes; expected at most as many"
                )
        response._content = bytes(body)
        response._content_consumed = True  # requests has this flag


def _api_path() -> str:
    from huggingface_hub import constants

    return urlsplit(constants.ENDPOINT).path.rstrip("/") + "/api/"


def _chunks(response: Any) -> Iterator[bytes]:  # noqa: ANN401 - of httpx or requests
    """Yield the decoded body of a response that is not read yet."""
    stream = getattr(response, "iter_bytes", None) or response.iter_content
    yield from stream(_CHUNK_BYTES)


@contextlib.contextmanager
def bounded_answers() -> Iterator[None]:
    """Bound the bytes that the hub's API answers to the requests within the block.

    Raises:
        TooLargeError: the answers have more bytes.
    """
    from huggingface_hub import utils

    library: Any = utils  # its types do not export this public function
    session = library.get_session()
    hooks = "event_hooks" if hasattr(session, "event_hooks") else "hooks"  # of httpx, or of requests
    before = dict(getattr(session, hooks))
    setattr(session, hooks, {**before, "response": [_Budget(), *before["response"]]})
    try:
        yield
    finally:
        setattr(session, hooks, before)


@dataclass(frozen=True)
class Repository:
    """A revision of a repository."""

    name: str
    """Hub id, with a revision unless it is that of the main branch."""
    files: tuple[str, ...]
    """Names of its files."""
    proposed: str | None
    """Hub id with the revision of a pull request that has safetensors; None if the hub lists none."""

    @property
    def has_safetensors(self) -> bool:
        """Whether it has weights that raysp reads."""
        return _has_safetensors(self.files)


def describe(hub_id: str, revision: str | None, token: str | bool | None = None) -> Repository | None:
    """Return what the hub lists of a repository; None if it cannot be asked."""
    from huggingface_hub import HfApi, constants

    if constants.HF_HUB_OFFLINE:
        return None
    hub: Any = HfApi(token=token)
    try:
        with bounded_answers():
            main = hub.model_info(hub_id, timeout=_SECONDS)
            is_main = revision in (None, "main", main.sha)
            found = main if is_main else hub.model_info(hub_id, revision=revision, timeout=_SECONDS)
            files = _files(found)
            proposed = None if _has_safetensors(files) else _proposed(hub, hub_id)
    except Exception:
        return None
    return Repository(hub_id if is_main else f"{hub_id}@{revision}", files, proposed)


def _files(info: Any) -> tuple[str, ...]:  # noqa: ANN401 - a value of the library
    return tuple(str(one.rfilename) for one in info.siblings or ())


def _has_safetensors(files: tuple[str, ...]) -> bool:
    return any(name.startswith("model") and name.endswith(".safetensors") for name in files)


def _proposed(hub: Any, hub_id: str) -> str | None:  # noqa: ANN401 - a value of the library
    try:
        refs = [str(one.ref) for one in hub.list_repo_refs(hub_id, include_pull_requests=True).pull_requests or ()]
        for ref in sorted(refs, key=_number)[:MOST_PULL_REQUESTS]:
            if _has_safetensors(_files(hub.model_info(hub_id, revision=ref, timeout=_SECONDS))):
                return f"{hub_id}@{ref}"
    except Exception:
        return None
    return None


def _number(ref: str) -> int:
    number = ref.rpartition("/")[2]
    return int(number) if number.isdecimal() else 0


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
