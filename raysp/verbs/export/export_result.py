"""Result of an export."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from raysp.verbs.export.destination import by_reason
from raysp.words import Brief, count, duration, listed, megabytes

INCOMPLETE = 3
"""Exit code if shards are not finished, or no row is exported."""
SHOWN_NAMES = 3


@dataclass(frozen=True, repr=False)
class Export(Brief):
    """Counts of an export, including earlier, interrupted exports to the same destination."""

    sink: str
    dest: str
    to: str
    """The format."""
    shards: int
    """Label shards exported."""
    shards_before: int
    """Label shards that an earlier export to the same destination had completed."""
    unfinished: tuple[str, ...]
    """Shards of the plan that have no finished label shard."""
    foreign: Mapping[str, str]
    """Shards of `unfinished` with a damaged or foreign file in place of their label shard, with the reason."""
    rows: int
    """Rows exported; rows of which only clips or utterances are exported count as well."""
    clips: int | None
    """Clips exported; None in other formats."""
    utterances: int | None
    """Utterances exported; None in other formats."""
    files: int
    num_bytes: int
    seconds: float
    """Seconds of audio of the exported rows, or of their clips or utterances."""
    left_out: Mapping[str, int]
    """Rows that were left out by reason, and clips and words of exported rows."""
    untimed: int = 0
    """Rows with a text without word times; subtitles, tiers and clips show it over the whole row."""
    without_reference: int = 0
    """Lines of a NeMo manifest whose text is the transcript, in a sink with a column of reference texts."""
    audio_root: str = ""
    """Folder of the recordings that utterances are parts of; empty in other formats, and if no folder holds all."""
    splits: Mapping[str, int] = field(default_factory=dict)
    """Rows, or clips, of each split; empty in formats without splits."""
    names: str | None = None
    """Source of the names of the files of rows, "path" or "id"; None in formats without such files."""
    not_by_path: str = ""
    """Reason why paths of recordings do not name the files; empty if they do, or if ids were asked for."""
    kept: int = 0
    """Files of rows, and cards, that no export wrote or that were edited since, and that stay."""
    first_kept: str = ""
    rewritten: int = 0
    """Files of an earlier export that were removed or changed since, and that were written again."""
    first_rewritten: str = ""

    @property
    def facts(self) -> dict[str, str]:
        """Facts of the export for users, as text by name."""
        before = f", {self.shards_before:,} of them earlier" if self.shards_before else ""
        names = f"{', '.join(self.unfinished[:SHOWN_NAMES])}{', ...' if len(self.unfinished) > SHOWN_NAMES else ''}"
        clips = f"{count(self.clips, 'clip')} of " if self.clips is not None else ""
        clips = f"{count(self.utterances, 'utterance')} of " if self.utterances is not None else clips
        splits = ", ".join(f"{name} {number:,}" for name, number in self.splits.items())
        references = f"{count(self.without_reference, 'row')} without a reference text"
        kept = f"{count(self.kept, 'file')} that no export wrote or that changed since, such as {self.first_kept}"
        restored = f"{count(self.rewritten, 'file')} removed or changed since an earlier export"
        root = f", audio_root={self.audio_root!r}" if self.audio_root else ""
        facts = {
            "shards": f"{count(self.shards, 'label shard')} of {self.sink}{before}",
            "unfinished": f"{count(len(self.unfinished), 'shard')}: {names}" if self.unfinished else "",
            "foreign": listed([*self.foreign.values()], 1) or "",
            "rows": f"{clips}{count(self.rows, 'row')}, {duration(self.seconds)} of audio",
            "splits": splits if len(self.splits) > 1 else "",
            "left out": by_reason(self.left_out),
            "no times": f"{count(self.untimed, 'row')}, whose text spans the whole row" if self.untimed else "",
            "no reference": f"{references}, whose text is the transcript" if self.without_reference else "",
            "names": f"by id, not by path: {self.not_by_path}" if self.not_by_path else "",
            "kept": f"{kept}: move or delete them and export again to replace them" if self.kept else "",
            "restored": f"{restored}, such as {self.first_rewritten}" if self.rewritten else "",
            "files": f"{count(self.files, 'file')}, {megabytes(self.num_bytes)}",
            "in": self.dest,
            "read by": f"Shards('{self.dest}/**/*.jsonl'{root})" if self.utterances is not None else "",
        }
        return {name: fact for name, fact in facts.items() if fact}

    @property
    def nothing_exported(self) -> str | None:
        """Reason why no row was exported; None if one was, or if the label shards hold no rows."""
        if self.rows or not self.left_out:
            return None
        return f"no row was exported; all were left out: {by_reason(self.left_out)}"

    @property
    def exit_code(self) -> int:
        """Exit code: 3 if shards of the plan are not finished or no row was exported, else 0."""
        return INCOMPLETE if self.unfinished or self.nothing_exported else 0
