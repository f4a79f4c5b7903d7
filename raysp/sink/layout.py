"""Paths in a sink: label shards, and all other files in `.raysp/`.

Under `.raysp/`, every folder of a shard's name gets the suffix `~`, and so does the name itself if it is a folder:
`a/b.parquet` is staged in `.raysp/stage/a~/b.parquet~/`. So no path there ends in `.parquet`, for any name of a shard,
and files never collide with folders. All functions are pure and access no store.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from raysp.corpus.shards import Piece
from raysp.errors import PlanError
from raysp.storage import store

HOME = store.HOME
RUN = f"{HOME}run.json"
RECIPE = f"{HOME}recipe.json"
REPORT = f"{HOME}report.html"
PLAN = f"{HOME}plan/"
STAGE = f"{HOME}stage/"
ERRORS = f"{HOME}errors/"
LOG = f"{HOME}log/"
BEGUN = f"{HOME}begun/"
LEASE = f"{HOME}lease/"
TMP = f"{HOME}tmp/"
TRIAL = f"{HOME}trial/"
ABSENT = f"{HOME}absent.json"
FORGOTTEN = f"{HOME}forgotten.json"
"""Ids of withdrawn recordings, whose rows never have a label in this sink."""

MAX_COMPONENT_BYTES = 200
"""Limit for a shard's name: the 255 of file systems, less what `errors_path` appends and some reserve."""

_HASH = r"[0-9a-f]+"
_STAGED = re.compile(rf"(\d+)-(\d+)\.({_HASH})\.({_HASH})\.(\d+)")
_REST = re.compile(rf"(.+)\.({_HASH})\.({_HASH})\.({_HASH})\.arrow", re.DOTALL)
_PLAN_PART = re.compile(rf"{re.escape(PLAN)}(\d+)\.arrow")
_EPOCH = re.compile(rf"{re.escape(LEASE)}(\d+)")


@dataclass(frozen=True, slots=True)
class StagedName:
    """Identity of the staged results of some rows: their shard, input and pipeline, and how many of them failed."""

    shard: str
    rows: Piece
    """A piece of the shard, or a part of one whose workers crashed."""
    input_id: str
    fingerprint: str
    errors: int
    """Number of error rows, so that a listing shows which results a run with too many of them must not use."""


def check_shard_name(name: str) -> None:
    """Raise if a label shard's path cannot be stored, parsed back, or seen by readers.

    Raises:
        PlanError: the path cannot be used; the message has the shard and the reason.
    """
    for part in name.split("/"):
        where = f"shard {name!r}: {part!r}"
        if not part or part in (".", "..") or "\0" in part:
            raise PlanError(f"{where} cannot be part of a path; rename it, or set another source.root")
        if part[0] in "._":
            raise PlanError(
                f"{where} begins with {part[0]!r}, which readers ignore; rename it, or set a source.root below it"
            )
        if len(part.encode()) > MAX_COMPONENT_BYTES:
            num_bytes = len(part.encode())
            raise PlanError(f"{where} has {num_bytes} bytes, at most {MAX_COMPONENT_BYTES} can be stored; rename it")
    if not name.endswith(".parquet"):
        raise PlanError(f"shard {name!r}: a label shard's name ends in .parquet")


def is_label_shard(path: str) -> bool:
    """Return whether readers read the file at a path as a label shard."""
    return path.endswith(".parquet") and not path.startswith(HOME)


def stage_folder(shard: str) -> str:
    """Return the folder of a shard's staged results, with `/` at its end."""
    return f"{STAGE}{_folder(shard)}/"


def stage_path(name: StagedName) -> str:
    """Return the path of staged results."""
    rows = f"{name.rows.first}-{name.rows.end}"
    return f"{stage_folder(name.shard)}{rows}.{name.input_id}.{name.fingerprint}.{name.errors}"


def parse_stage_path(path: str) -> StagedName | None:
    """Return the name of staged results from their path; None for other paths."""
    folder, _, name = path.removeprefix(STAGE).rpartition("/")
    match = _STAGED.fullmatch(name)
    if match is None or not path.startswith(STAGE) or not folder.endswith("~"):
        return None
    first, end, input_id, fingerprint, errors = match.groups()
    return StagedName(_shard_of_folder(folder), Piece(int(first), int(end)), input_id, fingerprint, int(errors))


def errors_path(shard: str, input_id: str, fingerprint: str, rest_id: str) -> str:
    """Return the path of the rows that `rows="ok"` leaves out of a label shard; `rest_id` is unique to one write."""
    return f"{ERRORS}{_file(shard)}.{input_id}.{fingerprint}.{rest_id}.arrow"


def parse_errors_path(path: str) -> tuple[str, str, str, str] | None:
    """Return (shard, input id, fingerprint, rest id) from the path of such a file; None for other paths."""
    match = _REST.fullmatch(path.removeprefix(ERRORS))
    if match is None or not path.startswith(ERRORS):
        return None
    return _shard_of_file(match[1]), match[2], match[3], match[4]


def plan_path(number: int) -> str:
    """Return the path of a part of the recorded plan."""
    return f"{PLAN}{number:05d}.arrow"


def plan_numbers(paths: Iterable[str]) -> list[int]:
    """Return the numbers of the parts of the plan among some paths."""
    return [int(match[1]) for match in map(_PLAN_PART.fullmatch, paths) if match]


def lease_path(epoch: int) -> str:
    """Return the path of an epoch of the lease."""
    return f"{LEASE}{epoch:08d}"


def parse_lease_path(path: str) -> int | None:
    """Return an epoch's number from its path; None for other paths."""
    match = _EPOCH.fullmatch(path)
    return int(match[1]) if match else None


def log_prefix(run_id: str) -> str:
    """Return the common prefix of the paths of a run's log."""
    return f"{LOG}{run_id}-"


def log_path(run_id: str, number: int) -> str:
    """Return the path of a file of a run's log."""
    return f"{log_prefix(run_id)}{number:06d}.jsonl"


def begun_path(run_id: str) -> str:
    """Return the path of the pieces that a run of the engine `here` has begun."""
    return f"{BEGUN}{run_id}.json"


def run_of_log(path: str) -> str:
    """Return the id of the run that wrote a file of its log."""
    return path.removeprefix(LOG).rpartition("-")[0]


def _folder(shard: str) -> str:
    return "/".join(f"{part}~" for part in shard.split("/"))


def _file(shard: str) -> str:
    folder, slash, name = shard.rpartition("/")
    return f"{_folder(folder)}/{name}" if slash else name


def _shard_of_folder(inside: str) -> str:
    return "/".join(part.removesuffix("~") for part in inside.split("/"))


def _shard_of_file(inside: str) -> str:
    folder, slash, name = inside.rpartition("/")
    return f"{_shard_of_folder(folder)}/{name}" if slash else name
