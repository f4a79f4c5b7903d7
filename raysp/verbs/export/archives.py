"""WebDataset shards: tar files of samples, whose files share a name up to the first dot."""

import io
import tarfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self


class SampleArchive:
    """A tar file that is written sample by sample. The same samples give the same bytes.

    Args:
        path: local path.
    """

    def __init__(self, path: Path) -> None:
        self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 - closed by `__exit__`

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tar.close()

    def add(self, key: str, files: Mapping[str, bytes]) -> None:
        """Append a sample.

        Args:
            key: name without a dot, unique in the archive.
            files: contents by suffix, such as "flac".
        """
        for suffix, data in files.items():
            member = tarfile.TarInfo(f"{key}.{suffix}")
            member.size, member.mode = len(data), 0o644
            self._tar.addfile(member, io.BytesIO(data))
