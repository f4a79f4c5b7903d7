"""Survey of a corpus: reads the footers of new shards, checks their columns and cuts shards into pieces."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa

from raysp.corpus import sources
from raysp.corpus.shards import Shard, check_columns, input_id
from raysp.errors import PlanError, ShardError, StoreError
from raysp.planning.listing import Found
from raysp.planning.plans import Corpus
from raysp.specs.pipeline import Pipeline
from raysp.words import RESTORE

AT_ONCE = 32
"""Footers that are read at once; with requests of 20 ms, 1,600 a second."""
WINDOW = 1024
"""Shards of which all footers are read before the next ones are begun."""


def survey(
    found: Sequence[Found],
    recorded: Mapping[str, Shard],
    pipeline: Pipeline,
    *,
    limit_rows: int | None = None,
    relabel: bool = False,
    replaceable: Collection[str] = (),
) -> Corpus:
    """Read the footers of new shards, check their columns and cut them into pieces.

    Args:
        found: the listing.
        recorded: shards recorded by earlier plans of the same sink, by name.
        pipeline: determines the required columns.
        limit_rows: stop once this many rows are found.
        relabel: treat recorded shards with changed content as new, instead of raising.
        replaceable: names of recorded shards that are treated so even without `relabel`.

    Raises:
        PlanError: a column is missing or of the wrong type, or a recorded shard's content changed.
    """
    bare: set[str] = set()

    def survey_one(one: Found) -> Shard | str:
        return _survey_one(one, recorded.get(one.name), pipeline, relabel or one.name in replaceable, bare)

    def unchanged(one: Found) -> Shard | None:
        return _unchanged(one, recorded.get(one.name))

    shards: list[Shard] = []
    fresh: list[Shard] = []
    unreadable: dict[str, str] = {}
    num_rows = 0
    for one, surveyed in _in_order(found, unchanged, survey_one):
        if isinstance(surveyed, str):
            unreadable[one.name] = surveyed
            continue
        shards.append(surveyed)
        known = recorded.get(one.name)
        if known is None or (known.input_id, known.part) != (surveyed.input_id, surveyed.part):
            fresh.append(surveyed)
        num_rows += surveyed.num_rows
        if limit_rows is not None and num_rows >= limit_rows:
            break
    names = {one.name for one in found}
    vanished = tuple(sorted(name for name in recorded if name not in names))
    supersedes = any(one.name in recorded for one in fresh)
    without_bytes = frozenset(bare)
    return Corpus(tuple(shards), unreadable, tuple(fresh), vanished, supersedes, without_bytes=without_bytes)


def _in_order(
    found: Sequence[Found], unchanged: Callable[[Found], Shard | None], work: Callable[[Found], Shard | str]
) -> Iterator[tuple[Found, Shard | str]]:
    """Yield the shards in order: those that are `unchanged`, and the others by `work`, many at once."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for start in range(0, len(found), WINDOW):
            window = found[start : start + WINDOW]
            known = [unchanged(one) for one in window]
            new = pool.map(work, [one for one, shard in zip(window, known, strict=True) if shard is None])
            for one, shard in zip(window, known, strict=True):
                yield one, next(new) if shard is None else shard


def _unchanged(one: Found, known: Shard | None) -> Shard | None:
    """Return the recorded shard if its content has not changed, with its current place."""
    if known is None or (known.num_bytes, known.version) != (one.num_bytes, one.version):
        return None
    part = one.part or known.part
    return known if (known.url, known.part) == (one.url, part) else replace(known, url=one.url, part=part)


def _survey_one(one: Found, known: Shard | None, pipeline: Pipeline, relabel: bool, bare: set[str]) -> Shard | str:
    """Return a new shard, or why it cannot be read; add its name to `bare` if its rows hold no recording."""
    kind = sources.kind_named(one.kind)
    if known is not None and not relabel and kind.is_sliced:  # a slice may no longer end with a line
        raise _changed(one, known)
    source = pipeline.source
    try:
        columns = (source.audio, *source_columns(pipeline))
        found = kind.survey(one.url, one.part, source.storage_options, columns)
    except (ShardError, StoreError) as error:
        return str(error)
    if known is not None and not relabel:
        raise _changed(one, known)
    try:
        has_rows = found.num_rows > 0  # a writer cannot infer types without rows
        check_columns(one.url, found.schema, audio=source.audio, others=source_columns(pipeline), has_rows=has_rows)
    except ShardError as error:
        raise PlanError(str(error)) from None
    if source.text is not None and has_rows:
        _check_text(one.url, found.schema, source.text)
    check_types(one.url, found.schema, pipeline)
    is_by_path = source.audio_root is not None or not kind.holds_audio
    if has_rows and not is_by_path and found.nulls & {source.audio, f"{source.audio}.bytes"}:
        bare.add(one.name)
    return Shard(
        name=one.name,
        url=one.url,
        num_bytes=one.num_bytes,
        version=one.version,
        num_rows=found.num_rows,
        input_id=input_id(one.num_bytes, one.version, found),
        pieces=found.pieces,
        kind=one.kind,
        part=one.part,
        seconds=found.seconds,
    )


def _check_text(url: str, schema: pa.Schema, name: str) -> None:
    """Raise if a reference column is not text: its word error rate would be empty, or one of digits."""
    found = schema.field(name).type
    held = found.value_type if pa.types.is_dictionary(found) else found
    of_text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    of_bytes = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    if not any(fits(held) for fits in (*of_text, *of_bytes, pa.types.is_null)):
        raise PlanError(
            f"{url}: column {name!r} holds {found}, expected strings: source.text is compared with the labels; set it "
            f"to a column of strings, or remove it and keep this column with sink.keep=[{name!r}]"
        )


def _changed(one: Found, known: Shard) -> PlanError:
    return PlanError(
        f"{one.url}: its content changed since it was planned ({known.num_bytes:,} bytes, now {one.num_bytes:,}; "
        f"version {known.version}, now {one.version}). {RESTORE}"
    )


def check_types(url: str, schema: pa.Schema, pipeline: Pipeline) -> None:
    """Check the types of the columns that each step reads, of the source or of steps before it.

    Args:
        url: name of the source for messages.
        schema: columns of the source.
        pipeline: the pipeline.

    Raises:
        PlanError: a column does not have the type that a step needs.
    """
    for step in pipeline.steps[:-1]:
        try:
            step.check(schema)
        except ValueError as error:
            raise PlanError(f"{url}: {error}") from None
        for field in step.schema():
            place = schema.get_field_index(field.name)
            schema = schema.append(field) if place < 0 else schema.set(place, field)


def source_columns(pipeline: Pipeline) -> tuple[str, ...]:
    """Return the source columns that a pipeline requires besides the audio."""
    reads = [column for column in pipeline.reads if column != pipeline.source.audio]
    identity = [pipeline.source.id] if pipeline.source.id else []
    return tuple(dict.fromkeys([*identity, *pipeline.kept, *reads]))
