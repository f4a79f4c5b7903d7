"""Unicode normal forms of paths: one name may be stored in several, such as NFC by Linux and NFD by macOS."""

import unicodedata
from collections.abc import Callable, Iterable, Mapping
from itertools import product

MOST_FORMS = 16
"""Paths that are tried for one: two forms of each of four parts."""


def canonical(path: str) -> str:
    """Return a path in the form NFC, by which names in any form are compared."""
    return path if path.isascii() else unicodedata.normalize("NFC", path)


def other_forms(path: str) -> list[str]:
    """Return the path with each part in NFC or NFD, without the path itself.

    At most `MOST_FORMS` mixed ones follow those whose parts have one form.
    """
    if path.isascii():
        return []
    parts = [dict.fromkeys(unicodedata.normalize(form, part) for form in ("NFC", "NFD")) for part in path.split("/")]
    alike = [unicodedata.normalize(form, path) for form in ("NFC", "NFD")]
    found = dict.fromkeys(
        [*alike, *("/".join(one) for one, _ in zip(product(*parts), range(MOST_FORMS), strict=False))]
    )
    return [one for one in found if one != path]


def matched(named: Iterable[str], there: Iterable[str]) -> Mapping[str, str]:
    """Return existing names by the names asked for, where the two differ in their Unicode normal form only.

    A name is matched if neither it nor the existing one has an exact match, and each is the only one left with its NFC.
    """
    named, there = {*named}, {*there}
    if all(map(str.isascii, named)):
        return {}
    wanted, free = _by_form(named - there), _by_form(there - named)
    pairs = ((wanted[form], free.get(form, [])) for form in wanted)
    return {names[0]: found[0] for names, found in pairs if len(names) == len(found) == 1}


def _by_form(paths: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for path in paths:
        if not path.isascii():
            found.setdefault(canonical(path), []).append(path)
    return found


def existing(path: str, exists: Callable[[str], bool]) -> list[str]:
    """Return the paths that exist in other forms."""
    return [one for one in other_forms(path) if exists(one)]
