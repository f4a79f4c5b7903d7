"""Limits of texts that a decoder writes: plans and `inspect` name one that speech may exceed."""

import json

import pytest

import raysp
from raysp import plan
from tests.corpora import a_pipeline, write_shard
from tests.device.class_cases import make_checkpoint


@pytest.fixture
def writes(tmp_path):
    """Return a function that makes a checkpoint with some options in its generation_config.json."""

    def make(**options):
        make_checkpoint("SpeechEncoderDecoderModel", tmp_path / "writes")
        path = tmp_path / "writes" / "generation_config.json"
        path.write_text(json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **options}))
        return tmp_path / "writes"

    return make


def notes(tmp_path, checkpoint, window_seconds=30, **generate):
    write_shard(tmp_path / "in" / "a.parquet", 1)
    label = raysp.Label(
        str(checkpoint),
        outputs=[raysp.Transcript(generate=generate)],
        window_seconds=window_seconds,
        overlap_seconds=0.5,
    )
    steps = [raysp.Decode(), label]
    found = plan(a_pipeline(f"{tmp_path}/in", tmp_path / "out", steps=steps))
    assert {*found.notes} <= {*found.messages} & {*found.messages_at_start}
    return [one for one in found.notes if "max_length" in one]


@pytest.mark.parametrize(
    ("options", "generate", "most"),
    [({}, {}, 20), ({"max_length": 3}, {"max_new_tokens": 9}, 9)],
)
def test_a_limit_that_speech_may_exceed_is_named(tmp_path, writes, options, generate, most):
    [note] = notes(tmp_path, writes(**options), **generate)
    assert note == (
        f"pred_text is cut after {most} tokens of a window (max_length), and 30 seconds of speech may have 120: for "
        "recordings of that length pass generate={'max_new_tokens': N}"
    )


def test_a_limit_that_no_window_reaches_is_not_named(tmp_path, writes):
    assert not notes(tmp_path, writes(), window_seconds=4)
