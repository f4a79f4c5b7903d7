"""Access to S3: one boto3 client per set of options, bounded retries, errors.

All retries happen in this module. Those of boto3 are off, since they end at the first byte of a body. No message, log
line or exception that leaves this module contains a credential.
"""

import hashlib
import json
import logging
import random
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cache, partial
from typing import Any, TypeVar, cast

from raysp.errors import StoreError
from raysp.storage.s3_options import ATTEMPTS, S3Options, read_options
from raysp.storage.store import ArchivedError, RefusedError, UnusableError

logger = logging.getLogger(__name__)
T = TypeVar("T")

FIRST_DELAY_SECONDS = 0.2
MAX_DELAY_SECONDS = 10.0
CONNECT_SECONDS = 10
READ_SECONDS = 30
"""Read timeout: maximum seconds without a byte of the response or its body."""
MAX_CONNECTIONS = 32
DEFAULT_REGION = "us-east-1"
SHOWN_CHARACTERS = 200


class TruncatedError(Exception):
    """A response with fewer bytes than requested."""


class S3Client:
    """A boto3 client with retries of transient errors. It is recreated when its credentials expire."""

    def __init__(self, options: Mapping[str, object]) -> None:
        self._options = options
        self._made: Any = None
        self._attempts = ATTEMPTS
        self._secrets: tuple[str, ...] = ()
        self._lock = threading.Lock()

    def call(self, work: Callable[[Any], T], doing: str, place: str) -> T:
        """Call `work` with the boto3 client.

        Transient errors are retried with jitter, as often as the options say. Expired credentials are renewed
        once.

        Raises:
            StoreError: the request was refused, or the last attempt failed.
        """
        attempt, renewed = 1, False
        while True:
            client = self._client(place)
            try:
                return work(client)
            except Exception as error:
                code = code_of(error)
                if code in _EXPIRED and not renewed:
                    renewed = True
                    self._renew(client)
                elif _passes(error, code) and attempt < self._attempts:
                    logger.info("%s: %s failed (%s), attempt %d of %d", place, doing, code, attempt, self._attempts)
                    _pause(attempt)
                    attempt += 1
                elif code:
                    raise self._explain(error, code, doing, place, attempt) from None
                else:
                    raise

    def _client(self, place: str) -> Any:  # noqa: ANN401 - boto3 has no types
        with self._lock:
            if self._made is None:
                try:
                    options = read_options(self._options)
                    self._made, self._secrets = _make(options)
                    self._attempts = options.attempts
                except StoreError:
                    raise
                except Exception as error:
                    raise StoreError(f"{place}: cannot create a client from the storage options: {error}") from None
            return self._made

    def _renew(self, old: object) -> None:
        logger.info("S3 credentials have expired: looking them up again")
        with self._lock:
            # Another thread may have renewed it already.
            if self._made is old:
                self._made = None

    def _explain(self, error: Exception, code: str, doing: str, place: str, attempts: int) -> StoreError:
        status = _status(error)
        message = _message(error, self._secrets)
        facts = [code, f"HTTP {status}" if status and str(status) != code else "", message]
        tries = f", {attempts} attempts" if attempts > 1 else ""
        reason = ": ".join(fact for fact in (" ".join(f for f in facts[:2] if f), facts[2]) if fact)
        made = _kind(code, status)(f"{place}: cannot {doing} it ({reason}{tries}); {_advice(code, status)}")
        made.code = code
        return made


_clients: dict[str, S3Client] = {}
"""Clients by the hash of their options."""
_clients_lock = threading.Lock()


def connect(options: Mapping[str, object]) -> S3Client:
    """Return the client for these options. Equal options share one client per process, and its connections."""
    read = json.dumps(asdict(read_options(options)), sort_keys=True, default=repr)
    digest = hashlib.sha256(read.encode()).hexdigest()
    with _clients_lock:
        return _clients.setdefault(digest, S3Client(options))


def _make(options: S3Options) -> tuple[Any, tuple[str, ...]]:
    try:
        import boto3
        import botocore
        import botocore.session
        from botocore.config import Config
    except ImportError as error:
        raise StoreError(f"s3:// urls need boto3 ({error}); pip install 'raysp[s3]'") from error
    defaults = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "max_pool_connections": MAX_CONNECTIONS,
        # From botocore 1.36 on the default adds checksums to every request, which stores other than AWS may refuse.
        "request_checksum_calculation": "when_required",
        "response_checksum_validation": "when_required",
        # Its own text is composed again for every request, which takes a tenth of the time of one.
        "user_agent": f"Boto3/{boto3.__version__} Botocore/{botocore.__version__} raysp",
    }
    unsigned = {"signature_version": botocore.UNSIGNED} if options.anon else {}
    config = Config(**{**defaults, **options.config, **unsigned, "retries": {"total_max_attempts": 1}})
    core = botocore.session.Session(profile=options.profile)
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_time)
    core.register_component("data_loader", _loader(core.get_config_variable("data_path")))
    session = boto3.session.Session(
        botocore_session=core,
        aws_access_key_id=options.key,
        aws_secret_access_key=options.secret,
        aws_session_token=options.token,
        profile_name=options.profile,
        region_name=options.region,
    )
    client = session.client(
        "s3",
        endpoint_url=options.endpoint_url,
        region_name=session.region_name or DEFAULT_REGION,
        use_ssl=options.use_ssl,
        config=config,
    )
    client.meta.events.register("provide-client-params.s3", partial(_with_parameters, options.parameters))
    client.meta.events.register("before-call.s3.HeadBucket", _end_redirects)
    key = options.parameters.get("SSECustomerKey")
    secrets = () if options.anon else _secrets(session)
    return client, (*secrets, key) if isinstance(key, str) else secrets


@cache
def _loader(folders: str | None) -> Any:  # noqa: ANN401 - botocore has no types
    """Return botocore's loader of API definitions, shared so that they are parsed once per process, not per client."""
    import botocore.loaders

    return botocore.loaders.create_loader(folders)


def _time(text: str) -> datetime:
    """Parse a time of a response: RFC 3339 in a listing, RFC 9110 in a header."""
    # A page of a listing has a thousand times, on which botocore's own parser spends three quarters of the page's time.
    try:
        time_read = datetime.fromisoformat(text) if text[:1].isdigit() else parsedate_to_datetime(text)
    except ValueError:
        time_read = None
    if time_read is None or time_read.tzinfo is None:
        from botocore.utils import parse_timestamp

        return cast("datetime", parse_timestamp(text))
    return time_read


def _with_parameters(more: Mapping[str, object], params: Mapping[str, object], model: Any, **_: object) -> object:  # noqa: ANN401
    """Return the parameters of a request with those of `more` that its operation has."""
    return {name: value for name, value in more.items() if name in model.input_shape.members} | dict(params)


def _end_redirects(context: Mapping[str, Any], **_: object) -> None:
    """Keep botocore from following redirects of its own request for a bucket's region, which would recurse."""
    context.get("s3_redirect", {})["redirected"] = True


def _secrets(session: Any) -> tuple[str, ...]:  # noqa: ANN401 - boto3 has no types
    credentials = session.get_credentials()
    if credentials is None:
        return ()
    frozen = credentials.get_frozen_credentials()
    return tuple(secret for secret in (frozen.secret_key, frozen.token) if secret)


def _pause(attempt: int) -> None:
    """Sleep with exponential backoff and jitter, so that workers do not retry at the same time."""
    longest = min(MAX_DELAY_SECONDS, FIRST_DELAY_SECONDS * 2 ** (attempt - 1))
    time.sleep(random.uniform(longest / 2, longest))


def code_of(error: Exception) -> str:
    """Return the store's error code, or the name of a client's exception. Empty for all other errors."""
    if isinstance(error, TruncatedError):
        return "TruncatedBody"
    response = getattr(error, "response", None)
    if isinstance(response, dict) and "Error" in response:
        return str(response["Error"].get("Code") or _status(error) or "Unknown")
    module = type(error).__module__.partition(".")[0]
    return type(error).__name__ if module in ("botocore", "boto3", "urllib3") or _is_network(error) else ""


def _is_network(error: Exception) -> bool:
    return isinstance(error, ConnectionError | TimeoutError)


def _status(error: Exception) -> int | None:
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return None
    status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status if isinstance(status, int) else None


def _message(error: Exception, secrets: Sequence[str]) -> str:
    """Return the message of the store or client. Empty if it could reveal how the request was signed."""
    response = getattr(error, "response", None)
    message = response.get("Error", {}).get("Message") if isinstance(response, dict) else str(error)
    if not isinstance(message, str) or _OF_SIGNING.search(message) or any(secret in message for secret in secrets):
        return ""
    return " ".join(message.split())[:SHOWN_CHARACTERS]


_OF_SIGNING = re.compile("signature|credential=|token|secret|authorization|aws4|x-amz", re.I)


def _passes(error: Exception, code: str) -> bool:
    """Return whether an error is transient. Refusals by permission, name or format are not."""
    status = _status(error)
    if status is not None:
        return status in (429, 500, 502, 503, 504) or code in _PASSING
    return code in _PASSING or _is_network(error)


_PASSING = {
    *("SlowDown", "Throttling", "ThrottlingException", "RequestThrottled", "RequestLimitExceeded", "TooManyRequests"),
    *("InternalError", "ServiceUnavailable", "RequestTimeout", "OperationAborted", "BadDigest", "IncompleteBody"),
    *("ConditionalRequestConflict", "TruncatedBody"),
    # From botocore and urllib3: connection refused, reset, closed or timed out, or a body that ended early.
    *("ConnectionError", "EndpointConnectionError", "ConnectionClosedError", "ConnectTimeoutError", "HTTPClientError"),
    *("ReadTimeoutError", "ResponseStreamingError", "IncompleteReadError", "IncompleteRead", "ProtocolError"),
    *("ProxyConnectionError",),
}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}

_UNUSABLE = {
    *_EXPIRED,
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "NoCredentialsError", "CredentialRetrievalError"),
    *("PartialCredentialsError", "UnauthorizedSSOTokenError", "AllAccessDisabled", "NoSuchBucket"),
    *("QuotaExceeded", "InsufficientStorage", "RequestTimeTooSkewed", "PermanentRedirect", "SSLError"),
    *("301", "302", "307", "308"),
}

_REFUSED = {"AccessDenied", "403"}
"""Codes for the permissions of one object. `AllAccessDisabled` and wrong keys concern all objects."""
_ARCHIVED = "InvalidObjectState"

_GO_ON = "run again: committed work is kept"
_RESTORE = f"restore it (aws s3api restore-object, which takes hours) or copy it to another class, then {_GO_ON}"
_NO_PERMISSION = "grant these credentials permission, or give others"
_NO_KEYS = "give credentials: storage_options, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
_WRONG_KEYS = "give other credentials: storage_options, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile"
_NOT_REACHED = f"check endpoint_url (or AWS_ENDPOINT_URL) and the network, and {_GO_ON}"
_ADVICE = {
    **dict.fromkeys(
        _EXPIRED, f"the credentials have expired, also after they were looked up again: renew them, {_GO_ON}"
    ),
    **dict.fromkeys(("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken"), _WRONG_KEYS),
    "NoCredentialsError": _NO_KEYS,
    **dict.fromkeys(("CredentialRetrievalError", "PartialCredentialsError", "UnauthorizedSSOTokenError"), _WRONG_KEYS),
    **dict.fromkeys(("AccessDenied", "AllAccessDisabled", "403", "401"), _NO_PERMISSION),
    _ARCHIVED: f"it is archived (class GLACIER, DEEP_ARCHIVE or an archive tier): {_RESTORE}",
    **dict.fromkeys(("NoSuchKey", "404"), "check the url"),
    **dict.fromkeys(("EndpointConnectionError", "ConnectTimeoutError", "ProxyConnectionError"), _NOT_REACHED),
    **dict.fromkeys(("QuotaExceeded", "InsufficientStorage", "EntityTooLarge"), f"free space and {_GO_ON}"),
    **dict.fromkeys(("PermanentRedirect", "301"), "the bucket is in another region: set region or endpoint_url"),
    **dict.fromkeys(("302", "307", "308"), "redirects are not followed: set endpoint_url to where the bucket is"),
    "NoSuchBucket": "there is no such bucket: create it, or correct the url or endpoint_url",
    "RequestTimeTooSkewed": "set this machine's clock",
    "SSLError": "check endpoint_url, and AWS_CA_BUNDLE for your own certificate",
    "SlowDown": f"the store limits the request rate: use fewer actors, or {_GO_ON}",
}


def _kind(code: str, status: int | None) -> type[StoreError]:
    if code == _ARCHIVED:
        return ArchivedError
    if code in _REFUSED:
        return RefusedError
    return UnusableError if code in _UNUSABLE or status in (401, 403) else StoreError


def _advice(code: str, status: int | None) -> str:
    return _ADVICE.get(code, _NO_PERMISSION if status in (401, 403) else f"check the store and {_GO_ON}")
