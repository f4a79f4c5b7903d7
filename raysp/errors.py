"""The exceptions of raysp, grouped by the action they require.

RayspError
├── SpecError          edit the pipeline: a value is invalid for any data
├── PlanError          edit the pipeline: it does not fit this corpus, sink or cluster
│   ├── ChangedError   the sink holds labels of another pipeline or of other input
│   └── TrustError     the sink's record names resources that are not trusted: give the pipeline, or trust it
├── CheckpointError    fix the checkpoint
├── ShardError         fix the shard
├── AudioError         fix the recording: becomes an error row, never stops a run
├── StoreError         make the storage reachable, writable or larger, and run again
└── RunError           run again: committed shards are kept
    └── ProgramError   mend the program or what is installed: no recording is at fault
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class RayspError(Exception):
    """An error with a one-line message: place, value found, value expected, next action."""


class SpecError(RayspError, ValueError):
    """An invalid value in a pipeline, independent of the data. Raised on construction of the value."""


class PlanError(RayspError):
    """A pipeline that cannot run over this corpus, sink or cluster. Raised before any work."""


class ChangedError(PlanError):
    """A sink started with a different pipeline or different input. `differences` lists the differing keys."""

    def __init__(self, message: str, differences: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.differences = differences


class TrustError(PlanError):
    """A sink's record with urls, options or modules that are not used without trust. `unused` lists them."""

    def __init__(self, message: str, unused: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.unused = unused


class CheckpointError(RayspError, ValueError, OSError):
    """A checkpoint that is missing, incomplete, unsafe or of an unsupported kind: an OSError, as in transformers."""


class ShardError(RayspError):
    """A shard that cannot be read. It is not committed and is listed with this reason."""


class AudioError(RayspError):
    """A recording that cannot be decoded. `error_type` is the row's (`corrupt_audio`, `no_audio`, ...)."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type

    def __reduce__(self) -> tuple[type["AudioError"], tuple[str, str]]:
        """Preserve both arguments when the error is pickled."""
        return type(self), (self.error_type, str(self))


class StoreError(RayspError, OSError):
    """A refusal or failure of storage: no permission, no space left, no such file."""

    code = ""
    """Code of the error by an object store, or the HTTP status if it sent none."""


class RunError(RayspError):
    """A run that stopped before all shards were committed."""


class ProgramError(RunError):
    """An exception of the program itself, with its traceback: a bug, or a package that is missing or does not fit."""


@contextmanager
def about(subject: str, kind: type[RayspError], *caught: type[Exception]) -> Iterator[None]:
    """Raise errors of a block, of the caught kinds, as another kind, with their subject before the message."""
    try:
        yield
    except caught as error:
        raise kind(f"{subject}: {error}") from error


def refuse_unused(options: Mapping[str, object], reason: str) -> None:
    """Refuse options that would have no effect.

    Args:
        options: options without effect, with their values; None and False: not set.
        reason: the reason, and the remedy.

    Raises:
        SpecError: an option is set.
    """
    if names := [name for name, value in options.items() if value is not None and value is not False]:
        raise SpecError(f"{' and '.join(names)}: without effect: {reason}")
