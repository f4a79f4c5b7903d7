"""The study of speakers: joined recordings are what their turns say, and ideal vectors lead to these turns."""

import numpy as np
import pytest

from benchmarks.studies.speakers import (
    HELD_DIGITS,
    HELD_SENTENCES,
    MOST_PIECES,
    RATE,
    SPEEDS,
    Joined,
    Spoken,
    ideal,
    joined,
    pieces,
    training_rows,
)


def parts(count: int = 8) -> list[Spoken]:
    draw = np.random.default_rng(0)
    waves = [draw.uniform(0.1, 0.5, int(draw.uniform(2, 4) * RATE)).astype(np.float32) for _ in range(count)]
    return [Spoken("ab"[number % 2], wave, [(0, RATE), (RATE, 2 * RATE)]) for number, wave in enumerate(waves)]


def test_parts_stand_where_the_turns_say():
    given = parts()
    found = joined("kind", given, np.random.default_rng(1))
    assert found.num_speakers == 2
    for part, (speaker, start, end) in zip(given, found.turns, strict=True):
        assert speaker == part.speaker
        placed = found.samples[round(start * RATE) : round(end * RATE)]
        np.testing.assert_allclose(placed, part.samples, atol=1e-3)
    ends = [end for *_, end in found.turns]
    assert all(start >= end for (_, start, _), end in zip(found.turns[1:], ends, strict=False))
    assert [(who, end - start) for who, start, end in found.words[:2]] == [("a", pytest.approx(1))] * 2


def test_a_tenth_of_the_speech_overlaps_and_at_most_two_speak_at_once():
    found = joined("kind", parts(40), np.random.default_rng(1), overlap=0.1)
    counts = np.zeros(len(found.samples), int)
    for _, start, end in found.turns:
        counts[round(start * RATE) : round(end * RATE)] += 1
    assert counts.max() == 2
    assert 0.07 < (counts == 2).sum() / (counts > 0).sum() < 0.13


def test_pieces_are_of_about_two_seconds():
    draw = np.random.default_rng(0)
    waves = [draw.random(int(seconds * RATE)).astype(np.float32) for seconds in (0.4, 0.5, 0.6, 0.7, 9.0, 0.5)]
    found = [len(one) / RATE for one in pieces(waves, draw)]
    assert len(found) >= 5
    assert all(1.5 < one < 3.2 for one in found)


@pytest.mark.lengthy
def test_ideal_vectors_have_the_turns_that_were_said():
    turns = [("a", 0.5, 4.0), ("b", 4.5, 8.0), ("a", 8.5, 12.0)]
    one = Joined("kind", np.zeros(13 * RATE, np.float32), turns, [])
    words = [{"word": "x", "start": start, "end": start + 1, "score": 1.0} for _, start, _ in turns]
    speech = [{"start": start, "end": end, "score": 1.0} for _, start, end in turns]
    found = ideal(one, {"pred_speech": speech, "pred_words": words})
    assert [(turn["speaker"], turn["start"], turn["end"]) for turn in found["pred_turns"]] == [
        (0, 0.5, 4.0),
        (1, 4.5, 8.0),
        (0, 8.5, 12.0),
    ]
    assert [word["speaker"] for word in found["pred_words"]] == [0, 1, 0]


@pytest.mark.lengthy
def test_speakers_of_the_training_are_others_than_those_of_the_test_and_another_one_at_each_speed():
    wave = np.random.default_rng(0).uniform(-0.1, 0.1, 10 * RATE).astype(np.float32)
    voices = {speaker: [wave] for speaker in ("anna", "ben", HELD_DIGITS[0], HELD_SENTENCES[0])}
    voices["ben"] = [wave] * 40
    rows = [*training_rows(voices)]
    counts = {
        speaker: sum(row["speaker_id"] == speaker for row in rows) for speaker in {row["speaker_id"] for row in rows}
    }
    assert counts.keys() == {f"{speaker} at {speed}" for speaker in ("anna", "ben") for speed in SPEEDS}
    assert counts["anna at 0.9"] > counts["anna at 1.1"] > 3
    assert counts["ben at 1.0"] == MOST_PIECES
    assert len({row["id"] for row in rows}) == len(rows)
