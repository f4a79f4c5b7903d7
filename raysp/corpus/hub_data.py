"""Data sets of the Hugging Face hub as sources: the Parquet files of one split, at one commit.

HF_ENDPOINT, HF_HOME, HF_HUB_OFFLINE and HF_TOKEN act as in huggingface_hub. This module is imported only for such a
source.
"""

import fnmatch
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import datasets
from huggingface_hub import HfApi, errors

from raysp.errors import PlanError
from raysp.storage.hub_answers import bounded_answers, no_bars_without_terminal
from raysp.storage.options import resolve

CONNECT_SECONDS = 30.0


def find_split(
    name: str,
    split: str,
    config: str | None = None,
    *,
    revision: str | None = None,
    storage_options: Mapping[str, object] | None = None,
) -> tuple[str, tuple[str, ...]]:
    """Return the url of a data set at a commit, and its Parquet files of a split, as the library `datasets` finds them.

    The files are urls, or globs that match exactly these files.

    Args:
        name: "owner/name".
        split: name of the split.
        config: configuration of a data set that has several.
        revision: branch, tag or commit; None: the main branch.
        storage_options: options for `hf://`; a `token` replaces HF_TOKEN.

    Raises:
        PlanError: the hub cannot be reached or has no such data set, or the split holds no Parquet files.
    """
    token = resolve(storage_options or {}).get("token")
    where = f"source.url: data set {name!r} of the Hugging Face hub"
    try:
        with no_bars_without_terminal(), bounded_answers():
            info: Any = HfApi(token=token).dataset_info(name, revision=revision, timeout=CONNECT_SECONDS)  # type: ignore[arg-type]
            files = [str(sibling.rfilename) for sibling in info.siblings or ()]
            _refuse_script(where, name, files)
            builder = datasets.load_dataset_builder(name, config, revision=info.sha, token=token)
    except PlanError:
        raise
    except Exception as error:  # of many types, also of the HTTP client
        reason = " ".join(str(error).split()) or "no reason given"
        raise PlanError(f"{where}: {type(error).__name__}: {reason}; {_advice(error, revision)}") from error
    root = f"hf://datasets/{name}@{info.sha}"
    splits = {str(key): [str(url) for url in urls] for key, urls in (builder.config.data_files or {}).items()}
    if split not in splits:
        raise PlanError(f"{where}: found no split {split!r}; it has {', '.join(splits) or 'none'}: give one of them")
    chosen = [url.removeprefix(f"{root}/") for url in splits[split]]
    if other := [path for path in chosen if not path.endswith(".parquet") or "://" in path]:
        raise PlanError(
            f"{where}: its split {split!r} holds files such as {other[0]!r}, expected Parquet; download it and give "
            f"its folder: hf download {name} --repo-type dataset --local-dir DIR"
        )
    return root, tuple(f"{root}/{path}" for path in _globs(chosen, files))


def _refuse_script(where: str, name: str, files: Collection[str]) -> None:
    script = f"{name.rpartition('/')[2]}.py"
    if script in files:
        raise PlanError(
            f"{where}: its data are produced by the script {script}, which raysp does not run; expected Parquet "
            "files: convert it, or give a revision with Parquet files"
        )


def _advice(error: Exception, revision: str | None) -> str:
    if isinstance(error, errors.GatedRepoError):
        return "accept its terms on its page and log in (hf auth login, or HF_TOKEN)"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "correct the name, or log in (hf auth login, or HF_TOKEN) if it is private"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"it has no revision {revision!r}: give a branch, tag or commit that it has"
    if isinstance(error, ValueError):  # `datasets` lists the configurations
        return "give one of its configurations as source.config"
    return (
        "check that this machine can reach the hub (HF_ENDPOINT, HF_HUB_OFFLINE, proxies), or download the data set "
        "and give its folder"
    )


def _globs(chosen: Sequence[str], files: Collection[str]) -> Iterator[str]:
    """Yield a glob for each folder in which one matches exactly the chosen files, else these files.

    A folder is listed by one request, files that are named take one each.
    """
    for folder in dict.fromkeys(_folder(path) for path in chosen):
        here = [path for path in chosen if _folder(path) == folder]
        characters = itertools.takewhile(lambda letters: len({*letters}) == 1, zip(*here, strict=False))
        pattern = f"{''.join(letters[0] for letters in characters)}*.parquet"
        matched = {path for path in files if _folder(path) == folder and fnmatch.fnmatchcase(path, pattern)}
        is_plain = not any(character in path for path in here for character in "*?[")
        yield from [pattern] if len(here) > 1 and is_plain and matched == {*here} else here


def _folder(path: str) -> str:
    return path.rpartition("/")[0]
