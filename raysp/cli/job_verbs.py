"""The verbs for jobs on a cluster: submit, jobs, stop."""

import dataclasses
import re
import shlex
import time
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from typer import Argument, Option

from raysp.cli.arguments import AGAIN, INTERRUPTED, PlannedFile, Settings
from raysp.cli.console import (
    announce,
    err,
    finish,
    is_json,
    out,
    print_command,
    print_fact,
    print_folded,
    print_json,
    printing,
    say,
    show,
)
from raysp.cli.printed_runs import show_done
from raysp.errors import SpecError
from raysp.labelling.engine.display import Display
from raysp.words import duration, listed, printable

if TYPE_CHECKING:
    from raysp.cluster.submitting.head import Head, Job

MOST_NAMES = 20
"""Names of files that are left out, which are printed."""

HeadAddress = Annotated[
    str | None, Option("--address", metavar="URL", help="Dashboard of the cluster. Default: RAY_API_SERVER_ADDRESS.")
]
Ca = Annotated[str | None, Option("--ca", metavar="FILE", help="Certificates to trust, for https.")]
JobId = Annotated[str, Argument(metavar="ID", help="The id of a job, as listed by raysp jobs.")]


def submit(
    file: PlannedFile,
    settings: Settings = None,
    address: HeadAddress = None,
    env: Annotated[
        list[str] | None,
        Option("--env", metavar="NAME", help="Set this variable in the job as it is here; no secrets. Repeatable."),
    ] = None,
    with_raysp: Annotated[
        str | None,
        Option(metavar="WHEEL", help="Install this wheel beside FILE, or this requirement; else the cluster's raysp."),
    ] = None,
    detach: Annotated[bool, Option("--detach", help="Do not follow the job.")] = False,
    ca: Ca = None,
) -> None:
    """Run a pipeline or recipe as a job on a Ray cluster. The same command again continues.

    Examples:
      raysp submit label.py --address http://head:8265
      raysp submit finetune.py --address http://head:8265
      raysp submit label.py --env OMP_NUM_THREADS --detach
    """
    from raysp.cluster.submitting import submission
    from raysp.cluster.submitting.head import Head, dashboard_address

    dashboard_address(address)
    request = submission.prepare(file, settings or (), variables=env or (), with_raysp=with_raysp)
    head = Head(address, ca)
    job_id = submission.submit(head, request)
    left_out = [name for name in request.package.left_out if name.rpartition("/")[2] != submission.CACHE]
    names = listed(left_out, MOST_NAMES) or "nothing"
    announce(f"submitted to {head.shown} with {request.package.folder}; left out: {names}")
    if not detach:
        _follow(head, job_id, ca)

    def printed() -> None:
        print_fact("job", job_id)
        print_command("follow", _command("jobs", job_id, head, ca, "--follow"))
        print_command("stop", _command("stop", job_id, head, ca))

    show({"id": job_id, "address": head.shown}, printed)


def jobs(
    job_id: Annotated[str | None, Argument(metavar="[ID]", help="Show this job only.")] = None,
    follow: Annotated[bool, Option("--follow", help="Follow the log of the job until it ends.")] = False,
    address: HeadAddress = None,
    ca: Ca = None,
) -> None:
    """List the jobs that raysp submitted to a cluster.

    Examples:
      raysp jobs --address http://head:8265
      raysp jobs raysp-label-20260102-030405-1a2b --follow
    """
    from raysp.cluster.submitting.head import Head

    if follow and job_id is None:
        raise SpecError("--follow: follows one job; give its id, as listed by `raysp jobs`")
    head = Head(address, ca)
    if follow and job_id is not None:
        _follow(head, job_id, ca)
    listed = [head.job(job_id)] if job_id is not None else head.jobs()

    def printed() -> None:
        for job in listed:
            _print_job(job)
        if not listed:
            print_fact("jobs", f"none of raysp at {head.shown}")

    show({"jobs": list(map(_fields, listed))}, printed)


def stop(job_id: JobId, address: HeadAddress = None, ca: Ca = None) -> None:
    """Stop a job and wait until it has ended. Submitting again continues it.

    Example:
      raysp stop raysp-label-20260102-030405-1a2b --address http://head:8265
    """
    from raysp.cluster.submitting.head import Head

    head = Head(address, ca)
    head.job(job_id)
    announce(f"stopping {job_id}: the run ends in order, its labels are kept ...")
    job = head.stop(job_id)
    show(_fields(job), lambda: _print_job(job))


def _follow(head: "Head", job_id: str, ca: str | None) -> NoReturn:
    """Follow a job until it ends, and exit with the exit code of the run; Ctrl-C leaves the job running."""
    from raysp.cli.stop_signals import interruptible_sleep
    from raysp.cluster.submitting.head import follow

    again, stopping = _command("jobs", job_id, head, ca, "--follow"), _command("stop", job_id, head, ca)
    announce(f"following {job_id}; Ctrl-C ends following, not the job")
    try:
        with interruptible_sleep() as sleep, Display(err) as display:
            log = _Log(display)
            job = follow(head, job_id, log.show, sleep=sleep)
    except KeyboardInterrupt:
        say(f"the job goes on. To follow it: {again}; to stop it: {stopping}")
        raise typer.Exit(INTERRUPTED) from None

    def printed() -> None:
        print_json(_fields(job)) if is_json() else _print_job(job)
        if job.lacks_raysp:
            say("the cluster has no raysp; use an image with this version of it, or bring it along by --with-raysp")
        elif job.status == "stopped" and not log.has_remedy:  # Ray killed the run, or its last lines were not read
            say(f"the job was stopped; what it committed is kept. To resume: {AGAIN}")
        elif job.status == "failed" and not job.driver_exit_code:
            say(f"the job failed outside of the run: {job.message}")

    finish(printed, job.exit_code or 0)


def _command(verb: str, job_id: str, head: "Head", ca: str | None, *more: str) -> str:
    trusted = ["--ca", ca] if ca else []
    return shlex.join(["raysp", verb, job_id, *more, "--address", head.shown, *trusted])


def _print_job(job: "Job") -> None:
    """Print a job on one line."""
    code = f", exit code {job.exit_code}" if job.exit_code is not None else ""
    began = ""
    if job.started is not None:
        moment = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(job.started))
        began = f", began {moment}, {duration((job.ended or time.time()) - job.started)}"
    print_folded(out, f"{job.id}  {job.status}{code}{began}, sink {job.sink}", 2)


def _fields(job: "Job") -> dict[str, object]:
    return {**dataclasses.asdict(job), "exit_code": job.exit_code}


class _Log:
    """The log of a job: results on stdout, messages of raysp on stderr, and progress as one live line on a terminal."""

    PROGRESS = re.compile(r"raysp: (\d+% · .*)")

    def __init__(self, display: Display) -> None:
        self._display = display
        self.has_remedy = False
        """Whether the run said how to resume it."""

    def show(self, line: str) -> None:
        """Show a line."""
        self.has_remedy = self.has_remedy or line.endswith(AGAIN)
        if err.is_terminal and (progress := self.PROGRESS.fullmatch(line)):
            show_done(self._display, progress[1])
            return
        with printing():
            console = err if is_json() or line.startswith("raysp: ") else out
            console.print(printable(line.expandtabs()), markup=False)
