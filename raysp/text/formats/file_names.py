"""Names of files made of ids and paths of recordings: safe on every system, and never equal within an export."""

import re
import unicodedata

from raysp.text.formats.safe_values import valid

LONGEST_NAME_BYTES = 120
"""Longest name made of an id: file systems allow 255 bytes, of which a number and a suffix take some."""
LONGEST_PART_BYTES = 200
"""Longest folder or name, without a suffix, of a path: room for `~`, a number, that of a channel and `.TextGrid`."""
LONGEST_PATH_BYTES = 800
"""Longest path: keys of object storage have 1024 bytes."""
_UNSAFE = re.compile(r'[\\/:*?"<>|~\s\x00-\x1f\x7f-\x9f]')
_UNSAFE_IN_PATHS = re.compile(r'[\\:*?"<>|\x00-\x1f\x7f-\x9f\u2028\u2029]')
"""Characters that Windows does not allow in names, and control characters; spaces stay."""
_JOINERS = "\u200c\u200d"
"""Format characters that words of some scripts are written with."""
_RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9¹²³]|lpt[0-9¹²³]) *(\..*)?", re.IGNORECASE)
"""Names of devices on Windows, with any suffix."""


class FileNames:
    """Names of the files of rows in one folder: no two are equal, also where letter case is ignored.

    An id that is a safe file name is the name of its file. Otherwise, or if an earlier row has that name, the name is
    the id with unsafe characters as `_`, cut to `LONGEST_NAME_BYTES`, followed by `~` and the number of the row. No
    safe name contains `~`.
    """

    def __init__(self) -> None:
        self._used: set[str] = set()

    def __call__(self, id_: str, row: int) -> str:
        """Return the name of the file of a row, without a suffix.

        Args:
            id_: id of the row.
            row: number of the row; each is given once.
        """
        name = _safe(id_)
        key = unicodedata.normalize("NFKC", name).casefold()
        if name != id_ or key in self._used:
            return f"{name}~{row}"
        self._used.add(key)
        return name


def _safe(text: str) -> str:
    name = _UNSAFE.sub("_", unicodedata.normalize("NFC", valid(text))).strip(". ")
    name = "".join("_" if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp") else c for c in name)
    name = _cut(name, LONGEST_NAME_BYTES).rstrip(". ")
    if not name or name[0] in "._-" or _RESERVED.fullmatch(name):
        name = f"x{name}"
    return name


def safe_path(path: str, suffix: str) -> str:
    """Return a path as one that stays in its folder on every system, with the names of its folders kept.

    Characters that a system does not allow are `_`. No part is `.` or `..`, hidden, reserved or too long. No folder
    ends with `~`, or is named like a file with `suffix`. Different paths may become one.

    Args:
        path: parts separated by `/`; an absolute one is taken below the folder.
        suffix: suffix that is appended to the path.
    """
    *folders, name = [part for part in path.split("/") if part not in ("", ".")] or [""]
    return "/".join([*(_safe_folder(part, suffix) for part in folders), _safe_part(name)])


def _safe_folder(text: str, suffix: str) -> str:
    name = _safe_part(text.rstrip(". ~")).rstrip(". ~")
    if name.casefold().endswith(suffix.casefold()):
        name = f"{name[: -len(suffix)]}_{suffix[1:]}"
    return name


def _safe_part(text: str) -> str:
    name = _UNSAFE_IN_PATHS.sub("_", valid(text))
    if not name.isascii():
        name = "".join("_" if unicodedata.category(c) == "Cf" and c not in _JOINERS else c for c in name)
    name = _cut(name, LONGEST_PART_BYTES)
    return f"x{name}" if not name.strip() or name[0] == "." or _RESERVED.fullmatch(name) else name


def _cut(text: str, most: int) -> str:
    return text.encode()[:most].decode(errors="ignore")


def key_of(path: str) -> str:
    """Return a key that two paths share if they are one file where letter case and Unicode normal forms are ignored."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFD", path).casefold())
