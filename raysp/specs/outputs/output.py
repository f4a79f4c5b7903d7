"""What all outputs of a `Label` step share."""

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator

from raysp.specs.values import JsonValue, Listed, to_json

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.models.base.capabilities import Capability
    from raysp.models.labelling import LabellingModel
    from raysp.models.summary import CheckpointSummary
    from raysp.models.tokenizers.written import CTCTokenizer
    from raysp.ops.adding import ColumnOp
    from raysp.ops.joining import JoinOp
    from raysp.ops.labelling import OutputOp


Scalar = bool | int | float | str
GenerateValue = Scalar | None | Listed[Scalar] | Listed[Listed[Scalar]]


def _column_prefix(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise ValueError(f"{name!r} cannot begin a column's name; use letters, digits and _")
    return name


OutputName = Annotated[str, AfterValidator(_column_prefix)]


class Output:
    """An output of the model of a `Label` step. `ops` implements it and is imported on the worker."""

    @property
    def needs(self) -> "tuple[Capability, ...]":
        """Capabilities of which a checkpoint must give one; empty: any checkpoint will do."""
        return ()

    @property
    def text_column(self) -> str | None:
        """Column with the transcript, which is compared with the reference texts; None: no transcript."""
        return None

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns of the source that the output needs."""
        return ()

    @property
    def finds_speech(self) -> bool:
        """Whether the output needs the model of speech, `raysp[speech]`."""
        return False

    @property
    def allows_gaps(self) -> bool:
        """Whether `join_op` joins windows between which silence is left out, as `Label(windows="speech")` does."""
        return False

    def check_reads(self, schema: "pa.Schema") -> None:
        """Check the types of the columns that the output reads.

        Raises:
            ValueError: a column does not fit.
        """

    def schema(self, checkpoint: "CheckpointSummary") -> "pa.Schema":
        """Return the columns with their types."""
        raise NotImplementedError

    def op(self, loaded: "LabellingModel") -> "OutputOp":
        """Return the op that computes the columns."""
        raise NotImplementedError

    def join_op(self, checkpoint: "CheckpointSummary") -> "JoinOp":
        """Return the op that computes the columns from the staged columns of a longer row; loads no weights."""
        raise NotImplementedError

    def row_op(self, outputs: "Sequence[Output]") -> "ColumnOp | None":
        """Return the op that completes the columns of whole rows from other columns of a label shard; None: none does.

        Args:
            outputs: all outputs of the step, in order.
        """
        return None

    @property
    def files(self) -> Mapping[str, str]:
        """Urls of files that the output reads besides the checkpoint, by field."""
        return {}

    @property
    def checkpoints(self) -> Mapping[str, str]:
        """Further checkpoints that the output uses, by field: folders, urls or ids of the hub."""
        return {}

    def label_fields(self, digests: Mapping[str, str]) -> JsonValue:
        """Return as JSON what can change a label, with the digests of `files` and `checkpoints`, by url."""
        fields = to_json(self)
        if isinstance(fields, dict):
            fields |= {field: digests.get(url, url) for field, url in {**self.files, **self.checkpoints}.items()}
        return fields

    def check(self, checkpoint: "CheckpointSummary") -> None:
        """Check that the checkpoint supports the output, without its weights.

        Raises:
            CheckpointError: it does not.
        """

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the output adds."""
        raise NotImplementedError


def spans_of(name: str) -> "pa.DataType":
    """Return the type of a list of words, characters or labels with times; `name` is the field of their text."""
    import pyarrow as pa

    times = [(part, pa.float64()) for part in ("start", "end")]
    return pa.list_(pa.struct([(name, pa.string()), *times, ("score", pa.float32())]))


def ctc_tokenizer(loaded: "LabellingModel") -> "CTCTokenizer":
    """Return the tokenizer of a loaded checkpoint with a CTC head, which is one of raysp whatever runs the checkpoint.

    Raises:
        CheckpointError: the checkpoint has no CTC head, or no tokens.
    """
    from raysp.models.features.processors import read_ctc_tokenizer
    from raysp.models.loading import LoadedCheckpoint

    return loaded.text_tokenizer if isinstance(loaded, LoadedCheckpoint) else read_ctc_tokenizer(loaded.summary.path)
