"""Cues of subtitles, cut from words with times so that they can be read while they are shown.

The rules are those of broadcasters. The defaults follow the Timed Text Style Guides of Netflix (general requirements,
and English for adults): two lines of 42 characters, 5/6 to 7 seconds, 17 characters a second, and two frames between
cues. Where a cue ends is the cheapest way to cut all words (dynamic programming), so that a good end of one cue is not
paid for by the next.
"""

import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from raysp.text.formats.safe_values import in_order, on_one_line, with_times
from raysp.text.times import Span


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
    """Characters of a line."""
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


PAUSE_SECONDS = 1.0
"""Pause between words that always ends a cue."""
CHAIN_SECONDS = 0.5
"""Gaps between cues below this are closed to the least one: longer than a blink, they would be seen as a flash."""
MOST_BALANCED = 3
"""Most lines that are made about equally long; further ones are filled one after the other."""
_SENTENCE_ENDS = (".", "!", "?", "…", "。", "！", "？", "؟", "।")
_CLAUSE_ENDS = (",", ";", ":", "–", "—", "、", "，", "；", "：", "،", "؛")
_CLOSING = "\"'”’»)]」』"
OF_CUE, OF_SENTENCE_INSIDE, OF_SHORTNESS, OF_SPEED = 0.7, 1.0, 4.0, 3.0
"""Costs of a cue, of each end of a sentence within it, of a display without any time, and of twice the speed."""
OF_CLAUSE, OF_PAUSE, OF_WORDS = 0.2, 0.4, 1.0
"""Costs of an end after a clause, at a short pause, and between other words; the end of a sentence costs nothing."""
SHORT_PAUSE_SECONDS = 0.25
OF_BREAK = 0.25
"""Cost of such an end between two lines of a cue, as a share of that between two cues."""


def cues_of(words: Iterable[Span], rules: Rules | None = None) -> tuple[Cue, ...]:
    """Return the cues of words, in the order of their starts. No two overlap, and every word is in one of them.

    A cue ends at a long pause and where the speaker changes; else preferably after a sentence, after a clause or at a
    short pause. A word longer than a line is divided.

    Args:
        words: words with their times in seconds; those without times follow the word before them.
        rules: limits; None: the defaults.
    """
    rules = rules or Rules()
    cleaned = (one._replace(text=on_one_line(one.text)) for one in in_order(with_times(words)))
    parts = [part for word in cleaned if word.text for part in _divided(word, rules.max_chars)]
    return tuple(_timed([*_grouped(parts, rules)], rules))


def one_cue(text: str, seconds: float, *, max_chars: int = 42) -> tuple[Cue, ...]:
    """Return a cue with a whole text over a whole recording, of any number of lines; none for an empty text."""
    parts = [part.text for part in _divided(Span(on_one_line(text), 0.0, 0.0, 0.0), max_chars)]
    words = [word for part in parts for word in part.split(" ") if word]
    costs = [_cost_after(word) for word in words]
    return (Cue(0, max(1, round(seconds * 1000)), tuple(_lines(words, costs, max_chars))),) if words else ()


def _divided(word: Span, max_chars: int) -> Iterator[Span]:
    """Yield the parts of a word that is longer than a line, with shares of its time; combining marks stay with letters.

    A text of several words is divided at its spaces where possible.
    """
    if len(word.text) <= max_chars:
        yield word
        return
    text, place = word.text, 0
    seconds = (word.end - word.start) / max(1, len(text))
    while place < len(text):
        end = min(place + max_chars, len(text))
        if end < len(text):
            space = text.rfind(" ", place + 1, end + 1)
            end = space if space > place else end
            while end > place + 1 and unicodedata.combining(text[end]):
                end -= 1
        start, stop = word.start + place * seconds, word.start + end * seconds
        yield word._replace(text=text[place:end].strip(" "), start=start, end=stop)
        place = end


def _cost_after(text: str, pause: float = 0.0) -> float:
    """Return the cost of an end between two words, of which the first has this text and is followed by a pause."""
    text = text.rstrip(_CLOSING)
    if text.endswith(_SENTENCE_ENDS):
        return 0.0
    if text.endswith(_CLAUSE_ENDS):
        return OF_CLAUSE
    return OF_PAUSE if pause >= SHORT_PAUSE_SECONDS else OF_WORDS


def _costs_after(words: Sequence[Span]) -> list[float]:
    pauses = [after.start - before.end for before, after in pairwise(words)]
    return [_cost_after(word.text, pause) for word, pause in zip(words, [*pauses, 0.0], strict=False)]


def _grouped(words: Sequence[Span], rules: Rules) -> Iterator[list[Span]]:
    """Yield the words of each cue: those of the cheapest way to cut all of them."""
    costs = _costs_after(words)
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


def _cues_from(first: int, words: Sequence[Span], costs: Sequence[float], rules: Rules) -> Iterator[tuple[int, float]]:
    """Yield the ends of all cues that may begin at a word, with their costs."""
    lines, of_line, chars, inside = 1, -1, -1, 0
    start, speech_end = words[first].start, words[first].end
    for place in range(first, len(words)):
        word = words[place]
        speech_end = max(speech_end, word.end)
        chars += 1 + len(word.text)
        of_line += 1 + len(word.text)
        if of_line > rules.max_chars:
            lines, of_line = lines + 1, len(word.text)
        if place > first and (lines > rules.max_lines or speech_end - start > rules.max_seconds):
            return
        after = words[place + 1] if place + 1 < len(words) else None
        yield place + 1, _cost(costs[place], inside, chars, start, speech_end, after, rules)
        if after and (after.speaker != word.speaker or after.start - speech_end >= PAUSE_SECONDS):
            return
        inside += costs[place] == 0


def _cost(
    at_end: float, inside: int, chars: int, start: float, speech_end: float, after: Span | None, rules: Rules
) -> float:
    """Return the cost of a cue: of its end, of the sentences that end inside, and of too little time to read it."""
    wanted = max(rules.min_seconds, chars / rules.max_chars_per_second)
    left = after.start - rules.min_gap_seconds - start if after else math.inf
    shown = max(0.001, min(left, max(wanted, speech_end - start), rules.max_seconds))
    cost = OF_CUE + OF_SENTENCE_INSIDE * inside + (at_end if after and after.start - speech_end < PAUSE_SECONDS else 0)
    if shown < wanted:
        cost += OF_SHORTNESS * max(0.0, 1 - shown / rules.min_seconds) if rules.min_seconds else 0.0
        cost += OF_SPEED * max(0.0, min(10.0, chars / rules.max_chars_per_second / shown - 1))
    return cost


def _timed(groups: Sequence[Sequence[Span]], rules: Rules) -> Iterator[Cue]:
    """Yield cues that are shown long enough to be read, and until the next one if the gap would be a flash."""
    gap = round(rules.min_gap_seconds * 1000)
    starts: list[int] = []
    for group in groups:
        start = round(group[0].start * 1000)
        starts.append(max(start, starts[-1] + gap + 1) if starts else start)
    for index, (group, start) in enumerate(zip(groups, starts, strict=True)):
        most = start + max(1, round(rules.max_seconds * 1000))
        end = min(max(round(max(one.end for one in group) * 1000), start + _reading_time(group, rules)), most)
        if index + 1 < len(starts):
            limit = starts[index + 1] - gap
            end = min(limit, most) if limit - end < CHAIN_SECONDS * 1000 - gap else end
        lines = _lines([one.text for one in group], _costs_after(group), rules.max_chars)
        yield Cue(start, max(start + 1, end), tuple(lines), group[0].speaker)


def _reading_time(words: Sequence[Span], rules: Rules) -> int:
    """Return the milliseconds that a cue is to be shown for."""
    chars = sum(len(one.text) + 1 for one in words) - 1
    return max(round(rules.min_seconds * 1000), math.ceil(chars * 1000 / rules.max_chars_per_second))


def _lines(words: Sequence[str], costs: Sequence[float], max_chars: int) -> list[str]:
    """Break words into the fewest lines. Up to `MOST_BALANCED` are about equally long, and end at clauses."""
    lines = _broken(words, max_chars)
    if 1 < len(lines) <= MOST_BALANCED:
        lines = _balanced(words, costs, len(lines), max_chars)
    return [" ".join(line) for line in lines]


def _broken(words: Sequence[str], max_chars: int) -> list[list[str]]:
    """Break words into the fewest lines, each as long as possible."""
    lines: list[list[str]] = [[]]
    num_chars = 0
    for word in words:
        if lines[-1] and num_chars + 1 + len(word) > max_chars:
            lines.append([])
        num_chars = num_chars + 1 + len(word) if lines[-1] else len(word)
        lines[-1].append(word)
    return lines


def _balanced(words: Sequence[str], costs: Sequence[float], num_lines: int, max_chars: int) -> list[list[str]]:
    """Break words into a number of lines, of which the first are shorter if lengths and ends cost the same."""
    if num_lines == 1:
        return [[*words]] if len(" ".join(words)) <= max_chars else []
    found: list[list[str]] = []
    least = math.inf
    for place in range(1, len(words)):
        first = len(" ".join(words[:place]))
        rest = _balanced(words[place:], costs[place:], num_lines - 1, max_chars) if first <= max_chars else []
        lengths = [first, *(len(" ".join(line)) for line in rest)]
        cost = sum((length / max_chars) ** 2 for length in lengths) + OF_BREAK * costs[place - 1]
        if rest and cost < least - 1e-9:
            found, least = [[*words[:place]], *rest], cost
    return found
