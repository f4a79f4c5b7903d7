"""Where everything lies in a sink: label shards beside `.raysp/`, which holds the rest.

Under `.raysp/` a shard's name stands with `~` behind each folder, and behind the name itself where it is a folder:
`a/b.parquet` is staged in `.raysp/stage/a~/b.parquet~/`. So nothing there ends in `.parquet`, whatever the shard is
called, and a file never meets a folder. Names of parts are pure functions; nothing here touches a store.
"""

import re
from dataclasses import dataclass

from raysp.corpus.shards import Piece
from raysp.errors import PlanError

HOME = ".raysp/"
RUN = ".raysp/run.json"
PLAN = ".raysp/plan/"
STAGE = ".raysp/stage/"
DONE = ".raysp/done/"
ERRORS = ".raysp/errors/"
RECEIPTS = ".raysp/receipts/"
LEASE = ".raysp/lease/"
TMP = ".raysp/tmp/"
STOPPED = ".raysp/stopped/"
TRIAL = ".raysp/trial/"
RELABELLED = ".raysp/relabelled"
"""Made before a label shard is first replaced and never removed: from then on footers decide, not markers."""

MAX_COMPONENT_BYTES = 200
"""Of a shard's name: 255 is what file systems take, less a marker's `.<input id>.<fingerprint>` and some room."""

_HASH = r"[0-9a-f]+"
_BLOCK = re.compile(rf"(\d+)-(\d+)\.({_HASH})\.({_HASH})\.(\d+)of(\d+)")
_MARKER = re.compile(rf"(.+)\.({_HASH})\.({_HASH})", re.DOTALL)
_REST = re.compile(rf"(.+)\.({_HASH})\.({_HASH})\.({_HASH})\.arrow", re.DOTALL)
_PLAN_PART = re.compile(rf"{re.escape(PLAN)}(\d+)\.arrow")
_EPOCH = re.compile(rf"{re.escape(LEASE)}(\d+)")


@dataclass(frozen=True, slots=True)
class BlockName:
    """Which block of which piece, of which input and pipeline, a staged result is."""

    shard: str
    piece: Piece
    input_id: str
    fingerprint: str
    k: int
    """Place among the blocks of its piece, from 0."""
    of: int
    """How many blocks the piece was cut into, on the last of them; 0 on the others, since it is not known before."""


def check_shard_name(name: str) -> None:
    """Refuse a label shard's path that could not be stored, found again, or seen by readers.

    Raises:
        PlanError: Naming the shard and what is wrong with it.
    """
    for part in name.split("/"):
        where = f"shard {name!r}: {part!r}"
        if not part or part in (".", "..") or "\0" in part:
            raise PlanError(f"{where} cannot be part of a path; rename it, or give another root")
        if part[0] in "._":
            raise PlanError(
                f"{where} begins with {part[0]!r}, which readers pass over; rename it, or give a root below"
            )
        if len(part.encode()) > MAX_COMPONENT_BYTES:
            found = len(part.encode())
            raise PlanError(f"{where} has {found} bytes, at most {MAX_COMPONENT_BYTES} can be stored; rename it")
    if not name.endswith(".parquet"):
        raise PlanError(f"shard {name!r}: a label shard's name ends in .parquet")


def stage_folder(shard: str) -> str:
    """Name the folder of a shard's staged blocks, with `/` at its end."""
    return f"{STAGE}{_folder(shard)}/"


def stage_path(block: BlockName) -> str:
    """Name a staged block."""
    return f"{stage_piece_prefix(block.shard, block.piece)}{block.input_id}.{block.fingerprint}.{block.k}of{block.of}"


def stage_piece_prefix(shard: str, piece: Piece) -> str:
    """Name what the paths of all staged blocks of a piece begin with."""
    return f"{stage_folder(shard)}{piece.first}-{piece.end}."


def parse_stage_path(path: str) -> BlockName | None:
    """Read a block's name from its path; None when it is not one."""
    folder, _, name = path.removeprefix(STAGE).rpartition("/")
    match = _BLOCK.fullmatch(name)
    if match is None or not path.startswith(STAGE) or not folder.endswith("~"):
        return None
    first, end, input_id, fingerprint, k, of = match.groups()
    return BlockName(_shard_of_folder(folder), Piece(int(first), int(end)), input_id, fingerprint, int(k), int(of))


def done_path(shard: str, input_id: str, fingerprint: str) -> str:
    """Name the marker of a committed shard."""
    return f"{DONE}{_file(shard)}.{input_id}.{fingerprint}"


def parse_done_path(path: str) -> tuple[str, str, str] | None:
    """Read (shard, input id, fingerprint) from a marker's path; None when it is not one."""
    match = _MARKER.fullmatch(path.removeprefix(DONE))
    if match is None or not path.startswith(DONE):
        return None
    return _shard_of_file(match[1]), match[2], match[3]


def errors_path(shard: str, input_id: str, fingerprint: str, rest_id: str) -> str:
    """Name the file of the rows that `rows="ok"` leaves out of a label shard; `rest_id` is of one write."""
    return f"{ERRORS}{_file(shard)}.{input_id}.{fingerprint}.{rest_id}.arrow"


def parse_errors_path(path: str) -> tuple[str, str, str, str] | None:
    """Read (shard, input id, fingerprint, rest id) from such a file's path; None when it is not one."""
    match = _REST.fullmatch(path.removeprefix(ERRORS))
    if match is None or not path.startswith(ERRORS):
        return None
    return _shard_of_file(match[1]), match[2], match[3], match[4]


def plan_path(number: int) -> str:
    """Name a part of the recorded plan."""
    return f"{PLAN}{number:05d}.arrow"


def parse_plan_path(path: str) -> int | None:
    """Read a part's number from its path; None when it is not one."""
    match = _PLAN_PART.fullmatch(path)
    return int(match[1]) if match else None


def lease_path(epoch: int) -> str:
    """Name an epoch of the lease."""
    return f"{LEASE}{epoch:08d}"


def parse_lease_path(path: str) -> int | None:
    """Read an epoch's number from its path; None when it is not one."""
    match = _EPOCH.fullmatch(path)
    return int(match[1]) if match else None


def receipts_prefix(run_id: str) -> str:
    """Name what the paths of all batches of a run's receipts begin with."""
    return f"{RECEIPTS}{run_id}-"


def receipts_path(run_id: str, number: int) -> str:
    """Name a batch of a run's receipts."""
    return f"{receipts_prefix(run_id)}{number:06d}.jsonl"


def stopped_path(number: int, *, is_done: bool = False) -> str:
    """Name the record of a stopped run, or of the end of the stops up to that one."""
    return f"{STOPPED}{number:05d}.{'done' if is_done else 'json'}"


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
