"""Submission of a pipeline or recipe as a Ray job: local checks, the package, the runtime environment, the job."""

import re
import secrets as random
import shlex
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raysp.cluster.addresses import SUBMITTED_BY
from raysp.cluster.submitting import job_entries
from raysp.cluster.submitting.head import Head
from raysp.cluster.submitting.ignored import IGNORE_FILE
from raysp.cluster.submitting.job_entries import Job
from raysp.cluster.submitting.package import Package, collect
from raysp.cluster.submitting.sealing import SEALED, SETUP_HOOK, seal
from raysp.cluster.work_places import REMEDY, data_places
from raysp.errors import PlanError, SpecError
from raysp.specs.pipeline import Work, read_code
from raysp.specs.work_files import with_overrides
from raysp.storage.store import normalise, scheme_of
from raysp.tracebacks import is_installed_path
from raysp.work import load_work

STOP_SECONDS = 120
"""Time that a job has to end in order after a request to stop; by default Ray kills it after three seconds."""
MAX_BYTES = 100_000_000
_WHEEL = re.compile(r"raysp-([^-]+)-[^/]*\.whl")
_WITH_EXTRAS = re.compile(r"(.*\.whl)(\[[\w,. -]+\])?")
_EXTRAS = "[s3]"
"""Extras of a wheel that is given without any."""
_FOLDER_OF_PACKAGE = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"
"""Expanded by Ray, in requirements, to the folder into which it unpacks the package."""


@dataclass(frozen=True)
class Request:
    """A job to submit, checked on this machine.

    Attributes:
        target: file of the pipeline or recipe, or FILE:NAME.
        work: the pipeline or recipe with its settings.
        package: the files that travel.
        settings: changes, as `PATH=VALUE`.
        secrets: names of environment variables whose values are sent sealed.
        requirement: requirement of pip that installs raysp, or the path of a wheel; None: the cluster has raysp.
    """

    target: str
    work: Work
    package: Package
    settings: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    requirement: str | None = None

    @property
    def command(self) -> str:
        """Command of the job, relative to the package."""
        path, separator, name = self.target.partition(":")
        changes = [word for setting in self.settings for word in ("--set", setting)]
        return shlex.join(["python", "-m", "raysp", self.work.VERB, f"{Path(path).name}{separator}{name}", *changes])

    @property
    def metadata(self) -> dict[str, str]:
        """Data that Ray keeps beside the job."""
        from raysp import __version__

        sink = self.work.sink.url
        return {
            job_entries.VERSION: __version__,
            job_entries.SINK: normalise(sink),
            job_entries.FILE: Path(self.target).name,
        }

    def new_id(self) -> str:
        """Return a readable id that no other job has."""
        name = self.work.name or Path(self.target.partition(":")[0]).stem
        readable = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:40] or "pipeline"
        return f"raysp-{readable}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{random.token_hex(2)}"


def prepare(
    target: str,
    settings: Sequence[str] = (),
    *,
    secrets: Sequence[str] = (),
    with_raysp: str | None = None,
    max_bytes: int = MAX_BYTES,
) -> Request:
    """Check a pipeline or recipe on this machine, without object storage and without the cluster.

    Raises:
        SpecError: it is invalid, its code is not in the folder of its file, or the package is too large.
        PlanError: a place is local to this machine.
    """
    work = with_overrides(load_work(target), settings)
    file = Path(target.partition(":")[0]).absolute()
    wheel, extras = _wheel(with_raysp)
    package = collect(file.parent.resolve(), max_bytes, [wheel] if wheel else [])
    _refuse_missing(package, file, f"{file}: the submitted file")
    for code in read_code(work).files:
        path = Path(code.path)
        if not is_installed_path(path):
            _refuse_missing(package, path, f"{path}: code of the submitted file")
    _refuse_local_places(work, package)
    requirement = f"{_FOLDER_OF_PACKAGE}/{wheel.name}{extras}" if wheel else with_raysp
    names = tuple(dict.fromkeys(secrets))
    return Request(target, work, package, tuple(settings), names, requirement)


def submit(head: Head, request: Request) -> str:
    """Start a job, and return its id.

    Raises:
        PlanError: a job with the same sink is active, or the head refuses the job.
        SpecError: a secret is not set here, or the cluster has no token to seal it with.
    """
    from raysp import __version__

    _refuse_second(head, request)
    environment = {SUBMITTED_BY: __version__, "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)}
    runtime_env: dict[str, object] = {"env_vars": environment}
    if request.secrets:
        environment[SEALED] = seal(request.secrets, _token(head, request))
        runtime_env["worker_process_setup_hook"] = SETUP_HOOK
    if request.requirement:
        runtime_env["pip"] = [request.requirement]
    job_id = request.new_id()
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "package.zip"
        request.package.write(package)
        head.submit(job_id, request.command, {**runtime_env, "working_dir": str(package)}, request.metadata)
    _withdraw_second(head, request, job_id)
    return job_id


def _token(head: Head, request: Request) -> str:
    if (token := head.token) is None:
        raise SpecError(
            f"--env {request.secrets[0]}: values are sealed with the token of the cluster, and none is set here; start "
            "the cluster with token authentication and set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or set the variable "
            "on every machine of the cluster and leave --env out"
        )
    return token


def _refuse_second(head: Head, request: Request) -> None:
    for job in _rivals(head, request):
        raise _taken(job)


def _withdraw_second(head: Head, request: Request, job_id: str) -> None:
    """Stop a job if another one over the sink, submitted at the same moment, began before it.

    Each of two submissions may have listed the jobs before the other one was there. The head's clock, and the ids for
    equal times, put both in one order, so that the first one stays.
    """
    active = sorted(_rivals(head, request), key=lambda job: (job.started or float("inf"), job.id))
    if active and active[0].id != job_id and job_id in {job.id for job in active}:
        head.request_stop(job_id)
        raise _taken(active[0])


def _rivals(head: Head, request: Request) -> list[Job]:
    """Return the active jobs that write to the sink of a request, with that of the request."""
    sink = request.metadata[job_entries.SINK]
    return [job for job in head.jobs() if job.sink == sink and not job.is_over]


def _taken(job: Job) -> PlanError:
    return PlanError(
        f"sink.url: the job {job.id} writes to {job.sink} already ({job.status}); follow it with "
        f"`raysp jobs {job.id} --follow`, or stop it with `raysp stop {job.id}`"
    )


def _wheel(with_raysp: str | None) -> tuple[Path | None, str]:
    """Return the path of the wheel to ship and its extras; None if pip finds raysp by a requirement."""
    named = _WITH_EXTRAS.fullmatch(with_raysp or "")
    if named is None or "://" in named[1]:
        return None, ""
    from raysp import __version__

    path = Path(named[1])
    if not path.is_file():
        raise SpecError(f"--with-raysp {with_raysp}: no such file; expected a wheel of raysp {__version__}")
    found = _WHEEL.fullmatch(path.name)
    if not found or found[1] != __version__:
        raise SpecError(f"--with-raysp {with_raysp}: expected a wheel of raysp {__version__}, the version here")
    return path, named[2] or _EXTRAS


def _refuse_missing(package: Package, path: Path, what: str) -> None:
    if package.name_of(path) is None:
        raise SpecError(
            f"{what} is outside of {package.folder}, the folder of the submitted file, which is shipped; move it "
            "there, or install it on the cluster as a package"
        )
    if not package.holds(path):
        raise SpecError(
            f"{what} is left out of the package by its name (hidden), by .gitignore or by {IGNORE_FILE}; take it in, "
            f"for example by the line !{path.name} in {IGNORE_FILE}"
        )


def _refuse_local_places(work: Work, package: Package) -> None:
    """Raise PlanError for places that exist on this machine only. Absolute paths may be shared; the job checks."""
    for name, url in data_places(work):
        if scheme_of(url):
            continue
        if not Path(url.removeprefix("file://")).is_absolute():
            raise PlanError(
                f"{name}: {url!r} is relative to a folder of this machine, which a job does not see. {REMEDY}"
            )
        if package.name_of(Path(normalise(url))) is not None:
            raise PlanError(
                f"{name}: {url!r} is in the folder of the submitted file, which a job sees only as a copy that Ray "
                f"removes. {REMEDY}"
            )
    for field, place in work.read_places:
        _refuse_unshipped(field, place, package)


def _refuse_unshipped(field: str, place: str, package: Package) -> None:
    """Raise PlanError for a folder or file that a job would not find under the same name."""
    if scheme_of(place) or not (here := Path(normalise(place))).exists():
        return  # a checkpoint may be an id of the hub
    name = package.name_of(here)
    if Path(place).is_absolute() and name is None:
        return  # may be on a shared file system
    if not package.holds(here):
        kind = "folder" if here.is_dir() else "file"
        raise PlanError(f"{field}: {place!r} is a {kind} of this machine that is not shipped. {REMEDY}")
    if not Path(place).is_absolute() and Path.cwd() != package.folder:
        raise PlanError(
            f"{field}: {place!r} is relative to {Path.cwd()}, and a job runs in a copy of {package.folder}; "
            f"submit from there as {name!r}, or write "
            "Path(__file__).parent / ... in the submitted file"
        )
