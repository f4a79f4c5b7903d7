"""The advice for labels without times of words can be followed."""

import re
import shlex
from dataclasses import replace

import pysubs2
import pytest

import raysp
from raysp import PlanError
from tests.by_promise.export.sinks import make_folder_sink
from tests.corpora import CHECKPOINT
from tests.exports import export_to

pytestmark = pytest.mark.lengthy


def command_in(message: str) -> list[str]:
    return shlex.split(re.search("`(.*?)`", message)[1])


@pytest.fixture
def pipeline(tmp_path):
    return make_folder_sink(tmp_path, ["a/b.wav"], [raysp.Embedding(), raysp.Transcript()])


@pytest.mark.parametrize("to", ["srt", "ctm", "clips"])
def test_the_advice_of_each_format_makes_the_export_work(pipeline, tmp_path, to):
    short = {"max_seconds": 0.2, "min_seconds": 0.1} if to in ("srt", "vtt") else {}
    options = {"min_seconds": 0.1, "trust": True} if to == "clips" else {}
    with pytest.raises(PlanError) as refused:
        export_to(to, f"{tmp_path}/out", dest=f"{tmp_path}/dest", **options, **short)
    words = command_in(str(refused.value))
    assert words[:2] == ["raysp", "run"]
    assert words[3:] == ["--set", "steps.1.outputs.1.words=true", "--set", "sink.url=OTHER"]
    outputs = [pipeline.label.outputs[0], raysp.Transcript(words=True)]
    label = replace(pipeline.label, outputs=outputs)
    other = replace(pipeline, steps=[raysp.Decode(), label], sink=raysp.Parquet(f"{tmp_path}/other"))
    raysp.run(other, engine="here", progress=False)
    assert export_to(to, f"{tmp_path}/other", dest=f"{tmp_path}/dest", **options).rows == 1


def test_an_encoder_decoder_is_aligned_by_a_second_checkpoint(pipeline, tmp_path):
    with pytest.raises(
        PlanError, match=r"add a second step Label\(CTC, outputs=\[Align\('pred_text'\)\]\) .*--set to.column=aligned"
    ):
        raysp.export(f"{tmp_path}/out", to=raysp.Srt(max_seconds=0.2, min_seconds=0.1), dest=f"{tmp_path}/dest")
    steps = [raysp.Decode(), pipeline.label, raysp.Label(str(CHECKPOINT), outputs=[raysp.Align("pred_text")])]
    other = replace(pipeline, steps=steps, sink=raysp.Parquet(f"{tmp_path}/other"))
    raysp.run(other, engine="here", progress=False)
    raysp.export(f"{tmp_path}/other", to=raysp.Srt(column="aligned"), dest=f"{tmp_path}/dest")
    [cue] = pysubs2.load(f"{tmp_path}/dest/a/b.srt")
    assert cue.plaintext.isalpha()
