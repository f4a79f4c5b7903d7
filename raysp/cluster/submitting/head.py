"""The head of a cluster: Ray's Jobs API, with bounded waits and errors that name a remedy."""

import contextlib
import json
import logging
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any

import aiohttp
import requests
from packaging.version import InvalidVersion, Version
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from raysp.cluster.ray_session import own_token
from raysp.cluster.submitting.job_entries import Job, job_of
from raysp.errors import PlanError
from raysp.words import without_password

OLDEST_RAY = "2.60"
"""Oldest release of Ray that raysp runs on."""
TIMEOUT_SECONDS = (10.0, 120.0)
"""Timeouts of a connection and of each part of an answer."""
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
LOST = (aiohttp.ClientError, OSError, RuntimeError, TimeoutError)
"""Errors of a log connection that ended early."""


class UnreachableError(PlanError):
    """A head that does not answer now."""


class _AnswerError(RuntimeError):
    """An answer of the API that is an error."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"HTTP {status}: {text.strip()[:500]}")
        self.status = status


class _Client(JobSubmissionClient):
    """The client of Ray, with timeouts, and with the status of errors; Ray's own waits without limit.

    It sends the given headers only. Ray's client adds the token of this process if a local Ray of it requires one.
    """

    def __init__(self, address: str, headers: Mapping[str, str], verify: str | bool) -> None:
        self._given_headers = headers
        super().__init__(address, headers=dict(headers), verify=verify)

    def _check_connection_and_version(self, *args: Any, **options: Any) -> None:  # noqa: ANN401
        self._headers = dict(self._given_headers)
        super()._check_connection_and_version(*args, **options)

    def _do_request(self, method: str, endpoint: str, **options: Any) -> requests.Response:  # noqa: ANN401
        options.setdefault("timeout", TIMEOUT_SECONDS)
        try:
            return super()._do_request(method, endpoint, **options)
        except requests.exceptions.SSLError as error:
            raise PlanError(
                f"--address {without_password(self._address)}: TLS failed ({_reason(error)}). For a certificate of a "
                "private authority give its certificate with --ca FILE"
            ) from error
        except (requests.ConnectionError, requests.Timeout) as error:
            where = without_password(self._address)
            raise UnreachableError(
                f"--address {where}: nothing answers there ({_reason(error)}). Is the cluster up, and is this the "
                "address of its dashboard (http://HEAD:8265)? From outside, forward the port: "
                "kubectl port-forward service/HEAD 8265"
            ) from error

    def _raise_error(self, r: requests.Response) -> None:
        raise _AnswerError(r.status_code, r.text)


class Head:
    """The Jobs API of a cluster.

    Args:
        address: address of the dashboard, such as http://head:8265; None: RAY_API_SERVER_ADDRESS, else RAY_ADDRESS.
        ca: file with the certificates of trusted authorities; None: those of the system.

    Raises:
        PlanError: there is no such address, or `ca` with one that is not encrypted; the head does not answer, refuses
            the token, or runs a Ray that is too old.
    """

    def __init__(self, address: str | None, ca: str | None = None) -> None:
        self.address = dashboard_address(address)
        self.shown = without_password(self.address)
        if ca is not None and not self.address.startswith("https://"):
            raise PlanError(
                f"--ca {ca}: a certificate is for https, and the connection to {self.shown} is not encrypted; give the "
                "address as https://HOST:PORT, or leave --ca out"
            )
        """The address as it is printed."""
        self.token = _token_to_send()
        """Token that is sent with requests; None: not set here."""
        for name in ("ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk"):
            logging.getLogger(name).setLevel(logging.WARNING)
        with self._explained(), _without(ADDRESS_VARIABLES):
            self._client = _Client(self.address, headers=_headers(self.token), verify=ca or True)
        self._refuse_old_ray()

    def submit(
        self, job_id: str, entrypoint: str, runtime_env: Mapping[str, object], metadata: Mapping[str, str]
    ) -> None:
        """Upload the package of a runtime environment if the cluster does not have it, and start a job.

        Raises:
            PlanError: the head refuses the job.
        """
        with self._explained():
            self._client.submit_job(
                submission_id=job_id, entrypoint=entrypoint, runtime_env=dict(runtime_env), metadata=dict(metadata)
            )

    def jobs(self) -> list[Job]:
        """Return the jobs of raysp, oldest first."""
        with self._explained():
            found = [job_of(dict(details)) for details in self._client.list_jobs()]
        return sorted((job for job in found if job), key=lambda job: job.started or float("inf"))

    def job(self, job_id: str) -> Job:
        """Return a job of raysp.

        Raises:
            PlanError: the cluster has no such job.
        """
        with self._explained():
            try:
                found = job_of(dict(self._client.get_job_info(job_id)))
            except _AnswerError as answer:
                if answer.status != requests.codes.not_found:
                    raise
                found = None
        if found is None:
            raise PlanError(f"{self.shown} has no job of raysp named {job_id!r}; `raysp jobs` lists them")
        return found

    def request_stop(self, job_id: str) -> None:
        """Request that a job stops. It ends in order within the time that its runtime environment sets."""
        with self._explained():
            self._client.stop_job(job_id)

    def log(self, job_id: str) -> AsyncIterator[str]:
        """Return the log of a job from its beginning, in parts, until the job ends.

        Raises:
            LOST: from the iterator, if the connection breaks.
        """
        return self._client.tail_job_logs(job_id)

    def _refuse_old_ray(self) -> None:
        found = str(self._client._server_ray_version)
        with contextlib.suppress(InvalidVersion):
            if Version(found) < Version(OLDEST_RAY):
                raise PlanError(f"--address {self.shown}: found Ray {found} there, expected {OLDEST_RAY} or later")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Raise errors of the API as PlanError with the address and a remedy."""
        try:
            yield
        except AuthenticationError as error:
            raise PlanError(f"--address {self.shown}: {_token_advice(str(error))}") from error
        except requests.HTTPError as error:
            raise UnreachableError(f"--address {self.shown}: {without_password(str(error))}") from error
        except (requests.exceptions.JSONDecodeError, KeyError, json.JSONDecodeError) as error:
            raise PlanError(
                f"--address {self.shown}: the answer is not of a Ray dashboard; expected its address, such as "
                "http://HEAD:8265"
            ) from error
        except FileNotFoundError as error:
            raise PlanError(f"--ca: {error}") from error
        except (RuntimeError, ValueError) as error:
            kind = UnreachableError if isinstance(error, _AnswerError) and error.status >= 500 else PlanError
            raise kind(f"--address {self.shown}: {without_password(str(error))}") from error


def dashboard_address(address: str | None) -> str:
    """Return the url of a dashboard.

    Raises:
        PlanError: no address is given, or it is of another kind.
    """
    given = address or next((found for name in ADDRESS_VARIABLES if (found := os.environ.get(name))), None)
    if given is None or (address is None and "://" not in given):
        raise PlanError("no cluster given; give --address http://HEAD:8265 or set RAY_API_SERVER_ADDRESS to it")
    scheme, separator, rest = given.partition("://")
    if not separator:
        return f"http://{given.rstrip('/')}"
    if scheme not in ("http", "https") or not rest:
        raise PlanError(
            f"--address {without_password(given)}: expected the address of the cluster's dashboard, such as http://HEAD:8265"
        )
    return given.rstrip("/")


def _token_to_send() -> str | None:
    """Return the token to send: if RAY_AUTH_MODE=token, any that Ray finds; if it is not set, only one that is given.

    A token that a local Ray left in ~/.ray may be of another cluster: it is not sent unasked.

    Raises:
        PlanError: RAY_AUTH_MODE=token, and there is no token.
    """
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    is_given = bool(os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"))
    if mode != "token" and (mode or not is_given):
        return None
    if (token := own_token()) is None:
        raise PlanError(
            "RAY_AUTH_MODE=token: found no token; set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file with it"
        )
    return token


def _token_advice(error: str) -> str:
    if "Authentication failed" in error:
        return "the head refuses the token; set RAY_AUTH_TOKEN to the cluster's own (`ray get-auth-token` on its head)"
    return (
        "the head requires a token and got none; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the cluster's token "
        "(`ray get-auth-token` on its head prints it)"
    )


def _headers(token: str | None) -> dict[str, str]:
    """Return the headers of RAY_JOB_HEADERS, which `ray job` sends too, for example to a proxy, and the token's."""
    try:
        given = json.loads(os.environ.get("RAY_JOB_HEADERS") or "{}").items()
    except (ValueError, AttributeError):
        raise PlanError("RAY_JOB_HEADERS: expected a JSON object of names and values") from None
    headers = {str(name): str(value) for name, value in given}
    if token is None:
        return headers
    is_taken = any(name.lower() == "authorization" for name in headers)
    return {**headers, "X-Ray-Authorization" if is_taken else "Authorization": f"Bearer {token}"}


def _reason(error: BaseException) -> str:
    """Return the innermost reason of an error of `requests`, without the objects and addresses before it."""
    while (inner := getattr(error, "reason", None) or (error.args[0] if error.args else None)) is not None:
        if not isinstance(inner, BaseException):
            break
        error = inner
    return without_password(str(error).rpartition(": ")[2])


@contextlib.contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    """Hide environment variables: Ray's client prefers them to the address that it is given."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
