"""The head of a cluster: Ray's Jobs API, with bounded waits and errors that name a remedy, and its jobs' logs."""

import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import requests
from packaging.version import Version
from ray.exceptions import AuthenticationError
from ray.job_submission import JobSubmissionClient

from raysp.cluster.connection import own_token
from raysp.errors import PlanError, RunError
from raysp.words import without_password

OLDEST_RAY = "2.60"
"""Oldest release of Ray that raysp runs on."""
TIMEOUT_SECONDS = (10.0, 120.0)
"""Timeouts of a connection and of each part of an answer."""
STOP_SECONDS = 120
"""Time that a job has to end in order after a request to stop; by default Ray kills it after three seconds."""
SPARE_SECONDS = 30.0
"""Time that Ray has to report the end of a job that it has killed."""
POLL_SECONDS = 0.5
ADDRESS_VARIABLES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
Status = Literal["pending", "running", "succeeded", "failed", "stopped"]
VERSION, SINK, FILE = "raysp_version", "raysp_sink", "raysp_file"
"""Keys of a job's metadata: the version of raysp that submitted it, the url of the sink, the pipeline file."""
STOPPED_CODE, NOT_FOUND_CODE, FAILED_CODE, REFUSED_CODE = 143, 127, 1, 2
_LOGGERS = ("ray", "ray.dashboard.modules.dashboard_sdk", "ray.dashboard.modules.job.sdk")
"""Loggers of Ray's messages about a package: `collect` reports left-out files and refuses large ones."""

PAUSE_SECONDS = 1.0
"""Time between two requests for the log."""
BYTES_PER_SECOND = 500_000
"""Rate of a log that is requested again and again, so that a long one takes no whole network."""
PATIENCE_SECONDS = 300.0
"""Time without an answer after which following ends; the job goes on."""
LOG_ATTEMPTS = 10
"""Requests for the log of a job that has ended: the log of a lost machine cannot be read."""


@dataclass(frozen=True)
class Job:
    """A job that `raysp submit` started, as Ray reports it."""

    id: str
    status: Status
    sink: str
    file: str
    version: str
    """Version of raysp that submitted the job."""
    started: float | None
    """Unix time in seconds; None: not started yet."""
    ended: float | None
    driver_exit_code: int | None
    """Exit code of the run as Ray reports it; None: still running, stopped, or killed with its machine."""
    message: str = ""
    """Ray's sentence on the status."""

    @property
    def is_over(self) -> bool:
        """Whether the job has ended."""
        return self.status in ("succeeded", "failed", "stopped")

    @property
    def lacks_raysp(self) -> bool:
        """Whether the job failed because the cluster has no raysp, or no Python of that name."""
        is_missing = any(f"No module named {name}" in self.message for name in ("raysp", "'raysp'", "'raysp."))
        return self.status == "failed" and (self.driver_exit_code == NOT_FOUND_CODE or is_missing)

    @property
    def exit_code(self) -> int | None:
        """Exit code of the run: 143 if the job was stopped, 128 + n if signal n killed it; None while it runs."""
        if not self.is_over:
            return None
        if self.status == "stopped":
            return STOPPED_CODE
        if self.lacks_raysp:
            return REFUSED_CODE
        if self.driver_exit_code is None:
            return 0 if self.status == "succeeded" else FAILED_CODE
        return self.driver_exit_code if self.driver_exit_code >= 0 else 128 - self.driver_exit_code

    @classmethod
    def of(cls, details: Mapping[str, Any]) -> "Job | None":
        """Return a job from the fields of Ray's `JobDetails`; None if raysp did not submit it."""
        metadata = details.get("metadata") or {}
        if VERSION not in metadata:
            return None
        started, ended = ((at := details.get(name)) and at / 1000 for name in ("start_time", "end_time"))
        return cls(
            id=details["submission_id"],
            status=details["status"].value.lower(),
            sink=metadata.get(SINK, ""),
            file=metadata.get(FILE, ""),
            version=metadata[VERSION],
            started=started,
            ended=ended,
            driver_exit_code=details.get("driver_exit_code"),
            message=details.get("message") or "",
        )


class UnreachableError(PlanError):
    """A head that does not answer now."""


class Head(JobSubmissionClient):
    """The Jobs API of a cluster. Ray's own client waits without limit.

    Args:
        address: address of the dashboard, such as http://head:8265; None: RAY_API_SERVER_ADDRESS, else RAY_ADDRESS.
        ca: file with the certificates of trusted authorities; None: the system's.

    Raises:
        PlanError: there is no such address, or `ca` with one that is not encrypted; the head does not answer, refuses
            the token, or runs a Ray that is too old.
    """

    def __init__(self, address: str | None, ca: str | None = None) -> None:
        url = dashboard_address(address)
        self.shown = without_password(url)
        """The address as it is printed."""
        if ca is not None and not url.startswith("https://"):
            raise PlanError(
                f"--ca {ca}: a certificate is for https, and the connection to {self.shown} is not encrypted; give the "
                "address as https://HOST:PORT, or leave --ca out"
            )
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        self._sent = _headers()
        try:
            with _without(ADDRESS_VARIABLES):
                super().__init__(url, headers=self._sent, verify=ca or True)
        except FileNotFoundError as error:
            raise PlanError(f"--ca: {error}") from error
        except (RuntimeError, KeyError, ValueError) as error:
            raise PlanError(
                f"--address {self.shown}: the answer is not of a Ray dashboard ({without_password(str(error))}); "
                "expected its address, such as http://HEAD:8265"
            ) from error
        if Version(version := str(self._server_ray_version)) < Version(OLDEST_RAY):
            raise PlanError(f"--address {self.shown}: found Ray {version} there, expected {OLDEST_RAY} or later")

    def _do_request(self, method: str, endpoint: str, **options: Any) -> requests.Response:  # noqa: ANN401
        where = f"--address {self.shown}"
        self._headers = self._sent  # Ray adds the token of a local Ray that this process has started
        try:
            answer = super()._do_request(method, endpoint, timeout=TIMEOUT_SECONDS, **options)
        except AuthenticationError as error:
            if "Authentication failed" in str(error):
                advice = "refuses the token; set RAY_AUTH_TOKEN to the cluster's own (`ray get-auth-token` on its head)"
            else:
                advice = (
                    "requires a token and got none; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the cluster's token "
                    "(`ray get-auth-token` on its head prints it)"
                )
            raise PlanError(f"{where}: the head {advice}") from error
        except requests.exceptions.SSLError as error:
            raise PlanError(
                f"{where}: TLS failed ({_reason(error)}). For a certificate of a private authority give its "
                "certificate with --ca FILE"
            ) from error
        except (requests.ConnectionError, requests.Timeout) as error:
            raise UnreachableError(
                f"{where}: nothing answers there ({_reason(error)}). Is the cluster up, and is this the address of its "
                "dashboard (http://HEAD:8265)? From outside, forward the port: "
                "kubectl port-forward service/HEAD 8265"
            ) from error
        except requests.RequestException as error:
            raise PlanError(f"{where}: {without_password(str(error))}") from error
        if answer.status_code >= 400 and answer.status_code != requests.codes.not_found:
            kind = UnreachableError if answer.status_code >= 500 else PlanError
            raise kind(f"{where}: HTTP {answer.status_code}: {answer.text.strip()[:500]}")
        return answer

    def jobs(self) -> list[Job]:
        """Return the jobs of raysp, oldest first."""
        jobs = [Job.of(dict(details)) for details in self.list_jobs()]
        return sorted((job for job in jobs if job), key=lambda job: job.started or float("inf"))

    def job(self, job_id: str) -> Job:
        """Return a job of raysp.

        Raises:
            PlanError: the cluster has no such job.
        """
        try:
            job = Job.of(dict(self.get_job_info(job_id)))
        except RuntimeError:  # HTTP 404
            job = None
        if job is None:
            raise PlanError(f"{self.shown} has no job of raysp named {job_id!r}; `raysp jobs` lists them")
        return job

    def stop(self, job_id: str) -> Job:
        """Stop a job, wait until it has ended, and return it; a job that has ended is returned unchanged.

        Raises:
            PlanError: there is no such job of raysp.
            RunError: it has not ended in time.
        """
        if not (job := self.job(job_id)).is_over:
            self.stop_job(job_id)
        patience = STOP_SECONDS + SPARE_SECONDS
        deadline = time.monotonic() + patience
        while not job.is_over:
            if time.monotonic() > deadline:
                raise RunError(f"the job {job_id} has not ended within {patience:,.0f} s; `raysp jobs` shows it")
            time.sleep(POLL_SECONDS)
            job = self.job(job_id)
        return job


def dashboard_address(address: str | None) -> str:
    """Return the url of a dashboard.

    Raises:
        PlanError: no address is given, or it is of another kind.
    """
    url = address or next((value for name in ADDRESS_VARIABLES if (value := os.environ.get(name))), None)
    if url is None or (address is None and "://" not in url):
        raise PlanError("no cluster given; give --address http://HEAD:8265 or set RAY_API_SERVER_ADDRESS to it")
    scheme, separator, rest = url.partition("://")
    if not separator:
        return f"http://{url.rstrip('/')}"
    if scheme not in ("http", "https") or not rest:
        raise PlanError(
            f"--address {without_password(url)}: expected the address of the cluster's dashboard, such as http://HEAD:8265"
        )
    return url.rstrip("/")


def _headers() -> dict[str, str]:
    """Return the headers of RAY_JOB_HEADERS, which `ray job` sends too, for example to a proxy, and of the token."""
    # With RAY_AUTH_MODE=token it is any that Ray finds. Without that variable, only one that the environment gives: the
    # token that a local Ray left in ~/.ray may be of another cluster.
    try:
        entries = json.loads(os.environ.get("RAY_JOB_HEADERS") or "{}").items()
    except (ValueError, AttributeError):
        raise PlanError("RAY_JOB_HEADERS: expected a JSON object of names and values") from None
    headers = {str(name): str(value) for name, value in entries}
    mode = os.environ.get("RAY_AUTH_MODE", "").lower()
    has_token = os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH")
    if mode != "token" and (mode or not has_token):
        return headers
    if (token := own_token()) is None:
        raise PlanError(
            "RAY_AUTH_MODE=token: found no token; set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH to a file with it"
        )
    has_authorization = any(name.lower() == "authorization" for name in headers)
    return {**headers, "X-Ray-Authorization" if has_authorization else "Authorization": f"Bearer {token}"}


def _reason(error: BaseException) -> str:
    """Return the innermost reason of an error of `requests`, without the objects and addresses before it."""
    return str(error).rpartition(": ")[2].rstrip("')\"")


@contextlib.contextmanager
def _without(names: tuple[str, ...]) -> Iterator[None]:
    """Hide environment variables: Ray's client prefers them to the `address` argument."""
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


def follow(
    head: Head,
    job_id: str,
    on_line: Callable[[str], None],
    *,
    pause_seconds: float = PAUSE_SECONDS,
    patience_seconds: float = PATIENCE_SECONDS,
    sleep: Callable[[float], None] = time.sleep,
) -> Job:
    """Emit the lines of a job's log as they appear, and return the job when it has ended.

    Raises:
        PlanError: there is no such job, or the head refuses the token.
        RunError: the head does not answer any more.
    """
    job, log = None, ""
    shown, failures, last_answer = 0, 0, time.monotonic()
    while True:
        try:
            job = head.job(job_id)
            last_answer = time.monotonic()
            log = head.get_job_logs(job_id)
        except UnreachableError as error:
            failures += 1
            if job is not None and job.is_over and failures >= LOG_ATTEMPTS:
                return job
            if time.monotonic() - last_answer > patience_seconds:
                raise RunError(f"{error} No answer for {patience_seconds:,.0f} s; the job may go on") from error
        except (PlanError, RuntimeError) as error:
            if job is None:
                raise
            raise RunError(f"{error}. Has the head been restarted? Submit again to continue") from error
        else:
            lines = log.split("\n")
            if not (job.is_over and lines[-1]):
                lines.pop()
            for line in lines[shown:]:
                on_line(line)
            # Ray answers with an empty log while it cannot read the file, also as a job ends.
            failures = 0 if len(lines) >= shown else failures + 1
            shown = max(shown, len(lines))
            if job.is_over and failures in (0, LOG_ATTEMPTS):
                return job
        sleep(pause_seconds + len(log) / BYTES_PER_SECOND)
