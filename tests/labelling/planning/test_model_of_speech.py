"""The model of speech: part of the fingerprint, and refused where it cannot be used."""

import sys

import pytest

import raysp
from raysp import CheckpointError, SpecError
from tests.corpora import CHECKPOINT, a_pipeline, write_shard


def parts(folder, **label: object) -> dict[str, object]:
    write_shard(folder / "in" / "a.parquet", 1)
    return dict(raysp.plan(a_pipeline(f"{folder}/in", folder / "out", label=label)).parts)


def test_windows_at_pauses_and_the_first_output_that_cuts_them_are_in_the_fingerprint(tmp_path):
    pytest.importorskip("silero_vad", reason='needs pip install "raysp[speech]"')
    outputs = [raysp.Speech("a", threshold=0.3), raysp.Speech("b", threshold=0.4)]
    even, cut = parts(tmp_path), parts(tmp_path, windows="speech")
    assert "steps.1.windows" not in even
    assert {key for key in {**even, **cut} if even.get(key) != cut.get(key)} == {
        "steps.1.windows",
        "steps.1.windows_by",
    }
    assert len(cut["steps.1.windows_by"].pop("weights")) == 16
    assert cut["steps.1.windows_by"] == {
        **{"type": "Speech", "name": "pred_speech", "threshold": 0.5},
        **{"min_speech_seconds": 0.25, "min_silence_seconds": 0.1},
    }
    assert parts(tmp_path, outputs=outputs, windows="speech")["steps.1.windows_by"]["threshold"] == 0.3


@pytest.mark.parametrize(
    ("label", "absent", "message"),
    [
        ({"windows": "speech"}, "silero_vad", r"silero-vad.* is not installed: pip install 'raysp\[speech\]'"),
        ({"outputs": [raysp.Mos()]}, "speechmos", r"speechmos, .*rates recordings, is not installed: .*'raysp\[mos\]'"),
    ],
)
def test_without_its_package_the_plan_says_what_to_install(tmp_path, monkeypatch, label, absent, message):
    monkeypatch.setitem(sys.modules, absent, None)
    with pytest.raises(CheckpointError, match=message):
        parts(tmp_path, **label)


@pytest.mark.parametrize(
    "output", [raysp.Mos(), raysp.Embedding(pooling="none"), type("Own", (raysp.Transcript,), {"allows_gaps": 0})()]
)
def test_outputs_that_need_all_frames_are_refused(output):
    with pytest.raises(SpecError, match=rf"leaves out silence, and {type(output).__name__}\(.* needs all frames"):
        raysp.Label(str(CHECKPOINT), outputs=[output], windows="speech")
