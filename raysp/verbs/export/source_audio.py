"""The source of a sink's labels: recordings and paths of rows."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import takewhile

import pyarrow as pa

from raysp.corpus import audio_roots, sources, stored_rows
from raysp.corpus.shards import Piece, Shard, place_of, without_suffix
from raysp.errors import AudioError, PlanError, ShardError
from raysp.labelling.finished.finished_labels import Labelling
from raysp.labelling.planning.trust import check_same_source, read_recorded
from raysp.ops.recordings import Recordings
from raysp.sink import footer, run_record
from raysp.sink.footer import shown
from raysp.sink.label_rows import Cursor
from raysp.sink.recording_versions import replaced_since_labelled
from raysp.specs.pipeline import Pipeline
from raysp.storage.audio_root import AudioRoot, RowPath
from raysp.storage.store import join_url
from raysp.verbs.export.destination import ShardFiles
from raysp.verbs.export.export_rows import KEYS, Row, ok_rows, only_ok, to_rows
from raysp.words import RESTORE
from raysp.work import SinkRequest

Place = tuple[str, float]
"""Path or url of a recording, and the seconds in it at which a row begins."""


@dataclass(frozen=True)
class Source:
    """Recordings of a sink's rows."""

    labelling: Labelling
    request: SinkRequest
    """The sink as the caller names it."""
    is_beside: bool
    """Whether files of rows are written next to the recordings."""

    @cached_property
    def pipeline(self) -> Pipeline:
        """Pipeline that made the labels.

        Raises:
            TrustError: the sink names untrusted values.
            ChangedError: the given pipeline is another one.
            PlanError: rows were read by path, and the given pipeline does not say where.
        """
        url, record = self.labelling.url, self.labelling.record
        recorded = read_recorded(replace(self.request, place=url))
        trusted = recorded.trusted_pipeline(self.labelling.shards.values())
        if not trusted.reads_audio:
            raise PlanError(f"{url}: its pipeline reads no audio, so there are no recordings to export")
        check_same_source(url, record, trusted)
        if run_record.names_audio_root(record.pipeline) and trusted.source.audio_root is None:
            raise PlanError(
                f"{url}: some of its rows were read by path, and the pipeline has no source.audio_root; add "
                "--set source.audio_root=DIR"
            )
        return trusted

    def check_paths(self) -> None:
        """Raise if rows of the first label shard were read by path, and the pipeline may not be used."""
        first, *_ = self.labelling.finished_shards
        if footer.read(self.labelling.store, first.name).recordings:
            _ = self.pipeline

    def paths(self, shard: Shard) -> Mapping[int, tuple[str, float | None]]:
        """Return the url of each recording of a shard that was read by path, with its offset in seconds, by row.

        Raises:
            ShardError: the shard or a recording changed since it was labelled.
        """
        labels = footer.read(self.labelling.store, shard.name)
        if not labels.recordings:
            return {}
        self._refuse_replaced(shard)
        source = self.pipeline.source
        root = audio_roots.open_audio_root(shard, source.audio_root, source.storage_options)
        is_read = footer.hashes(self.labelling.store, shard, labels).is_read
        recordings: dict[int, tuple[str, float | None]] = {}
        offset_columns = sources.kind_named(shard.kind).excerpt_columns[:1]
        for piece in shard.pieces:
            paths = sources.read_paths(shard, piece, source.audio, source.storage_options)
            offsets: list[float | None] = [None] * len(paths)
            for name in offset_columns:
                table = sources.read_table(shard, piece, [name], source.storage_options)
                offsets = table.column(name).to_pylist()
            for row, (path, offset) in enumerate(zip(paths, offsets, strict=True), piece.first):
                # A path outside of the root was read before, so another root allowed it.
                if root is not None and is_read[row] and (inside := _inside(root, path)) is not None:
                    recordings[row] = join_url(root.url, inside), offset
        return recordings

    def check_places(self) -> None:
        """Raise PlanError if recordings are inside of shards of a kind whose rows have no urls."""
        kinds = {shard.kind for shard in self.labelling.finished_shards}
        if other := {kind for kind in kinds if sources.kind_named(kind).holds_audio} - stored_rows.KINDS:
            raise PlanError(
                f"{self.labelling.url}: its rows are of the kind {', '.join(sorted(other))}, whose recordings a line "
                "cannot name; export to clips"
            )

    def placed_rows(self, shard: Shard, columns: list[str], files: ShardFiles) -> Iterator[tuple[Row, Place]]:
        """Yield the ok rows of a label shard with the places of their recordings; arguments as for `ok_rows`.

        Recordings inside of the shard have urls that manifests take (`RowPath`). Rows without a place are left out.

        Raises:
            ShardError: the shard or a recording changed since it was labelled.
        """
        by_path, holds_audio = self.paths(shard), sources.kind_named(shard.kind).holds_audio
        if holds_audio:
            self._refuse_changed(shard)
        for row in (row for table in ok_rows(self.labelling, shard, columns, files) for row in to_rows(table)):
            number = int(str(row["row"]))
            if path := by_path.get(number):
                yield row, (path[0], path[1] or 0.0)
            elif holds_audio:
                yield row, (str(RowPath(shard.url, number, self.pipeline.source.audio)), 0.0)
            else:
                files.tally.left_out["not_readable"] += 1

    def _refuse_changed(self, shard: Shard) -> None:
        """Raise ShardError if the shard, which holds the recordings, is another one than was labelled."""
        store, name = place_of(shard.url, self.pipeline.source.storage_options)
        entry = store.stat(name)
        if entry is None or (entry.num_bytes, entry.version) != (shard.num_bytes, shard.version):
            raise ShardError(f"{shard.url}: changed since it was labelled. {RESTORE}")

    @cached_property
    def roots(self) -> Mapping[str, str | None]:
        """Url of the folder of each finished shard's recordings, by its name; None if it has none.

        Raises:
            TrustError: shards that are not folders may not be read.
        """
        return {shard.name: self._root(shard) for shard in self.labelling.finished_shards}

    def _root(self, shard: Shard) -> str | None:
        kind = sources.kind_named(shard.kind)
        if kind.is_folder:  # its listing is in the plan, and the folder is not read
            return shard.url
        if kind.holds_audio and not run_record.names_audio_root(self.labelling.record.pipeline):
            return None
        return audio_roots.audio_root(shard, self.pipeline.source.audio_root)

    def only_folder(self) -> str | None:
        """Return the url of the folder that is the whole source; None if it is something else."""
        kinds = [sources.kind_named(shard.kind) for shard in self.labelling.shards.values()]
        urls = {*self.roots.values()}
        return urls.pop() if len(urls) == 1 and all(kind.is_folder for kind in kinds) else None

    def may_have_paths(self) -> bool:
        """Return whether rows were read by path or from archives, as far as the sink's record shows."""
        if run_record.names_audio_root(self.labelling.record.pipeline):
            return True
        kinds = (sources.kind_named(shard.kind) for shard in self.labelling.shards.values())
        return any(kind.ids_are_paths or not kind.holds_audio for kind in kinds)

    def names(self, shard: Shard) -> list[str | None]:
        """Return the path of each row's recording relative to the common folder of all, without its suffix.

        Rows without a path, or with one outside the folder of their recordings, have None.

        Raises:
            ShardError: the shard changed since it was labelled, or cannot be read.
        """
        if (root := self.roots[shard.name]) is None:
            return [None] * shard.num_rows
        below = "/".join(root.rstrip("/").split("/")[len(self._shared) :])
        paths = [path for piece in shard.pieces for path in self._paths(shard, piece, root)]
        return [None if path is None else f"{below}/{without_suffix(path)}" for path in paths]

    @cached_property
    def _shared(self) -> list[str]:
        """Parts of the url of the folder that holds the recordings of all shards."""
        return shared_parts(root for root in self.roots.values() if root is not None)

    def _paths(self, shard: Shard, piece: Piece, url: str) -> list[str | None]:
        if sources.kind_named(shard.kind).is_folder:
            return sources.read_paths(shard, piece, "audio")
        source = self.pipeline.source
        root = AudioRoot(url, source.storage_options)
        return [_inside(root, path) for path in sources.read_paths(shard, piece, source.audio, source.storage_options)]

    def rows(
        self, shard: Shard, columns: list[str] | None, files: ShardFiles
    ) -> Iterator[tuple[pa.Table, list[int], Recordings]]:
        """Yield the ok rows of a label shard in batches, with their recordings and the index of each among these.

        Args:
            shard: the shard.
            columns: columns besides `KEYS`; None: all.
            files: receives the counts of left-out rows.

        Raises:
            ShardError: the shard or a recording changed since it was labelled, or cannot be read.
        """
        self._refuse_replaced(shard)
        source = self.pipeline.source
        root = audio_roots.open_audio_root(shard, source.audio_root, source.storage_options)
        excerpts = sources.kind_named(shard.kind).excerpt_columns
        names = None if columns is None else list(dict.fromkeys([*KEYS, *columns]))
        labels = Cursor(self.labelling.tables(shard, names))
        for first, table in self._tables(shard):
            rows = labels.until(first + table.num_rows)
            assert rows is not None
            ok = only_ok(rows, files)
            places = (ok.column("row").to_numpy() - first).tolist()
            yield ok, places, Recordings(table, source.audio, root, excerpts)
        for table in self.labelling.left_out(shard, ["status", "error_type"]):
            only_ok(table, files)

    def _tables(self, shard: Shard) -> Iterator[tuple[int, pa.Table]]:
        """Yield the source's columns of recordings in batches, each with the number of its first row."""
        source = self.pipeline.source
        excerpts = sources.kind_named(shard.kind).excerpt_columns
        for piece in shard.pieces:
            first = piece.first
            for table in sources.read_batches(shard, piece, [source.audio, *excerpts], source.storage_options):
                yield first, table
                first += table.num_rows

    def _refuse_replaced(self, shard: Shard) -> None:
        """Raise ShardError if recordings were replaced after they were labelled."""
        if replaced := replaced_since_labelled(self.labelling.store, self.pipeline.source, shard).rows:
            raise ShardError(
                f"{shard.url}: recordings were replaced after they were labelled: {shown(replaced)}. {RESTORE}"
            )


def shared_folder(folders: Iterable[str]) -> str:
    """Return the url of the folder that holds some folders; empty without one."""
    shared = "/".join(shared_parts(folders))
    return "" if shared.endswith(":/") else shared or "/"


def shared_parts(folders: Iterable[str]) -> list[str]:
    """Return the parts of the url of the folder that holds some folders."""
    parts = zip(*(folder.rstrip("/").split("/") for folder in {*folders}), strict=False)
    return [first for first, *_ in takewhile(lambda level: len({*level}) == 1, parts)]


def _inside(root: AudioRoot, path: str | None) -> str | None:
    """Return a path relative to its folder; None if it leads outside."""
    with suppress(AudioError):
        return None if path is None else root.inside(path)
    return None
