"""Steps to apply to tables of a program, with the columns of these tables."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from raysp.cluster.resources import Resources, local_resources
from raysp.cluster.work_places import with_absolute_paths
from raysp.corpus.recording_columns import check_columns
from raysp.corpus.shards import AUDIO
from raysp.errors import PlanError, ShardError, SpecError, refuse_unused
from raysp.labelling.planning.backend_choice import with_backends
from raysp.labelling.planning.planned_checkpoint import pinned
from raysp.labelling.planning.run_plan import Pass, Settings, output_schema
from raysp.labelling.planning.settling import settle
from raysp.labelling.planning.surveying import check_types, source_columns, try_filters, try_late_filters
from raysp.sink.commit import RESULT_SCHEMA
from raysp.specs.pipeline import Parquet, Pipeline, Shards, load_function
from raysp.specs.steps import Label, Pool, Step
from raysp.storage.options import GivenOptions, options_of

PLACE = "dataset"
"""Word for the rows in messages, in place of the url of a shard."""
NO_URL = "/dataset"
"""Url of source and sink, which are not used."""


@dataclass(frozen=True)
class Columns:
    """Columns of rows, and the place of recordings given by path."""

    id: str | None
    """Column of row ids; None: rows have no ids."""
    audio: str
    keep: Sequence[str]
    row: str | None
    """Column of row numbers; None: rows are not numbered."""
    audio_root: str | None
    storage_options: GivenOptions | None


@dataclass(frozen=True)
class TableJob:
    """Data that workers need to label tables."""

    pipeline: Pipeline
    """Steps and columns. The urls of its source and its sink name no place."""
    passes: tuple[Pass, ...]
    """Its `Label` steps with their settings."""
    row: str | None
    """Column with the numbers of the rows; None: there is none."""
    functions: Mapping[str, Callable[..., object]]
    """Functions that steps name, pickled as Ray pickles any function."""

    @property
    def settings(self) -> Settings:
        """Settings of the first `Label` step."""
        return self.passes[0].settings

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns of the result that are taken from the rows."""
        row = [self.row] if self.row is not None else []
        return tuple(dict.fromkeys([*self._identity, *self.pipeline.kept, *row]))

    @property
    def _identity(self) -> list[str]:
        return [self.pipeline.source.id] if self.pipeline.source.id is not None else []

    def decoded_columns(self, schema: pa.Schema) -> list[str]:
        """Return the columns that decoding reads: the audio, and those of the steps."""
        read = {self.pipeline.source.audio, *self.pipeline.reads}
        return schema.names if any(step.reads_all for step in self.pipeline.steps) else sorted(read)

    def with_audio(self, rows: pa.Table) -> pa.Table:
        """Return rows whose recordings have the expected type, if they have a type only for lack of values."""
        place = rows.schema.get_field_index(self.pipeline.source.audio)
        if place < 0 or not _is_without_bytes(rows.schema.field(place).type):
            return rows
        return rows.set_column(place, rows.schema.names[place], rows.column(place).cast(AUDIO))

    def check(self, schema: pa.Schema) -> None:
        """Check that rows have the columns that the steps read, with the types that they need.

        Raises:
            PlanError: a column does not fit; the message has its type and the expected ones.
        """
        source = self.pipeline.source
        others = dict.fromkeys([*source_columns(self.pipeline), *self.columns])
        try:
            by_path = source.audio_root is not None
            check_columns(PLACE, schema, audio=source.audio, others=tuple(others), by_path=by_path)
        except ShardError as error:
            raise PlanError(f"{error}. Name other columns by audio=, id= (or id=None), keep= and row=") from None
        check_types(PLACE, schema, self.pipeline)
        if self.row is not None and not pa.types.is_integer(found := schema.field(self.row).type):
            raise PlanError(f"{PLACE}: column {self.row!r} is {found}, expected integers: row= names the row numbers")

    def try_filters(self, schema: pa.Schema) -> None:
        """Call the filters that may read any column, on tables without rows of these columns.

        Raises:
            PlanError: a filter raises an error.
        """
        try_filters(PLACE, schema, self.pipeline)
        try_late_filters(PLACE, schema, self.pipeline, output_schema(*self.passes))

    def label_schema(self, types: Mapping[str, pa.DataType]) -> pa.Schema:
        """Return the columns of label rows.

        Args:
            types: types of the columns of the rows; the columns that it lacks are of type null.
        """
        source, outputs = self.pipeline.source, output_schema(*self.passes)
        id_type = pa.string() if source.id is None else types.get(source.id, pa.null())
        kept = [(name, types.get(name, pa.null())) for name in self.pipeline.kept]
        own = [outputs.field(name) for name in self.pipeline.columns]
        return pa.schema([("id", id_type), *kept, *RESULT_SCHEMA, *own])

    def label_rows(self, rows: pa.Table, labelled: pa.Table) -> pa.Table:
        """Return label rows, from the source rows and the result of the model for them, both in order."""
        source, num_rows = self.pipeline.source, rows.num_rows
        ids = rows.column(source.id) if source.id is not None else pa.nulls(num_rows, pa.string())
        numbers = rows.column(self.row).cast(pa.int64()) if self.row is not None else pa.nulls(num_rows, pa.int64())
        kept = {name: rows.column(name) for name in self.pipeline.kept}
        place = labelled.schema.get_field_index("row")
        return pa.table({"id": ids, **kept, **by_name(labelled.set_column(place, "row", numbers))})


def _is_without_bytes(kind: pa.DataType) -> bool:
    """Return whether a type is inferred from recordings that are all null or given by path."""
    if not pa.types.is_struct(kind):
        return pa.types.is_null(kind)
    fields = {field.name: field.type for field in kind}
    return {*fields} <= {*AUDIO.names} and pa.types.is_null(fields.get("bytes", pa.null()))


def by_name(table: pa.Table) -> "dict[str, pa.ChunkedArray[pa.Scalar[pa.DataType]]]":
    """Return the columns of a table by name, without the metadata of their fields."""
    return dict(zip(table.column_names, table.columns, strict=True))


def table_job(steps: Sequence[Step], columns: Columns, resources: Callable[[Pipeline], Resources]) -> TableJob:
    """Check steps and the names of columns, and resolve "auto" settings.

    Args:
        steps: one `Decode`, then `Label` steps; others as in a pipeline.
        columns: columns of the rows, and the place of recordings given by path.
        resources: returns the resources that the model may use.

    Raises:
        SpecError: the steps are not those of a pipeline, or names clash.
        CheckpointError, PlanError: the checkpoint cannot be run, or not with this pool.
    """
    if columns.audio_root is None:
        unused = {"storage_options": columns.storage_options or None}
        refuse_unused(unused, "they reach the folder of audio_root=, and there is none; leave them out")
    source = Shards(
        NO_URL if columns.audio_root is None else columns.audio_root,
        id=columns.id,
        audio=columns.audio,
        audio_root=columns.audio_root,
        storage_options=options_of(columns.storage_options or {}),
    )
    pipeline = Pipeline(source, steps=steps, sink=Parquet(NO_URL, keep=columns.keep))
    if columns.id is None and any(getattr(one, "generate", {}).get("do_sample") for one in pipeline.outputs):
        raise SpecError(
            "id=None: generate={'do_sample': True} draws by the id of a row; name the column of the ids by id="
        )
    pipeline, chosen = with_backends(pinned(with_absolute_paths(pipeline)))
    summaries = [one.summary for one in chosen]
    functions = {name: load_function(name) for step in pipeline.steps for name in step.functions}
    return TableJob(pipeline, settle(pipeline, resources(pipeline), summaries=summaries), columns.row, functions)


def local_job(steps: Sequence[Step], columns: Columns) -> TableJob:
    """Return a job for a model in this process; errors are those of `table_job`.

    The pool of the `Label` step is that of other processes, so the default one takes its place.
    """
    given: object = steps
    if isinstance(given, Iterable):  # others are refused by the pipeline
        steps = [replace(step, pool=Pool()) if isinstance(step, Label) else step for step in steps]
    return table_job(steps, columns, local_resources)
