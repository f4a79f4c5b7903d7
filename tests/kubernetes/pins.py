"""Versions of what the images install."""

from packaging.utils import canonicalize_name

from tests.kubernetes.manifests import CLUSTER


def _pins() -> dict[str, str]:
    lines = (CLUSTER / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


PINS = _pins()
"""By canonical name."""
