"""Bad usage and unexpected errors: one clear line and its exit code, before any work where that is possible."""

import json
import statistics

import pytest

from tests import kit
from tests.commands import RECIPE, write_recipe

SECRET = "hunter2/Zq"


def refused(ran: kit.Ran, message: str) -> None:
    assert (ran.code, ran.out) == (2, "")
    [complaint] = ran.complaints
    assert complaint.startswith("raysp: ")
    assert message in complaint
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "missing.py"], "missing.py: no such file; expected a Python file that defines a raysp.Pipeline"),
        (["plan"], "Missing argument 'FILE'. Try `raysp plan --help`"),
        (["plam"], "No such command 'plam'. Did you mean 'plan'? Try `raysp --help`"),
        (["plan", "x.py", "--sett", "a=b"], "No such option: --sett"),
        (["run", "x.py", "--rows", "0"], "Invalid value for '--rows': "),
        (["plan", "."], ".: a folder; expected a Python file that defines a raysp.Pipeline or raysp.Finetune"),
        (["inspect", "nowhere"], "checkpoint 'nowhere': no such folder; expected a Hugging Face model folder"),
        (["status", "nowhere"], "nowhere: not a sink of raysp"),
        (["status", "nowhere://bucket/x"], "'nowhere://bucket/x': found the scheme 'nowhere'"),
    ],
)
def test_a_command_that_cannot_be_understood(raysp_command, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    refused(raysp_command(*arguments), message)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("source.url={tmp}/in/*.flac", "source.url: '{tmp}/in/*.flac': no file matches"),
        ("source.url={tmp}/nowhere", "source.url: '{tmp}/nowhere': no such file or folder"),
        ("source.audio=sound", "in/a.parquet: has no column 'sound', expected one; its columns are id, audio, text"),
        ("source.audio=text", "in/a.parquet: column 'text' is string. Of paths, set source.audio_root"),
        ("sink.ulr=x", "--set sink.ulr: Parquet has no field 'ulr' (did you mean 'url'?)"),
        ("sink.url", "--set 'sink.url': expected PATH=VALUE, such as sink.url=out"),
        ("steps.1.window_seconds=-1", "Label.window_seconds: found -1"),
        ("steps.1.checkpoint={tmp}/in", "config.json"),
        ("steps.1.checkpoint={tmp}/in/a.parquet", "checkpoint '{tmp}/in/a.parquet': a file; expected a Hugging Face"),
        ("steps.1.checkpoint=", "Label: checkpoint is empty; give a model folder, its url or a hub id"),
        ('sink.keep=["id"]', "two columns would be named 'id'"),
        ("steps.1.outputs.0.name=a b", "'a b' is not the beginning of a column's name"),
        ('sink.storage_options={{"secret": "' + SECRET + '"}}', "storage_options['secret'] holds a literal secret"),
        (f"sink.url=s3://key:{SECRET}@bucket/x", "the url contains a password or a signature"),
    ],
)
def test_a_pipeline_that_cannot_run(raysp_command, recipe, tmp_path, monkeypatch, setting, message):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for verb in ("plan", "run") if "{tmp}" in setting else ("run",):
        ran = raysp_command(verb, recipe, "--set", setting.format(tmp=tmp_path))
        refused(ran, message.format(tmp=tmp_path))
        assert SECRET not in ran.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import no_such_module_at_all", "recipe_for_the_cli.py"),
        ("import raysp", "recipe_for_the_cli.py"),
        (
            RECIPE.replace("[raysp.Transcript()]", "[raysp.Transcript(), raysp.Transcript()]"),
            "recipe_for_the_cli.py: Label: two columns would be named 'pred_text'",
        ),
        (
            RECIPE.replace("{sink!r}", '{sink!r}, storage_options=dict(client=dict(password="' + SECRET + '"))'),
            "storage_options['client']['password'] holds a literal secret; put it into an environment",
        ),
    ],
)
def test_a_file_that_does_not_run_or_makes_no_pipeline(raysp_command, tmp_path, code, message):
    ran = raysp_command("plan", write_recipe(tmp_path, code))
    refused(ran, message)
    assert SECRET not in ran.err


@pytest.mark.parametrize("place", ["file/out", "/proc/labels"])
def test_a_sink_that_cannot_be_written_is_refused_before_any_work(raysp_command, recipe, tmp_path, place):
    (tmp_path / "file").write_text("")
    message = "a file is where a folder is needed" if "file" in place else f"{place}: cannot write to it"
    refused(raysp_command("run", recipe, "--json", "--engine", "ray", "--set", f"sink.url={tmp_path / place}"), message)


def test_a_checkpoint_of_another_architecture_and_a_sink_of_another_pipeline(raysp_command, recipe, tmp_path):
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps({"architectures": ["X"], "model_type": "bert"}))
    for line in (("inspect", tmp_path / "other"), ("plan", recipe, "--set", f"steps.1.checkpoint={tmp_path}/other")):
        refused(raysp_command(*line), "bert")
    assert kit.run(["run", recipe]).code == 0
    ran = raysp_command("plan", recipe, "--set", "steps.1.overlap_seconds=2")
    refused(ran, "its labels were made by another pipeline: `steps.1.overlap_seconds` was 5.0, now 2.0")


def test_a_working_directory_that_is_gone_is_refused_with_what_to_do(raysp_command, tmp_path, monkeypatch):
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    for line in ("models", "status out", "run p.py --rows 1", ""):
        ran = raysp_command(*line.split())
        assert (ran.code, "the working directory is gone" in ran.err, "possibly a bug" in ran.err) == (2, True, False)


def test_an_unexpected_error_is_one_line_and_exit_code_1(raysp_command, recipe, monkeypatch):
    monkeypatch.setattr("importlib.util.spec_from_file_location", statistics.mean)  # as if there were a bug in raysp
    ran = raysp_command("plan", recipe)
    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith("raysp: TypeError: ")
    assert ran.err.endswith(" (possibly a bug in raysp; rerun with --debug)\n")


STOPPING = """
import os, signal
def stop(rows):
    try:
        os.kill(os.getpid(), signal.{signal})
    except BaseException:
        {then}
    return {{"n": [1] * rows.num_rows}}
"""


@pytest.mark.parametrize(
    ("name", "then", "code"),
    [
        ("SIGINT", "raise", 130),
        ("SIGTERM", "pass", 143),
        ("SIGTERM", "raise SystemError('wait returned a result with an exception set') from None", 143),
    ],
)
def test_a_signal_is_a_stop_with_its_code_and_how_to_resume(
    raysp_command, recipe, tmp_path, monkeypatch, name, then, code
):
    """Also where other code, such as a finaliser, drops its exception, or native code turns it into another error."""
    (tmp_path / "stopping_of_a_test.py").write_text(STOPPING.format(signal=name, then=then))
    monkeypatch.syspath_prepend(tmp_path)
    step = 'raysp.Map("stopping_of_a_test:stop", adds={"n": "int64"}, reads=["id"]), '
    recipe.write_text(recipe.read_text().replace("raysp.Label(", f"{step}raysp.Label("))
    ran = raysp_command("run", recipe, "--engine", "here")
    assert ran.code == code, ran.err
    said = f"raysp: stopped; committed and staged labels are kept. To resume: raysp run {recipe} --engine here"
    assert ran.complaints[-1].startswith(said)
    assert "Traceback" not in ran.err
