"""Submission of a pipeline or recipe as a Ray job: local checks, the package, the runtime environment, the job."""

import os
import re
import secrets
import shlex
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from raysp.cluster.addresses import SUBMITTED_BY
from raysp.cluster.resources import REMEDY, data_places
from raysp.cluster.submitting.head import FILE, SINK, STOP_SECONDS, VERSION, Head, Job
from raysp.errors import PlanError, SpecError
from raysp.sink import layout
from raysp.specs.pipeline import Work, read_code
from raysp.specs.values import is_secret_name
from raysp.specs.work_files import with_overrides
from raysp.storage.store import normalise, scheme_of
from raysp.words import megabytes
from raysp.work import load_work

CACHE = "__pycache__"
LEFT_OUT = (
    f".* {CACHE} venv *.env *.pem *.key *.p12 *.pfx *.jks *.kdbx *.ppk *.tfstate id_rsa* id_dsa* id_ecdsa* id_ed25519* "
    "_netrc pgpass.conf secrets* client_secret* *credentials* *kubeconfig* *service-account* *service_account* "
    "*api_key* *password*"
).split()
"""Names of caches, keys and credentials. Everybody who may use a cluster can read the package of a job."""
CODE = (".py", ".md")
"""Endings of files that are shipped unless they are hidden."""
MAX_BYTES = 100_000_000
"""Ray's dashboard takes requests of this size."""
LARGEST = 5
"""Number of files named in the message on a package that is too large."""
GIT_SECONDS = 60.0

_WHEEL = re.compile(r"([^:]*\.whl)(\[[\w,. -]+\])?")
_EXTRAS = "[s3]"
"""Extras of a wheel that is named without extras."""
_FOLDER_OF_PACKAGE = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}"
"""Expanded by Ray, in requirements, to the folder into which it unpacks the package."""


@dataclass(frozen=True)
class Package:
    """A folder that a job takes along.

    Attributes:
        folder: path without links.
        left_out: names below it, of files and whole folders, that stay here.
    """

    folder: Path
    left_out: tuple[str, ...] = ()

    @property
    def excludes(self) -> list[str]:
        """The names that stay, as patterns of Ray."""
        escaped = (re.sub(r"([\\*?\[\]])", r"\\\1", name).replace(" ", "[ ]") for name in self.left_out)
        return ["/" + "".join(c if c.isprintable() else "?" for c in name) for name in escaped]

    def name_of(self, path: Path) -> str | None:
        """Return the name of a file or folder relative to the package; None if it is elsewhere."""
        for location in (path, path.parent.resolve() / path.name):  # the folder may be named by a link
            if location.is_relative_to(self.folder):
                return location.relative_to(self.folder).as_posix()
        return None

    def holds(self, path: Path) -> bool:
        """Return whether a file or folder is shipped."""
        name = self.name_of(path)
        return name is not None and not any(f"{name}/".startswith(f"{out}/") for out in self.left_out)


def collect(folder: Path) -> Package:
    """Return the package of a folder.

    Left out are names of `LEFT_OUT`, sinks, files that git ignores, and files that no package can hold.

    Args:
        folder: path of the folder, without links.

    Raises:
        SpecError: the files that are left are too large.
    """
    ignored = _ignored_by_git(folder)
    left_out: list[str] = []
    sizes: dict[str, int] = {}
    for here, folders, files in os.walk(folder, followlinks=True):
        for name in sorted([*folders, *files]):
            path = Path(here, name)
            relative = path.relative_to(folder).as_posix()
            if relative in ignored or _is_left_out(path):
                left_out.append(relative)
                folders[:] = [other for other in folders if other != name]
            elif path.is_file():
                sizes[relative] = path.stat().st_size
    if (total := sum(sizes.values())) > MAX_BYTES:
        largest = sorted(sizes, key=lambda name: -sizes[name])[:LARGEST]
        raise SpecError(
            f"{folder}: the pipeline file and its neighbours come to {megabytes(total)}; the limit is "
            f"{megabytes(MAX_BYTES)}. Largest: {', '.join(f'{name} ({megabytes(sizes[name])})' for name in largest)}. "
            "Let git ignore what the job does not need, or move the pipeline file to a folder of its own"
        )
    return Package(folder, tuple(left_out))


def _is_left_out(path: Path) -> bool:
    name = path.name.lower()
    is_named = any(fnmatch(name, pattern) for pattern in LEFT_OUT) and (name[0] == "." or path.suffix not in CODE)
    is_sink = (path / layout.HOME).is_dir()
    is_odd = not path.name.isprintable() or not (path.is_file() or path.is_dir())  # Ray would wait for a pipe
    is_circle = path.is_symlink() and path.is_dir() and path.resolve() in {parent.resolve() for parent in path.parents}
    return is_named or is_sink or is_odd or is_circle


def _ignored_by_git(folder: Path) -> frozenset[str]:
    """Return the names below a folder that git ignores, collapsed to folders; empty outside of a working tree."""
    command = ["git", "-C", str(folder), "ls-files", "-z", "--others", "--ignored", "--exclude-standard", "--directory"]
    try:
        names = subprocess.run(command, capture_output=True, check=True, timeout=GIT_SECONDS).stdout.split(b"\0")
    except (OSError, subprocess.SubprocessError):
        return frozenset()
    return frozenset(os.fsdecode(name.rstrip(b"/")) for name in names)


@dataclass(frozen=True)
class Request:
    """A job to submit, checked on this machine."""

    package: Package
    arguments: dict[str, Any]
    """Arguments of `JobSubmissionClient.submit_job`."""


def prepare(
    target: str, settings: Sequence[str] = (), *, variables: Sequence[str] = (), with_raysp: str | None = None
) -> Request:
    """Check a pipeline or recipe on this machine, without object storage and without the cluster.

    Args:
        target: file of the pipeline or recipe, or FILE:NAME.
        settings: changes, as `PATH=VALUE`.
        variables: names of environment variables to send.
        with_raysp: requirement of pip, or path of a wheel in the folder of the file, that installs raysp.

    Raises:
        SpecError: it is invalid, its code is not in the folder of its file, the folder is too large, or a variable is
            not set or a secret.
        PlanError: a place is local to this machine.
    """
    from raysp import __version__

    work = with_overrides(load_work(target), settings)
    file = Path(target.partition(":")[0]).absolute()
    sent = {name: _value_of(name) for name in variables}
    package = collect(file.parent.resolve())
    _refuse_missing(package, file, f"{file}: the submitted file")
    for code in read_code(work).files:
        _refuse_missing(package, Path(code.path), f"{code.path}: code of the submitted file")
    _refuse_local_places(work, package)
    runtime_env = {
        "working_dir": str(package.folder),
        "excludes": package.excludes,
        "env_vars": {**sent, SUBMITTED_BY: __version__, "RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS)},
    }
    if with_raysp:
        runtime_env["pip"] = [_requirement(with_raysp, package)]
    readable = re.sub(r"[^a-z0-9]+", "-", (work.name or file.stem).lower()).strip("-")[:40] or "pipeline"
    arguments = {
        "submission_id": f"raysp-{readable}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}",
        "entrypoint": entrypoint(target, work, settings),
        "runtime_env": runtime_env,
        "metadata": {VERSION: __version__, SINK: normalise(work.sink.url), FILE: file.name},
    }
    return Request(package, arguments)


def entrypoint(target: str, work: Work, settings: Sequence[str]) -> str:
    """Return the command of a job, which runs in the package."""
    path, separator, name = target.partition(":")
    changes = [word for setting in settings for word in ("--set", setting)]
    return shlex.join(["python", "-m", "raysp", work.VERB, f"{Path(path).name}{separator}{name}", *changes])


def _requirement(with_raysp: str, package: Package) -> str:
    """Return a requirement of pip; of a wheel, its path on the cluster."""
    if not (wheel := _WHEEL.fullmatch(with_raysp)):
        return with_raysp
    path = Path(wheel[1]).absolute()
    if not path.is_file():
        raise SpecError(f"--with-raysp {with_raysp}: no such file; expected a wheel of raysp")
    _refuse_missing(package, path, f"--with-raysp {with_raysp}: the wheel")
    return f"{_FOLDER_OF_PACKAGE}/{package.name_of(path)}{wheel[2] or _EXTRAS}"


def _value_of(name: str) -> str:
    if is_secret_name(name):
        raise SpecError(
            f"--env {name}: looks like a secret, and Ray shows the variables of a job in its API and logs; set it on "
            "the nodes of the cluster, for example from a Kubernetes Secret, and leave --env out"
        )
    if (value := os.environ.get(name)) is None:
        raise SpecError(f"--env {name}: the environment variable is not set here; set it, or leave --env {name} out")
    return value


def submit(head: Head, request: Request) -> str:
    """Start a job, and return its id.

    Raises:
        PlanError: a job with the same sink is active, or the head refuses the job.
        SpecError: a file cannot be read.
    """
    sink = request.arguments["metadata"][SINK]
    for job in _active(head, sink):
        raise _sink_in_use(job)
    try:
        job_id = head.submit_job(**request.arguments)
    except OSError as error:
        raise SpecError(f"{request.package.folder}: cannot be read for the package of the job ({error})") from error
    # Each of two submissions may have listed the jobs before the other one was there. The head's clock, and the ids for
    # equal times, put both in one order, so that the first one stays.
    active = sorted(_active(head, sink), key=lambda job: (job.started or float("inf"), job.id))
    if active and active[0].id != job_id and job_id in {job.id for job in active}:
        head.stop_job(job_id)
        raise _sink_in_use(active[0])
    return job_id


def _active(head: Head, sink: str) -> list[Job]:
    return [job for job in head.jobs() if job.sink == sink and not job.is_over]


def _sink_in_use(job: Job) -> PlanError:
    return PlanError(
        f"sink.url: the job {job.id} writes to {job.sink} already ({job.status}); follow it with "
        f"`raysp jobs {job.id} --follow`, or stop it with `raysp stop {job.id}`"
    )


def _refuse_missing(package: Package, path: Path, subject: str) -> None:
    if package.name_of(path) is None:
        raise SpecError(
            f"{subject} is outside of {package.folder}, the folder of the submitted file, which is shipped; move it "
            "there, or install it on the cluster as a package"
        )
    if not package.holds(path):
        raise SpecError(
            f"{subject} is left out of the package by its name (hidden, or like the name of a key), or since git "
            f"ignores it; rename it, or take it in, for example by the line !{path.name} in .gitignore"
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
    for field, place, _ in work.read_places:
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
