"""Location of a checkpoint: a local folder, a folder on object storage, a Hugging Face hub id, or a Python package.

A hub id is "owner/name", or "owner/name@revision" with a branch, tag or commit. Only files that raysp reads are
fetched. HF_HUB_OFFLINE, HF_HOME, HF_ENDPOINT and HF_TOKEN act as in huggingface_hub. Importable without torch.
"""

import re
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from raysp.checkpoints.access import DIRECT, Access
from raysp.checkpoints.contents import ADAPTER_CONFIG, FOREIGN, adapter_name, announced, explanation
from raysp.checkpoints.fetching import EVERY, fetch, fetch_adapter, is_copy
from raysp.errors import CheckpointError, StoreError
from raysp.storage.store import normalise, scheme_of

if TYPE_CHECKING:
    from raysp.checkpoints.hub_api import Repository

Name = TypeVar("Name", str, Path, "str | Path")

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?(@[\w.-][\w./-]*)?")  # or a legacy name without owner
COMMIT = re.compile(r"[0-9a-f]{40}")

CONFIG_FILES = ("config.json",)
PROCESSOR_FILES = (
    *CONFIG_FILES,  # determines the kind of tokenizer as a last resort
    "preprocessor_config.json",
    "processor_config.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "sentencepiece.bpe.model",
    "added_tokens.json",
    "special_tokens_map.json",
    "tokenizer.json",
)
GENERATION_FILES = ("generation_config.json",)
SPEAKER_FILES = ("speakers.json",)
"""The space of x-vectors in which `Turns` compares them."""
SAFETENSORS = "model.safetensors"
OTHER_WEIGHTS = frozenset({"model.bin"})
"""Weights that another library than raysp reads, fetched for its backend alone."""
WEIGHT_FILES = (SAFETENSORS, "model.safetensors.index.json", "model-*-of-*.safetensors")
PICKLE_FILES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-*-of-*.bin")
MODEL_FILES = (*CONFIG_FILES, *GENERATION_FILES, *WEIGHT_FILES)
CHECKPOINT_FILES = (*PROCESSOR_FILES, *GENERATION_FILES, *SPEAKER_FILES, *WEIGHT_FILES, ADAPTER_CONFIG, "README.md")
"""The card states the licence; a checkpoint with the configuration of an adapter is refused."""


def is_hub_id(name: str | Path) -> bool:
    """Return whether a name is a hub id: a string of that form that is not an existing path."""
    return isinstance(name, str) and HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def local_folder(
    name: str | Path, files: Sequence[str], *, revision: str | None = None, access: Access = DIRECT
) -> Path:
    """Return the folder of a checkpoint, downloaded first if its name is a hub id.

    Args:
        name: A folder, or a hub id such as "facebook/wav2vec2-base-960h" or "facebook/wav2vec2-base-960h@main".
        files: Names or patterns of the required files.
        revision: Branch, tag or commit of a hub id; None: the revision in the name, or else the main branch.
        access: Options of access.

    Raises:
        CheckpointError: No such folder, or the hub does not provide the files.
    """
    folder = _snapshot(name, files, revision, access) if is_hub_id(name) else name
    return Path(folder, access.subfolder)


def _snapshot(name: str | Path, files: Sequence[str], revision: str | None, access: Access) -> str:
    from raysp.checkpoints.hub_api import download

    return download(str(name), *_parts(str(name), revision), files, access)


def _parts(name: str, revision: str | None) -> tuple[str, str | None]:
    """Return the id and the revision, given in the name or as an argument."""
    hub_id, _, named = name.partition("@")
    if named and revision is not None and revision != named:
        raise ValueError(f"{name!r} given with revision {revision!r}, expected one revision: omit one of them")
    return hub_id, named or revision


def pinned(name: Name, *, revision: str | None = None, access: Access = DIRECT) -> Name | str:
    """Return a hub id with its current commit, so that later reads get the same files.

    A folder is returned unchanged.

    Raises:
        CheckpointError: The hub does not provide config.json.
    """
    if not is_hub_id(name):
        return name
    hub_id, revision = _parts(str(name), revision)
    if revision is None or not COMMIT.fullmatch(revision):
        revision = Path(_snapshot(hub_id, CONFIG_FILES, revision, access)).name  # snapshots are named by their commit
    return f"{hub_id}@{revision}"


def model_folder(name: str | Path, *, revision: str | None, allow_pickle: bool, access: Access) -> Path:
    """Return the folder with a model's weights; pickles of a hub id are downloaded only if it has no safetensors."""
    folder = local_folder(name, MODEL_FILES, revision=revision, access=access)
    if is_hub_id(name) and not any(folder.glob("model*.safetensors")):
        if not allow_pickle:
            raise _without_weights(name, folder, revision, access)
        return local_folder(name, (*CONFIG_FILES, *PICKLE_FILES), revision=revision, access=access)
    return folder


def check_weights(name: str | Path, folder: Path, files: Sequence[str] = CHECKPOINT_FILES) -> None:
    """Raise unless a checkpoint has safetensors, or requested weights in another format.

    Args:
        name: the checkpoint as the user names it.
        folder: its folder, or a hub id's files of `CHECKPOINT_FILES`.
        files: names and patterns of the requested files; nothing is checked without weights among them.

    Raises:
        CheckpointError: it has no such weights; with the weights that it has instead, and a remedy.
    """
    if SAFETENSORS not in files or not folder.is_dir() or any(folder.glob("model*.safetensors")):
        return
    if any((folder / file).is_file() for file in OTHER_WEIGHTS.intersection(files)):
        return
    if is_hub_id(name):
        raise _without_weights(name, folder, None, DIRECT)
    files = [place.name for place in folder.iterdir()]
    if any(FOREIGN.fullmatch(file) for file in files):
        raise CheckpointError(f"{name}: {explanation(str(name), files)}")


def refuse_foreign(name: str | Path, *, access: Access = DIRECT) -> None:
    """Raise if a checkpoint without a config.json of Hugging Face has only weights in another format.

    Raises:
        CheckpointError: its weights are in another format; the message has the format and a remedy.
    """
    if not is_hub_id(name):
        check_weights(name, Path(name, access.subfolder))
        return
    repo = _described(*_parts(str(name), None), access)
    if repo is not None and not repo.has_safetensors and any(FOREIGN.fullmatch(file) for file in repo.files):
        raise CheckpointError(f"{str(name)!r}: {explanation(repo.name, repo.files)}")


def _described(hub_id: str, revision: str | None, access: Access) -> "Repository | None":
    """Return the hub's listing of a repository; None if requests are disabled or fail."""
    from raysp.checkpoints.hub_api import describe

    return None if access.local_files_only else describe(hub_id, revision, access.token)


def _without_weights(name: str | Path, folder: Path, revision: str | None, access: Access) -> CheckpointError:
    hub_id, revision = _parts(str(name), revision)
    repository = _described(hub_id, revision, access)
    if repository is None:
        cached = ", ".join(sorted(place.name for place in folder.iterdir())) or "nothing"
        return CheckpointError(
            f"{str(name)!r}: no safetensors in the cache, which has {cached}; if the hub has pickled weights only, "
            f"convert them with `raysp convert {name} FOLDER`, and use FOLDER"
        )
    return CheckpointError(f"{str(name)!r}: {explanation(repository.name, repository.files)}")


def local_checkpoint(
    name: str | Path, files: Sequence[str] = CHECKPOINT_FILES, languages: Sequence[str] | None = None
) -> Path:
    """Return the folder with all files of a checkpoint that labelling and training need.

    If a checkpoint has many languages, the adapters of `languages` are fetched too; None: of the announced language.
    """
    folder = local_folder(name, files if languages is None else (*files, *map(adapter_name, languages)))
    check_weights(name, folder, files)
    if languages is not None or not is_hub_id(name) or (language := announced(folder)) is None:
        return folder
    return local_folder(name, (*files, adapter_name(language)))


def with_file(folder: Path, file: str) -> Path | None:
    """Return the path of a file of a checkpoint, fetched from the hub or storage unless cached.

    Returns:
        The path; None if the checkpoint does not have the file.

    Raises:
        StoreError: the hub or the storage cannot be reached, or downloads are disabled.
    """
    path, snapshot = folder / file, snapshot_of(folder)
    if is_copy(folder):
        fetch_adapter(folder, file)
    if path.is_file() or snapshot is None:
        return path if path.is_file() else None
    try:
        _snapshot(snapshot, [file], None, Access(cache_dir=folder.parents[2]))
    except CheckpointError as error:
        raise StoreError(str(error)) from error
    from raysp.checkpoints.hub_api import is_offline

    if not path.is_file() and is_offline():
        raise StoreError(
            f"{snapshot}: {file} is not in the cache {folder.parents[2]}, and HF_HUB_OFFLINE disables downloads: "
            "download it once without HF_HUB_OFFLINE, or give a folder with this file"
        )
    return path if path.is_file() else None


def may_lack_languages(folder: Path) -> bool:
    """Return whether a folder may hold only the requested adapters of languages; `with_file` fetches more."""
    return is_copy(folder) or snapshot_of(folder) is not None


def snapshot_of(folder: Path) -> str | None:
    """Return the hub id with the commit of a folder in a cache of the hub; None for another folder."""
    parts = folder.parts[-3:]
    if len(parts) < 3 or parts[1] != "snapshots" or not COMMIT.fullmatch(parts[2]):
        return None
    kind, *names = parts[0].split("--")
    return f"{'/'.join(names)}@{parts[2]}" if kind == "models" and 1 <= len(names) <= 2 else None


KEPT_FILES = (
    *("*.json", "*.txt", "*.model", "*.md", "*.jinja", "*.safetensors", "*.tiktoken"),
    *("LICENSE*", "LICENCE*", "NOTICE*"),
)
"""Patterns of the files of a checkpoint besides its pickles: configuration, tokenizer, adapters, card, licence."""
LANGUAGE_MODEL = "language_model"
"""The folder of a language model beside the weights; all its files are kept."""
SMALL_FILES = (*(pattern for pattern in KEPT_FILES if pattern != "*.safetensors"), f"{LANGUAGE_MODEL}/*")
ADAPTERS = "adapter.*.safetensors"
PICKLED_ADAPTERS = "adapter.*.bin"


def locate(
    checkpoint: str,
    storage_options: Mapping[str, object] | None = None,
    files: Sequence[str] = CHECKPOINT_FILES,
    languages: Sequence[str] | None = None,
) -> Path:
    """Return the local folder of a checkpoint, fetched once from object storage or from the hub.

    `files` are names and patterns of the files to fetch from the hub. Only the adapters of `languages` are fetched (see
    `local_checkpoint` and `fetch`).

    Raises:
        CheckpointError: the folder does not exist or holds no checkpoint.
        StoreError: it cannot be read.
    """
    if scheme_of(checkpoint):
        return fetch(checkpoint, storage_options, languages=languages, other=set(files) & OTHER_WEIGHTS)
    if (folder := Path(normalise(checkpoint))).is_dir():
        check_weights(checkpoint, folder, files)
        return folder
    if "/" in checkpoint and is_hub_id(checkpoint):
        return local_checkpoint(checkpoint, files, languages)
    state = "a file" if folder.is_file() else "no such folder"
    raise CheckpointError(
        f"checkpoint {checkpoint!r}: {state}; expected a Hugging Face model folder (config.json, model.safetensors), "
        "on a local disk or on object storage, or a hub id ('owner/name')"
    )


def pinned_checkpoint(checkpoint: str) -> str:
    """Return a hub id with its current commit; another checkpoint is returned unchanged.

    Raises:
        CheckpointError: the hub has no such id, or cannot be reached.
    """
    return pinned(checkpoint) if "/" in checkpoint else checkpoint


def hub_id(checkpoint: str) -> str | None:
    """Return a hub id without its revision; None for a folder or a URL."""
    return checkpoint.partition("@")[0] if "/" in checkpoint and is_hub_id(checkpoint) else None


def locate_pickled(name: str, storage_options: Mapping[str, object] | None = None) -> Path:
    """Return the local folder of a checkpoint with its pickled weights, fetched once from storage or from the hub.

    If a repository has safetensors, they are fetched instead of its pickles.

    Raises:
        CheckpointError: the folder does not exist, holds no checkpoint, or the hub does not provide it.
        StoreError: it cannot be read.
    """
    if scheme_of(name):
        return fetch(name, storage_options, with_pickles=True, languages=EVERY)
    if (folder := Path(normalise(name))).is_dir():
        return folder
    if is_hub_id(name) and "/" in name:
        commit = pinned(name)
        folder = local_folder(commit, (*SMALL_FILES, *WEIGHT_FILES, ADAPTERS))
        pickled = [] if any(folder.glob("model*.safetensors")) else [*PICKLE_FILES]
        pickled += [] if any(folder.glob(ADAPTERS)) else [PICKLED_ADAPTERS]
        return local_folder(commit, pickled) if pickled else folder
    state = "a file" if folder.is_file() else "no such folder"
    raise CheckpointError(
        f"checkpoint {name!r}: {state}; expected a Hugging Face model folder with pytorch_model.bin, on a local disk "
        "or on object storage, a hub id ('owner/name'), or a .nemo file"
    )


def check_clustering() -> None:
    """Check that scipy, which clusters vectors of speakers, is installed, without importing it.

    Raises:
        CheckpointError: it is not installed.
    """
    if find_spec("scipy") is None:
        raise CheckpointError("scipy, the package that clusters speakers, is not installed: pip install 'raysp[turns]'")
