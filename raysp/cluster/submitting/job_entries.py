"""Jobs of raysp as values."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Status = Literal["pending", "running", "succeeded", "failed", "stopped"]
VERSION, SINK, FILE = "raysp_version", "raysp_sink", "raysp_file"
"""Keys of a job's metadata: the version of raysp that submitted it, the url of the sink, the pipeline file."""
STOPPED_CODE, NOT_FOUND_CODE, FAILED_CODE, REFUSED_CODE = 143, 127, 1, 2


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


def job_of(details: Mapping[str, object]) -> Job | None:
    """Return a job from the fields of Ray's `JobDetails`; None if raysp did not submit it."""
    metadata = details.get("metadata") or {}
    if not isinstance(metadata, Mapping) or VERSION not in metadata:
        return None
    return Job(
        id=str(details["submission_id"]),
        status=str(getattr(details["status"], "value", details["status"])).lower(),  # type: ignore[arg-type]
        sink=str(metadata.get(SINK, "")),
        file=str(metadata.get(FILE, "")),
        version=str(metadata[VERSION]),
        started=_seconds(details.get("start_time")),
        ended=_seconds(details.get("end_time")),
        driver_exit_code=None if (code := details.get("driver_exit_code")) is None else int(str(code)),
        message=str(details.get("message") or ""),
    )


def _seconds(milliseconds: object) -> float | None:
    return int(str(milliseconds)) / 1000 if milliseconds else None
