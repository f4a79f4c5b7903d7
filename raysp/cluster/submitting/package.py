"""What a job takes along: the folder of the pipeline file, without caches, keys and what git ignores."""

import os
import re
import subprocess
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from raysp.errors import SpecError
from raysp.sink import layout
from raysp.words import megabytes

CACHE = "__pycache__"
LEFT_OUT = (
    *(
        ".*",
        CACHE,
        "venv",
        "*.env",
        "*.pem",
        "*.key",
        "*.p12",
        "*.pfx",
        "*.jks",
        "*.kdbx",
        "*.ppk",
        "*.tfstate",
    ),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "_netrc", "pgpass.conf", "secrets*", "client_secret*"),
    *("*credentials*", "*kubeconfig*", "*service-account*", "*service_account*", "*api_key*", "*password*"),
)
"""Names of caches, keys and credentials. Everybody who may use a cluster can read the package of a job."""
CODE = (".py", ".md")
"""Endings of files that are shipped unless they are hidden."""
MAX_BYTES = 100_000_000
"""Ray's dashboard takes requests of this size."""
LARGEST = 5
"""Number of files named in the message on a package that is too large."""
GIT_SECONDS = 60.0


@dataclass(frozen=True)
class Package:
    """A folder that a job takes along.

    Attributes:
        folder: path without links.
        left_out: names below it, of files and whole folders, that stay here.
    """

    folder: Path
    left_out: tuple[str, ...] = ()

    @property
    def excludes(self) -> list[str]:
        """The names that stay, as patterns of Ray."""
        escaped = (re.sub(r"([\\*?\[\]])", r"\\\1", name).replace(" ", "[ ]") for name in self.left_out)
        return ["/" + "".join(c if c.isprintable() else "?" for c in name) for name in escaped]

    def name_of(self, path: Path) -> str | None:
        """Return the name of a file or folder relative to the package; None if it is elsewhere."""
        for one in (path, path.parent.resolve() / path.name):  # the folder may be named by a link
            if one.is_relative_to(self.folder):
                return one.relative_to(self.folder).as_posix()
        return None

    def holds(self, path: Path) -> bool:
        """Return whether a file or folder is shipped."""
        name = self.name_of(path)
        return name is not None and not any(f"{name}/".startswith(f"{out}/") for out in self.left_out)


def collect(folder: Path) -> Package:
    """Return the package of a folder.

    Left out are names of `LEFT_OUT`, sinks, what git ignores, and what no package can hold.

    Args:
        folder: path of the folder, without links.

    Raises:
        SpecError: the files that are left are too large.
    """
    ignored = _ignored_by_git(folder)
    left_out: list[str] = []
    sizes: dict[str, int] = {}
    for here, folders, files in os.walk(folder, followlinks=True):
        for name in sorted([*folders, *files]):
            path = Path(here, name)
            relative = path.relative_to(folder).as_posix()
            if relative in ignored or _is_left_out(path):
                left_out.append(relative)
                folders[:] = [other for other in folders if other != name]
            elif path.is_file():
                sizes[relative] = path.stat().st_size
    if (total := sum(sizes.values())) > MAX_BYTES:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:LARGEST]
        raise SpecError(
            f"{folder}: the pipeline file and its neighbours come to {megabytes(total)}; the limit is "
            f"{megabytes(MAX_BYTES)}. Largest: {', '.join(f'{name} ({megabytes(sizes[name])})' for name in largest)}. "
            "Let git ignore what the job does not need, or move the pipeline file to a folder of its own"
        )
    return Package(folder, tuple(left_out))


def _is_left_out(path: Path) -> bool:
    name = path.name.lower()
    is_named = any(fnmatch(name, pattern) for pattern in LEFT_OUT) and (name[0] == "." or path.suffix not in CODE)
    is_sink = (path / layout.HOME).is_dir()
    is_odd = not path.name.isprintable() or not (path.is_file() or path.is_dir())  # Ray would wait for a pipe
    is_circle = path.is_symlink() and path.is_dir() and path.resolve() in {one.resolve() for one in path.parents}
    return is_named or is_sink or is_odd or is_circle


def _ignored_by_git(folder: Path) -> frozenset[str]:
    """Return the names below a folder that git ignores, collapsed to folders; none outside of a working tree."""
    command = ["git", "-C", str(folder), "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory"]
    try:
        names = subprocess.run(command, capture_output=True, check=True, timeout=GIT_SECONDS).stdout.split(b"\0")
    except (OSError, subprocess.SubprocessError):
        return frozenset()
    return frozenset(os.fsdecode(name.rstrip(b"/")) for name in names)
