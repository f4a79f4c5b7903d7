"""The advice for labels without times of words can be followed."""

import re
import shlex
from dataclasses import replace

import pysubs2
import pytest

import raysp
from raysp import PlanError
from raysp.sink import known
from raysp.sink.run_record import RunEntry, RunRecord
from raysp.specs.values import to_json
from raysp.specs.work_files import with_overrides
from raysp.verbs.export.word_times import how_to_ask
from tests.corpora import CHECKPOINT, a_pipeline
from tests.verbs.export.sinks import make_folder_sink

pytestmark = pytest.mark.lengthy


def recorded(command: str, pipeline: raysp.Pipeline) -> RunRecord:
    run = RunEntry("1", "2026", {}, "host", command)
    return RunRecord("2026", to_json(pipeline), "f", {}, {}, (run,))


def command_in(message: str) -> list[str]:
    return shlex.split(re.search("`(.*?)`", message)[1])


@pytest.fixture
def pipeline(tmp_path):
    return make_folder_sink(tmp_path, ["a/b.wav"], [raysp.Embedding(), raysp.Transcript()])


@pytest.mark.parametrize("to", ["srt", "vtt", "textgrid", "ctm", "clips"])
def test_the_advice_of_each_format_makes_the_export_work(pipeline, tmp_path, to):
    short = {"max_seconds": 0.2, "min_seconds": 0.1} if to in ("srt", "vtt") else {}
    options = {"min_seconds": 0.1} if to == "clips" else {}
    with pytest.raises(PlanError) as refused:
        raysp.export(f"{tmp_path}/out", to=to, dest=f"{tmp_path}/dest", **options, **short)
    words = command_in(str(refused.value))
    assert words[:2] == ["raysp", "run"]
    assert words[3:] == ["--set", "steps.1.outputs.1.words=true", "--relabel"]
    raysp.run(with_overrides(pipeline, [words[4]]), relabel=True, engine="here", progress=False)
    assert raysp.export(f"{tmp_path}/out", to=to, dest=f"{tmp_path}/dest", **options).rows == 1


def test_an_encoder_decoder_is_aligned_by_a_second_checkpoint(pipeline, tmp_path):
    with pytest.raises(PlanError, match=r"add Align\(of='pred', checkpoint=CTC\) .*--column aligned"):
        raysp.export(f"{tmp_path}/out", to="srt", dest=f"{tmp_path}/dest", max_seconds=0.2, min_seconds=0.1)
    outputs = [*pipeline.label.outputs, raysp.Align(of="pred", checkpoint=str(CHECKPOINT))]
    raysp.run(
        replace(pipeline, steps=[raysp.Decode(), replace(pipeline.label, outputs=outputs)]),
        relabel=True,
        engine="here",
        progress=False,
    )
    raysp.export(f"{tmp_path}/out", to="srt", dest=f"{tmp_path}/dest", column="aligned")
    [cue] = pysubs2.load(f"{tmp_path}/dest/a/b.srt")
    assert cue.plaintext.isalpha()


class TestCommand:
    def test_the_command_of_the_last_run_is_repeated_without_its_share(self):
        pipeline = a_pipeline()
        known.remember(to_json(pipeline))
        command = "/usr/bin/raysp run 'my labels.py' --set sink.url=out --shards 1/2 --json"
        words = command_in(how_to_ask(recorded(command, pipeline), "pred"))
        assert words[2:5] == ["my labels.py", "--set", "sink.url=out"]
        assert words[5:] == ["--set", "steps.1.outputs.0.words=true", "--relabel"]

    @pytest.mark.parametrize("command", ["raysp retry out", "python label.py", "pytest", ""])
    def test_another_program_is_not_repeated(self, command):
        pipeline = a_pipeline()
        known.remember(to_json(pipeline))
        assert command_in(how_to_ask(recorded(command, pipeline), "pred"))[:3] == ["raysp", "run", "PIPELINE"]

    def test_the_command_of_another_user_is_not_repeated(self, monkeypatch, tmp_path):
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
        record = recorded("raysp run evil.py; rm -rf x", a_pipeline())
        assert command_in(how_to_ask(record, "pred"))[:3] == ["raysp", "run", "PIPELINE"]

    def test_without_a_transcript_of_the_name_there_is_no_setting(self):
        assert "--set" not in how_to_ask(recorded("x", a_pipeline()), "other")
