"""Consensus of several transcripts of one recording: distances between them, and a vote over their words.

The vote is ROVER (Fiscus 1997, "A post-processing system to yield reduced word error rates", ASRU). The words of the
first transcript are slots, and each further transcript is aligned with the slots that are there, in order:

- A word in a slot costs 0 if the slot has this word, else `GAP` if an earlier transcript has no word there, else
  `SUBSTITUTION`. A slot without a word costs 0 if an earlier transcript has none there either, else `GAP`. A word
  outside of all slots costs `GAP` and makes a slot, in which the earlier transcripts have no word. These are the least
  costs over the words of a slot, with the weights of sclite and of ROVER.
- Equal words at the beginning, then at the end, share a slot, as long as all transcripts have a word there. Between
  them the alignment of least cost is taken; of several the one that, read from its end, puts a word into a slot rather
  than leaving the slot without one, and this rather than making a slot. A transcript that equals an earlier one has its
  places.
- Between them, stretches of more than `MOST_CELLS` slots times words are cut at the words that the first word of each
  slot and the transcript share by an alignment with the fewest edits. If a part is still larger, its words are put
  into its slots one by one.

In each slot the word of the most transcripts wins, or no word; of several the one of the highest mean score; of equal
ones that of the transcript named first.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import zip_longest
from math import fsum, inf
from typing import NamedTuple

from rapidfuzz.distance import Levenshtein

SUBSTITUTION, GAP = 4, 3
MOST_CELLS = 4096
"""Slots times words of the largest alignment by dynamic programming: half a millisecond."""
NOTHING = ""
"""The word of a transcript without a word in a slot."""
NOWHERE = -1
"""Place of a word that is not there."""
Vocabulary = dict[str, None]
"""Words of a slot, in the order of the transcripts."""
Step = tuple[int, int]
"""A slot and the place of the word in it; one of them may be `NOWHERE`."""
Score = Callable[[int, int], float]
"""Function of the number of a transcript and a place; -inf: no score."""


class Slot(NamedTuple):
    """The word of each transcript, or `NOTHING`, and its place in the transcript, or `NOWHERE`."""

    words: list[str]
    places: list[int]


def mean_distances(texts: Sequence[str]) -> list[float]:
    """Return the mean distance of each text to the other ones, to 9 digits; 0 if it is the only one.

    The distance of two texts is measured in words, separated by spaces: the fewest edits over the words of the longer
    one. It is the same from either side and at most 1. A word error rate is neither: of two texts the longer one has
    the higher rate against the other one, so the means would prefer texts with words missing.
    """
    words = [text.split() for text in texts]
    sums = [0.0] * len(texts)
    for a, text in enumerate(texts):
        for b in range(a):
            if text != texts[b]:
                distance = Levenshtein.normalized_distance(words[a], words[b])
                sums[a] += distance
                sums[b] += distance
    return [round(distance / max(1, len(texts) - 1), 9) for distance in sums]  # 1/3 + 1/6 has the last bits of 1/2


def slots_of(transcripts: Sequence[Sequence[str]]) -> list[Slot]:
    """Return the slots of transcripts, whose words are not empty."""
    places = [[place] for place in range(len(transcripts[0]))]
    vocabularies: list[Vocabulary] = [{word: None} for word in transcripts[0]]
    for number, words in enumerate(transcripts[1:], 1):
        if (equal := transcripts.index(words)) < number:
            for of_slot in places:
                of_slot.append(of_slot[equal])
            continue
        longer: list[list[int]] = []
        larger: list[Vocabulary] = []
        for slot, place in _alignment(vocabularies, words):
            is_new = slot == NOWHERE
            of_slot, known = ([NOWHERE] * number, {NOTHING: None}) if is_new else (places[slot], vocabularies[slot])
            of_slot.append(place)
            known[NOTHING if place == NOWHERE else words[place]] = None
            longer.append(of_slot)
            larger.append(known)
        places, vocabularies = longer, larger
    return [Slot(_words_at(of_slot, transcripts), of_slot) for of_slot in places]


def _words_at(places: Sequence[int], transcripts: Sequence[Sequence[str]]) -> list[str]:
    return [NOTHING if n == NOWHERE else words[n] for words, n in zip(transcripts, places, strict=True)]


def winner(slot: Slot, score: Score) -> str:
    """Return the word that wins a slot, or `NOTHING`.

    Args:
        slot: the slot.
        score: returns the score of the word of a transcript at a place; at `NOWHERE` the score of the transcript.
    """
    first = slot.words[0]
    if slot.words.count(first) == len(slot.words):
        return first
    counts = {word: slot.words.count(word) for word in slot.words}
    most = max(counts.values())
    tied = [word for word, votes in counts.items() if votes == most]
    return tied[0] if len(tied) == 1 else max(tied, key=partial(_mean_score, slot, score))


def _mean_score(slot: Slot, score: Score, word: str) -> float:
    return mean(score(number, slot.places[number]) for number in range(len(slot.words)) if slot.words[number] == word)


def mean(scores: Iterable[float]) -> float:
    """Return the mean of the known scores, the same in any order; -inf if there are none."""
    values = [score for score in scores if score > -inf]
    return fsum(values) / len(values) if values else -inf


def _alignment(slots: Sequence[Vocabulary], words: Sequence[str]) -> list[Step]:
    """Return the slots in order, each with the place of its word, and the places of the words outside of all slots."""
    first, most = 0, min(len(slots), len(words))
    while first < most and _is_shared(slots[first], words[first]):
        first += 1
    slot, place = len(slots), len(words)
    while slot > first < place and _is_shared(slots[slot - 1], words[place - 1]):
        slot, place = slot - 1, place - 1
    return [
        *((n, n) for n in range(first)),
        *_between(slots[first:slot], words[first:place], first, first),
        *zip(range(slot, len(slots)), range(place, len(words)), strict=True),
    ]


def _is_shared(slot: Vocabulary, word: str) -> bool:
    return word in slot and NOTHING not in slot


def _between(slots: Sequence[Vocabulary], words: Sequence[str], slot: int, place: int) -> Iterator[Step]:
    """Yield an alignment of least cost, or one cut into parts, of slots and words from a slot and a place on."""
    if len(slots) * len(words) <= MOST_CELLS:
        yield from _of_least_cost(slots, words, slot, place)
        return
    numbers: dict[str, int] = {}
    firsts = [next(filter(None, of_slot)) for of_slot in slots]
    ours, theirs = ([numbers.setdefault(word, len(numbers)) for word in part] for part in (firsts, words))
    a = b = 0
    for block in Levenshtein.editops(ours, theirs).as_matching_blocks():
        apart = slots[a : block.a], words[b : block.b]
        align = _of_least_cost if len(apart[0]) * len(apart[1]) <= MOST_CELLS else _in_pairs
        yield from align(*apart, slot + a, place + b)
        a, b = block.a + block.size, block.b + block.size
        yield from zip(range(slot + block.a, slot + a), range(place + block.b, place + b), strict=True)


def _in_pairs(slots: Sequence[Vocabulary], words: Sequence[str], slot: int, place: int) -> Iterator[Step]:
    """Return pairs of slots and words in order; the longer side is paired with `NOWHERE` at the end."""
    of_slots, of_words = range(slot, slot + len(slots)), range(place, place + len(words))
    return zip_longest(of_slots, of_words, fillvalue=NOWHERE)


def _of_least_cost(slots: Sequence[Vocabulary], words: Sequence[str], slot: int, place: int) -> list[Step]:
    costs = [[GAP * n for n in range(len(words) + 1)]]
    for of_slot in slots:
        empty, other = (0, GAP) if NOTHING in of_slot else (GAP, SUBSTITUTION)
        above = costs[-1]
        before, cost = above[0], above[0] + empty
        row = [cost]
        for word, after in zip(words, above[1:], strict=True):
            cost += GAP
            if (without := after + empty) < cost:
                cost = without
            if (within := before if word in of_slot else before + other) < cost:
                cost = within
            row.append(cost)
            before = after
        costs.append(row)
    return _traced(costs, slots, words, slot, place)


def _traced(
    costs: Sequence[Sequence[int]], slots: Sequence[Vocabulary], words: Sequence[str], slot: int, place: int
) -> list[Step]:
    """Return the alignment by the least costs of all beginnings, read from its end."""
    steps: list[Step] = []
    a, b = len(slots), len(words)
    while a and b:
        of_slot, cost, before = slots[a - 1], costs[a][b], costs[a - 1]
        is_empty = NOTHING in of_slot
        if cost == before[b - 1] + (0 if words[b - 1] in of_slot else GAP if is_empty else SUBSTITUTION):
            a, b = a - 1, b - 1
            steps.append((slot + a, place + b))
        elif cost == before[b] + (0 if is_empty else GAP):
            a -= 1
            steps.append((slot + a, NOWHERE))
        else:
            b -= 1
            steps.append((NOWHERE, place + b))
    steps += ((slot + n, NOWHERE) for n in reversed(range(a)))
    steps += ((NOWHERE, place + n) for n in reversed(range(b)))
    return steps[::-1]
