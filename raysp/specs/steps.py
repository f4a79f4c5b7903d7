"""The steps of a pipeline, with their settings. `ops` implements them and is imported on the worker."""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, field
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, cast

from pydantic import AfterValidator, BeforeValidator, Field

from raysp.bounds import MOST_CHANNELS
from raysp.columns import DIGEST
from raysp.specs.outputs.output import Output as Output
from raysp.specs.outputs.output import Scalar
from raysp.specs.values import Column, Count, Device, JsonValue, Listed, NotNegative, Positive, Url, hashed_fields, spec

if TYPE_CHECKING:
    import pyarrow as pa

    from raysp.ops.step_ops import ColumnOp, Computing, Keeping, RowOp, Rule, Where
    from raysp.specs.outputs.speech import Speech

Functions = Mapping[str, Callable[..., object]]
"""Functions by their names in the pipeline, "module:function"."""

Condition = tuple[str, Literal["==", "!=", "<", ">", "<=", ">=", "in", "not in"], Scalar | Listed[Scalar]]

EACH: Final = "each"
"""`Decode.channel` by which every channel is labelled."""


class Step:
    """One declared step: it filters rows or, before `Label`, adds columns; `ops` implements it."""

    NOT_HASHED: ClassVar[tuple[str, ...]] = ()
    """Fields that change no label at their defaults, and are left out of the fingerprint then."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the step adds to a label shard."""
        return ()

    @property
    def reads(self) -> "Listed[str]":
        """Columns that the step needs: of the source, or added by steps before it."""
        return ()

    @property
    def reads_all(self) -> bool:
        """Whether functions get all columns of the source but the audio, and of steps before: if `reads` is empty."""
        return bool(self.functions) and not self.reads

    @property
    def reads_seconds(self) -> bool:
        """Whether the step needs the decoded duration, and therefore follows `Decode`."""
        return False

    @property
    def functions(self) -> tuple[str, ...]:
        """Functions that the step calls, as "module:function"."""
        return ()

    def schema(self) -> "pa.Schema":
        """Return the columns of `columns` with their types."""
        import pyarrow as pa

        return pa.schema([])

    def op(self, functions: "Functions") -> "RowOp | ColumnOp":
        """Return the op: a `ColumnOp` if the step adds columns, else a `RowOp` that filters rows.

        Args:
            functions: the functions named by `functions`.
        """
        raise NotImplementedError

    def check(self, schema: "pa.Schema") -> None:
        """Check the types of the columns that the step reads.

        Raises:
            ValueError: a column does not fit.
        """

    def label_fields(self, digests: Mapping[str, str]) -> dict[str, JsonValue]:
        """Return the fields that can change a label as JSON; `digests` has files by their urls."""
        return hashed_fields(self)


@spec
class Pool:
    """The actors of a model.

    Attributes:
        actors: number of actors, or (low, high).
        gpus: GPUs per actor; None: one if the cluster has GPUs, else 0.
        cpus: CPUs and torch threads per actor; None: on the CPUs of a single machine, these divided among the actors;
            else 1.
        memory: bytes that Ray reserves for each actor; None: no reservation.
    """

    actors: Count | tuple[Count, Count] = 1
    _: KW_ONLY
    gpus: Annotated[float, Field(ge=0)] | None = None
    cpus: Count | None = None
    memory: Count | None = None

    def __post_init__(self) -> None:
        """Check the order of the bounds."""
        if self.low > self.high:
            raise ValueError(f"actors={self.actors!r}: the lower bound is above the upper one")

    @property
    def low(self) -> int:
        """Number of actors that a run starts with."""
        return self.actors if isinstance(self.actors, int) else self.actors[0]

    @property
    def high(self) -> int:
        """Largest number of actors."""
        return self.actors if isinstance(self.actors, int) else self.actors[1]


@spec
class Decode(Step):
    """Step that decodes stored audio to mono waveforms at the checkpoint's sample rate.

    Attributes:
        max_seconds: longer recordings become `skipped: too_long`.
        channel: "mean" of all channels; the index of one; or "each": every channel is labelled as a recording of its
            own, and columns of outputs are lists with an entry for each channel, in order. Only for labelling. A row
            has the status of all its channels: if one fails, so does the row. At most 16 channels. Refused with
            features that need one value for each row: `Align` of a column, `Shards(text=...)`, evaluations, conditions
            of `Keep` on outputs, `Map` of samples, and `keep_prefix`.
        keep_prefix: rows whose recording is damaged part-way stay error rows, and have the outputs of the samples
            before the damage; `seconds` is their duration. Only for labelling.
    """

    NOT_HASHED: ClassVar = ("keep_prefix",)

    max_seconds: Positive = 43200
    _: KW_ONLY
    channel: Literal["mean", "each"] | Annotated[int, Field(ge=0)] = "mean"
    keep_prefix: bool = False

    def __post_init__(self) -> None:
        """Check that damaged rows are not kept in part where each channel is labelled."""
        if self.channel == EACH and self.keep_prefix:
            raise ValueError(
                "channel='each' and keep_prefix=True: the channels of a damaged recording may end at different places; "
                "leave keep_prefix out, or choose a channel by its index, or channel='mean'"
            )

    @property
    def most_channels(self) -> int:
        """Largest number of channels of a row of which each is labelled as a row; 1: it stays one row."""
        return MOST_CHANNELS if self.channel == EACH else 1


@spec
class Keep(Step):
    """Step that skips rows (`skipped: filtered`) that do not meet every condition.

    After `Label` it filters by outputs: conditions name their columns, or a field of a struct ("signal.snr"). A row
    that is left out has no labels; its message has the first condition that it does not meet, with its value.

    Attributes:
        min_seconds: shortest recording to label, in decoded seconds.
        max_seconds: longest recording to label, in decoded seconds.
        where: conditions on columns of the source, or added by steps before it, all of which must hold (null never
            does), as pyarrow filter lists; after `Label`, on columns that steps before it add. Or "module:function", a
            function of a `pyarrow.Table` of any number of rows that returns one boolean per row, in order. It gets all
            columns of the source without the audio, and columns that steps before it add; a plan calls it on a table
            without rows. If it raises an error, it is called again with fewer rows; a row for which it fails alone
            becomes `error: step_failed`.
    """

    min_seconds: NotNegative | None = None
    _: KW_ONLY
    max_seconds: Positive | None = None
    where: Listed[Condition] | str | None = None

    def __post_init__(self) -> None:
        """Check that there is a condition, and that rows can meet it."""
        low, high = self.min_seconds, self.max_seconds
        if low is None and high is None and not self.where:
            raise ValueError("Keep() has no condition; give min_seconds, max_seconds or where")
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_seconds={low} is above max_seconds={high}: no row could meet it")
        if isinstance(self.where, str) and not re.fullmatch(r"[\w.]+:[\w.]+", self.where):
            raise ValueError(f"where={self.where!r} is neither a list of conditions nor 'module:function'")
        for name, compare, value in self.conditions:
            if ("in" in compare) != isinstance(value, tuple):
                expected = "a list of values" if "in" in compare else "one value"
                raise ValueError(f"where={(name, compare, value)!r}: expected {expected} after {compare!r}")

    @property
    def conditions(self) -> Sequence[tuple[str, str, object]]:
        """Conditions on columns; empty for a function."""
        return () if self.where is None or isinstance(self.where, str) else self.where

    @property
    def reads_seconds(self) -> bool:
        """Whether a condition needs the decoded duration."""
        return self.min_seconds is not None or self.max_seconds is not None

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns of the conditions; empty for a function."""
        return tuple(name for name, _, _ in self.conditions)

    @property
    def functions(self) -> tuple[str, ...]:
        """The function of `where`, if it is one."""
        return (self.where,) if isinstance(self.where, str) else ()

    def op(self, functions: "Functions") -> "Keeping":
        """Return the op that keeps rows that meet every condition."""
        from raysp.ops.step_ops import Keeping

        name = next(iter(self.functions), None)
        where = cast("Where | None", self.where if name is None else functions[name])
        return Keeping(where=where, min_seconds=self.min_seconds, max_seconds=self.max_seconds, name=name)

    @property
    def rules(self) -> "tuple[Rule, ...]":
        """Conditions, in the order of the fields."""
        from raysp.ops.step_ops import rules_of

        return tuple(rules_of(self.min_seconds, self.max_seconds, self.where))

    def check(self, schema: "pa.Schema") -> None:
        """Evaluate the conditions on no rows, so that a wrong type fails before any work starts.

        Raises:
            ValueError: there is no such column, or its values cannot be compared with the given one.
        """
        import pyarrow as pa

        from raysp.ops.step_ops import column_of, expected_value, meets

        for name, compare, value in self.conditions:
            column = column_of(schema.empty_table(), name)
            try:
                meets(column, compare, value)
            except pa.ArrowException as error:
                expected = expected_value(column.type, compare) or str(error)
                raise ValueError(
                    f"Keep cannot compare {name!r} {compare} {value!r}, a column of {column.type}: {expected}"
                ) from None


def _importable(function: object) -> object:
    """Return the name of a function as "module:function"; a name is returned unchanged."""
    place: object = function
    if not isinstance(function, str):
        module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
        is_there = getattr(sys.modules.get(str(module)), str(name), None) is function
        place = f"{module}:{name}" if is_there and not isinstance(function, type) else None
    if not isinstance(place, str) or not re.fullmatch(r"[\w.]+:\w+", place):
        raise ValueError(
            f"found {function!r}; expected a function at the top level of a module, which workers can import (no "
            "lambda, method, class or function inside a function), or its name, 'module:function'"
        )
    return place


FunctionName = Annotated[str | Callable[..., object], BeforeValidator(_importable)]
"""A function at the top level of a module, or its name, "module:function", which it becomes."""


def _types(columns: Mapping[str, object]) -> Mapping[str, str]:
    """Return columns with the names of their types."""
    from raysp.specs.column_types import type_name

    if not columns or not all(columns):
        raise ValueError("no column is named; give each column that the function returns with its type")
    types: dict[str, str] = {}
    for name, kind in columns.items():
        try:
            types[name] = type_name(kind)
        except ValueError as error:
            raise ValueError(f"column {name!r}: {error}") from None
    return types


@spec
class Map(Step):
    """Step that adds columns to the label rows, computed by a function of your own.

    The function is called in the processes that decode, on CPUs, for rows that the steps before it let pass, and all
    steps that filter by columns of the source: with a `pyarrow.Table` of the columns in `reads`, and any number of
    rows. What it caches stays in the process. It returns a table or a dict of the columns in `adds`, one value per row
    in order. The value of a row must not depend on the other rows of a call. If the function raises an error, it is
    called again with fewer rows; a row for which it fails alone becomes `error: step_failed`.
    The added columns are null in rows that are skipped or fail.

    After `Decode` it may read the audio column: a struct of `samples` (a list of float32 between -1 and 1, one channel)
    and `sample_rate`, as the model takes it. Then a recording is in memory as a whole, however long it is. The code of
    the function, and the modules of its folder that it imports, are part of the fingerprint.

    Attributes:
        function: a function at the top level of a module, or its name, "module:function".
        adds: the added columns with their types: names, such as "float32" or "list<string>", or pyarrow types.
        reads: columns that the function is called with: of the source, or added by steps before it.
    """

    function: FunctionName
    _: KW_ONLY
    adds: Annotated[Mapping[str, object], AfterValidator(_types)]
    reads: Listed[str] = ()

    def __post_init__(self) -> None:
        """Check that the function reads a column."""
        if not self.reads:
            raise ValueError("reads is empty; give the columns that the function is called with, at least one")

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the function returns."""
        return tuple(self.adds)

    @property
    def functions(self) -> tuple[str, ...]:
        """The name of the function."""
        return (cast("str", self.function),)

    def schema(self) -> "pa.Schema":
        """Return the columns that the function returns, with their types."""
        import pyarrow as pa

        from raysp.specs.column_types import parse_type

        return pa.schema([(name, parse_type(cast("str", kind))) for name, kind in self.adds.items()])

    def op(self, functions: "Functions") -> "Computing":
        """Return the op that calls the function."""
        from raysp.ops.step_ops import Computing

        [name] = self.functions
        return Computing(functions[name], f"Map {name}", tuple(dict.fromkeys(self.reads)), self.schema())


@spec
class Label(Step):
    """Step that runs a checkpoint on every row and stores its outputs.

    Attributes:
        checkpoint: a Hugging Face model folder: a path; a url of object storage, downloaded once per machine, with the
            source's storage options if both have the same scheme, else from environment and profile; or a
            hub id, "owner/name" or "owner/name@revision", whose commit is resolved once per run.
        outputs: outputs to compute; all use the same forward pass of the model.
        batch_seconds: padded seconds of audio per forward pass; None: from memory, resolved once and recorded.
            Changes the speed; in float32 no text and no time, and scores and vectors agree to 1e-5. In half precision
            no label depends on it on a CPU; on a GPU it may, and the budget is part of the fingerprint.
        window_seconds: longest input of the model; longer rows are cut into windows, each normalised separately.
        overlap_seconds: least overlap of neighbouring windows; each frame is taken from the window in which it is
            farther from an edge.
        windows: "even": only rows longer than `window_seconds` are cut, into windows of one length. "speech": all rows
            are cut at pauses, and silence is not labelled (`raysp[speech]`); a window holds regions of speech with
            pauses of at most a second between them. Times count from the start of the recording. Regions are found as
            by `Speech()`, with the settings of the step's first one. Rows without speech become `skipped: no_speech`;
            rows of at most a second are labelled whole.
        dtype: dtype of weights and arithmetic; "auto": bfloat16 on a GPU, else float32. "float32" rounds nothing:
            products and convolutions on a GPU use no TF32, regardless of the flags of torch. "tf32": weights and
            activations in float32, and products and convolutions in TF32; with device "cuda" alone. "int8",
            "int8_float32" and "int8_float16": products of eight-bit numbers, with backend "ctranslate2" alone.
        device: "auto": a GPU if the actor has one, else the CPU. "cpu", "cuda", or another kind of device of the
            installed torch, such as "xpu".
        backend: backend of the checkpoint. None: "torch" for a checkpoint that it reads, otherwise "transformers" if
            that is installed; the first plan of a sink decides, and its record holds the result. "torch": the models of
            raysp, or for another model type an installed package that offers it. "transformers": Hugging Face
            transformers (`raysp[transformers]`), for architectures that raysp does not read, such as Whisper.
            "ctranslate2": Whisper in CTranslate2's format (`raysp[ctranslate2]`), as faster-whisper runs it. "vllm":
            some recognisers of transformers by vLLM (`raysp[vllm]`); it was never run on a GPU.
        pool: the actors that hold the model. Several `Label` steps share the pool of the first one.
    """

    NOT_HASHED: ClassVar = ("windows",)

    checkpoint: Url
    _: KW_ONLY
    outputs: Listed[Output]
    batch_seconds: Positive | None = None
    window_seconds: Positive = 30
    overlap_seconds: NotNegative = 5
    windows: Literal["even", "speech"] = "even"
    dtype: Literal["auto", "float32", "tf32", "bfloat16", "float16", "int8", "int8_float32", "int8_float16"] = "auto"
    device: Device = "auto"
    backend: Literal["torch", "transformers", "ctranslate2", "vllm"] | None = None
    pool: Pool = field(default_factory=Pool)

    def __post_init__(self) -> None:
        """Check that outputs have different columns, and that the overlap is at most half of a window."""
        if not self.checkpoint:
            raise ValueError("checkpoint is empty; give a model folder, its url or a hub id")
        if not self.outputs:
            raise ValueError("outputs is empty; give at least one, such as raysp.Transcript()")
        if 2 * self.overlap_seconds > self.window_seconds:
            raise ValueError(
                f"overlap_seconds={self.overlap_seconds} is more than half of window_seconds={self.window_seconds}"
            )
        for place, output in enumerate(self.outputs):
            output.check_order(self.outputs[:place])
        if self.windows == "speech" and (without := [o for o in self.outputs if not o.allows_gaps]):
            raise ValueError(
                f"windows='speech' leaves out silence, and {type(without[0]).__name__}(name="
                f"{getattr(without[0], 'name', '')!r}) needs all frames of a recording; leave it out, or use "
                "windows='even'"
            )
        columns = sorted(language.name for language in self.languages if isinstance(language, Column))
        if len(columns) > 1:
            names = ", ".join(map(repr, columns))
            raise ValueError(
                f"outputs read the languages of rows from the columns {names}; a step has one such column, since a "
                "batch has rows of one language"
            )
        refuse_clash([(f"{type(o).__name__}(name={getattr(o, 'name', '')!r})", o.columns) for o in self.outputs])

    @property
    def language(self) -> str | Column | None:
        """Language that the checkpoint is used with, or the column of the languages of rows; None: the default."""
        return next(iter(self.languages), None)

    @property
    def language_column(self) -> str | None:
        """Column of the source with the language of each row; None: one language for all rows."""
        return next((language.name for language in self.languages if isinstance(language, Column)), None)

    @property
    def languages(self) -> tuple[str | Column, ...]:
        """Languages that outputs name for the step's checkpoint, each once."""
        return tuple(dict.fromkeys(output.language for output in self.outputs if output.language is not None))

    @property
    def speech(self) -> "Speech":
        """Settings of the regions of speech by which windows are cut."""
        from raysp.specs.outputs.speech import Speech

        return next((output for output in self.outputs if isinstance(output, Speech)), Speech())

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that the outputs add."""
        return tuple(column for output in self.outputs for column in output.columns)

    @property
    def reads(self) -> tuple[str, ...]:
        """Source columns that the outputs read."""
        return tuple(dict.fromkeys(column for output in self.outputs for column in output.reads))

    @property
    def carried(self) -> tuple[str, ...]:
        """Columns that blocks carry to the outputs: `reads`, and `DIGEST` if an output has it."""
        return (*self.reads, *((DIGEST,) if any(output.reads_digest for output in self.outputs) else ()))

    def check(self, schema: "pa.Schema") -> None:
        """Check the types of the columns that the outputs read.

        Raises:
            ValueError: a column does not fit.
        """
        for output in self.outputs:
            if {*output.reads} <= {*schema.names}:
                output.check_reads(schema)


class _WithoutModel(Label):
    def __post_init__(self) -> None:
        pass  # it has no checkpoint and no output


WITHOUT_MODEL: Final = _WithoutModel("", outputs=(), device="cpu", dtype="float32", pool=Pool(cpus=1, gpus=0))
"""The `Label` step of pipelines that read no audio: it has the pool of their run."""


def refuse_clash(added: list[tuple[str, tuple[str, ...]]]) -> None:
    """Raise ValueError if two of the named owners add a column of the same name.

    Raises:
        ValueError: the message has the column and both owners.
    """
    owners: dict[str, str] = {}
    for owner, columns in added:
        for column in columns:
            if column in owners:
                raise ValueError(
                    f"two columns would be named {column!r}: one of {owners[column]}, one of {owner}; rename one"
                )
            owners[column] = owner
