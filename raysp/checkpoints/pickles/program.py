"""The pickle of `torch.save`, read as data: nothing that it names is imported or called.

A pickle is a program for a stack machine that may call any function. Weights need few of its instructions and few
names: storages, `OrderedDict`, and the functions that put a tensor together, whose arguments are recorded here. Every
other name or instruction is refused, those that `torch.load(weights_only=True)` accepts included.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, BinaryIO, cast

from raysp import bounds
from raysp.bounds import shortened

STORAGES = {
    "torch.DoubleStorage": "F64",
    "torch.FloatStorage": "F32",
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.LongStorage": "I64",
    "torch.IntStorage": "I32",
    "torch.ShortStorage": "I16",
    "torch.CharStorage": "I8",
    "torch.ByteStorage": "U8",
    "torch.BoolStorage": "BOOL",
}
"""Classes of storages, with the names of their data types in safetensors files."""
ITEM_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}

_ORDERED_DICT = "collections.OrderedDict"
_PARAMETER = "torch._utils._rebuild_parameter"
_TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_NAMES = {_ORDERED_DICT, _PARAMETER, *_TENSORS, *STORAGES}
_LITERALS = {
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], object]] = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple}
_MARK = object()
_MOST_ELEMENTS = 1 << 48


class NotWeightsError(ValueError):
    """A pickle with anything but plain weights; the message names it."""


@dataclass(frozen=True)
class Storage:
    """The values of one or several tensors.

    Args:
        key: its name in the file.
        dtype: its data type in safetensors files.
        first: its first element, of those that the file has under this key.
        num_elements: their number.
    """

    key: str
    dtype: str
    first: int
    num_elements: int


@dataclass(frozen=True)
class View:
    """A tensor: a storage, and which elements of it in which order."""

    storage: Storage
    first: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        """Product of the shape."""
        product = 1
        for size in self.shape:
            product *= size
        return product

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensor, without gaps between its elements."""
        return self.num_elements * ITEM_BYTES[self.storage.dtype]

    @property
    def span(self) -> int:
        """Number of elements of the storage from the first of the tensor to its last."""
        if not self.num_elements:
            return 0
        return 1 + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides, strict=True))

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements follow each other in the storage, in the order of the tensor."""
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size > 1 and stride != expected:
                return not self.num_elements
            expected *= size
        return True


@dataclass(frozen=True)
class _Name:
    """A class or function that a pickle names."""

    text: str


def read_program(file: BinaryIO) -> Any:  # noqa: ANN401 - what the pickle holds
    """Read one pickle of a file and return its value: plain values of Python, `Storage` and `View`.

    Raises:
        NotWeightsError: it holds anything else, or is damaged.
    """
    machine = _Machine()
    try:
        for number, (instruction, argument, _) in enumerate(pickletools.genops(cast("IO[bytes]", _Bounded(file)))):
            bounds.check(number, bounds.MOST_PICKLE_STEPS, "instructions")
            if instruction.name == "STOP":
                return machine.pop()
            machine.run(instruction.name, argument)
    except NotWeightsError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise NotWeightsError(f"its pickle is damaged or truncated ({bounds.plain(str(error))})") from None
    raise NotWeightsError("its pickle is truncated")


class _Bounded:
    """A file of which at most `bounds.MOST_PICKLE_BYTES` are read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._left = file, bounds.MOST_PICKLE_BYTES

    def read(self, num_bytes: int) -> bytes:
        return self._counted(num_bytes, self._file.read)

    def readline(self) -> bytes:
        return self._counted(bounds.MOST_NAME_CHARACTERS, self._file.readline)

    def _counted(self, num_bytes: int, read: Callable[[int], bytes]) -> bytes:
        if num_bytes > self._left:
            raise bounds.TooLargeError(f"reads beyond {bounds.MOST_PICKLE_BYTES:,} bytes")
        data = read(num_bytes)
        self._left -= len(data)
        return data


class _Machine:
    """The stack machine of pickles, for the instructions that weights need."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def pop(self) -> Any:  # noqa: ANN401
        return self._stack.pop()

    def run(self, name: str, argument: Any) -> None:  # noqa: ANN401 - a literal of the pickle
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "MARK":
            self._stack.append(_MARK)
        elif name in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            self._stack.append(self._memo[argument])
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            self._stack.append(tuple([self.pop() for _ in range(int(name[-1]))][::-1]))
        elif name == "TUPLE":
            self._stack.append(tuple(self._to_mark()))
        elif name in ("APPEND", "APPENDS"):
            self._append([self.pop()] if name == "APPEND" else self._to_mark())
        elif name in ("SETITEM", "SETITEMS"):
            self._set([self.pop(), self.pop()][::-1] if name == "SETITEM" else self._to_mark())
        elif name == "GLOBAL":
            self._stack.append(_named(".".join(argument.split(" ", 1))))
        elif name == "STACK_GLOBAL":
            attribute, module = self.pop(), self.pop()
            self._stack.append(_named(f"{_text(module)}.{_text(attribute)}"))
        elif name == "BINPERSID":
            self._stack.append(_storage(self.pop()))
        elif name == "REDUCE":
            arguments, function = self.pop(), self.pop()
            self._stack.append(_called(function, arguments))
        elif name == "BUILD":
            self._build(self.pop())
        else:
            raise NotWeightsError(f"its pickle has the instruction {name}, which weights never need")

    def _to_mark(self) -> list[Any]:
        values = []
        while (value := self.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _append(self, values: list[Any]) -> None:
        if type(self._stack[-1]) is not list:
            raise NotWeightsError("its pickle appends to a value that is not a list")
        self._stack[-1].extend(values)

    def _set(self, values: list[Any]) -> None:
        found = self._stack[-1]
        if type(found) is not dict or len(values) % 2:
            raise NotWeightsError("its pickle sets items of a value that is not a dictionary")
        _fill(found, zip(values[::2], values[1::2], strict=True))

    def _build(self, _state: object) -> None:
        """Ignore the attributes of a dictionary, such as the versions of modules in `_metadata`."""
        if type(self._stack[-1]) is not dict:
            raise NotWeightsError("its pickle sets attributes of a value that is not a dictionary")


def _named(text: str) -> _Name:
    if text not in _NAMES:
        raise NotWeightsError(f"its pickle names {bounds.plain(text)}, which plain weights never need")
    return _Name(text)


def _text(value: object) -> str:
    if type(value) is not str:
        raise NotWeightsError(f"its pickle has a {type(value).__name__} for a name; expected text")
    if len(value) > bounds.MOST_NAME_CHARACTERS:
        raise NotWeightsError(f"its pickle has the name {shortened(value)}; expected a shorter one")
    return value


def _fill(target: dict[Any, Any], items: Any) -> None:  # noqa: ANN401 - pairs
    for key, value in items:
        if _text(key) in target:
            raise NotWeightsError(f"its pickle has {shortened(key)} twice; expected each name once")
        target[key] = value


def _count(value: object, noun: str) -> int:
    if type(value) is not int or not 0 <= value <= _MOST_ELEMENTS:
        shown = shortened(value) if type(value) is int else type(value).__name__
        raise NotWeightsError(f"its pickle has a tensor whose {noun} is {shown}; expected 0 to {_MOST_ELEMENTS:,}")
    return value


def _counts(values: object, noun: str) -> tuple[int, ...]:
    if type(values) not in (tuple, list):
        raise NotWeightsError(f"its pickle has a tensor whose {noun} is a {type(values).__name__}; expected a tuple")
    assert isinstance(values, tuple | list)
    bounds.check(len(values), bounds.MOST_DIMENSIONS, "dimensions")
    return tuple(_count(value, noun) for value in values)


def _storage(found: object) -> Storage:
    """Return the storage of a persistent id: ("storage", class, key, device, elements), and a view in old files."""
    match found:
        case ("storage", _Name(text=name), str(key), str(_), elements, *rest) if name in STORAGES:
            num_elements, first = _count(elements, "number of elements"), 0
        case _:
            raise NotWeightsError("its pickle has a reference that is not a storage of a known data type")
    match rest:
        case [] | [None]:
            pass
        case [(_, start, size)]:
            first, num_elements = _count(start, "offset"), _count(size, "number of elements")
        case _:
            raise NotWeightsError("its pickle has a storage with unknown fields")
    return Storage(_text(key), STORAGES[name], first, num_elements)


def _called(function: object, arguments: Any) -> object:  # noqa: ANN401 - values of the pickle
    """Return the record of a call."""
    match function, arguments:
        case _Name(text=name), () if name == _ORDERED_DICT:
            return {}
        case _Name(text=name), ([*pairs],) if name == _ORDERED_DICT:
            found: dict[Any, Any] = {}
            _fill(found, ((key, value) for key, value in pairs))
            return found
        case _Name(text=name), (View() as tensor, *_) if name == _PARAMETER:
            return tensor
        case _Name(text=name), (Storage() as storage, first, shape, strides, *_) if name in _TENSORS:
            return _view(storage, first, shape, strides)
    shown = function.text if isinstance(function, _Name) else type(function).__name__
    raise NotWeightsError(f"its pickle calls {shown} with other arguments than weights have")


def _view(storage: Storage, first: object, shape: object, strides: object) -> View:
    sizes, steps = _counts(shape, "shape"), _counts(strides, "strides")
    if len(sizes) != len(steps):
        raise NotWeightsError(f"its pickle has a tensor of shape {sizes} and strides {steps}; expected as many of both")
    view = View(storage, _count(first, "offset"), sizes, steps)
    if view.num_elements and view.first + view.span > storage.num_elements:
        raise NotWeightsError(
            f"its pickle has a tensor of shape {sizes} and strides {steps} from element {view.first:,}, in a storage "
            f"of {storage.num_elements:,} elements"
        )
    return view
