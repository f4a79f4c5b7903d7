"""Sizes of files as transformers writes them, such as "5GB"."""

import re

SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*((?:[KMGT]I?)?B|)", re.IGNORECASE)
UNITS = {"": 1, "B": 1} | {
    f"{prefix}{ending}": base**power
    for power, prefix in enumerate("KMGT", 1)
    for ending, base in (("B", 1000), ("IB", 1024))
}


def num_bytes(size: int | str) -> int:
    """Return a number of bytes, given itself or written as "5GB" or "20 MiB"."""
    found = SIZE.fullmatch(str(size).strip())
    if found is None or float(found[1]) <= 0:
        raise ValueError(f"max_shard_size is {size!r}, expected a number of bytes, or a size such as '5GB'")
    return max(1, int(float(found[1]) * UNITS[found[2].upper()]))
