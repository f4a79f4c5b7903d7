"""Regions of speech are those of Silero VAD for a recording alone, whatever shares the batch and in any windows."""

import warnings

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import raysp
from raysp.checkpoints import packaged
from tests.corpora import CHECKPOINT, label_arrays, samples_of
from tests.ops.spoken_digits import spoken

RATE, CHUNK = 16_000, 512
NAMES = {
    "stft": "stft_conv",
    **{f"encoder.{number}.reparam_conv": f"conv{number + 1}" for number in range(4)},
    "decoder.rnn": "lstm_cell",
    "decoder.decoder.2": "final_conv",
}
"""Modules of the program, and those of the safetensors file."""


@pytest.fixture(scope="module")
def program() -> torch.jit.ScriptModule:
    """The original's program with the weights of the safetensors file, which are not those of its own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.load`", DeprecationWarning)
        loaded = torch.jit.load(packaged.SPEECH.path().with_name("silero_vad.jit"))
    given = load_file(packaged.SPEECH.path())
    with torch.inference_mode():
        for name, value in loaded._model.state_dict().items():
            module, _, part = name.rpartition(".")
            value.copy_(given[f"{NAMES[module]}.{part.replace('forward_basis_buffer', 'weight')}"])
    return loaded


@pytest.fixture(scope="module")
def waves() -> list[np.ndarray]:
    """Digits with pauses, noise that comes and goes, and a short recording."""
    speech = samples_of(spoken([0.2, 0.1, 1, 0.05, 0.5, 0.15, 2, 0.1])[0])
    draw = np.random.default_rng(0)
    noise = 0.006 * draw.standard_normal(3 * RATE).cumsum() * np.repeat(draw.random(30), RATE // 10)
    return [one.astype(np.float32) for one in (speech, noise, speech[2_000:9_000])]


@torch.inference_mode()
def probabilities(program: torch.jit.ScriptModule, wave: np.ndarray) -> list[float]:
    """Return those of the original for each chunk."""
    program.reset_states()
    chunks = torch.nn.functional.pad(torch.from_numpy(wave), (0, -len(wave) % CHUNK)).split(CHUNK)
    return [float(program(chunk, RATE)[0, 0]) for chunk in chunks]


FIELDS = [(0.5, 250, 100), (0.5, 0, 0), (0.3, 100, 200), (0.8, 0, 400), (0.1, 250, 64)]
"""Threshold, and milliseconds of the shortest speech and of the shortest silence."""


def test_regions_of_any_settings_are_those_of_the_original(program, waves):
    from silero_vad.utils_vad import get_speech_timestamps_from_probs

    outputs = [
        raysp.Speech(
            f"of_{number}", threshold=threshold, min_speech_seconds=speech / 1000, min_silence_seconds=silence / 1000
        )
        for number, (threshold, speech, silence) in enumerate(FIELDS)
    ]
    rows = label_arrays(CHECKPOINT, outputs, waves)
    assert [row["of_0"] for row in label_arrays(CHECKPOINT, outputs, waves[1:])] == [row["of_0"] for row in rows[1:]]
    for row, wave in zip(rows, waves, strict=True):
        made = probabilities(program, wave)
        for number, (threshold, speech, silence) in enumerate(FIELDS):
            expected = get_speech_timestamps_from_probs(
                made, threshold=threshold, min_speech_duration_ms=speech, min_silence_duration_ms=silence,
                audio_length_samples=len(wave),
            )  # fmt: skip
            found = [{name: round(one[name] * RATE) for name in ("start", "end")} for one in row[f"of_{number}"]]
            assert found == expected
    assert len(rows[0]["of_1"]) > len(rows[0]["of_0"]) > 2


def test_windows_cut_at_pauses_hold_the_words_of_the_recording_at_their_times_and_silence_is_skipped():
    outputs = [raysp.Transcript(words=True), raysp.Align("text")]
    (recording, words), (silence, _) = spoken([0.2, 0.3, 4, 0.2, 3, 0.3]), spoken([])
    text = " ".join(word for word, _ in words)
    options = {"windows": "speech", "window_seconds": 5, "overlap_seconds": 2}
    waves = [samples_of(one) for one in (recording, silence)]
    row, silent = label_arrays(CHECKPOINT, outputs, waves, {"text": [text, ""]}, **options)
    assert (silent["status"], silent["error_type"], silent["seconds"]) == ("skipped", "no_speech", 3.0)
    assert row["pred_text"].lower() == text
    for name in ("pred_words", "aligned_words"):
        assert [one["start"] for one in row[name]] == pytest.approx([start for _, start in words], abs=0.3), name
