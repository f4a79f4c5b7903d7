"""The advice for labels without times of words can be followed."""

import re
import shlex
from dataclasses import replace

import pysubs2
import pytest

import raysp
from raysp import PlanError
from tests import corpora
from tests.corpora import CHECKPOINT
from tests.exports import export_to
from tests.verbs.export.sinks import make_folder_sink

pytestmark = pytest.mark.lengthy


def command_in(message: str) -> list[str]:
    return shlex.split(re.search("`(.*?)`", message)[1])


@pytest.fixture
def pipeline(tmp_path):
    return make_folder_sink(tmp_path, ["a/b.wav"], [raysp.Embedding(), raysp.Transcript()])


@pytest.mark.parametrize("to", ["srt", "vtt", "textgrid", "ctm", "clips"])
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


class TestCommand:
    @pytest.fixture
    def advice(self, tmp_path):
        """Return the advice of an export of labels without times."""

        def label(column: str = "pred") -> str:
            corpora.labelled(tmp_path, {"pred_text": ["one"]}, [raysp.Transcript()])
            with pytest.raises(PlanError) as refused:
                raysp.export(f"{tmp_path}/out", to=raysp.Ctm(column=column), dest=f"{tmp_path}/dest")
            return str(refused.value)

        return label

    def test_it_labels_into_another_sink(self, advice):
        words = command_in(advice())
        assert words == ["raysp", "run", "PIPELINE", "--set", "steps.1.outputs.0.words=true", "--set", "sink.url=OTHER"]

    def test_without_a_transcript_of_the_name_there_is_no_setting(self, advice):
        assert command_in(advice("other"))[3:] == ["--set", "sink.url=OTHER"]
