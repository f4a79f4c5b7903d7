"""Recordings of a few rows as data urls, for players in a page: the stored bytes, which are not decoded here."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from raysp.corpus import audio_roots, sources
from raysp.corpus.shards import Piece, Shard
from raysp.errors import AudioError, ShardError, StoreError, TrustError
from raysp.evaluation.scores import WorstRow
from raysp.labelling.planning.trust import Recorded
from raysp.ops.recordings import Recordings
from raysp.pages.page_tables import ShownRow, shown_row
from raysp.words import count

TAG_BYTES = 100
"""Bytes of a player besides its recording."""
KINDS = ((b"fLaC", "flac"), (b"OggS", "ogg"), (b"ID3", "mpeg"))
"""First bytes of the formats that browsers play, besides WAV and MP3 without tags."""


@dataclass(frozen=True)
class Played:
    """Rows, with players as far as recordings fit, and a sentence about the missing ones."""

    rows: tuple[ShownRow, ...]
    note: str


def played(
    shards: Mapping[str, Shard],
    recorded: Recorded | None,
    worst: Sequence[WorstRow],
    num_bytes: int,
    noun: str = "error",
) -> Played:
    """Return rows with players, as far as these fit into a number of bytes.

    Args:
        shards: shards of the sink, by name.
        recorded: the sink with the pipeline that may be used; None: recordings may not be read.
        worst: the rows.
        num_bytes: bytes for all players.
        noun: noun of the counted differences of a row.
    """
    rows = [shown_row(row, noun) for row in worst]
    if not rows:
        return Played((), "")
    if recorded is None or recorded.pipeline is None:
        reason = (
            "The recordings are not here: the source of a sink is read only if you give the pipeline file, or --trust."
        )
        return Played(tuple(rows), reason)
    left, missing = num_bytes, 0
    for number, row in enumerate(worst):
        if (player := _player(recorded, shards[row.shard], row.row, left)) is None:
            missing += 1
            continue
        rows[number] = replace(rows[number], player=player)
        left -= len(player) + TAG_BYTES
    note = f"The recordings of {count(missing, 'row')} are not here: too large for this page, or not to be read."
    return Played(tuple(rows), note if missing else "")


def _player(recorded: Recorded, shard: Shard, row: int, num_bytes: int) -> str | None:
    """Return the recording of a row as a data url of at most `num_bytes`; None if there is none."""
    try:
        data = _recording(recorded, shard, row, most=max(0, (num_bytes - TAG_BYTES) * 3 // 4))
    except (AudioError, ShardError, StoreError, TrustError):
        return None
    kind = _kind(data) if data else None
    return f"data:audio/{kind};base64,{base64.b64encode(data).decode()}" if data and kind else None


def _recording(recorded: Recorded, shard: Shard, row: int, most: int) -> bytes | None:
    """Return the bytes of a recording; None if they are more than `most`, or if the row is only a part of them."""
    source = recorded.trusted_pipeline([shard]).source
    excerpts = sources.kind_named(shard.kind).excerpt_columns
    table = sources.read_table(shard, Piece(row, row + 1), [source.audio, *excerpts], source.storage_options)
    root = audio_roots.open_audio_root(shard, source.audio_root, source.storage_options)
    recordings = Recordings(table, source.audio, root, excerpts)
    if any(recordings.offsets):
        return None
    recording = recordings.get(0, head_bytes=most)
    return bytes(recording) if isinstance(recording, memoryview) and len(recording) <= most else None


def _kind(data: bytes) -> str | None:
    """Return the subtype of the audio of a browser's format, from its first bytes; None for other formats."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        return "wav"
    if data[:1] == b"\xff" and data[1:2] >= b"\xe0":
        return "mpeg"
    return next((kind for first, kind in KINDS if data.startswith(first)), None)
