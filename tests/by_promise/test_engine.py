"""The engines: rows do not depend on them, and `here` works in the calling process."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

import raysp
from tests import kit
from tests.classifiers import make_classifier, make_frame_classifier, make_speaker_model
from tests.corpora import damaged, digits_table, write_shard
from tests.ops.waves import assert_alike

CHECKPOINT = str(kit.CHECKPOINT)
OUTPUTS = [
    raysp.Transcript("beams", beams=4, nbest=3, hot_words={"THREE": 1.0}),
    raysp.Align("text"),
    raysp.Embedding(),
    raysp.Embedding("frames", pooling="none"),
    raysp.Signals(),
]
MAPPING = """import os
import pdb
import signal

calls = []


def loud(rows):
    calls.append(rows.num_rows)
    print("called with", rows.num_rows, "rows")
    return {"loud": [True] * rows.num_rows}


def deadly(rows):
    os.kill(os.getpid(), signal.SIGKILL)
    return {"level": [0] * rows.num_rows}


def stops(rows):
    level = rows.num_rows
    breakpoint()
    return {"level": [level] * rows.num_rows}


def stops_in_a_notebook(rows):  # where `breakpoint()` is for the debugger of the editor
    level = rows.num_rows
    pdb.set_trace()
    return {"level": [level] * rows.num_rows}
"""


@pytest.fixture
def corpus(tmp_path) -> Path:
    """Two shards of three digits, one of which is not audio."""
    rows = damaged(digits_table(6).select(["id", "audio", "text"]), 4)
    for number in (0, 1):
        write_shard(tmp_path / "in" / f"{number}.parquet", table=rows.slice(3 * number, 3))
    return tmp_path


@pytest.fixture
def mapping(tmp_path, monkeypatch):
    """The functions of `MAPPING`, in a module of their own for each test."""
    name = f"mapping_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(MAPPING)
    monkeypatch.syspath_prepend(tmp_path)
    return __import__(name)


def pipeline(
    corpus: Path, sink: str, *steps: object, outputs: object = None, checkpoint: str = CHECKPOINT, **label: object
) -> raysp.Pipeline:
    outputs = [raysp.Transcript()] if outputs is None else outputs
    return raysp.Pipeline(
        raysp.Shards(f"{corpus}/in/*.parquet", text="text"),
        steps=[raysp.Decode(), *steps, raysp.Label(checkpoint, outputs=outputs, **label)],
        sink=raysp.Parquet(str(corpus / sink)),
    )


@pytest.mark.cluster
@pytest.mark.slow
def test_rows_of_every_output_are_equal_under_both_engines(corpus, local_ray):
    """Outputs of five checkpoints, of which a later one makes a second pass over rows of the first."""
    speakers = make_speaker_model(corpus / "speakers")
    outputs = [*OUTPUTS]
    if importlib.util.find_spec("silero_vad"):  # needs pip install 'raysp[turns]'
        outputs += [raysp.Speech(), raysp.Turns(checkpoint=speakers)]
    others = {
        make_classifier(corpus / "classes", "low", "middle", "high"): raysp.Classes(top_k=2),
        make_frame_classifier(corpus / "frames", "quiet", "loud"): raysp.Segments(threshold=0.1),
        speakers: raysp.Embedding("voice", pooling="xvector"),
    }
    steps = [raysp.Label(CHECKPOINT, outputs=outputs)]
    steps += [raysp.Label(checkpoint, outputs=[output]) for checkpoint, output in others.items()]
    windows = {"window_seconds": 0.3, "overlap_seconds": 0.1}
    for engine in ("here", "ray"):
        made = pipeline(corpus, engine, *steps, outputs=[raysp.Transcript(words=True, chars=True)], **windows)
        result = raysp.run(made, engine=engine, progress=False)
        assert (result.rows, result.errors) == (6, {"unsupported_format": 1})
    rows = kit.rows(corpus / "here")
    assert sum(all(value is not None for name, value in row.items() if "error" not in name) for row in rows) == 5
    assert_alike(rows, kit.rows(corpus / "ray"), rel=1e-5, abs=1e-5)  # threads add in other orders


def test_the_environment_names_the_engine_where_the_caller_does_not(corpus, monkeypatch, raysp_command):
    monkeypatch.setenv("RAYSP_ENGINE", "nowhere")
    for options, complaint in (
        ({}, "RAYSP_ENGINE: found 'nowhere'"),
        ({"rows": 0}, "rows: found 0, expected a number of rows above 0"),
    ):
        with pytest.raises(raysp.SpecError, match=complaint):
            raysp.run(pipeline(corpus, "out"), progress=False, **options)
    assert not (corpus / "out").exists()
    assert raysp.run(pipeline(corpus, "out"), engine="here", progress=False).rows == 6
    monkeypatch.setenv("RAYSP_ENGINE", "here")
    file = kit.pipeline_file(corpus / "label.py", pipeline(corpus, "cli"))
    said = raysp_command("run", file)
    assert (said.code, "Ray" in said.err) == (0, False), said.err
    said = raysp_command("run", file, "--engine", "here", "--address", "auto")
    assert (said.code, "found 'here' with the address 'auto'" in said.err) == (2, True), said.err


@pytest.mark.drivers
def test_little_audio_starts_no_ray_and_its_progress_does_not_speak_of_it(corpus):
    code = (
        f"import sys, raysp\n"
        f"label = raysp.Label({CHECKPOINT!r}, outputs=[raysp.Transcript()])\n"
        f"source, sink = raysp.Shards({str(corpus / 'in')!r}), raysp.Parquet({str(corpus / 'out')!r})\n"
        f"print(raysp.run(raysp.Pipeline(source, steps=[raysp.Decode(), label], sink=sink)).rows, 'ray' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "RAYSP_ENGINE")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.returncode) == ("6 False", 0), done.stderr
    assert "Ray" not in done.stderr


def test_functions_of_the_caller_are_its_own_objects_and_their_prints_arrive(corpus, mapping, capsys):
    step = raysp.Map(mapping.loud, adds={"loud": "bool"}, reads=["text"])
    raysp.run(pipeline(corpus, "out", step), engine="here", progress=False)
    assert sum(mapping.calls) == 5
    assert capsys.readouterr().out.count("called with") == len(mapping.calls)
    assert [row["loud"] for row in kit.rows(corpus / "out")] == [True, True, True, True, None, True]


def write_pipeline(corpus: Path, name: str, function: str) -> None:
    (corpus / "label.py").write_text(
        f"import raysp\nfrom {name} import {function}\n\npipeline = raysp.Pipeline(\n"
        f"    raysp.Shards({str(corpus / 'in')!r}),\n    steps=[\n        raysp.Decode(),\n"
        f"        raysp.Map({function}, adds={{'level': 'int64'}}, reads=['id']),\n"
        f"        raysp.Label({CHECKPOINT!r}, outputs=[raysp.Transcript()]),\n    ],\n"
        f"    sink=raysp.Parquet({str(corpus / 'out')!r}),\n)\n"
    )


@pytest.mark.drivers
def test_rows_that_crash_the_process_are_named_and_refused_after_three_crashes(corpus, mapping, raysp_command):
    write_pipeline(corpus, mapping.__name__, "deadly")
    line = ["run", corpus / "label.py"]
    for number in range(3):
        killed = kit.run_forked(line)
        assert killed.code == -9, killed.err
        was_warned = "0.parquet: rows 0 to 2 were begun before by a process that ended early" in killed.err
        assert was_warned == (number > 0), killed.err
    refused = raysp_command(*line, "--engine", "here")
    assert refused.code == 1
    assert "0.parquet: rows 0 to 2 were begun by 3 consecutive processes" in refused.err
    assert "--engine ray" in refused.err
    assert list((corpus / "out" / ".raysp" / "begun").iterdir())
    file = Path(mapping.__file__)
    file.write_text(file.read_text().replace("os.kill", "print"))
    corrected = kit.run_forked(line)
    assert corrected.code == 0, corrected.err
    assert "begun" not in corrected.err


def test_a_run_that_ends_in_order_leaves_no_begun_piece(corpus, mapping):
    step = raysp.Map(mapping.loud, adds={"loud": "bool"}, reads=["text"])
    kit.interrupted(pipeline(corpus, "out", step))
    assert (corpus / "out" / ".raysp" / "run.json").exists()
    assert not list((corpus / "out").glob(".raysp/begun/*"))
    assert raysp.run(pipeline(corpus, "out", step), engine="here", progress=False).exit_code == 0


@pytest.mark.drivers
def test_a_debugger_stops_in_a_function_under_the_command_line(corpus, mapping):
    write_pipeline(corpus, mapping.__name__, "stops")
    command = [sys.executable, "-m", "raysp", "run", "label.py", "--engine", "here"]
    stopped = subprocess.run(
        command, input="p level\nc\np level * 100\nc\n", cwd=corpus, capture_output=True, text=True, timeout=120
    )
    assert stopped.returncode == 0, stopped.stderr
    assert "-> return {" in stopped.stdout
    answers = [line.removeprefix("(Pdb) ") for line in stopped.stdout.splitlines() if line.startswith("(Pdb) ")]
    assert [answer for answer in answers if answer.isdigit()] == ["3", "200"]


@pytest.mark.cluster
@pytest.mark.slow
def test_a_debugger_in_a_worker_of_ray_names_the_engine_that_has_one(corpus, local_ray, mapping):
    step = raysp.Map(mapping.stops, adds={"level": "int64"}, reads=["id"])
    with pytest.raises(raysp.RunError, match=r"\.py:\d+: workers of Ray have no terminal .* --engine here"):
        raysp.run(pipeline(corpus, "out", step), engine="ray", progress=False)
