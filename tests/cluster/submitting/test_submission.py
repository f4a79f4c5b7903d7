"""What is checked before a job is submitted, and what is submitted."""

import io
import json
import re
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import raysp
from tests.cluster.submitting.conftest import write_pipeline
from tests.cluster.submitting.fake_head import FakeHead
from tests.corpora import CHECKPOINT, write_shard
from tests.kit import Ran, run

Submit = Callable[..., dict[str, object]]
Refuse = Callable[..., str]


def submit(head: FakeHead, file: Path, *settings: str, options: Sequence[object] = ()) -> Ran:
    file = file / "label_speech.py" if file.is_dir() else file
    line = ["submit", file, "--address", head.url, "--detach", *(f"--set={one}" for one in settings), *options]
    return run(line)


@pytest.fixture
def submitted(head: FakeHead) -> Submit:
    """A function that submits a pipeline file, and returns the job."""

    def submitted(file: Path, *settings: str, options: Sequence[object] = ()) -> dict[str, object]:
        head.jobs.clear()
        ran = submit(head, file, *settings, options=options)
        assert ran.code == 0, ran.err
        return head.submitted()

    return submitted


@pytest.fixture
def refusal(head: FakeHead) -> Refuse:
    """A function that submits a pipeline file, and returns why it is refused."""

    def refused(file: Path, *settings: str, options: Sequence[object] = ()) -> str:
        jobs = dict(head.jobs)
        ran = submit(head, file, *settings, options=options)
        assert (ran.code, head.jobs) == (2, jobs)
        return ran.err.removeprefix("raysp: ")

    return refused


def git_ignores(folder: Path, patterns: str) -> None:
    subprocess.run(["git", "init", "-q", folder], check=True)
    (folder / ".gitignore").write_text(patterns)


def names_in_the_package(head: FakeHead) -> list[str]:
    """Return the names of the files that were sent last."""
    *_, package = head.packages.values()
    return sorted(zipfile.ZipFile(io.BytesIO(package)).namelist())


class TestChecks:
    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ("sink.ulr=s3://b/x", "Parquet has no field 'ulr'"),
            ("source.split=3", "split"),
            ("steps.7.pool.actors=2", "steps.7"),
        ],
    )
    def test_a_setting_that_the_pipeline_has_not_is_refused(self, project, setting, message, refusal):
        assert re.search(re.escape(message), refusal(project, setting))

    @pytest.mark.parametrize("field", ["source.url", "source.root", "source.audio_root", "sink.url"])
    def test_a_relative_place_is_refused_with_what_to_do(self, project, field, refusal):
        assert re.search(
            rf"^{field}: 'corpus' is relative to a folder of this machine", refusal(project, f"{field}=corpus")
        )

    @pytest.mark.parametrize("field", ["source.url", "sink.url"])
    def test_data_beside_the_pipeline_file_is_refused(self, project, field, refusal):
        (project / "data").mkdir()
        assert re.search(
            rf"^{field}: '.*/data' is in the folder of the submitted file, which a job",
            refusal(project, f"{field}={project}/data"),
        )

    def test_a_checkpoint_beside_the_pipeline_file_travels(self, project, monkeypatch, head, submitted, refusal):
        shutil.copytree(CHECKPOINT, project / "model")
        monkeypatch.chdir(project)
        for place in (f"{project}/model", "model"):
            head.packages.clear()
            submitted(project, f"steps.2.checkpoint={place}")
            assert "model/config.json" in names_in_the_package(head)
        monkeypatch.chdir(project.parent)
        assert re.search(
            r"^steps\.2\.checkpoint: 'project/model' is relative to .*; submit from there as",
            refusal(project, "steps.2.checkpoint=project/model"),
        )

    def test_a_checkpoint_that_does_not_travel_is_refused(self, project, monkeypatch, refusal):
        shutil.copytree(CHECKPOINT, project / "model")
        git_ignores(project, "model/\n")
        monkeypatch.chdir(project)
        assert re.search(
            r"^steps\.2\.checkpoint: 'model' is a folder of this machine that is not shipped",
            refusal(project, "steps.2.checkpoint=model"),
        )

    @pytest.mark.parametrize("field", ["lm", "checkpoint"])
    def test_what_outputs_read_travels_or_is_refused(self, project, monkeypatch, field, submitted, refusal):
        given = "Transcript(beams=2, lm='beside')" if field == "lm" else "Turns(checkpoint='beside')"
        file = project / "label_speech.py"
        file.write_text(file.read_text().replace("[raysp.Transcript()]", f"[raysp.Transcript('pred'), raysp.{given}]"))
        file.write_text(file.read_text().replace("Transcript(beams", "Transcript('other', beams"))
        if field == "lm":
            (project / "beside").write_text("ngram")
        else:
            shutil.copytree(CHECKPOINT, project / "beside")
        monkeypatch.chdir(project)
        submitted(project)
        git_ignores(project, "beside\n")
        refused = rf"^steps\.2\.outputs\.1\.{field}: 'beside' is a \w+ of this machine that is not shipped"
        assert re.search(refused, refusal(project))
        (project / ".gitignore").unlink()
        (project.parent / "beside").symlink_to(project / "beside")
        monkeypatch.chdir(project.parent)
        assert re.search(refused, refusal(project))

    def test_a_checkpoint_of_the_hub_is_no_folder(self, project, submitted):
        submitted(project, "steps.2.checkpoint=owner/name")

    def test_code_outside_of_the_folder_is_refused(self, project, monkeypatch, refusal):
        elsewhere = project.parent / "lib"
        elsewhere.mkdir()
        shutil.move(project / "helper.py", elsewhere / "helper.py")
        monkeypatch.syspath_prepend(elsewhere)
        outside = f"{elsewhere}/helper.py: code of the submitted file is outside of {project}"
        assert re.search(f"^{outside}", refusal(project))

    @pytest.mark.parametrize("left_out", ["helper.py", "label_speech.py"])
    def test_code_that_git_ignores_is_refused(self, project, left_out, refusal):
        git_ignores(project, f"{left_out}\n")
        assert re.search(rf"{left_out}: .* left out of the package .*by the line !{left_out}", refusal(project))

    def test_a_wheel_that_does_not_travel_is_refused(self, project, tmp_path, refusal):
        (tmp_path / "raysp-1-any.whl").write_bytes(b"")
        found = refusal(project, options=["--with-raysp", tmp_path / "raysp-1-any.whl"])
        assert f"the wheel is outside of {project}, the folder of the submitted file" in found
        assert "no such file; expected a wheel" in refusal(project, options=["--with-raysp", tmp_path / "gone.whl"])


def test_the_command_runs_the_file_in_the_package_with_its_settings(project, submitted):
    job = submitted(project, "steps.2.pool.actors=[1, 4]", "sink.url=s3://b/o")
    assert job["entrypoint"] == (
        "python -m raysp run label_speech.py --set 'steps.2.pool.actors=[1, 4]' --set sink.url=s3://b/o"
    )
    named = submitted(Path(f"{project}/label_speech.py:pipeline"))
    assert named["entrypoint"] == "python -m raysp run label_speech.py:pipeline"


RECIPE = """
import raysp

recipe = raysp.Finetune(
    raysp.Shards("s3://bucket/in/*.parquet", text="text"),
    steps=[raysp.Decode()],
    objective=raysp.CTC({checkpoint!r}),
    schedule=raysp.Schedule(epochs=1),
    evaluation=raysp.Evaluation(raysp.Shards({evaluated!r}, text="text")),
    sink=raysp.Checkpoint("s3://bucket/model"),
)
"""


class TestARecipe:
    @pytest.fixture
    def recipe(self, project) -> Path:
        return self.write(project)

    def write(self, folder: Path, *, checkpoint: str = str(CHECKPOINT), evaluated: str = "s3://bucket/dev") -> Path:
        file = folder / "train_speech.py"
        file.write_text(RECIPE.format(checkpoint=checkpoint, evaluated=evaluated))
        return file

    def test_its_job_trains(self, recipe, submitted):
        job = submitted(recipe, "seed=3")
        assert job["entrypoint"] == "python -m raysp finetune train_speech.py --set seed=3"
        found = job["metadata"]
        assert (found["raysp_sink"], found["raysp_file"]) == ("s3://bucket/model", recipe.name)

    def test_places_of_this_machine_alone_are_refused(self, project, refusal):
        found = refusal(self.write(project, evaluated="dev"))
        assert re.search(r"^evaluation\.source\.url: 'dev' is relative to a folder of this machine", found)
        (project / "model").mkdir()
        git_ignores(project, "model/\n")
        found = refusal(self.write(project, checkpoint=f"{project}/model"))
        assert re.search(r"^objective\.checkpoint: .* is a folder of this machine that is not shipped", found)


def test_the_code_of_the_package_has_the_fingerprint_of_the_code_here(project, head, submitted, tmp_path):
    """A job imports the pipeline from its copy of the package."""
    write_shard(tmp_path / "in" / "a.parquet", 1)
    write_pipeline(project, source=f"{tmp_path}/in/*.parquet", sink=f"{tmp_path}/out")

    def planned(folder: Path) -> dict[str, object]:
        for name in ("helper", "label_speech"):
            sys.modules.pop(name, None)
        return json.loads(run(["plan", folder / "label_speech.py", "--sample", 0, "--json"]).out)

    here = planned(project)
    submitted(project)
    [package] = head.packages.values()
    zipfile.ZipFile(io.BytesIO(package)).extractall(tmp_path / "copy")
    (project / "helper.py").unlink()
    there = planned(tmp_path / "copy")
    assert (there["parts"], there["fingerprint"]) == (here["parts"], here["fingerprint"])
    assert any(name.startswith("code.helper") for name in here["parts"])


class TestSubmitting:
    def test_a_job_has_package_command_and_metadata(self, project, head: FakeHead, submitted):
        job = submitted(project)
        assert re.fullmatch(r"raysp-label-speech-\d{8}-\d{6}-[0-9a-f]{4}", job["submission_id"])
        assert job["entrypoint"] == "python -m raysp run label_speech.py"
        assert job["metadata"] == {
            "raysp_version": raysp.__version__,
            "raysp_sink": "s3://bucket/labels",
            "raysp_file": "label_speech.py",
        }
        assert job["runtime_env"]["env_vars"] == {
            "RAYSP_SUBMITTED_BY": raysp.__version__,
            "RAY_JOB_STOP_WAIT_TIME_S": "120",
        }
        assert {*job["runtime_env"]} - {"excludes"} == {"env_vars", "working_dir"}
        assert names_in_the_package(head) == ["helper.py", "label_speech.py"]

    def test_an_unchanged_package_is_uploaded_once(self, project, head: FakeHead, submitted):
        for _ in range(2):
            submitted(project)
        assert [method for method, path, _ in head.requests if "/packages/" in path].count("PUT") == 1

    def test_a_second_job_over_a_sink_is_refused_while_the_first_is_active(self, project, head: FakeHead, refusal):
        head.add("raysp-first")
        message = "the job raysp-first writes to s3://bucket/labels already (running); follow it with `raysp jobs"
        assert message in refusal(project)
        head.end("raysp-first", "STOPPED")
        assert submit(head, project).code == 0
        assert len(head.jobs) == 2

    @pytest.mark.parametrize(("seconds", "is_withdrawn"), [(-60, True), (60, False)])
    def test_of_two_jobs_submitted_at_the_same_moment_the_later_one_is_withdrawn(
        self, project, head: FakeHead, seconds, is_withdrawn
    ):
        """The other job is in the listing only after the submission."""
        head.beside = lambda: head.add("raysp-other", start_time=int((time.time() + seconds) * 1000))
        ran = submit(head, project)
        assert ran.code == (2 if is_withdrawn else 0)
        assert ("the job raysp-other writes to s3://bucket/labels already" in ran.err) == is_withdrawn
        stopped = [name for name, job in head.jobs.items() if job.get("asked_to_stop")]
        assert len(stopped) == is_withdrawn
        assert "raysp-other" not in stopped

    def test_a_variable_is_set_in_the_job_as_it_is_here(self, project, monkeypatch, submitted):
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        job = submitted(project, options=["--env", "OMP_NUM_THREADS"])
        assert job["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "3"

    @pytest.mark.parametrize(
        "name", ["CORPUS_SECRET", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "DB_PASSWORD"]
    )
    def test_a_secret_is_refused_with_the_way_to_give_it(self, project, name, monkeypatch, refusal):
        monkeypatch.setenv(name, "hush-hush")
        found = refusal(project, options=["--env", name])
        assert found.startswith(f"--env {name}: looks like a secret, and Ray shows the variables of a job")
        assert "Kubernetes Secret" in found
        assert "hush-hush" not in found

    @pytest.mark.parametrize(("given", "extras"), [("", "[s3]"), ("[av,s3,speech]", "[av,s3,speech]")])
    def test_raysp_comes_along_as_a_wheel_or_by_a_requirement(self, project, head: FakeHead, given, extras, submitted):
        name = f"raysp-{raysp.__version__}-py3-none-any.whl"
        (project / name).write_bytes(b"wheel")
        job = submitted(project, options=["--with-raysp", f"{project / name}{given}"])
        assert name in names_in_the_package(head)
        pip = job["runtime_env"]["pip"]["packages"]
        assert pip == ["${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/" + name + extras]
        job = submitted(project, options=["--with-raysp", f"raysp=={raysp.__version__}"])
        assert job["runtime_env"]["pip"]["packages"] == [f"raysp=={raysp.__version__}"]
