"""Storage options: values as a pipeline gives them, some of which stand for an environment variable.

They cross to workers unresolved; what a variable holds is looked up where a client is made, and is kept nowhere else.
"""

from collections.abc import Mapping


def resolve(options: Mapping[str, object]) -> dict[str, object]:
    """Replace every value that stands for another (one with a method `value`) by what it stands for, at any depth."""
    return {key: _resolved(value) for key, value in options.items()}


def _resolved(value: object) -> object:
    if isinstance(value, Mapping):
        return resolve(value)
    if isinstance(value, list | tuple):
        return tuple(_resolved(item) for item in value)
    look_up = getattr(value, "value", None)
    return look_up() if callable(look_up) else value
