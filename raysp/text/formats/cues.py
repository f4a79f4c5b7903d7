"""Cues of subtitles, cut from words with times so that they can be read while they are shown, as SubRip and WebVTT.

The rules follow broadcasters. The defaults follow the Timed Text Style Guides of Netflix (general requirements,
and English for adults): two lines of 42 characters, 5/6 to 7 seconds, 17 characters a second, and two frames between
cues. Where a cue ends is the cheapest way to cut all words (dynamic programming), so that a good end of one cue is not
paid for by the next.
"""

import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from raysp.text.formats.line_breaks import (
    begins_phrase,
    divided,
    is_joined,
    is_new_phrase,
    leads_on,
    may_break,
    pieces_of,
    width_of,
)
from raysp.text.formats.safe_values import in_order, on_one_line, with_times
from raysp.text.times import CLOSING, Span, ends_sentence


@dataclass(frozen=True)
class Cue:
    """Text that is shown for some time."""

    start: int
    """Milliseconds from the start of the recording, as `end`."""
    end: int
    lines: tuple[str, ...]
    speaker: str = ""
    """Name of who speaks; empty if that is not known."""


@dataclass(frozen=True)
class Rules:
    """Limits of cues. Those of times give way where the words leave less time, as in fast speech."""

    max_chars: int = 42
    """Characters of a line; a full-width one counts as two, a combining mark as none, also for the reading speed."""
    max_lines: int = 2
    """Lines of a cue."""
    min_seconds: float = 0.833
    """Shortest display."""
    max_seconds: float = 7.0
    """Longest display; a longer word is shown for this time."""
    max_chars_per_second: float = 17.0
    """Reading speed: a cue is shown longer than it is spoken, if the next one allows it."""
    min_gap_seconds: float = 0.083
    """Time between two cues: two frames of 24 a second."""
    language: str | None = None
    """Language whose conjunctions and prepositions begin lines, one of `SMALL_WORDS`; None: lines break at any word."""


class Part(NamedTuple):
    """A word, or a part of one, between which lines may break."""

    text: str
    start: float
    """Seconds from the start of the recording, as `end`."""
    end: float
    speaker: str
    gap: int
    """Columns of the space before it: 1, or 0 in scripts without spaces."""
    width: int
    """Columns of the text."""


PAUSE_SECONDS = 1.0
"""Pause between words that always ends a cue."""
CHAIN_SECONDS = 0.5
"""Gaps between cues below this are closed to the least one: longer than a blink, they would be seen as a flash."""
MOST_BALANCED = 3
"""Most lines that are made about equally long; further ones are filled one after the other."""
_CLAUSE_ENDS = (",", ";", ":", "–", "—", "、", "，", "；", "：", "،", "؛")
OF_CUE, OF_SENTENCE_INSIDE, OF_SHORTNESS, OF_SPEED = 0.7, 1.0, 4.0, 3.0
"""Costs of a cue, of each end of a sentence within it, of a display without any time, and of twice the speed."""
OF_CLAUSE, OF_PAUSE, OF_PHRASE, OF_WORDS, OF_ARTICLE = 0.2, 0.4, 0.6, 1.0, 1.8
"""Costs of an end after a clause, at a short pause, before a phrase, between other words, and after a word such as an
article, which belongs to the next one; the end of a sentence costs nothing."""
SHORT_PAUSE_SECONDS = 0.25
OF_BREAK = 0.25
"""Cost of such an end between two lines of a cue, as a share of that between two cues."""


def cues_of(
    words: Iterable[Span], rules: Rules | None = None, *, text: str = "", chars: Sequence[Span] = ()
) -> tuple[Cue, ...]:
    """Return the cues of words, in the order of their starts. No two overlap, and every word is in one of them.

    A cue ends at a long pause and where the speaker changes; else preferably after a sentence, after a clause or at a
    short pause. In scripts without spaces, lines and cues break within what has been taken for a word, too. A word
    longer than a line is divided.

    Args:
        words: words with their times in seconds; those without times follow the word before them.
        rules: limits; None: the defaults.
        text: text that holds the words in their order, with the spaces between them; empty: there is a space between
            all but those of scripts without spaces.
        chars: characters with their times in seconds, for parts of words; empty: these have equal shares of the time.
    """
    rules = rules or Rules()
    return tuple(_timed([*_grouped(parts_of(words, rules, text, chars), rules)], rules))


def single_cue(text: str, seconds: float, *, max_chars: int = 42, language: str | None = None) -> tuple[Cue, ...]:
    """Return a cue with a whole text over a whole recording, of any number of lines; none for an empty text."""
    rules = Rules(max_chars=max_chars, language=language)
    parts = parts_of([Span(word, 0.0, 0.0, 0.0) for word in text.split()], rules, text)
    costs = _costs_after(parts, rules)
    return (Cue(0, max(1, round(seconds * 1000)), tuple(_lines(parts, costs, max_chars))),) if parts else ()


def cues_without_times(text: str, seconds: float, rules: Rules) -> tuple[Cue, ...]:
    """Return the cues of a text whose words have no times: one over the recording, or several if it is longer than one.

    Each word then has a share of the recording by its width.
    """
    if seconds <= rules.max_seconds:
        return single_cue(text, seconds, max_chars=rules.max_chars, language=rules.language)
    return cues_of(words_over(text, seconds), rules, text=text)


def words_over(text: str, seconds: float) -> list[Span]:
    """Return the words of a text with shares of the time of a recording by their widths, without scores."""
    return [word._replace(score=math.nan) for word in _shares(0.0, seconds, text.split())]


def parts_of(words: Iterable[Span], rules: Rules, text: str = "", chars: Sequence[Span] = ()) -> list[Part]:
    """Return the parts between which lines may break, in the order of time; arguments as for `cues_of`."""
    cleaned = [word._replace(text=on_one_line(word.text)) for word in in_order(with_times(words))]
    kept = [word for word in cleaned if word.text]
    parts: list[Part] = []
    for word, gap in zip(kept, _gaps([word.text for word in kept], text), strict=True):
        for place, piece in enumerate(_timed_pieces(word, chars)):
            part = Part(piece.text, piece.start, piece.end, word.speaker, gap if place == 0 else 0, 0)
            if parts and not part.gap and parts[-1].speaker == part.speaker and not _parted(parts[-1].text, part.text):
                before = parts.pop()
                part = part._replace(text=before.text + part.text, start=before.start, gap=before.gap)
            parts.append(part)
    return [piece._replace(width=width_of(piece.text)) for part in parts for piece in _divided(part, rules.max_chars)]


def _parted(before: str, after: str) -> bool:
    """Return whether a line may break between two neighbouring parts without a space between them."""
    return may_break(before[-1], after[0])


def _gaps(words: Sequence[str], text: str) -> list[int]:
    """Return the number of spaces before each word, 0 or 1: as in a text that holds them, else by their scripts."""
    text, place, gaps = on_one_line(text), 0, list[int]()
    for before, word in zip(["", *words], words, strict=False):
        spaces = text.startswith(" ", place) if place >= 0 else False
        is_there = place >= 0 and text.startswith(word, place + spaces)
        gaps.append(int(spaces) if is_there else int(bool(before) and not is_joined(before, word)))
        place = place + spaces + len(word) if is_there else -1
    return gaps


def _timed_pieces(word: Span, chars: Sequence[Span]) -> list[Span]:
    """Return the pieces of a word between which a line may break, with their times."""
    pieces = [*pieces_of(word.text)]
    if len(pieces) == 1:
        return [word]
    first = bisect_left(chars, word.start, key=lambda char: char.start)
    last = bisect_right(chars, word.end, key=lambda char: char.end)
    own = [char for char in chars[first:last] if char.text.strip()]
    if "".join(char.text for char in own) == word.text:
        return [*_of_chars(pieces, own)]
    return [*_shares(word.start, word.end, pieces)]


def _of_chars(pieces: Sequence[str], chars: Sequence[Span]) -> Iterator[Span]:
    """Yield pieces with the times of their characters; one that begins within a character has the times of the next."""
    ends, place, used = 0, 0, 0
    for piece in pieces:
        ends += len(piece)
        first = used
        while used < len(chars) and place < ends:
            place, used = place + len(chars[used].text), used + 1
        own = chars[first:used] or chars[used - 1 : used]
        yield Span(piece, own[0].start, own[-1].end, 0.0)


def _shares(start: float, end: float, pieces: Sequence[str]) -> Iterator[Span]:
    """Yield pieces with shares of a time by their widths."""
    seconds = (end - start) / max(1, sum(map(width_of, pieces)))
    for piece in pieces:
        end = start + width_of(piece) * seconds
        yield Span(piece, start, end, 0.0)
        start = end


def _divided(part: Part, max_chars: int) -> Iterator[Part]:
    """Yield the parts of one that is wider than a line, with shares of its time."""
    pieces = [*divided(part.text, max_chars)]
    spaces = len(part.text) != sum(map(len, pieces))
    for place, piece in enumerate(_shares(part.start, part.end, pieces)):
        yield part._replace(text=piece.text, start=piece.start, end=piece.end, gap=int(spaces) if place else part.gap)


def _cost_after(text: str, pause: float = 0.0, after: str = "", gap: int = 1, language: str | None = None) -> float:
    """Return the cost of an end between two words, of which the first has this text and is followed by a pause."""
    if ends_sentence(text):
        return 0.0
    if text.rstrip(CLOSING).endswith(_CLAUSE_ENDS):
        return OF_CLAUSE
    if leads_on(text, language):
        return OF_ARTICLE
    if pause >= SHORT_PAUSE_SECONDS or (after and gap and is_joined(text, after)):
        return OF_PAUSE
    return OF_PHRASE if begins_phrase(after, language) or (not gap and is_new_phrase(text, after)) else OF_WORDS


def _costs_after(parts: Sequence[Part], rules: Rules) -> list[float]:
    costs = [
        _cost_after(before.text, after.start - before.end, after.text, after.gap, rules.language)
        for before, after in pairwise(parts)
    ]
    return [*costs, *(_cost_after(last.text) for last in parts[-1:])]


def _grouped(words: Sequence[Part], rules: Rules) -> Iterator[list[Part]]:
    """Yield the words of each cue of the cheapest division into cues."""
    costs = _costs_after(words, rules)
    best = [0.0, *[math.inf] * len(words)]
    first_of = [0] * (len(words) + 1)  # first word of the last cue, in the cheapest cut of the words before each place
    for first in range(len(words)):
        for end, cost in _cues_from(first, words, costs, rules):
            if best[first] + cost < best[end]:
                best[end], first_of[end] = best[first] + cost, first
    ends = [len(words)]
    while ends[-1] > 0:
        ends.append(first_of[ends[-1]])
    ends.reverse()
    yield from ([*words[first:end]] for first, end in pairwise(ends))


def _cues_from(first: int, words: Sequence[Part], costs: Sequence[float], rules: Rules) -> Iterator[tuple[int, float]]:
    """Yield the ends of all cues that may begin at a word, with their costs."""
    lines, of_line, chars, inside = 1, -words[first].gap, -words[first].gap, 0
    start, speech_end = words[first].start, words[first].end
    for place in range(first, len(words)):
        word = words[place]
        speech_end = max(speech_end, word.end)
        chars += word.gap + word.width
        of_line += word.gap + word.width
        if of_line > rules.max_chars:
            lines, of_line = lines + 1, word.width
        if place > first and (lines > rules.max_lines or speech_end - start > rules.max_seconds):
            return
        after = words[place + 1] if place + 1 < len(words) else None
        yield place + 1, _cost(costs[place], inside, chars, start, speech_end, after, rules)
        if after and (after.speaker != word.speaker or after.start - speech_end >= PAUSE_SECONDS):
            return
        inside += costs[place] == 0


def _cost(
    at_end: float, inside: int, chars: int, start: float, speech_end: float, after: Part | None, rules: Rules
) -> float:
    """Return the cost of a cue: of its end, of the sentences that end inside, and of too little time to read it."""
    needed = max(rules.min_seconds, chars / rules.max_chars_per_second)
    left = after.start - rules.min_gap_seconds - start if after else math.inf
    shown = max(0.001, min(left, max(needed, speech_end - start), rules.max_seconds))
    cost = OF_CUE + OF_SENTENCE_INSIDE * inside + (at_end if after and after.start - speech_end < PAUSE_SECONDS else 0)
    if shown < needed:
        cost += OF_SHORTNESS * max(0.0, 1 - shown / rules.min_seconds) if rules.min_seconds else 0.0
        cost += OF_SPEED * max(0.0, min(10.0, chars / rules.max_chars_per_second / shown - 1))
    return cost


def _timed(groups: Sequence[Sequence[Part]], rules: Rules) -> Iterator[Cue]:
    """Yield cues that are shown long enough to be read, and until the next one if the gap would be a flash."""
    gap = round(rules.min_gap_seconds * 1000)
    starts: list[int] = []
    for group in groups:
        start = round(group[0].start * 1000)
        starts.append(max(start, starts[-1] + gap + 1) if starts else start)
    for index, (group, start) in enumerate(zip(groups, starts, strict=True)):
        most = start + max(1, round(rules.max_seconds * 1000))
        end = min(max(round(max(part.end for part in group) * 1000), start + _reading_time(group, rules)), most)
        if index + 1 < len(starts):
            limit = starts[index + 1] - gap
            end = min(limit, most) if limit - end < CHAIN_SECONDS * 1000 - gap else end
        lines = _lines(group, _costs_after(group, rules), rules.max_chars)
        yield Cue(start, max(start + 1, end), tuple(lines), group[0].speaker)


def _reading_time(parts: Sequence[Part], rules: Rules) -> int:
    """Return the milliseconds that a cue is to be shown for."""
    return max(round(rules.min_seconds * 1000), math.ceil(_width(parts) * 1000 / rules.max_chars_per_second))


def _width(parts: Sequence[Part]) -> int:
    """Return the columns of a line of parts."""
    return sum(part.gap + part.width for part in parts) - parts[0].gap


def _line(parts: Sequence[Part]) -> str:
    return "".join(" " * part.gap + part.text for part in parts).removeprefix(" ")


def _lines(parts: Sequence[Part], costs: Sequence[float], max_chars: int) -> list[str]:
    """Break parts into the fewest lines. Up to `MOST_BALANCED` are about equally long, and end at clauses."""
    lines = _broken(parts, max_chars)
    if 1 < len(lines) <= MOST_BALANCED:
        lines = _balanced(parts, costs, len(lines), max_chars)
    return [*map(_line, lines)]


def _broken(parts: Sequence[Part], max_chars: int) -> list[list[Part]]:
    """Break parts into the fewest lines, each as long as possible."""
    lines: list[list[Part]] = [[]]
    width = 0
    for part in parts:
        if lines[-1] and width + part.gap + part.width > max_chars:
            lines.append([])
        width = width + part.gap + part.width if lines[-1] else part.width
        lines[-1].append(part)
    return lines


def _balanced(parts: Sequence[Part], costs: Sequence[float], num_lines: int, max_chars: int) -> list[list[Part]]:
    """Break parts into a number of lines, of which the first are shorter if lengths and ends cost the same."""
    if num_lines == 1:
        return [[*parts]] if _width(parts) <= max_chars else []
    lines: list[list[Part]] = []
    least = math.inf
    for place in range(1, len(parts)):
        first = _width(parts[:place])
        if first > max_chars:
            break
        rest = _balanced(parts[place:], costs[place:], num_lines - 1, max_chars)
        lengths = [first, *map(_width, rest)]
        cost = sum((length / max_chars) ** 2 for length in lengths) + OF_BREAK * costs[place - 1]
        if rest and cost < least - 1e-9:
            lines, least = [[*parts[:place]], *rest], cost
    return lines


_IN_SRT = str.maketrans("<>{}\\", "＜＞｛｝＼")
"""SubRip has no escapes. Players take these characters for formatting, so their full-width forms are written."""
_IN_VTT = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_ARROW = re.compile("-{2,}(?=>)")


def with_names(words: Iterable[Span]) -> list[Span]:
    """Return words in order of which the first of each speaker's turn has the speaker's name before it."""
    named: list[Span] = []
    for word in in_order(with_times(words)):
        is_first = word.speaker and (not named or named[-1].speaker != word.speaker)
        named.append(word._replace(text=f"{word.speaker}: {word.text}") if is_first else word)
    return named


def srt(cues: Iterable[Cue]) -> str:
    """Return a SubRip file; `-->` in a text is written as `->`, and formatting characters in their full-width form.

    Without cues it has one of a millisecond without a text: readers refuse a file without a time.
    """
    cues = tuple(cues) or (Cue(0, 1, ("",)),)
    return "\n".join(
        f"{number}\n{_time(cue.start, ',')} --> {_time(cue.end, ',')}\n"
        + "".join(f"{_ARROW.sub('-', line).translate(_IN_SRT)}\n" for line in cue.lines)
        for number, cue in enumerate(cues, 1)
    )


def vtt(cues: Iterable[Cue]) -> str:
    """Return a WebVTT file; `&`, `<` and `>` are written as character references. Speakers are voice tags."""
    return "WEBVTT\n" + "".join(
        f"\n{_time(cue.start, '.')} --> {_time(cue.end, '.')}\n"
        + (f"<v {cue.speaker}>" if cue.speaker else "")
        + "".join("".join(_IN_VTT.get(c, c) for c in line) + "\n" for line in cue.lines)
        for cue in cues
    )


def _time(milliseconds: int, point: str) -> str:
    seconds, rest = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{point}{rest:03}"
