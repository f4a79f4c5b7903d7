"""Limits of texts that a decoder writes: plans and `inspect` name one that speech may exceed."""

import json

import pytest

import raysp
from tests.corpora import a_pipeline, write_shard
from tests.device.class_cases import make_checkpoint


@pytest.mark.parametrize(
    ("options", "generate", "seconds", "most"),
    [({}, {}, 30, 20), ({"max_length": 3}, {"max_new_tokens": 9}, 30, 9), ({}, {}, 4, None)],
)
def test_a_limit_that_speech_may_exceed_is_named(tmp_path, options, generate, seconds, most):
    make_checkpoint("SpeechEncoderDecoderModel", folder := tmp_path / "writes")
    (folder / "generation_config.json").write_text(json.dumps(options))
    write_shard(tmp_path / "in" / "a.parquet", 1)
    outputs = [raysp.Transcript(generate=generate)]
    label = raysp.Label(str(folder), outputs=outputs, window_seconds=seconds, overlap_seconds=0.5)
    plan = raysp.plan(a_pipeline(f"{tmp_path}/in", tmp_path / "out", steps=[raysp.Decode(), label]))
    note = (
        f"pred_text is cut after {most} tokens of a window (max_length), and 30 seconds of speech may have 120: for "
        "recordings of that length pass generate={'max_new_tokens': N}"
    )
    assert {*plan.notes} <= {*plan.messages} & {*plan.messages_at_start}
    assert [one for one in plan.notes if "max_length" in one] == ([note] if most else [])
