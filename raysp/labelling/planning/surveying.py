"""Survey of a corpus: reads the footers of new shards, checks columns and recordings, cuts shards into pieces."""

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, cast

import pyarrow as pa

from raysp.corpus import sources
from raysp.corpus.parquet import SealedFile
from raysp.corpus.shards import Piece, PieceSize, Shard, Survey, cut_groups, input_id, place_of
from raysp.corpus.sources import options_beside, without_ids
from raysp.corpus.surveys import Reading, Surveyed, survey_all
from raysp.corpus.tables import WITHOUT_BYTES, check_columns, recording_type
from raysp.devices import num_cpus
from raysp.errors import PlanError, RayspError, RunError, ShardError, StoreError, about
from raysp.labelling.planning.carried import CarriedTypes
from raysp.labelling.planning.listing import Listed
from raysp.labelling.planning.run_plan import Corpus
from raysp.ops.step_ops import RowOp, called
from raysp.sink import footer
from raysp.sink.absent import AbsentShard
from raysp.sink.commit import Todo
from raysp.specs.pipeline import USUAL_ID, Pipeline, ReadsCorpus, Shards, load_function
from raysp.specs.steps import Step
from raysp.words import count, listed, restore, suggestion

CheckSchema = Callable[[str, pa.Schema], None]
"""A check of the columns of a shard; its arguments are the url and the schema."""
LARGE_PIECES = PieceSize()
MOST_NAMES = 40
"""Columns that a message names."""
NO_ROWS = "A filter may be called with no rows: let it return an empty list then"
NO_ID = ". Set source.id to the column of ids, or to None (null with --set): ids are then <shard>:<row>"
NO_COLUMN = (
    ". A file metadata.csv in the folder makes columns: file_name, and one for each of them. For texts, set "
    "source.text='text' and put a.txt or a.lab beside a.wav"
)


def with_ids(work: ReadsCorpus, listed: Listed, recorded: Collection[str] = ()) -> tuple[Shards, dict[str, Surveyed]]:
    """Return the source of work, whose `id` is None if it has the usual value and there is no such column.

    The first shard that can be read decides, if possible one of an earlier plan of the sink: shards that are added do
    not change the ids of a source.

    Args:
        work: the pipeline or recipe.
        listed: the listing of its source.
        recorded: names of shards of earlier plans.

    Returns:
        The source, and the surveys of the shards that were read for it, by name.
    """
    source, surveyed = work.source, dict[str, Surveyed]()
    if source.id != USUAL_ID:
        return source, surveyed
    reading = Reading(source.storage_options, _needed(work))
    for shard in sorted(listed.shards, key=lambda shard: shard.name not in recorded):
        if shard.name in listed.unreadable:
            continue
        if sources.kind_named(shard.kind).has_ids:
            break
        [first] = reading.survey([shard])
        surveyed[shard.name] = first
        if isinstance(first, Survey):
            return (source if USUAL_ID in first.schema.names else replace(source, id=None)), surveyed
    return source, surveyed


def _needed(work: ReadsCorpus) -> tuple[str, ...]:
    """Return the columns that every shard must have, first the audio if it is read."""
    return (*((work.source.audio,) if work.flow.reads_audio else ()), *source_columns(work))


def survey(
    listed: Listed,
    recorded: Mapping[str, Shard],
    work: ReadsCorpus,
    *,
    size: PieceSize = LARGE_PIECES,
    limit_rows: int | None = None,
    may_change: Collection[str] = (),
    check: CheckSchema | None = None,
    carried: CarriedTypes | None = None,
    surveyed: Mapping[str, Surveyed] | None = None,
) -> Corpus:
    """Read the footers of new shards, check their columns and cut them into pieces.

    Args:
        listed: the listing.
        recorded: shards recorded by earlier plans of the same sink, by name.
        work: determines the required columns.
        size: size of the pieces of new shards.
        limit_rows: stop once this many rows are found.
        may_change: names of recorded shards that are new if their content changed, instead of raising.
        check: further check of the columns of shards with rows, which raises PlanError.
        carried: receives the types of the columns that label shards carry over.
        surveyed: surveys of shards that were read before (`with_ids`), by name.

    Raises:
        PlanError: a column is missing or of the wrong type, or a recorded shard's content changed.
    """
    new_shards = _NewShards(work, listed.shards, check, carried)
    shards: list[Shard] = []
    absent: list[AbsentShard] = []
    num_rows = 0
    unchanged = {
        target.name: shard
        for target in listed.shards
        if target.name in recorded and (shard := _unchanged(target, recorded[target.name])) is not None
    }
    new = [target for target in listed.shards if target.name not in unchanged and target.name not in listed.unreadable]
    surveyed = surveyed or {}
    unread = [target for target in new if target.name not in surveyed]
    processes = num_cpus() if limit_rows is None else 1
    with closing(survey_all(unread, Reading(work.source.storage_options, _needed(work)), processes)) as rest:
        known = (surveyed[target.name] if target.name in surveyed else next(rest) for target in new)
        surveys = _sized(known, size, limit_rows)
        for target in listed.shards:
            shard = unchanged.get(target.name)
            reason = f"{target.url}: {listed.unreadable.get(target.name)}"
            if shard is None and target.name not in listed.unreadable:
                before = None if target.name in may_change else recorded.get(target.name)
                if before is not None and sources.kind_named(target.kind).is_sliced:
                    raise _changed(target, before)  # a slice may no longer end with a line
                facts, seconds = next(surveys)
                if isinstance(facts, str):
                    reason = facts
                elif before is not None:
                    raise _changed(target, before)
                else:
                    shard = new_shards(target, facts, seconds)
            if shard is None:
                absent.append(AbsentShard.of(target, reason))
                continue
            shards.append(shard)
            num_rows += shard.num_rows
            if limit_rows is not None and num_rows >= limit_rows:
                break
    return Corpus(
        tuple(shards),
        {shard.name: shard.reason for shard in absent},
        recorded,
        listed,
        without_bytes=frozenset(new_shards.without_bytes),
        absent=tuple(absent),
        carried=carried.schema if carried else pa.schema([]),
        widened=carried.notes if carried else (),
        schemas=new_shards.schemas,
    )


def _unchanged(listed: Shard, recorded: Shard) -> Shard | None:
    """Return the recorded shard if its content has not changed, with its current place."""
    if (recorded.num_bytes, recorded.version) != (listed.num_bytes, listed.version):
        return None
    if recorded.labels_version != listed.labels_version:
        return None
    part = listed.part or recorded.part
    if (recorded.url, recorded.part, recorded.labels) == (listed.url, part, listed.labels):
        return recorded
    return replace(recorded, url=listed.url, part=part, labels=listed.labels)


def _sized(surveys: Iterator[Surveyed], size: PieceSize, limit_rows: int | None) -> Iterator[tuple[Surveyed, float]]:
    """Return surveys with the seconds of their pieces, which the audio of the first ones determines."""
    ahead: list[Surveyed] = []
    num_rows, seconds = 0, 0.0
    for surveyed in surveys:
        ahead.append(surveyed)
        if isinstance(surveyed, Survey):
            num_rows += surveyed.num_rows
            seconds += sum(group.seconds for group in surveyed.groups)
        is_enough = seconds >= size.most_seconds * size.num_pieces  # more does not change the size
        if is_enough or (limit_rows is not None and num_rows >= limit_rows):
            break
    piece_seconds = size.seconds(seconds)
    return ((surveyed, piece_seconds) for surveyed in chain(ahead, surveys))


@dataclass(eq=False)
class _NewShards:
    """Shards from their surveys, with checks of their columns; fields are arguments of `survey`."""

    work: ReadsCorpus
    listed: Sequence[Shard]
    further_check: CheckSchema | None
    carried: CarriedTypes | None
    checked: dict[bool, pa.Schema] = field(default_factory=dict)
    """Last schema that was accepted of shards with rows, and of shards without."""
    schemas: dict[pa.Schema, str] = field(default_factory=dict)
    """Columns of shards with rows, each with the url of the first, if steps after the model may read any."""
    without_bytes: set[str] = field(default_factory=set)
    """Names of shards whose rows hold no recording and may not be read by path."""

    def __post_init__(self) -> None:
        work, source = self.work, self.work.source
        self.labels = pa.schema([])
        """Columns of a label shard in `source.labels`."""
        if source.labels and self.listed:
            options = options_beside(source.labels, source.urls[0], source.storage_options)
            store, name = place_of(self.listed[0].labels, options)
            with about("source.labels", PlanError, RayspError), footer.opened(store, name) as file:
                self.labels = without_ids(SealedFile.of(file).metadata.schema.to_arrow_schema())
        self.columns = source_columns(work)
        self.is_tried_later = any(_is_tried(step) for steps in work.flow.after for step in steps)

    def __call__(self, shard: Shard, surveyed: Survey, seconds: float) -> Shard:
        """Return a shard with pieces of some seconds; raise PlanError if a column is missing or of the wrong type."""
        schema = surveyed.schema
        if len(self.labels):
            own = [field for field in schema if field.name not in self.labels.names]
            schema = pa.schema([*own, *self.labels])
        self._check(shard, schema, has_rows=surveyed.num_rows > 0)
        source = self.work.source
        is_by_path = sources.is_by_path(shard, source.audio_root)
        groups = surveyed.groups
        if not self.work.flow.reads_audio:
            groups = [group._replace(seconds=0.0) for group in groups]  # pieces by rows and bytes alone
        elif surveyed.num_rows and not is_by_path:
            is_null = surveyed.nulls & {source.audio, f"{source.audio}.bytes"}
            if is_null or recording_type(schema.field(source.audio).type) in WITHOUT_BYTES:
                self.without_bytes.add(shard.name)
        return replace(
            shard,
            num_rows=surveyed.num_rows,
            input_id=input_id(shard.num_bytes, shard.version, surveyed, shard.labels_version),
            pieces=cut_groups(groups, seconds, sources.kind_named(shard.kind).piece_rows),
            part=shard.part or surveyed.part,
            seconds=surveyed.seconds,
        )

    def _check(self, shard: Shard, schema: pa.Schema, *, has_rows: bool) -> None:
        """Check the columns, unless they equal those of the previous shard, as they usually do."""
        checked = self.checked.get(has_rows)
        if checked is not None and checked.equals(schema, check_metadata=True):
            return
        source, url = self.work.source, shard.url
        try:  # a writer cannot infer types without rows
            by_path, audio = source.audio_root is not None, source.audio if self.work.flow.reads_audio else ""
            check_columns(url, schema, audio=audio, others=self.columns, has_rows=has_rows, by_path=by_path)
        except ShardError as error:
            missing = next((name for name in _needed(self.work) if name not in schema.names), source.audio)
            remedy = NO_ID if missing == source.id else NO_COLUMN if shard.kind == sources.FOLDER else ""
            added = self.work.flow.columns
            close = f"; steps add {', '.join(added)}{like}" if (like := suggestion(missing, added)) else ""
            raise PlanError(f"{error}{close}{'' if missing == source.audio else remedy}") from None
        is_read = source.text is not None and source.text in self.work.kept and has_rows
        if is_read and not holds_text(kind := schema.field(cast("str", source.text)).type):
            raise PlanError(
                f"{url}: column {source.text!r} holds {kind}, expected strings: source.text "
                f"{self.work.TEXT_USE.format(source.text)}{as_texts(shard.kind, kind)}"
            )
        if self.further_check is not None and has_rows:
            self.further_check(url, schema)
        try:
            check_types(url, schema, self.work)
        except PlanError as error:
            named = (
                field.type
                for field in schema
                if f"column {field.name!r} holds {field.type}, expected strings" in str(error)
            )
            raise PlanError(f"{error}{as_texts(shard.kind, next(named, pa.null()))}") from None
        if has_rows:
            try_filters(url, schema, self.work)
        if has_rows and self.is_tried_later:
            self.schemas.setdefault(schema.remove_metadata(), url)
        if self.carried is not None and has_rows:
            self.carried.add(url, shard.kind, schema)
        self.checked[has_rows] = schema


def as_texts(kind: str, column: pa.DataType) -> str:
    """Return advice on a column of numbers that is used as texts, in shards of the kind with a recorded name."""
    if not any(fits(column) for fits in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean)):
        return ""
    return f". If its values are texts, {sources.kind_named(kind).as_texts}"


def holds_text(kind: pa.DataType) -> bool:
    """Return whether a type holds strings, bytes or nulls alone, also as a dictionary."""
    stored = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    of_text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    of_bytes = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(fits(stored) for fits in (*of_text, *of_bytes, pa.types.is_null))


def _changed(listed: Shard, recorded: Shard) -> PlanError:
    if (recorded.num_bytes, recorded.version) == (listed.num_bytes, listed.version):
        return PlanError(
            f"{listed.url}: its label shard {listed.labels or recorded.labels} changed since it was planned, or "
            f"source.labels did. {restore(listed.name)}"
        )
    return PlanError(
        f"{listed.url}: its content changed since it was planned ({recorded.num_bytes:,} bytes, now "
        f"{listed.num_bytes:,}; version {recorded.version}, now {listed.version}). {restore(listed.name)}"
    )


def check_types(url: str, schema: pa.Schema, work: ReadsCorpus) -> None:
    """Check the types of the columns that each step reads, of the source or of steps before it.

    Args:
        url: name of the source for messages.
        schema: columns of the source.
        work: the pipeline or recipe.

    Raises:
        PlanError: a column does not have the type that a step needs.
    """
    for step in (*work.flow.before, *work.flow.labels):  # late steps read outputs, which are checked with checkpoints
        with about(url, PlanError, ValueError):
            step.check(schema)
        for added in step.schema():
            place = schema.get_field_index(added.name)
            schema = schema.append(added) if place < 0 else schema.set(place, added)


def source_columns(work: ReadsCorpus) -> tuple[str, ...]:
    """Return the source columns that a pipeline or recipe requires besides the audio."""
    reads = [column for column in work.flow.reads if column != work.source.audio]
    identity = [work.source.id] if work.source.id else []
    return tuple(dict.fromkeys([*identity, *work.kept, *reads]))


def try_filters(url: str, schema: pa.Schema, work: ReadsCorpus, added: pa.Schema | None = None) -> None:
    """Call the filters before or after the model with a table without rows, if they may read any column.

    Args:
        url: name of the source for messages.
        schema: columns of the source.
        work: the pipeline or recipe.
        added: columns that all steps add, for the filters after the model; None: try those before it.

    Raises:
        PlanError: a filter raises an error, or returns values for no rows; the message has its line and the columns.
    """
    num_before = len(work.flow.before)
    first, steps = (0, work.flow.before) if added is None else (num_before, work.steps[num_before:])
    if not any(map(_is_tried, steps)):
        return
    kinds: dict[str, Any] = {name: schema.field(name).type for name in sorted({*schema.names} - {work.source.audio})}
    columns = {name: kind.value_type if pa.types.is_dictionary(kind) else kind for name, kind in kinds.items()}
    columns |= {field.name: field.type for field in added or ()}
    for index, step in enumerate(steps, first):
        if _is_tried(step):
            _try(url, f"steps[{index}]", step, columns)
        columns |= {field.name: field.type for field in step.schema()}


def _is_tried(step: Step) -> bool:
    return step.reads_all and not step.columns


def _try(url: str, where: str, step: Step, columns: Mapping[str, pa.DataType]) -> None:
    op = cast("RowOp", step.op({name: load_function(name) for name in step.functions}))
    try:
        called(op, pa.schema([*columns.items()]).empty_table())
    except RunError as error:
        advice = "" if isinstance(error.__cause__, KeyError) else f". {NO_ROWS}"
        raise PlanError(
            f"{url}: {where} {error}; the plan called it on a table without rows, of the columns "
            f"{listed([*map(repr, columns)], MOST_NAMES)}{advice}"
        ) from error.__cause__


SAMPLE_ROWS = 20


def refuse_without_recordings(corpus: Corpus, todo: Sequence[Todo], pipeline: Pipeline) -> None:
    """Raise if no row to label holds a recording and rows may not be read by path.

    Raises:
        PlanError: there is no recording; the message has one of the paths, and the remedy.
    """
    shards = [work.shard for work in todo if work.shard.num_rows]
    if not shards or any(shard.name not in corpus.without_bytes for shard in shards):
        return
    source = pipeline.source
    where = f"{shards[0].url}{' and others' if len(shards) > 1 else ''}"
    rows = count(sum(shard.num_rows for shard in shards), "row")
    raise PlanError(f"{where}: column {source.audio!r} holds no bytes in any of {rows}{_remedy(shards[0], source)}")


def paths_of(shard: Shard, piece: Piece, source: Shards) -> list[str]:
    """Return the paths that rows of a piece hold; none if they cannot be read, which the run reports."""
    try:
        return [path for path in sources.read_paths(shard, piece, source.audio, source.storage_options) if path]
    except (ShardError, StoreError, KeyError, IndexError, ValueError, pa.ArrowException):
        return []


def _remedy(shard: Shard, source: Shards) -> str:
    """Describe the paths in the first rows, which hold no recordings, with the remedy."""
    paths = paths_of(shard, Piece(0, min(SAMPLE_ROWS, shard.num_rows)), source)
    if not paths:
        return ", and no paths; expected recordings. Set source.audio to their column, or embed them"
    is_absolute = all(path.startswith("/") for path in paths)
    root = os.path.commonpath([os.path.dirname(path) for path in paths]) if is_absolute else "DIR"  # noqa: PTH120
    return (
        f", only paths such as {paths[0]!r:.200}. Set the folder that contains them, such as "
        f"source.audio_root={root!r:.200}, or embed the recordings"
    )
