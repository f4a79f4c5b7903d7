"""The exceptions of raysp, split by who must act.

RayspError
├── SpecError          edit the pipeline: a value that cannot be right, whatever the data
├── PlanError          edit the pipeline: it does not fit this corpus, this sink or this cluster
│   ├── ChangedError   the sink holds labels of another pipeline or of other input
│   └── TrustError     the sink's record names what is not used on its word: give the pipeline
├── CheckpointError    fix the checkpoint
├── ShardError         mend the shard
├── AudioError         mend the recording: becomes an error row, never stops a run
├── StoreError         make the storage reachable, writable or larger, and run again
└── RunError           run again: what was committed stays
"""


class RayspError(Exception):
    """An error that raysp explains in one line: where, what was found, what was expected, what to do."""


class SpecError(RayspError, ValueError):
    """A pipeline value is wrong by itself; raised when the value is made."""


class PlanError(RayspError):
    """A pipeline cannot run over this corpus, sink or cluster; raised before any work."""


class ChangedError(PlanError):
    """The sink was begun by a pipeline or with input that differs; `differences` names what."""

    def __init__(self, message: str, differences: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.differences = differences


class TrustError(PlanError):
    """The record of a sink names urls, options or modules that are not used on its word; `unused` lists them."""

    def __init__(self, message: str, unused: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.unused = unused


class CheckpointError(RayspError, ValueError):
    """A checkpoint is missing, incomplete, unsafe or of an unsupported kind."""


class ShardError(RayspError):
    """A shard cannot be read; it is not committed and is listed with this reason."""


class AudioError(RayspError):
    """A recording gives no samples; `error_type` is the row's (`corrupt_audio`, `no_audio`, ...)."""

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type

    def __reduce__(self) -> tuple[type["AudioError"], tuple[str, str]]:
        """Keep both arguments when the error crosses a process."""
        return type(self), (self.error_type, str(self))


class StoreError(RayspError, OSError):
    """Storage refused or failed: no permission, no room, not there."""


class RunError(RayspError):
    """A run stopped before all shards were committed."""
