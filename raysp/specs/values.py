"""Specs: the frozen, validated values of pipelines, which round-trip through JSON.

A spec is a class decorated by `@spec`. Its fields are typed and checked on construction, its first field may be passed
by position, and every failure is a `SpecError` of one line. `steps` and `pipeline` define the fields.
"""

import dataclasses
import functools
import json
import os
import platform
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypeVar, cast, dataclass_transform

import pydantic
from pydantic import AfterValidator, ConfigDict, Field, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from raysp import tracebacks
from raysp.errors import SpecError
from raysp.public_names import resolved
from raysp.words import URL_PASSWORD, suggestion

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

JsonValue: TypeAlias = pydantic.JsonValue
T = TypeVar("T")
Item = TypeVar("Item")

Listed = Annotated[Sequence[Item], AfterValidator(tuple)]
"""A sequence that is stored as a tuple, so that a spec is immutable."""

Named = Annotated[str, Field(min_length=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, le=1)]

_MAPPING = "mapping"
_EXAMPLES = {
    "Pipeline.steps": '[raysp.Decode(), raysp.Label("facebook/wav2vec2-base-960h", outputs=[raysp.Transcript()])]',
    "Pipeline.sink": 'raysp.Parquet("labels")',
    "Label.outputs": "[raysp.Transcript()]",
    "Finetune.steps": "[raysp.Decode()]",
    "Finetune.objective": 'raysp.CTC("facebook/wav2vec2-base-960h")',
    "Finetune.sink": 'raysp.Checkpoint("model")',
}
"""Values of fields that a spec cannot do without, for messages."""
_CONFIG = ConfigDict(extra="forbid", arbitrary_types_allowed=True, validate_default=True)


@dataclass_transform(frozen_default=True)
def spec(cls: type[T]) -> type[T]:
    """Make `cls` a frozen dataclass whose fields are checked on construction.

    Raises:
        SpecError: from the constructor, with the class, the field, the value found and the values expected.
    """
    made = pydantic_dataclass(frozen=True, config=_CONFIG)(cls)
    checked_init = made.__init__

    @functools.wraps(checked_init)
    def init(self: object, *args: object, **kwargs: object) -> None:
        try:
            checked_init(self, *args, **kwargs)
        except ValidationError as error:
            raise SpecError(_explain(made, error)) from None

    made.__init__ = init  # type: ignore[method-assign]
    made.__repr__ = _repr  # type: ignore[method-assign,assignment]
    return cast("type[T]", made)


def _repr(self: "DataclassInstance") -> str:
    """Return the constructor call of a spec, without fields that have their defaults."""
    return f"{type(self).__name__}({', '.join(arguments_of(self, repr))})"


def arguments_of(value: "DataclassInstance", shown: Callable[[object], str]) -> list[str]:
    """Return the arguments of the constructor call of a spec, without fields that have their defaults."""
    arguments = []
    for place, field in enumerate(dataclasses.fields(value)):
        item = getattr(value, field.name)
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if item != default:
            arguments.append(shown(item) if place == 0 else f"{field.name}={shown(item)}")
    return arguments


def _explain(cls: type, error: ValidationError) -> str:
    fields = [field.name for field in dataclasses.fields(cls)]
    explained: dict[str, list[str]] = {}  # by field: each branch of a union reports an error
    for details in error.errors(include_url=False):
        place, complaint = _explain_field(cls.__name__, fields, cast("dict[str, object]", details))
        explained.setdefault(place, []).append(complaint)
    return "; ".join(f"{place}{', or '.join(dict.fromkeys(complaints))}" for place, complaints in explained.items())


def _explain_field(owner: str, fields: list[str], error: Mapping[str, object]) -> tuple[str, str]:
    loc = cast("tuple[int | str, ...]", error["loc"])
    place = loc[0] if loc else ""  # a number for a positional argument
    name = fields[place] if isinstance(place, int) and place < len(fields) else str(place)
    match error["type"]:
        case "unexpected_keyword_argument":
            return "", f"{owner} has no field {name!r}{suggestion(name, fields)}; its fields are {', '.join(fields)}"
        case "missing" | "missing_argument":
            example = _EXAMPLES.get(f"{owner}.{name}")
            return "", f"{owner} needs {name!r}{f', such as {name}={example}' if example else ''}"
        case "unexpected_positional_argument":
            return "", f"{owner} takes only its first field by position; name the others: {', '.join(fields[1:])}"
    # After the field's name pydantic lists indexes, and branches of unions, which do not help a user.
    indexes = (str(part) for part in loc[1:] if isinstance(part, int))
    path = ".".join([owner, *([name] if name in fields else []), *indexes])
    message = str(error["msg"]).removeprefix("Value error, ").replace("a dictionary or an instance", "an instance")
    if error["type"] == "value_error":
        return f"{path}: ", message
    if error["type"] in ("is_instance_of", "dataclass_type") and isinstance(error["input"], Mapping):
        message += '; in JSON it has a key "type", the name of its class'
    message = message.replace("an instance of Sequence", "a list")
    if error["type"] == "sequence_str":
        message = 'expected a list, such as ["a", "b"]'
    value = "***" if name == "storage_options" else _shown(error["input"])
    return f"{path}: found {value}; ", f"{message[0].lower()}{message[1:]}"


def _shown(value: object) -> str:
    """Return a short text for a value, without parts that could hold a secret."""
    if isinstance(value, Mapping):
        return f"a mapping with {', '.join(map(repr, value)) or 'no keys'}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_shown(item) for item in value[:5])}{', ...' if len(value) > 5 else ''}]"
    text = _URL_SIGNATURE.sub(r"\1***", URL_PASSWORD.sub("//***@", repr(value)))
    return text if len(text) <= 200 else f"{text[:200]}..."


def matching(pattern: str, expected: str) -> AfterValidator:
    """Return the check of a field whose texts match a pattern, which a message describes by `expected`."""

    def checked(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"{text!r} is not {expected}")
        return text

    return AfterValidator(checked)


@spec
class Env:
    """A secret: the value of an environment variable, read where it is used and never stored."""

    name: Annotated[str, matching("[A-Za-z_][A-Za-z0-9_]*", "the name of an environment variable: letters, digits, _")]

    def value(self) -> str:
        """Return the value of the variable on this machine.

        Raises:
            SpecError: the variable is unset or empty.
        """
        if not (value := os.environ.get(self.name)):
            raise SpecError(
                f"the environment variable {self.name!r} is not set on {platform.node()}; set it here and, on a "
                "cluster, on every worker"
            )
        return value


@spec
class Column:
    """A column of the source, whose value of each row takes the place of one value for all rows."""

    name: Named


# `key` alone is an access key id, which S3 clients send in clear text; only the secret key must not be stored.
# A secret key of AWS may contain a slash; a number followed by a slash is a port.
_URL_SIGNATURE = re.compile(
    r"([?&](?:X-Amz-Signature|X-Amz-Security-Token|X-Goog-Signature|sig|signature)=)[^&']+", re.I
)
_SECRET = re.compile(
    r"secret|token|passw|passphrase|credential|authorization|account_key|api_key|private_key|customer_?key|sas|connection_string"
)


def is_secret_name(name: str) -> bool:
    """Return whether an option or environment variable is named like a secret."""
    return bool(_SECRET.search(name.lower()))


_NO_SECRETS = ("", True, False, "anon", "browser", "cache", "cloud", "google_default")
"""Values of such options that are no secrets; the words name the source of a token in gcsfs."""


def refuse_literal_secrets(value: object, where: str, key: str = "") -> None:
    """Raise ValueError if an option whose name indicates a secret, or a url with a password, is not given as an `Env`.

    Args:
        value: options, or the value of one.
        where: their name in the message.
        key: name of the option of a value.

    Raises:
        ValueError: the message has the option (never its value) and the remedy.
    """
    if isinstance(value, Mapping):
        for name, item in value.items():
            refuse_literal_secrets(item, f"{where}[{name!r}]", str(name))
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            refuse_literal_secrets(item, f"{where}[{index}]", key)
    elif isinstance(value, str | bytes | int | float) and value not in _NO_SECRETS and is_secret_name(key):
        raise ValueError(
            f"{where} holds a literal secret; put it into an environment variable and "
            f"write raysp.Env({re.sub(r'[^A-Z0-9]', '_', key.upper())!r})"
        )
    elif isinstance(value, str) and URL_PASSWORD.search(value):
        raise ValueError(f"{where} is a url with a password; put it into an environment variable and give raysp.Env")


def refuse_secret_url(url: str) -> str:
    """Return `url` unless it contains a password or a signature.

    Raises:
        ValueError: it contains one; the message does not repeat the url.
    """
    if URL_PASSWORD.search(url) or _URL_SIGNATURE.search(url):
        raise ValueError("the url contains a password or a signature; give them in storage_options with raysp.Env")
    return url


Url = Annotated[str, AfterValidator(refuse_secret_url)]


_DEVICE = "'auto', 'cpu', 'cuda' or another kind of device of torch. CUDA_VISIBLE_DEVICES selects among several GPUs"
Device = Annotated[str, matching("[a-z][a-z0-9_]*", _DEVICE)]


SHORTEST_SECRET = 6
"""Least characters of a value that the name of its environment variable makes a secret."""


def secret_values(value: JsonValue) -> frozenset[str]:
    """Return the values, on this machine, of the secrets that a pipeline, as JSON, names.

    Values of all environment variables that are named like secrets are included.
    """
    named = {os.environ.get(name, "") for name in _env_names(value)}
    alike = {secret for name, secret in os.environ.items() if is_secret_name(name)}
    return frozenset(named | {secret for secret in alike if len(secret) >= SHORTEST_SECRET}) - {""}


def _env_names(value: JsonValue) -> Iterator[str]:
    if isinstance(value, dict):
        if value.get("type") == Env.__name__:
            yield str(value.get("name"))
        for item in value.values():
            yield from _env_names(item)
    elif isinstance(value, list):
        for item in value:
            yield from _env_names(item)


def to_json(value: object) -> JsonValue:
    """Return a spec, or a value of a spec, as plain JSON values.

    A spec becomes an object with `type` (its class name; `module:Class` outside raysp) and all its fields.
    """
    match value:
        case None | bool() | int() | float() | str():
            return value
        case Mapping():
            items = {str(key): to_json(item) for key, item in value.items()}
            # So that the key "type" of a plain mapping is not mistaken for the type of a spec.
            return {"type": _MAPPING, "items": items} if "type" in items else items
        case list() | tuple():
            return [to_json(item) for item in value]
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise SpecError(f"found a value of type {type(value).__name__}; a pipeline holds only JSON values and specs")
    fields = {field.name: to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    cls = type(value)
    name = cls.__name__ if cls.__module__.startswith("raysp.") else f"{cls.__module__}:{cls.__qualname__}"
    return {"type": name, **fields}


def hashed_fields(value: object) -> dict[str, JsonValue]:
    """Return the fields of a spec as JSON, without those of `NOT_HASHED` of its class that have their defaults."""
    fields = cast("dict[str, JsonValue]", to_json(value))
    for field in dataclasses.fields(cast("DataclassInstance", value)):
        if field.name in getattr(value, "NOT_HASHED", ()) and getattr(value, field.name) == field.default:
            del fields[field.name]
    return fields


def from_json(value: JsonValue) -> object:
    """Return the spec from the JSON values of `to_json`.

    Raises:
        SpecError: for an unknown `type`, unknown or missing fields, or values out of range.
    """
    if isinstance(value, list):
        return tuple(from_json(item) for item in value)
    if not isinstance(value, dict):
        return value
    name, items = value.get("type"), value.get("items")
    if name == _MAPPING and isinstance(items, dict):
        return {key: from_json(item) for key, item in items.items()}
    fields = {key: from_json(item) for key, item in value.items() if key != "type"}
    if "type" not in value:
        return fields
    if not isinstance(name, str):
        raise SpecError(f"found type {name!r}; expected the name of a spec")
    import raysp

    cls = imported(name) if ":" in name else getattr(raysp, name, None)
    if not (isinstance(cls, type) and dataclasses.is_dataclass(cls)):
        raise SpecError(f"type {name!r} is not a spec of raysp; write your own class as 'module:Class'")
    return cls(**fields)


def imported(name: str) -> object:
    """Import `module:name` of a user's code.

    Raises:
        SpecError: it cannot be imported.
    """
    try:
        return resolved(name)
    except BaseException as error:  # importing runs the module, which may raise any error
        tracebacks.raise_if_stopped(error)
        raise SpecError(
            f"{name!r} cannot be imported: {tracebacks.described(error)}; it must be importable from the folder of the "
            "pipeline file"
        ) from error


def check_class(value: object, expected: type, advice: str) -> None:
    """Raise SpecError for a value of another class than a function takes; `advice` says which function takes it."""
    if not isinstance(value, expected):
        raise SpecError(f"found a {type(value).__name__}, expected a {expected.__name__}; {advice}")


def override(value: object, path: str, text: str) -> object:
    """Return `value` with the item at `path` (`steps.1.pool.actors`) replaced by `text`, parsed as JSON if possible.

    Raises:
        SpecError: there is no such path, or the new value is invalid there.
    """
    try:
        new = cast("JsonValue", json.loads(text))
    except ValueError:
        new = text
    return replaced(value, path, from_json(new))


def replaced(value: T, path: str, new: object) -> T:
    """Return `value` with the item at `path` replaced by `new`.

    Raises:
        SpecError: as `override`.
    """
    return cast("T", _replace(value, path.split("."), new, path))


def _replace(value: object, parts: list[str], new: object, path: str) -> object:
    if not parts:
        return new
    key, rest = parts[0], parts[1:]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value)]
        if key not in fields:
            raise SpecError(
                f"--set {path}: {type(value).__name__} has no field {key!r}{suggestion(key, fields)}; "
                f"its fields are {', '.join(fields)}"
            )
        return dataclasses.replace(value, **{key: _replace(getattr(value, key), rest, new, path)})
    if isinstance(value, tuple):
        if not key.isdigit() or int(key) >= len(value):
            raise SpecError(f"--set {path}: {key!r} is not an index of a list of {len(value)}")
        items = list(value)
        items[int(key)] = _replace(items[int(key)], rest, new, path)
        return tuple(items)
    if isinstance(value, Mapping):
        return {**value, key: _replace(value.get(key, {}), rest, new, path)}
    raise SpecError(f"--set {path}: nothing is below {path.removesuffix('.' + '.'.join(parts))!r}, which is {value!r}")
