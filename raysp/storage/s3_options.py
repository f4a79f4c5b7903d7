"""Options of a store on S3, with the names and meanings of s3fs.

Options that tune buffers and caches of s3fs are accepted and have no effect: raysp reads and writes by its own rules.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from raysp.errors import StoreError
from raysp.storage.options import resolve

ATTEMPTS = 6

KNOWN_OPTIONS: Mapping[str, type] = {
    **{"anon": bool, "client_kwargs": Mapping, "endpoint_url": str, "key": str, "profile": str, "region": str},
    **{"secret": str, "token": str, "config_kwargs": Mapping, "password": str, "requester_pays": bool},
    **{"s3_additional_kwargs": Mapping, "use_ssl": bool, "username": str},
}
"""Types of the options. `float` stands for a number above 0, `int` for a number from 0."""
WITHOUT_EFFECT = (
    *("cache_regions", "default_block_size", "default_cache_type", "default_fill_cache", "fixed_upload_size"),
    *("listings_expiry_time", "local_expiry_check", "max_concurrency", "max_paths", "skip_instance_cache"),
    "use_listings_cache",
)
_CLIENT_OPTIONS: Mapping[str, type] = {
    **{"endpoint_url": str, "region_name": str, "use_ssl": bool},
    **{"aws_access_key_id": str, "aws_secret_access_key": str, "aws_session_token": str},
}
_CONFIG_OPTIONS: Mapping[str, type] = {
    **{"connect_timeout": float, "max_pool_connections": float, "proxies": Mapping, "proxies_config": Mapping},
    **{"read_timeout": float, "region_name": str, "request_checksum_calculation": str},
    **{"response_checksum_validation": str, "retries": Mapping, "s3": Mapping, "signature_version": str},
    **{"tcp_keepalive": bool, "use_dualstack_endpoint": bool, "use_fips_endpoint": bool, "user_agent_extra": str},
}
_REQUEST_OPTIONS: Mapping[str, type] = {
    **dict.fromkeys(("ACL", "CacheControl", "ContentDisposition", "ContentType", "ExpectedBucketOwner"), str),
    **dict.fromkeys(("GrantFullControl", "GrantRead", "GrantReadACP", "GrantWriteACP", "RequestPayer"), str),
    **dict.fromkeys(("SSECustomerAlgorithm", "SSECustomerKey", "SSEKMSEncryptionContext", "SSEKMSKeyId"), str),
    **{"BucketKeyEnabled": bool, "ServerSideEncryption": str, "StorageClass": str, "Tagging": str},
}
"""Parameters of requests that select no other file, version or part of a file."""
_NESTED = {
    "client_kwargs": _CLIENT_OPTIONS,
    "config_kwargs": _CONFIG_OPTIONS,
    "s3_additional_kwargs": _REQUEST_OPTIONS,
}
_OTHER_NAMES = {
    "": {"username": "key", "password": "secret"},
    "client_kwargs": {
        **{"endpoint_url": "endpoint_url", "region_name": "region", "use_ssl": "use_ssl"},
        **{"aws_access_key_id": "key", "aws_secret_access_key": "secret", "aws_session_token": "token"},
    },
    "config_kwargs": {"region_name": "region"},
    "s3_additional_kwargs": {},
}
"""Second names of options, by the option that holds them."""


@dataclass(frozen=True)
class S3Options:
    """Options of an S3 client. Values of None are taken from the environment and the profile."""

    key: str | None = None
    secret: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    profile: str | None = None
    anon: bool = False
    endpoint_url: str | None = None
    region: str | None = None
    use_ssl: bool = True
    attempts: int = ATTEMPTS
    """Attempts for each request."""
    config: Mapping[str, object] = field(default_factory=dict, repr=False)
    """Arguments of botocore's `Config`."""
    parameters: Mapping[str, object] = field(default_factory=dict, repr=False)
    """Parameters of every request whose operation has them."""


def read_options(options: Mapping[str, object]) -> S3Options:
    """Check storage options and resolve those that stand for an environment variable.

    Raises:
        StoreError: an option is unknown, a value has the wrong type, or only one of `key` and `secret` is set.
    """
    effective = {name: value for name, value in resolve(options).items() if name not in WITHOUT_EFFECT}
    top = _checked(effective, KNOWN_OPTIONS, "storage_options")
    nested = {name: _checked(top.pop(name, {}), _NESTED[name], f"storage_options[{name!r}]") for name in _NESTED}
    for place, values in {"": top, **nested}.items():
        _rename(values, top, place)
    if ("key" in top) != ("secret" in top):
        raise StoreError("storage_options: 'key' and 'secret' go together; give both, or a profile")
    config, parameters = nested["config_kwargs"], nested["s3_additional_kwargs"]
    if top.pop("requester_pays", False):
        parameters.setdefault("RequestPayer", "requester")
    attempts = _attempts(config.pop("retries", {}))
    return S3Options(**cast("dict[str, Any]", top), attempts=attempts, config=config, parameters=parameters)


def _checked(values: object, types: Mapping[str, type], where: str) -> dict[str, object]:
    """Return the options that are set, or raise if one is unknown or has the wrong type."""
    options = cast("Mapping[str, object]", values)
    if unknown := sorted(set(options) - set(types)):
        hint = "; set AWS_CA_BUNDLE to the file of your own certificate" if unknown[0] == "verify" else ""
        raise StoreError(f"{where}: s3 has no option {unknown[0]!r}; its options are {', '.join(types)}{hint}")
    for name, value in options.items():
        if value is not None and not _is_a(value, types[name]):
            words = _WORDS.get(types[name], types[name].__name__)
            raise StoreError(f"{where}[{name!r}] is a {type(value).__name__}; expected {words}")
    return {name: value for name, value in options.items() if value is not None}


_WORDS = {Mapping: "a mapping", float: "a number above 0", int: "a number from 0"}


def _is_a(value: object, expected: type) -> bool:
    if expected not in (float, int):
        return isinstance(value, expected)
    is_number = isinstance(value, (int, float) if expected is float else int) and not isinstance(value, bool)
    return is_number and cast("float", value) >= 0 and (expected is int or value != 0)


def _rename(values: dict[str, object], targets: dict[str, object], place: str) -> None:
    """Move the values that have a second name to `targets`."""
    for theirs, ours in _OTHER_NAMES[place].items():
        if theirs in values and targets.setdefault(ours, value := values.pop(theirs)) != value:
            name = f"{place}[{theirs!r}]" if place else repr(theirs)
            raise StoreError(f"storage_options: {ours!r} and {name} differ; give one of them")


def _attempts(retries: object) -> int:
    """Return the attempts for each request. `max_attempts` of botocore counts those after the first."""
    types = {"max_attempts": int, "mode": str, "total_max_attempts": int}
    counts = cast("dict[str, int]", _checked(retries, types, "storage_options['config_kwargs']['retries']"))
    return max(1, counts.get("total_max_attempts", counts.get("max_attempts", ATTEMPTS - 1) + 1))
