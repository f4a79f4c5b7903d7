"""Cuts of recordings into clips or utterances: the options that formats share, and the cuts of a row."""

from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from functools import cached_property, partial
from typing import Annotated, Any, ClassVar, cast

from pydantic import Field

from raysp.audio import Channel
from raysp.errors import PlanError
from raysp.labelling.finished.finished_labels import Labelling
from raysp.ops.speakers.word_speakers import spoken
from raysp.specs.steps import EACH
from raysp.specs.values import spec
from raysp.text.clipping import By, Clip, Rules, cut_clips, solo_regions, whole_clip
from raysp.text.times import Span
from raysp.verbs.export.destination import ShardFiles
from raysp.verbs.export.export_rows import Row, find_spans, need_spans, seconds_of, spans_of
from raysp.verbs.export.source_audio import Source
from raysp.verbs.export.spoken_words import SpokenWords
from raysp.verbs.export.word_times import ask_words

PREFIX = "pred"
"""Prefix of the columns of `Speech` and `Turns` by default."""


@spec
class Cuts:
    """Options by which recordings are cut; `Utterances` has what they mean."""

    NAME: ClassVar[str]
    UNIT: ClassVar[str] = "clip"
    """Name of a part of a recording, in reasons for leaving it out."""

    column: str = "pred"
    _: KW_ONLY
    by: By | None = None
    min_seconds: Annotated[float, Field(ge=0)] = 1.0
    max_seconds: Annotated[float, Field(gt=0, le=3600)] = 20.0
    max_pause: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0
    padding: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.25
    min_score: Annotated[float, Field(ge=0, le=1)] | None = None

    def __post_init__(self) -> None:
        """Check that the shortest clip is below the longest."""
        if not self.min_seconds < self.max_seconds:
            raise ValueError(f"min_seconds={self.min_seconds:g}; expected less than max_seconds={self.max_seconds:g}")

    @property
    def rules(self) -> Rules:
        """Rules of the cuts."""
        return Rules(self.min_seconds, self.max_seconds, self.max_pause, self.padding, self.by)


@dataclass(frozen=True)
class RowCuts:
    """Cuts of the rows of a sink."""

    labelling: Labelling
    spec: Cuts

    @cached_property
    def spans(self) -> str:
        """Column of the words, regions of speech or turns that clips consist of.

        Raises:
            PlanError: there is none.
        """
        need = partial(need_spans, self.labelling, self.spec.NAME)
        words, turns = f"{self.spec.column}_words", self._names("turns")
        if self.spec.by == "speech":
            return need(self._names("speech"), "Ask for them with Speech()")
        if self.spec.by == "turns":
            need(turns, "Ask for them with Turns()")
            return find_spans(self.labelling.schema, words, *turns) or ""
        names = (words,) if self.spec.by else (words, f"{self.spec.column}_speech")
        return need(names, ask_words(self.labelling, self.spec.column))

    @cached_property
    def turns(self) -> str | None:
        """Column of the turns of speakers; None without one."""
        return find_spans(self.labelling.schema, *self._names("turns"))

    def _names(self, kind: str) -> tuple[str, ...]:
        """Return the columns of a kind, with the prefix of the cuts and with the one by default."""
        return tuple(f"{prefix}_{kind}" for prefix in dict.fromkeys((self.spec.column, PREFIX)))

    @cached_property
    def spoken(self) -> SpokenWords | None:
        """Words of the rows; None if clips are of regions of speech or turns, which have no text."""
        return SpokenWords(self.labelling, self.spec.column) if self.spans.endswith("_words") else None

    @cached_property
    def columns(self) -> list[str]:
        """Columns that are read."""
        words = self.spoken.columns if self.spoken else []
        return [*dict.fromkeys([self.spans, *words, *([self.turns] if self.turns else [])])]

    def __call__(self, row: Row, files: ShardFiles) -> list[Clip]:
        """Return the clips of a row; those left out are counted."""
        if untimed := self.spoken.untimed(row) if self.spoken else "":
            clips, left_out = whole_clip(untimed, seconds_of(row), self.spec.rules)
            files.tally.untimed += 1
        else:
            spans, turns = self._spans(row), spans_of(row, self.turns)
            clips, left_out = cut_clips(spans, seconds_of(row), self.spec.rules, turns)
        unit = self.spec.UNIT
        files.tally.left_out.update({f"{unit}_{reason}": number for reason, number in left_out.items()})
        if (min_score := self.spec.min_score) is not None:
            kept = [clip for clip in clips if clip.score is not None and clip.score >= min_score]
            files.tally.left_out.update([f"{unit}_below_min_score"] * (len(clips) - len(kept)))
            clips = kept
        files.tally.left_out.update([] if clips else [f"no_{unit}"])
        return clips

    def _spans(self, row: Row) -> list[Span]:
        """Return the words, regions or turns of a row, words with the speaker of their turn."""
        if self.turns is None:
            return spans_of(row, self.spans)
        if self.spans == self.turns:
            return solo_regions(spans_of(row, self.turns))
        turns, values = (cast("Sequence[dict[str, Any]] | None", row[name]) for name in (self.turns, self.spans))
        return spans_of({self.spans: spoken(turns or (), values)}, self.spans)


def only_channel(source: Source, parts: str) -> Channel:
    """Return the channel that parts of recordings are cut from.

    Raises:
        PlanError: rows have words of each channel.
    """
    channel = source.pipeline.decode.channel
    if channel == EACH:
        raise PlanError(
            f"{source.labelling.url}: its rows have words of each channel (Decode(channel='each')), and {parts} are "
            "cut from one; label one channel by Decode(channel=0) for them"
        )
    return channel
