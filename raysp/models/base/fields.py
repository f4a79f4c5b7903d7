"""Dataclasses that are read like mappings, as the outputs of transformers are. Imports no torch."""

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from dataclasses import fields
from typing import Any


class Fields:
    """Base of dataclasses with the methods of a mapping of the fields that are not None, in order.

    It is not a `Mapping`: programs copy mappings by `type(value)({...})`, which a dataclass does not take.
    """

    def _set(self) -> dict[str, Any]:
        """Return the fields that are not None."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if value is not None}

    def keys(self) -> KeysView[str]:
        """Return the names of the fields that are not None."""
        return self._set().keys()

    def values(self) -> ValuesView[Any]:
        """Return the values of the fields that are not None."""
        return self._set().values()

    def items(self) -> ItemsView[str, Any]:
        """Return the fields that are not None, with their names."""
        return self._set().items()

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ANN401 - the value of a field
        """Return the value of a field, or a default where it is None."""
        return self._set().get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self._set()

    def __iter__(self) -> Iterator[str]:
        return iter(self._set())

    def __len__(self) -> int:
        return len(self._set())

    def __getitem__(self, key: Any) -> Any:  # noqa: ANN401 - the value of a field
        return self._set()[key]

    def __setitem__(self, key: str, value: Any) -> None:  # noqa: ANN401 - the value of a field
        """Assign a field.

        Raises:
            KeyError: There is no such field.
        """
        names = [field.name for field in fields(self)]  # type: ignore[arg-type]
        if key not in names:
            raise KeyError(f"{type(self).__name__} has no field {key!r}, expected one of {', '.join(names)}")
        setattr(self, key, value)
