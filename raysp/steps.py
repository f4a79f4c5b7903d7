"""The vocabulary of a pipeline: what each step is told. How a step is done lives in `ops`, imported on the worker."""

import re
from dataclasses import KW_ONLY, field
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Field

from raysp.specs import Listed, Url, spec

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.models.loading import LoadedCheckpoint
    from raysp.models.tokenization import Wav2Vec2CTCTokenizer
    from raysp.ops.joining import JoinOp
    from raysp.ops.labelling import OutputOp
    from raysp.ops.transcribing import Transcribing

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Scalar = bool | int | float | str
Condition = tuple[str, Literal["==", "!=", "<", ">", "<=", ">=", "in", "not in"], Scalar | Listed[Scalar]]

ROW_COLUMNS = ("id", "row", "seconds", "status", "error_type", "error_message")
"""Columns that every label shard has, whatever its pipeline."""


def _column_prefix(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise ValueError(f"{name!r} cannot begin a column's name; use letters, digits and _")
    return name


OutputName = Annotated[str, AfterValidator(_column_prefix)]


class Step:
    """One declared step. `columns` are those that it adds to a label shard."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Name the columns that the step adds."""
        return ()


class Output:
    """What a `Label` step asks of its model. Implementations live in `ops` and are imported where they run."""

    def schema(self) -> "pa.Schema":
        """Give the columns with their types."""
        raise NotImplementedError

    def op(self, loaded: "LoadedCheckpoint") -> "OutputOp":
        """Make the op that fills the columns."""
        raise NotImplementedError

    def join_op(self, checkpoint: str, frame_seconds: float) -> "JoinOp":
        """Make the op that fills them from what `op` left of the windows of a longer row; loads no weights."""
        raise NotImplementedError

    @property
    def columns(self) -> tuple[str, ...]:
        """Name the columns that the output adds."""
        raise NotImplementedError


@spec
class Pool:
    """The actors of one step.

    Attributes:
        actors: how many, or (low, high).
        gpus: of each actor; None: one where the cluster has GPUs, else none.
        cpus: of each actor, which is also its number of torch threads.
        memory: bytes that Ray reserves for each actor; None: no reservation.
    """

    actors: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = 1
    _: KW_ONLY
    gpus: Annotated[float, Field(ge=0)] | None = None
    cpus: Annotated[int, Field(ge=1)] = 1
    memory: Annotated[int, Field(ge=1)] | None = None

    def __post_init__(self) -> None:
        """Check the order of the bounds."""
        if self.low > self.high:
            raise ValueError(f"actors={self.actors!r}: the lower bound is above the upper one")

    @property
    def low(self) -> int:
        """Give the number of actors that a run starts with."""
        return self.actors if isinstance(self.actors, int) else self.actors[0]

    @property
    def high(self) -> int:
        """Give the largest number of actors."""
        return self.actors if isinstance(self.actors, int) else self.actors[1]


@spec
class Decode(Step):
    """Turn stored audio into a mono waveform at the checkpoint's rate.

    Attributes:
        max_seconds: a longer recording becomes `skipped: too_long`.
        channel: "mean" of all channels, or the index of one.
    """

    max_seconds: Seconds = 43200
    _: KW_ONLY
    channel: Literal["mean"] | Annotated[int, Field(ge=0)] = "mean"


@spec
class Keep(Step):
    """Leave rows unlabelled (`skipped: filtered`) that do not meet every condition.

    Attributes:
        min_seconds: shortest recording to label, in decoded seconds.
        max_seconds: longest recording to label, in decoded seconds.
        where: conditions on source columns, all of which must hold (null never does), as pyarrow filter lists;
            or "module:function", which is given a `pyarrow.Table` of a piece's columns without the audio and
            returns one boolean a row, in order.
    """

    min_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    _: KW_ONLY
    max_seconds: Seconds | None = None
    where: Listed[Condition] | str | None = None

    def __post_init__(self) -> None:
        """Check that there is a condition, and that it can be met."""
        low, high = self.min_seconds, self.max_seconds
        if low is None and high is None and not self.where:
            raise ValueError("Keep() has no condition; give min_seconds, max_seconds or where")
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_seconds={low} is above max_seconds={high}: no row could meet it")
        if isinstance(self.where, str) and not re.fullmatch(r"[\w.]+:[\w.]+", self.where):
            raise ValueError(f"where={self.where!r} is neither a list of conditions nor 'module:function'")

    @property
    def reads_seconds(self) -> bool:
        """Tell whether a row must be decoded first."""
        return self.min_seconds is not None or self.max_seconds is not None

    @property
    def reads(self) -> tuple[str, ...]:
        """Name the source columns of the conditions."""
        return () if self.where is None or isinstance(self.where, str) else tuple(c[0] for c in self.where)


@spec
class Transcript(Output):
    """The text that a model reads in a recording: columns `<name>_text` and `<name>_score`.

    Attributes:
        name: what the columns' names begin with.
        words: also `<name>_words`: each word with its start and end in seconds and its probability.
        chars: also `<name>_chars`: the same for each character.
    """

    name: OutputName = "pred"
    _: KW_ONLY
    words: bool = False
    chars: bool = False

    @property
    def columns(self) -> tuple[str, ...]:
        """Name the columns that the output adds."""
        asked = [kind for kind, is_asked in (("words", self.words), ("chars", self.chars)) if is_asked]
        return tuple(f"{self.name}_{kind}" for kind in ("text", "score", *asked))

    def schema(self) -> "pa.Schema":
        """Give the columns with their types."""
        import pyarrow as pa

        def spans(name: str) -> "pa.DataType":
            times = [(part, pa.float64()) for part in ("start", "end")]
            return pa.list_(pa.struct([(name, pa.string()), *times, ("score", pa.float32())]))

        types: dict[str, pa.DataType] = {
            "text": pa.string(),
            "score": pa.float32(),
            "words": spans("word"),
            "chars": spans("char"),
        }
        return pa.schema([(column, types[column.rpartition("_")[2]]) for column in self.columns])

    def op(self, loaded: "LoadedCheckpoint") -> "OutputOp":
        """Make the op that fills the columns."""
        return self._transcribing(loaded.text_tokenizer, loaded.model.frame_stride / loaded.sample_rate)

    def join_op(self, checkpoint: str, frame_seconds: float) -> "JoinOp":
        """Make the op that fills them from the frames of a longer row."""
        from raysp.models.tokenization import Wav2Vec2CTCTokenizer

        return self._transcribing(Wav2Vec2CTCTokenizer.from_pretrained(checkpoint), frame_seconds)

    def _transcribing(self, tokenizer: "Wav2Vec2CTCTokenizer", frame_seconds: float) -> "Transcribing":
        import pyarrow as pa

        from raysp.ops.transcribing import Transcribing

        frames: dict[str, pa.DataType] = {"frame_ids": pa.list_(pa.int32()), "frame_scores": pa.list_(pa.float32())}
        staged = pa.schema([(f"{self.name}_{column}", kind) for column, kind in frames.items()])
        return Transcribing(
            self.schema(), staged, tokenizer, frame_seconds=frame_seconds, words=self.words, chars=self.chars
        )


@spec
class Label(Step):
    """Run a checkpoint over every row and keep what `outputs` ask of it.

    Attributes:
        checkpoint: a Hugging Face model folder: a path, or a url of object storage, fetched once a machine; it is
            reached by the source's storage options if both are of one scheme, else by environment and profile.
        outputs: what is asked; all come from one pass of the model.
        batch_seconds: padded seconds of audio a forward pass; None: from memory, resolved once and recorded.
            Changes the speed, never a label.
        window_seconds: what the model sees at once; a longer row is cut into windows, each normalised by itself.
        overlap_seconds: what neighbouring windows share, at least; each frame is taken from the window in which it is
            farther from an edge.
        dtype: of the weights and the arithmetic; "auto": bfloat16 on a GPU, else float32.
        device: "auto": a GPU where the actor has one.
        exact: a row's label is the one it has alone. False: the original's padded arithmetic.
        pool: the actors that hold the model.
    """

    checkpoint: Url
    _: KW_ONLY
    outputs: Listed[Output]
    batch_seconds: Seconds | None = None
    window_seconds: Seconds = 30
    overlap_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 5
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    exact: bool = True
    pool: Pool = field(default_factory=Pool)

    def __post_init__(self) -> None:
        """Check the outputs against each other and the windows against their overlap."""
        if not self.outputs:
            raise ValueError("outputs is empty; ask for at least one, such as raysp.Transcript()")
        if 2 * self.overlap_seconds > self.window_seconds:
            raise ValueError(
                f"overlap_seconds={self.overlap_seconds} is more than half of window_seconds={self.window_seconds}"
            )
        refuse_clash([(f"{type(o).__name__}(name={getattr(o, 'name', '')!r})", o.columns) for o in self.outputs])

    @property
    def columns(self) -> tuple[str, ...]:
        """Name the columns that the outputs add."""
        return tuple(column for output in self.outputs for column in output.columns)


def refuse_clash(added: list[tuple[str, tuple[str, ...]]]) -> None:
    """Raise if two of the named owners add a column of one name.

    Raises:
        ValueError: naming the column and both owners.
    """
    owners: dict[str, str] = {}
    for owner, columns in added:
        for column in columns:
            if column in owners:
                raise ValueError(
                    f"two columns would be named {column!r}: one of {owners[column]}, one of {owner}; rename one"
                )
            owners[column] = owner
