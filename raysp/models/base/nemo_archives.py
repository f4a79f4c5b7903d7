"""Reading of .nemo archives, which come from strangers.

Nothing is unpacked but the configuration, the weights and the sentencepiece model, into names of our own. Weights are
read like other pickles.
"""

import shutil
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

from torch import Tensor

from raysp import bounds
from raysp.bounds import shortened
from raysp.errors import CheckpointError
from raysp.models.base.weights import read_pickle

CONFIG, WEIGHTS = "model_config.yaml", "model_weights.ckpt"
MAX_CONFIG_BYTES, MAX_TOKENIZER_BYTES = 4 << 20, 64 << 20
MAX_GROWTH = 20
"""Largest size of a member, in sizes of the archive: weights hardly compress."""


def read_archive(archive: Path, weights: Path) -> tuple[Mapping[str, Any], bytes]:
    """Return the configuration and the sentencepiece model of an archive, and write its weights to a file."""
    try:
        with _opened(archive) as tar:
            members = _checked_members(archive, tar)
            config = _parsed(archive, _content(archive, tar, members, CONFIG, MAX_CONFIG_BYTES))
            name = _tokenizer_name(archive, config, members)
            tokenizer_model = _content(archive, tar, members, name, MAX_TOKENIZER_BYTES)
            _write(archive, tar, members, weights)
    except CheckpointError:
        raise
    except (tarfile.TarError, *bounds.DAMAGED, OSError, ValueError) as error:
        reason = bounds.plain(error)
        raise CheckpointError(f"{archive}: not a whole .nemo archive ({reason}): copy the file again") from error
    return config, tokenizer_model


@contextmanager
def _opened(archive: Path) -> Iterator[tarfile.TarFile]:
    """Open an archive, which may be compressed by gzip. No header is read beyond `bounds.MOST_HEADER_BYTES`."""
    with archive.open("rb") as raw:
        is_compressed = raw.read(2) == bounds.GZIP
        raw.seek(0)
        content = bounds.decompressed(raw, archive.stat().st_size) if is_compressed else raw
        file: Any = bounds.HeaderReader(content)
        with tarfile.open(fileobj=file, mode="r:") as tar:
            yield tar


def _checked_members(archive: Path, tar: tarfile.TarFile) -> dict[str, tarfile.TarInfo]:
    """Return the files of an archive by name; raise for links, devices, paths out of it, and impossible sizes."""
    size = archive.stat().st_size
    members: dict[str, tarfile.TarInfo] = {}
    for number, member in enumerate(tar, 1):
        bounds.check(number, bounds.MOST_MEMBERS, "members")
        path, shown = PurePosixPath(member.name), shortened(member.name)
        if path.is_absolute() or ".." in path.parts or not (member.isfile() or member.isdir()):
            raise CheckpointError(f"{archive}: holds {shown}, expected plain files in one folder: use another archive")
        if member.size > MAX_GROWTH * size:
            raise CheckpointError(
                f"{archive}: {shown} would have {member.size} bytes, in an archive of {size}: use another archive"
            )
        if member.isfile():
            if path.name in members:
                raise CheckpointError(
                    f"{archive}: holds two files named {shortened(path.name)}, expected one: use another archive"
                )
            members[path.name] = member
    return members


def _member(archive: Path, members: Mapping[str, tarfile.TarInfo], name: str) -> tarfile.TarInfo:
    if name not in members:
        names = bounds.plain(", ".join(sorted(members))) or "nothing"
        raise CheckpointError(
            f"{archive}: {bounds.plain(name)} not found among {names}: use a .nemo file of an ASR model"
        )
    return members[name]


def _content(
    archive: Path, tar: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], name: str, limit: int
) -> bytes:
    member = _member(archive, members, name)
    if member.size > limit:
        raise CheckpointError(
            f"{archive}: {name} has {member.size} bytes, expected at most {limit}: use another archive"
        )
    file = tar.extractfile(member)
    assert file is not None  # it is a plain file
    return bounds.read(cast("BinaryIO", file), limit)


def _write(archive: Path, tar: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], path: Path) -> None:
    source = tar.extractfile(_member(archive, members, WEIGHTS))
    assert source is not None
    with path.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


def _parsed(archive: Path, text: bytes) -> Mapping[str, Any]:
    """Return the content of model_config.yaml."""
    import yaml  # type: ignore[import-untyped]

    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise CheckpointError(f"{archive}: {CONFIG} has aliases, expected plain values: use another archive")
        config = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{archive}: {CONFIG} is not plain YAML ({reason}): copy the file again") from error
    parts = [config.get(name) for name in ("encoder", "preprocessor", "decoder")] if isinstance(config, dict) else []
    if not parts or not all(isinstance(part, dict) for part in parts):
        raise CheckpointError(f"{archive}: {CONFIG} has no encoder, preprocessor and decoder: use one of an ASR model")
    return dict(config)


def _tokenizer_name(archive: Path, config: Mapping[str, Any], members: Mapping[str, tarfile.TarInfo]) -> str:
    """Return the name of the sentencepiece model, which the configuration gives as "nemo:NAME"."""
    tokenizer = config.get("tokenizer")
    path = tokenizer.get("model_path") if isinstance(tokenizer, dict) else None
    name = PurePosixPath(str(path).removeprefix("nemo:")).name
    if path is not None and name in members:
        return name
    models = [name for name in members if name.endswith("tokenizer.model")]
    if len(models) != 1:
        there = bounds.plain(", ".join(sorted(members)))
        raise CheckpointError(
            f"{archive}: {shortened(path or 'tokenizer.model')} not found among {there}: use a model with "
            "a sentencepiece vocabulary"
        )
    return models[0]


def read_weights(path: Path, archive: Path) -> dict[str, Tensor]:
    """Return the tensors of an archive by name, from the file that `read_archive` wrote."""
    try:
        return read_pickle(path)
    except CheckpointError as error:
        raise CheckpointError(f"{archive}: {WEIGHTS}: {str(error).removeprefix(f'{path}: ')}") from error.__cause__
