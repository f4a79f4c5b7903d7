"""Shards of JSONL manifests with NeMo's keys: one row per line, 10,000 lines per shard.

Rows have `audio` (a path), `offset` and `duration` in seconds, `id` (from the manifest, else the path), and a column
for every other key. A shard is a byte range of the manifest, so that lines can be appended. Existing ranges change only
when one of them is labelled again.
"""

import codecs
import hashlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise, repeat
from typing import Any, BinaryIO, cast

import pyarrow as pa

from raysp import bounds
from raysp.corpus.shards import (
    FAULT,
    JSON_TEXTS,
    SECONDS_BY_PATH,
    Cut,
    Group,
    Options,
    Origin,
    Piece,
    Shard,
    SourceKind,
    Survey,
    one_line,
    place_of,
)
from raysp.errors import ShardError
from raysp.storage.text_content import HiddenError, opened_text
from raysp.text.error_rates import fault_of, is_unicode, json_text, storable
from raysp.words import RESTORE, count

LINES_A_SHARD = 10_000
MOST_SLICE_BYTES = 64 * 1024 * 1024
"""Bytes from which a slice ends before `LINES_A_SHARD`."""
MOST_READ_BYTES = 1024 * 1024 * 1024
"""Bytes of a recorded slice."""
SHOWN_LINES = 5
"""Further wrong lines that a message numbers."""
_PATH, _OFFSET, _DURATION, _ID = "audio_filepath", "offset", "duration", "id"
AUDIO_TYPE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])


@dataclass(frozen=True)
class Slice:
    """A range of a manifest's decompressed bytes."""

    first: int
    end: int
    digest: str

    @property
    def part(self) -> str:
        """The range as text: "first-end"."""
        return f"{self.first}-{self.end}"


def cut(
    url: str,
    recorded: Sequence[str],
    storage_options: Options = None,
    digests: Sequence[str] | None = None,
) -> list[Slice]:
    """Cut a manifest into slices: first the recorded ones, then the lines after them.

    With `digests`, the manifest is cut again from the first changed slice that no longer ends with a line. The number
    of slices does not decrease; some may be empty. So each of their label shards is replaced, and no two hold the same
    rows.

    Args:
        url: url of the manifest.
        recorded: parts of its recorded shards, in order.
        storage_options: options of its storage.
        digests: digests of the recorded shards, if a changed manifest may be cut again.

    Raises:
        ShardError: the manifest is damaged, or has a line that is too long.
    """
    slices: list[Slice] = []
    with _opened(url, storage_options) as file:
        for number, (first, end) in enumerate(map(_range, recorded)):
            data = file.read(end - first)
            lines = Slice(first, end, _digest(data))
            if (
                digests is not None
                and lines.digest != digests[number]
                and not _ends_with_a_line(file, data, end - first)
            ):
                file.seek(first)
                break
            slices.append(lines)
        slices += _cut_lines(file, slices[-1].end if slices else 0, at_least=len(recorded) - len(slices))
    return slices


def _ends_with_a_line(file: BinaryIO, data: bytes, num_bytes: int) -> bool:
    """Return whether the data read for a slice ends at the end of a line or of the file."""
    if len(data) < num_bytes or not data.strip():
        return False
    if data.endswith(b"\n"):
        return True
    place = file.tell()
    is_end = not file.read(1)
    file.seek(place)
    return is_end


def _cut_lines(file: BinaryIO, place: int, at_least: int) -> Iterator[Slice]:
    """Cut the lines from `place` on into at least `at_least` slices.

    Slices are of even size if full ones would be fewer than `at_least`. Empty slices fill up the number.
    """
    made, all_lines = 0, bounds.lines(file)
    for num_lines in _lines_a_slice(file, place, at_least):
        lines = _some_lines(all_lines, num_lines)
        data = b"".join(lines)
        if not lines:
            break
        if data.strip():
            made += 1
            yield Slice(place, place + len(data), _digest(data))
        place += len(data)
    yield from repeat(Slice(place, place, _digest(b"")), max(0, at_least - made))


def _some_lines(all_lines: Iterator[bytes], num_lines: int) -> list[bytes]:
    """Return the next lines, fewer where they have `MOST_SLICE_BYTES`."""
    lines: list[bytes] = []
    num_bytes = 0
    for line in islice(all_lines, num_lines):
        lines.append(line)
        num_bytes += len(line)
        if num_bytes >= MOST_SLICE_BYTES:
            break
    return lines


def _lines_a_slice(file: BinaryIO, place: int, at_least: int) -> Iterator[int]:
    if at_least:
        num_lines = sum(1 for _ in bounds.lines(file))
        file.seek(place)
        if num_lines < at_least * LINES_A_SHARD:
            edges = [num_lines * k // at_least for k in range(at_least + 1)]
            yield from (end - first for first, end in pairwise(edges) if end > first)
    yield from repeat(LINES_A_SHARD)


def check_lines(url: str, storage_options: Options = None) -> None:
    """Check that the first line of a file is a complete JSON object that names a recording.

    An empty file is a manifest without lines.

    Raises:
        ShardError: with the beginning of the line and the expected format.
    """
    with _opened(url, storage_options) as file:
        line = next((line for line in bounds.lines(file) if line.strip()), b"")
    line = line.removeprefix(codecs.BOM_UTF8).strip()
    expected = f"expected a manifest: one JSON object with {_PATH!r} per line"
    if line.startswith(b"["):
        raise ShardError(f"begins with a JSON array; {expected}. Convert it: jq -c '.[]' IN.json > OUT.jsonl")
    try:
        first = bounds.parse_values(line or b"null")
    except ValueError:
        raise ShardError(f"its first line is {line[:40]!r}, not a complete JSON object; {expected}") from None
    if line and not (isinstance(first, dict) and _PATH in first):
        raise ShardError(f"its first line is {line[:40]!r}; {expected}")


class ManifestKind(SourceKind):
    """Manifests in JSON lines. Their slices are shards."""

    name = "manifest"
    suffixes = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz", ".json", ".json.gz")
    named_suffixes = (".json", ".json.gz")
    described = "JSON Lines manifests (*.jsonl, *.ndjson, also .gz; *.json if given by name)"
    excerpt_columns = (_OFFSET, _DURATION)
    holds_audio = False
    has_ids = True
    is_sliced = True
    as_texts = JSON_TEXTS
    has_faults = True

    def cut(self, origin: Origin, recorded: Sequence[Shard], storage_options: Options, *, recut: bool) -> list[Cut]:
        """Cut a manifest into slices of lines; see `cut`."""
        if origin.url.endswith(self.named_suffixes):
            check_lines(origin.url, storage_options)
        digests = [shard.version for shard in recorded] if recut else None
        slices = cut(origin.url, [shard.part for shard in recorded], storage_options, digests)
        return [Cut(part.end - part.first, part.digest, part.part) for part in slices]

    def survey(
        self, url: str, part: str, storage_options: Options = None, columns: Sequence[str] | None = None
    ) -> Survey:
        """Survey a slice of a manifest.

        Raises:
            ShardError: a line is not a JSON object.
        """
        raw = _read(url, part, storage_options)
        if not raw:  # empty slices take their columns from the first lines of the manifest
            return Survey(_schema(url, storage_options), 0, (), _digest(raw), seconds=0.0)
        rows = json_rows(url, raw)
        table = _table(rows)
        claimed = table.column(_DURATION).to_pylist()
        durations = [s for s in claimed if s is not None and 0 < s < 1e6]
        groups = [Group(1, 0, s if s is not None and 0 < s < 1e6 else SECONDS_BY_PATH) for s in claimed]
        seconds = math.fsum(durations) if len(durations) == len(claimed) else None
        return Survey(table.schema, table.num_rows, groups, _digest(raw), seconds=seconds)

    def read_rows(
        self,
        shard: Shard,
        piece: Piece,
        columns: Sequence[str],
        storage_options: Options = None,
        as_dictionaries: Collection[str] = (),
    ) -> Iterator[pa.RecordBatch]:
        """Yield a piece's rows in order.

        Raises:
            ShardError: the manifest changed since it was planned.
        """
        raw = _read(shard.url, shard.part, storage_options)
        if _digest(raw) != shard.version:
            raise ShardError(f"{shard.url}: changed since it was planned. {RESTORE}")
        if not raw:
            return
        rows = json_rows(shard.url, raw)
        table = _table(rows)
        if FAULT in columns:
            table = table.append_column(FAULT, pa.array([_fault(row, columns) for row in rows], pa.string()))
        table = table.select(list(columns))
        yield from table.slice(piece.first, piece.num_rows).to_batches()

    def audio_root(self, shard: Shard) -> str | None:
        """Return the folder of the manifest."""
        return shard.url.rpartition("/")[0] or "/"


def _schema(url: str, storage_options: Options) -> pa.Schema:
    with _explained(url), _opened(url, storage_options) as file:
        return _table(json_rows(url, b"".join(_some_lines(bounds.lines(file), LINES_A_SHARD)))).schema


@contextmanager
def _opened(url: str, storage_options: Options) -> Iterator[BinaryIO]:
    """Open a manifest, decompressed. Damage and excessive sizes are raised as `ShardError`, without the url."""
    store, name = place_of(url, storage_options)
    try:
        with closing(store.open(name)) as raw, closing(_plain(raw)) as file:
            yield file
    except bounds.TooLargeError as error:
        raise ShardError(f"{error}; expected a manifest: one JSON object with {_PATH!r} per line") from None
    except bounds.DAMAGED as error:
        raise ShardError(f"the gzip file is damaged ({one_line(error)}). Copy the manifest again") from error


def _plain(raw: pa.NativeFile) -> BinaryIO:
    try:
        return opened_text(raw, "JSON lines")
    except HiddenError as error:
        raise ShardError(str(error)) from None


@contextmanager
def _explained(url: str) -> Iterator[None]:
    """Add the url to errors of `_opened`."""
    try:
        yield
    except ShardError as error:
        raise ShardError(f"{url}: {str(error).removeprefix(f'{url}: ')}") from error


def _read(url: str, part: str, storage_options: Options) -> bytes:
    first, end = _range(part)
    with _explained(url), _opened(url, storage_options) as file:
        bounds.check(end - first, MOST_READ_BYTES, "bytes in a recorded slice")
        file.seek(first)
        return file.read(end - first)


def _range(part: str) -> tuple[int, int]:
    first, _, end = part.partition("-")
    return int(first), int(end)


def _digest(raw: bytes) -> str:
    return hashlib.sha256(raw).hexdigest()[:16]


def json_rows(url: str, raw: bytes, first: int = 1) -> list[dict[str, object]]:
    """Parse JSON lines. Lists and objects within a row are their JSON as text, so that memory follows the bytes.

    Args:
        url: url for messages.
        raw: the lines.
        first: number of the first line.

    Raises:
        ShardError: lines are not JSON objects, with the first of them and the number of the others; or the rows have
            too many columns.
    """
    rows: list[dict[str, object]] = []
    names: set[str] = set()
    wrong: dict[int, str] = {}
    # At line feeds alone, as `bounds.lines` cuts slices.
    for number, line in enumerate(raw.split(b"\n"), first):
        if not line.strip():
            continue
        try:
            row = bounds.parse_values(line)
        except ValueError as error:
            wrong[number] = f"is not JSON ({error})"
            continue
        if not isinstance(row, dict):
            wrong[number] = f"is {line[:40]!r}; expected a JSON object"
            continue
        if not row.keys() <= names:
            names |= row.keys()
            _check_columns(url, names)
        for name, value in row.items():
            if isinstance(value, list | dict):
                row[name] = json_text(value)
        rows.append(row)
    if wrong:
        raise ShardError(_wrong_lines(url, wrong))
    return rows


def _wrong_lines(url: str, wrong: Mapping[int, str]) -> str:
    """Return the message for lines that are not JSON objects, by their number in the slice."""
    first, *later = wrong
    numbers = ", ".join(map(str, later[:SHOWN_LINES])) + (", ..." if len(later) > SHOWN_LINES else "")
    more = f", and {count(len(later), 'more line')} ({numbers})" if later else ""
    return f"{url}: line {first} of this slice {wrong[first]}{more}: correct {'them' if later else 'it'}"


def _check_columns(url: str, names: set[str]) -> None:
    try:
        bounds.check_columns(names)
    except bounds.TooLargeError as error:
        raise ShardError(f"{url}: {error}. Write the rows with the same keys") from None


def _table(rows: Sequence[Mapping[str, object]]) -> pa.Table:
    paths = [None if row.get(_PATH) is None else storable(_text(row[_PATH])) for row in rows]
    ids = [row[_ID] if row.get(_ID) is not None else path for row, path in zip(rows, paths, strict=True)]
    audio = [None if path is None else {"bytes": None, "path": path} for path in paths]
    columns: dict[str, pa.Array[Any]] = {
        _ID: pa.array([None if row_id is None else storable(_text(row_id)) for row_id in ids], pa.string()),
        "audio": pa.array(audio, AUDIO_TYPE),
        _OFFSET: pa.array([_seconds(row.get(_OFFSET)) for row in rows], pa.float64()),
        _DURATION: pa.array([_seconds(row.get(_DURATION)) for row in rows], pa.float64()),
    }
    for name in dict.fromkeys(key for row in rows for key in row):
        if name not in columns:
            columns[storable(name)] = json_column([row.get(name) for row in rows])
    return pa.table(columns)


def _seconds(value: object) -> float | None:
    """Return a number as float and any other value as NaN, which is refused as a position in a recording."""
    if value is None:
        return None
    return float(cast("float", value)) if _is_number(value) else float("nan")


def _is_number(value: object) -> bool:
    """Return whether a value fits a column of numbers. Integers beyond 2**53 do not; their column is text."""
    if isinstance(value, bool):
        return False
    return isinstance(value, float) or (isinstance(value, int) and -(2**53) <= value <= 2**53)


def json_column(values: list[object], kind: pa.DataType | None = None) -> "pa.Array[Any]":
    """Return a column of one type: the given one, else the common type of the values, else their JSON as text."""
    if kind is not None and not pa.types.is_string(kind):
        return pa.array(values, kind)
    present = [value for value in values if value is not None]
    if kind is None and all(isinstance(value, str) for value in present):
        return pa.array([v if v is None or is_unicode(cast("str", v)) else None for v in values], _type_of(present))
    if kind is None and all(isinstance(value, bool) for value in present):
        return pa.array(values, pa.bool_())
    if kind is None and all(_is_number(value) for value in present):
        is_int = all(isinstance(value, int) for value in present)
        return pa.array(values, pa.int64() if is_int else pa.float64())
    texts = [None if value is None else _text(value) for value in values]
    return pa.array([text if text is None or is_unicode(text) else None for text in texts], pa.string())


def _type_of(values: Sequence[object]) -> pa.DataType:
    return pa.string() if values else pa.null()


def _text(value: object) -> str:
    return value if isinstance(value, str) else json_text(value)


def _fault(row: Mapping[str, object], columns: Collection[str]) -> str | None:
    faults = (fault_of(name, value) for name, value in row.items() if storable(name) in columns)
    return next(filter(None, faults), None)
