"""Steps to apply to tables of a program, with the columns of these tables."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from raysp.cluster.resources import Resources, local_resources, with_absolute_paths
from raysp.corpus.shards import AUDIO
from raysp.corpus.tables import check_columns
from raysp.errors import PlanError, ShardError, SpecError, refuse_unused
from raysp.labelling.planning.planned_checkpoint import pinned, with_backends
from raysp.labelling.planning.run_plan import Pass, output_schema
from raysp.labelling.planning.settings import resolve_settings
from raysp.labelling.planning.surveying import check_types, source_columns
from raysp.sink.commit import RESULT_SCHEMA
from raysp.specs.pipeline import Parquet, Pipeline, Shards, load_function
from raysp.specs.steps import Step
from raysp.storage.options import GivenOptions, options_of

PLACE = "dataset"
"""Word for the rows in messages, in place of the url of a shard."""
NO_URL = "/dataset"
"""Url of source and sink, which are not used."""


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
    def columns(self) -> tuple[str, ...]:
        """Columns of the result that are taken from the rows."""
        named = (self.pipeline.source.id, *self.pipeline.kept, self.row)
        return tuple(dict.fromkeys(name for name in named if name is not None))

    def decoded_columns(self, schema: pa.Schema) -> list[str]:
        """Return the columns that decoding reads: the audio, and columns of the steps."""
        read = {self.pipeline.source.audio, *self.pipeline.flow.reads}
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
        needed = tuple(dict.fromkeys([*source_columns(self.pipeline), *self.columns]))
        try:
            check_columns(PLACE, schema, audio=source.audio, others=needed, by_path=source.audio_root is not None)
        except ShardError as error:
            raise PlanError(f"{error}. Name other columns by audio=, id= (or id=None), keep= and row=") from None
        check_types(PLACE, schema, self.pipeline)
        if self.row is not None and not pa.types.is_integer(kind := schema.field(self.row).type):
            raise PlanError(f"{PLACE}: column {self.row!r} is {kind}, expected integers: row= names the row numbers")

    def label_schema(self, types: Mapping[str, pa.DataType]) -> pa.Schema:
        """Return the columns of label rows.

        Args:
            types: types of the columns of the rows; the columns that it lacks are of type null.
        """
        source, outputs = self.pipeline.source, output_schema(*self.passes)
        id_type = pa.string() if source.id is None else types.get(source.id, pa.null())
        kept = [(name, types.get(name, pa.null())) for name in self.pipeline.kept]
        own = [outputs.field(name) for name in self.pipeline.flow.columns]
        return pa.schema([("id", id_type), *kept, *RESULT_SCHEMA, *own])

    def label_rows(self, rows: pa.Table, labelled: pa.Table) -> pa.Table:
        """Return label rows, from the source rows and the result of the model for them, both in order."""
        source, num_rows = self.pipeline.source, rows.num_rows
        ids = rows.column(source.id) if source.id is not None else pa.nulls(num_rows, pa.string())
        numbers = rows.column(self.row).cast(pa.int64()) if self.row is not None else pa.nulls(num_rows, pa.int64())
        kept = {name: rows.column(name) for name in self.pipeline.kept}
        of_labels = dict(zip(labelled.column_names, labelled.columns, strict=True))
        return pa.table({"id": ids, **kept, **of_labels, "row": numbers})


def _is_without_bytes(kind: pa.DataType) -> bool:
    """Return whether a type is inferred from recordings that are all null or given by path."""
    if not pa.types.is_struct(kind):
        return pa.types.is_null(kind)
    fields = {field.name: field.type for field in kind}
    return {*fields} <= {*AUDIO.names} and pa.types.is_null(fields.get("bytes", pa.null()))


def table_source(id: str | None, audio: str, audio_root: str | None, storage_options: GivenOptions | None) -> Shards:
    """Return the source that stands for tables; arguments and errors are those of `Labeller`."""
    if audio_root is None:
        unused = {"storage_options": storage_options or None}
        refuse_unused(unused, "they reach the folder of audio_root=, and there is none; leave them out")
    url, options = NO_URL if audio_root is None else audio_root, options_of(storage_options or {})
    return Shards(url, id=id, audio=audio, audio_root=audio_root, storage_options=options)


def table_job(
    steps: Sequence[Step], source: Shards, keep: Sequence[str], row: str | None, resources: Resources | None = None
) -> TableJob:
    """Check steps and the names of columns, and resolve "auto" settings; errors are those of `Labeller`.

    `resources` are those that the model may use; None: those of this machine.
    """
    pipeline = Pipeline(source, steps=steps, sink=Parquet(NO_URL, keep=keep))
    if not pipeline.reads_audio:
        raise SpecError(
            f"found steps {[type(step).__name__ for step in steps]}; expected one Decode and at least one Label"
        )
    if source.id is None and any(getattr(output, "generate", {}).get("do_sample") for output in pipeline.outputs):
        raise SpecError(
            "id=None: generate={'do_sample': True} draws by the id of a row; name the column of the ids by id="
        )
    pipeline, chosen = with_backends(pinned(with_absolute_paths(pipeline)))
    summaries = [output.summary for output in chosen]
    functions = {name: load_function(name) for step in pipeline.steps for name in step.functions}
    passes = resolve_settings(pipeline, resources or local_resources(pipeline), summaries=summaries)
    return TableJob(pipeline, passes, row, functions)
