"""Consensus of transcripts: distances as rapidfuzz counts them, and votes as all alignments of least cost give them."""

import itertools
import random

import pytest

from raysp.text.consensus import NOTHING, NOWHERE, Slot, slots_of


def drawn(seed: int, most: int = 4, letters: str = "abc") -> list[str]:
    draw = random.Random(seed)
    return [draw.choice(letters) for _ in range(draw.randrange(most + 1))]


def cost_of(word: str, vocabulary: set[str]) -> int:
    """Return the cost of a word, or of none, in a slot: the least one over the words of the slot."""
    return min(0 if word == other else 3 if NOTHING in (word, other) else 4 for other in vocabulary)


def alignments(num_slots: int, num_words: int):
    """Yield all alignments, those that are preferred first: read from the end, in a slot, slot without, new slot."""
    if not num_slots and not num_words:
        yield []
    if num_slots and num_words:
        yield from ([*rest, (num_slots - 1, num_words - 1)] for rest in alignments(num_slots - 1, num_words - 1))
    if num_slots:
        yield from ([*rest, (num_slots - 1, NOWHERE)] for rest in alignments(num_slots - 1, num_words))
    if num_words:
        yield from ([*rest, (NOWHERE, num_words - 1)] for rest in alignments(num_slots, num_words - 1))


def by_all_alignments(transcripts: list[list[str]]) -> list[list[str]]:
    """Return the words in the slots by the rules of `raysp.text.consensus`, of all alignments."""
    slots = [[word] for word in transcripts[0]]
    for number, words in enumerate(transcripts[1:], 1):
        if words in transcripts[:number]:
            slots = [[*slot, slot[transcripts.index(words)]] for slot in slots]
            continue
        shared = [
            [word in slot and NOTHING not in slot for slot, word in zip(ours, theirs, strict=False)]
            for ours, theirs in ((slots, words), (slots[::-1], words[::-1]))
        ]
        first, last = (sum(itertools.takewhile(bool, flags)) for flags in shared)
        last = min(last, min(len(slots), len(words)) - first)
        ours, theirs = slots[first : len(slots) - last], words[first : len(words) - last]

        def cost(steps, ours=ours, theirs=theirs):
            return sum(
                3 if slot == NOWHERE else cost_of(NOTHING if place == NOWHERE else theirs[place], {*ours[slot]})
                for slot, place in steps
            )

        best = min(alignments(len(ours), len(theirs)), key=cost)  # the first of several
        middle = [
            [*([NOTHING] * number if slot == NOWHERE else ours[slot]), NOTHING if place == NOWHERE else theirs[place]]
            for slot, place in best
        ]
        before = [[*slot, word] for slot, word in zip(slots[:first], words[:first], strict=True)]
        ends = zip(slots[len(slots) - last :], words[len(words) - last :], strict=True)
        behind = [[*slot, word] for slot, word in ends]
        slots = [*before, *middle, *behind]
    return slots


def check_places(slots: list[Slot], transcripts: list[list[str]]) -> None:
    """Check that the slots hold the words of each transcript in their order."""
    for number, words in enumerate(transcripts):
        assert [slot.words[number] for slot in slots if slot.words[number] != NOTHING] == words
        assert [slot.places[number] for slot in slots if slot.places[number] != NOWHERE] == [*range(len(words))]


@pytest.mark.parametrize("number", [2, 3, 4])
def test_the_slots_are_those_of_the_least_of_all_alignments(number):
    for seed in range(60):
        transcripts = [drawn(seed * number + one) for one in range(number)]
        slots = slots_of(transcripts)
        assert [slot.words for slot in slots] == by_all_alignments(transcripts), transcripts
        check_places(slots, transcripts)


def test_stretches_beyond_the_limit_are_cut_at_equal_words():
    """Of 4096 slots times words, unlike the transcripts that are compared with all alignments."""
    looped = [[f"w{n % 50}" for n in range(300)], [f"w{n % 50}" for n in range(300) if n % 17], ["x"] * 90]
    letters = [[["x", *drawn(seed + one, 200), "y"] for one in range(0, 3000, 1000)] for seed in range(20)]
    for transcripts in (looped, *letters):
        check_places(slots_of(transcripts), transcripts)
    assert sum(slot.words[0] == slot.words[1] for slot in slots_of(looped)) == len(looped[1])
