"""Windows cut at pauses: all speech is in them, longer silence in none, and times are those of the recording."""

import io
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch

import raysp
from benchmarks.inputs.corpus import read_utterances
from raysp.audio.waveforms import Windowing
from raysp.models.silero_vad import CHUNK_SAMPLES
from raysp.ops.rows import PlacedWave
from raysp.ops.speech.pauses import MOST_PAUSE_SECONDS, SpeechWindows
from raysp.ops.speech.speaking import Chunks, regions
from tests.corpora import AUDIO, CHECKPOINT, DEMO

RATE, STRIDE, GRID = 16_000, 320, 640


class Loudness:
    """Stands in for the model: the probability of a chunk is its mean sample."""

    def continued(self, wave: torch.Tensor, state: object) -> tuple[torch.Tensor, object]:
        return torch.stack([chunk.mean() for chunk in wave.split(CHUNK_SAMPLES)]), state


def cutter(window_seconds: float = 8.0, *, at_quiet_points: bool = False) -> SpeechWindows:
    windowing = Windowing.of(
        sample_rate=RATE,
        frame_stride=STRIDE,
        min_samples=400,
        window_seconds=window_seconds,
        overlap_seconds=2,
        group_frames=GRID // STRIDE,
        at_quiet_points=at_quiet_points,
    )
    return SpeechWindows(
        Loudness(),
        windowing,
        min_samples=2000,
        grid_samples=GRID,
        threshold=0.5,
        min_speech_samples=0.25 * RATE,
        min_silence_samples=0.1 * RATE,
    )


def recording(seed: int, seconds: float = 150, longest: float = 4.0) -> np.ndarray:
    """Make a wave of ones (speech) and zeros, of a tenth of a second to some seconds each; one stretch is long."""
    draw = np.random.default_rng(seed)
    parts = [np.full(int(RATE * draw.choice([0.13, 0.4, 1.3, longest])), number % 2) for number in range(200)]
    parts[2 * int(draw.integers(4)) + 1] = np.ones(30 * RATE)
    return np.concatenate(parts)[: int(seconds * RATE)].astype(np.float32)


def chunks_of(wave: np.ndarray, size: int) -> Iterator[np.ndarray]:
    return (wave[start : start + size] for start in range(0, len(wave), size))


def spans(found: list[PlacedWave]) -> list[tuple[int, int]]:
    return [(one.place.frame * STRIDE, one.place.frame * STRIDE + len(one.wave)) for one in found]


@pytest.mark.parametrize(("seed", "at_quiet_points"), [(0, False), (1, True), (2, False)])
def test_windows_hold_all_speech_and_no_long_pause(seed, at_quiet_points):
    wave, cut = recording(seed), cutter(at_quiet_points=at_quiet_points)
    found = list(cut(chunks_of(wave, 10_000)))
    probabilities = torch.cat([Loudness().continued(torch.from_numpy(wave), None)[0]]).numpy()
    chunks = Chunks(np.arange(len(probabilities)) * CHUNK_SAMPLES, probabilities, len(wave))
    speech = regions(chunks, threshold=0.5, min_speech_samples=4000, min_silence_samples=1600)
    is_in = np.zeros(len(wave), np.bool_)
    for (start, end), one in zip(spans(found), found, strict=True):
        assert start % (STRIDE if at_quiet_points else GRID) == 0
        assert (one.wave == wave[start:end]).all()
        assert 2000 <= len(one.wave) <= cut.windowing.window_samples + STRIDE
        is_in[start:end] = True
    assert all(is_in[start:end].mean() > 0.999 for start, end, _ in speech)
    pauses = [other[0] - one[1] for one, other in pairwise(speech)]
    for (_, end, _), pause in zip(speech, pauses, strict=False):
        if pause > MOST_PAUSE_SECONDS * RATE:
            assert not is_in[end + 8000 : end + pause - 8000].any()
    owned = [(one.place.frame + one.place.first, one.place.frame + one.place.end) for one in found]
    assert all(first < end for first, end in owned)
    assert all(one[1] <= other[0] for one, other in pairwise(owned))


def test_a_long_stretch_is_cut_at_its_longest_pause_in_the_second_half_of_a_window():
    parts = [(1, 2.0), (0, 0.9), (1, 2.5), (0, 0.3), (1, 1.0), (0, 0.6), (1, 1.0), (0, 0.2), (1, 3.0), (0, 2)]
    wave = np.concatenate([np.full(int(RATE * seconds), value, np.float32) for value, seconds in parts])
    [(first, end), (following, last)] = spans(list(cutter(8.5)(iter([wave]))))
    assert (first, last) == (0, pytest.approx(11.7 * RATE, abs=1000))
    assert end / RATE == pytest.approx(6.9, abs=0.1)
    assert following / RATE == pytest.approx(7.1, abs=0.1)


def spoken(pauses: list[float]) -> tuple[bytes, list[tuple[str, float]]]:
    """Join digits, with a pause before each; return the recording, and the words with their starts."""
    utterances = read_utterances(str(DEMO / "audio" / "*.parquet"), RATE)["jackson"]
    parts, words, place = [], [], 0
    for number, pause in enumerate(pauses):
        silence = np.random.default_rng(number).integers(-8, 9, int(pause * RATE)).astype(np.int16)
        one = utterances[number]
        parts += [silence, one.samples]
        words.append((one.text.lower(), (place + len(silence)) / RATE))
        place += len(silence) + len(one.samples)
    file = io.BytesIO()
    soundfile.write(file, np.concatenate([*parts, np.zeros(3 * RATE, np.int16)]), RATE, format="FLAC")
    return file.getvalue(), words


@pytest.mark.slow
def test_times_of_words_are_those_of_the_recording_and_silence_alone_is_skipped():
    outputs = [raysp.Transcript(words=True), raysp.Align("text")]
    label = raysp.Label(str(CHECKPOINT), outputs=outputs, windows="speech", window_seconds=10, overlap_seconds=2)
    (recording, words), (silence, _) = spoken([0.2, 0.3, 4, 0.2, 3, 0.3, 0.2, 12, 0.3, 0.2]), spoken([])
    text = " ".join(word for word, _ in words)
    audio = pa.array([{"bytes": one, "path": None} for one in (recording, silence)], AUDIO)
    rows = pa.table({"audio": audio, "text": [text, ""]})
    row, silent = raysp.Labeller([raysp.Decode(), label], id=None)(rows).to_pylist()
    assert (silent["status"], silent["error_type"], silent["seconds"]) == ("skipped", "no_speech", 3.0)
    assert row["pred_text"].lower() == text
    for name in ("pred_words", "aligned_words"):
        starts = [one["start"] for one in row[name]]
        assert starts == pytest.approx([start for _, start in words], abs=0.3), name
