"""Storage options of a pipeline. Some values stand for environment variables.

Options are sent to workers unresolved. A variable is read where a client is created, and its value is stored nowhere
else.
"""

from collections.abc import Mapping


def resolve(options: Mapping[str, object]) -> dict[str, object]:
    """Replace each value that has a method `value` with the result of that method, at any depth."""
    return {key: _resolved(value) for key, value in options.items()}


def _resolved(value: object) -> object:
    if isinstance(value, Mapping):
        return resolve(value)
    if isinstance(value, list | tuple):
        return tuple(_resolved(item) for item in value)
    look_up = getattr(value, "value", None)
    return look_up() if callable(look_up) else value
