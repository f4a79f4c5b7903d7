"""What a repository of the hub holds beside the files that were fetched, for messages about missing weights.

HF_ENDPOINT, HF_HUB_OFFLINE and HF_TOKEN act as in huggingface_hub. Nothing here raises: without the hub, nothing is
known.
"""

from dataclasses import dataclass
from typing import Any

from raysp.checkpoints.answers import bounded_answers

MOST_PULL_REQUESTS = 8
"""Pull requests that are looked at for safetensors, the oldest first."""
_SECONDS = 10.0


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
