"""Errors, interrupts and help: exit codes and what is printed where."""

import os
import signal
import statistics
import subprocess
import sys

import pytest

from raysp import RunError


class TestErrors:
    def test_a_traceback_is_shown_with_debug_alone(self, raysp_command, tmp_path):
        assert "Traceback" not in raysp_command("plan", tmp_path / "missing.py").err
        ran = raysp_command("plan", tmp_path / "missing.py", "--debug")
        assert ran.code == 2
        assert ran.err.startswith("Traceback (most recent call last)")
        assert "no such file" in ran.err.splitlines()[-1]

    @pytest.mark.slow
    def test_debug_shows_it_in_a_real_process_too(self, tmp_path):
        command = [sys.executable, "-m", "raysp.cli", "plan", str(tmp_path / "missing.py")]
        plain, debug = (
            subprocess.run([*command, *more], capture_output=True, text=True, check=False) for more in ([], ["--debug"])
        )
        assert (plain.returncode, len(plain.stderr.splitlines()), plain.stdout) == (2, 1, "")
        assert "Traceback (most recent call last)" in debug.stderr
        assert debug.returncode == 2

    @pytest.mark.parametrize("verb", ["models", "status out", "plan p.py", "run p.py --rows 1", "doctor", ""])
    def test_a_working_directory_that_is_gone_is_refused_with_what_to_do(
        self, raysp_command, tmp_path, monkeypatch, verb
    ):
        gone = tmp_path / "gone"
        gone.mkdir()
        monkeypatch.chdir(gone)
        gone.rmdir()
        ran = raysp_command(*verb.split())
        assert ran.code == 2
        assert "the working directory is gone" in ran.err
        assert "possibly a bug" not in ran.err

    def test_an_unexpected_error_is_one_line_and_exit_code_1(self, raysp_command, recipe, monkeypatch):
        monkeypatch.setattr("raysp.work.load_work", statistics.mean)  # Python's own, so no code of a user
        ran = raysp_command("plan", recipe)
        assert ran.code == 1
        assert ran.err.startswith("raysp: TypeError: ")
        assert ran.err.endswith(" (possibly a bug in raysp; rerun with --debug)\n")

    def test_a_failure_during_a_run_is_exit_code_1(self, raysp_command, recipe, monkeypatch):
        def fail(*_: object, **__: object) -> None:
            raise RunError("201 of 300 rows failed")

        monkeypatch.setattr("raysp.labelling.engine.running.run", fail)
        ran = raysp_command("run", recipe)
        assert (ran.code, ran.complaints) == (1, ["raysp: 201 of 300 rows failed"])

    @pytest.mark.parametrize("where", ["load", "run"])
    def test_ctrl_c_is_exit_code_130_and_prints_how_to_resume(self, raysp_command, recipe, monkeypatch, where):
        def interrupt(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(sys, "argv", ["raysp", "run", str(recipe)])
        monkeypatch.setattr(
            "raysp.specs.work_files.load_pipeline" if where == "load" else "raysp.labelling.engine.running.run",
            interrupt,
        )
        ran = raysp_command("run", recipe)
        assert ran.code == 130
        assert "Traceback" not in ran.err
        assert [line.partition("To resume: ")[2] for line in ran.complaints] == [f"raysp run {recipe}"] * (
            where == "run"
        )

    @pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
    def test_a_signal_that_native_code_turns_into_another_error_is_a_stop(
        self, raysp_command, recipe, monkeypatch, number, code
    ):
        def wait_in_native_code(*_: object, **__: object) -> None:
            try:
                os.kill(os.getpid(), number)
            except BaseException:
                raise SystemError("wait returned a result with an exception set") from None

        monkeypatch.setattr("raysp.labelling.engine.running.run", wait_in_native_code)
        ran = raysp_command("run", recipe)
        assert ran.code == code
        [complaint] = ran.complaints
        assert complaint.startswith("raysp: stopped; committed and staged labels are kept. To resume: ")

    def test_without_arguments_the_help_is_shown(self, raysp_command):
        ran = raysp_command()
        assert "Usage: raysp" in ran.out
        assert (ran.code, ran.err) == (2, "")

    def test_help_is_not_an_error(self, raysp_command):
        for arguments in (["--help"], ["plan", "--help"]):
            ran = raysp_command(*arguments)
            assert (ran.code, ran.err) == (0, "")
            assert "Usage: raysp" in ran.out
