"""`Mos`: the scores that speechmos' own loop gives, in whatever windows and company a recording is rated."""

import numpy as np
import pytest

import raysp
from tests import kit
from tests.corpora import CHECKPOINT, labels_alone, samples_of
from tests.golden.checkpoints import encoder_decoder
from tests.ops.spoken_digits import spoken

LIBROSA = """
import types
import numpy as np
feature = types.SimpleNamespace(melspectrogram=lambda **_: np.zeros((120, 900), np.float32))
power_to_db = lambda power, ref: power
"""
"""Of librosa, which the package imports, only the features of another model are needed."""


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Return the package's function."""
    (tmp_path / "librosa.py").write_text(LIBROSA)
    monkeypatch.syspath_prepend(tmp_path)
    from speechmos import dnsmos

    return lambda samples: dnsmos.run(samples, 16_000)


def speech(seconds: float) -> np.ndarray:
    """Return spoken digits with pauses."""
    return np.resize(samples_of(spoken([0.25] * 20)[0]), round(16_000 * seconds))


def scores_of(expected: dict[str, float]) -> dict[str, float]:
    names = {"signal": "sig_mos", "background": "bak_mos", "overall": "ovrl_mos"}
    return {name: pytest.approx(expected[theirs], abs=1e-5) for name, theirs in names.items()}


def test_scores_are_those_of_the_package_for_rows_of_any_length_in_one_batch(package):
    recordings = [kit.sound(speech(seconds)) for seconds in (0.3, 9.01, 2.4)]
    for row, recording in zip(
        labels_alone(CHECKPOINT, raysp.Mos(), recordings, batch_seconds=60), recordings, strict=True
    ):
        assert row["mos"] == scores_of(package(samples_of(recording)))


def test_a_long_recording_has_the_scores_of_the_whole_whatever_its_windows(package, tmp_path):
    recording = kit.sound(speech(11.5), form="FLAC")
    expected = scores_of(package(samples_of(recording)))
    encoder_decoder("gpt2")(tmp_path / "decoder")
    windows = {"window_seconds": 10, "overlap_seconds": 3}, {"window_seconds": 4, "overlap_seconds": 1}
    for checkpoint, label in [(CHECKPOINT, windows[1]), (tmp_path / "decoder", windows[0])]:
        [row] = labels_alone(checkpoint, raysp.Mos(), [recording], **label)
        assert row["mos"] == expected
