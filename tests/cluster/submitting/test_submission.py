"""What is checked before a job is submitted, and what is submitted."""

import io
import json
import os
import re
import shutil
import time
import zipfile
from pathlib import Path

import pytest

import raysp
from raysp import PlanError, SpecError
from raysp.cluster.submitting import sealing
from raysp.cluster.submitting.head import Head
from raysp.cluster.submitting.submission import MAX_BYTES, prepare, submit
from raysp.sink.shares import ALL, Share
from raysp.specs.pipeline import label_parts
from raysp.specs.work_files import load_pipeline
from tests.cluster.submitting.conftest import write_pipeline
from tests.cluster.submitting.fake_head import FakeHead
from tests.corpora import CHECKPOINT


def prepared(project: Path, *settings: str, **options):
    return prepare(str(project / "label_speech.py"), settings, **options)


class TestChecks:
    def test_the_folder_of_the_pipeline_file_is_the_package(self, project):
        request = prepared(project)
        assert [file.name for file in request.package.files] == ["helper.py", "label_speech.py"]
        assert MAX_BYTES == 100_000_000

    @pytest.mark.parametrize(
        ("setting", "message"),
        [
            ("sink.ulr=s3://b/x", "Parquet has no field 'ulr'"),
            ("source.split=3", "split"),
            ("steps.7.pool.actors=2", "steps.7"),
        ],
    )
    def test_a_setting_that_the_pipeline_has_not_is_refused(self, project, setting, message):
        with pytest.raises(SpecError, match=re.escape(message)):
            prepared(project, setting)

    @pytest.mark.parametrize("field", ["source.url", "source.root", "source.audio_root", "sink.url"])
    def test_a_relative_place_is_refused_with_what_to_do(self, project, field):
        with pytest.raises(PlanError, match=rf"^{field}: 'corpus' is relative to a folder of this machine"):
            prepared(project, f"{field}=corpus")

    @pytest.mark.parametrize("field", ["source.url", "sink.url"])
    def test_data_beside_the_pipeline_file_is_refused(self, project, field):
        (project / "data").mkdir()
        with pytest.raises(
            PlanError, match=rf"^{field}: '.*/data' is in the folder of the submitted file, which a job"
        ):
            prepared(project, f"{field}={project}/data")

    def test_an_absolute_path_may_be_shared_and_is_left_to_the_job(self, project):
        assert prepared(project, "sink.url=/mnt/labels").metadata["raysp_sink"] == "/mnt/labels"

    def test_a_checkpoint_beside_the_pipeline_file_travels(self, project, monkeypatch):
        shutil.copytree(CHECKPOINT, project / "model")
        monkeypatch.chdir(project)
        for place in (f"{project}/model", "model"):
            assert prepared(project, f"steps.2.checkpoint={place}").package.holds(project / "model" / "config.json")
        monkeypatch.chdir(project.parent)
        with pytest.raises(PlanError, match=r"^checkpoint: 'project/model' is relative to .*; submit from there as"):
            prepared(project, "steps.2.checkpoint=project/model")

    def test_a_checkpoint_that_does_not_travel_is_refused(self, project, monkeypatch):
        shutil.copytree(CHECKPOINT, project / "model")
        (project / ".raysignore").write_text("model/\n")
        monkeypatch.chdir(project)
        with pytest.raises(PlanError, match=r"^checkpoint: 'model' is a folder of this machine that is not shipped"):
            prepared(project, "steps.2.checkpoint=model")

    @pytest.mark.parametrize("field", ["lm", "checkpoint"])
    def test_what_outputs_read_travels_or_is_refused(self, project, monkeypatch, field):
        given = "Transcript(beams=2, lm='beside')" if field == "lm" else "Align(of='pred', checkpoint='beside')"
        file = project / "label_speech.py"
        file.write_text(file.read_text().replace("[raysp.Transcript()]", f"[raysp.Transcript('pred'), raysp.{given}]"))
        file.write_text(file.read_text().replace("Transcript(beams", "Transcript('other', beams"))
        if field == "lm":
            (project / "beside").write_text("ngram")
        else:
            shutil.copytree(CHECKPOINT, project / "beside")
        monkeypatch.chdir(project)
        prepared(project)
        (project / ".raysignore").write_text("beside\n")
        with pytest.raises(PlanError, match=rf"^{field}: 'beside' is a \w+ of this machine that is not shipped"):
            prepared(project)
        (project / ".raysignore").unlink()
        (project.parent / "beside").symlink_to(project / "beside")
        monkeypatch.chdir(project.parent)
        with pytest.raises(PlanError, match=rf"^{field}: 'beside' is a \w+ of this machine that is not shipped"):
            prepared(project)

    def test_a_checkpoint_of_the_hub_is_no_folder(self, project):
        prepared(project, "steps.2.checkpoint=owner/name")

    def test_code_outside_of_the_folder_is_refused(self, project, monkeypatch):
        elsewhere = project.parent / "lib"
        elsewhere.mkdir()
        shutil.move(project / "helper.py", elsewhere / "helper.py")
        monkeypatch.syspath_prepend(elsewhere)
        outside = f"{elsewhere}/helper.py: code of the submitted file is outside of {project}"
        with pytest.raises(SpecError, match=f"^{outside}"):
            prepared(project)

    @pytest.mark.parametrize("left_out", ["helper.py", "label_speech.py"])
    def test_code_that_an_ignore_file_leaves_out_is_refused(self, project, left_out):
        (project / ".gitignore").write_text(f"{left_out}\n")
        with pytest.raises(SpecError, match=rf"{left_out}: .* left out of the package .*by the line !{left_out}"):
            prepared(project)

    def test_a_folder_named_by_a_link_is_the_folder(self, project):
        link = project.parent / "link"
        link.symlink_to(project)
        assert len(prepared(link).package.files) == 2

    def test_a_missing_file_is_refused(self, tmp_path):
        with pytest.raises(SpecError, match=r"missing\.py: no such file"):
            prepare(str(tmp_path / "missing.py"))

    @pytest.mark.parametrize("name", ["raysp-9.9.9-py3-none-any.whl", "torch-2.0-py3-none-any.whl"])
    def test_a_wheel_of_another_version_is_refused(self, project, tmp_path, name):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(SpecError, match=rf"expected a wheel of raysp {raysp.__version__}, the version here"):
            prepared(project, with_raysp=str(tmp_path / name))
        with pytest.raises(SpecError, match=r"no such file; expected a wheel"):
            prepared(project, with_raysp=str(tmp_path / "gone.whl"))


def test_the_command_runs_the_file_in_the_package_with_its_settings(project):
    request = prepared(project, "steps.2.pool.actors=[1, 4]", "sink.url=s3://b/o", relabel=True)
    assert request.command == (
        "python -m raysp run label_speech.py --set 'steps.2.pool.actors=[1, 4]' --set sink.url=s3://b/o --relabel"
    )
    named = prepare(f"{project}/label_speech.py:pipeline")
    assert named.command == "python -m raysp run label_speech.py:pipeline"


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

    def test_its_job_trains(self, recipe):
        request = prepare(str(recipe), ["seed=3"])
        assert request.command == "python -m raysp finetune train_speech.py --set seed=3"
        assert (request.metadata["raysp_sink"], request.metadata["raysp_file"]) == ("s3://bucket/model", recipe.name)

    def test_options_of_runs_are_refused(self, recipe):
        with pytest.raises(SpecError, match=r"^--relabel: .*train_speech\.py is a recipe, which labels no shards"):
            prepare(str(recipe), relabel=True)
        with pytest.raises(SpecError, match=r"^--shards: .* is a recipe"):
            prepare(str(recipe), share=Share(1, 2))

    def test_places_of_this_machine_alone_are_refused(self, project):
        with pytest.raises(PlanError, match=r"^evaluation\.source\.url: 'dev' is relative to a folder of this machine"):
            prepare(str(self.write(project, evaluated="dev")))
        (project / "model").mkdir()
        (project / ".raysignore").write_text("model/\n")
        with pytest.raises(PlanError, match=r"^checkpoint: .* is a folder of this machine that is not shipped"):
            prepare(str(self.write(project, checkpoint=f"{project}/model")))


def test_the_code_of_the_package_has_the_fingerprint_of_the_code_here(project, tmp_path):
    """A job imports the pipeline from its copy of the package."""
    import sys

    def parts(file: Path):
        for name in ("helper", "label_speech"):
            sys.modules.pop(name, None)
        return label_parts(load_pipeline(str(file)), checkpoint_digest="x", dtype="float32")

    here = parts(project / "label_speech.py")
    prepared(project).package.write(tmp_path / "package.zip")
    zipfile.ZipFile(tmp_path / "package.zip").extractall(tmp_path / "copy")
    (project / "helper.py").unlink()
    sys.path.remove(str(project))
    there = parts(tmp_path / "copy" / "label_speech.py")
    assert there == here
    assert any(name.startswith("code.helper") for name in here)


class TestSubmitting:
    def test_a_job_has_package_command_and_metadata(self, project, head: FakeHead):
        job_id = submit(Head(head.url), prepared(project))
        job = head.submitted()
        assert re.fullmatch(r"raysp-label-speech-\d{8}-\d{6}-[0-9a-f]{4}", job_id)
        assert job["entrypoint"] == "python -m raysp run label_speech.py"
        assert job["metadata"] == {
            "raysp_version": raysp.__version__,
            "raysp_sink": "s3://bucket/labels",
            "raysp_file": "label_speech.py",
            "raysp_shards": "1/1",
        }
        assert job["runtime_env"]["env_vars"] == {
            "RAYSP_SUBMITTED_BY": raysp.__version__,
            "RAY_JOB_STOP_WAIT_TIME_S": "120",
        }
        assert {*job["runtime_env"]} == {"env_vars", "working_dir"}
        [package] = head.packages.values()
        assert zipfile.ZipFile(io.BytesIO(package)).namelist() == ["helper.py", "label_speech.py"]

    def test_an_unchanged_package_is_uploaded_once(self, project, head: FakeHead):
        for _ in range(2):
            head.jobs.clear()
            submit(Head(head.url), prepared(project))
        assert [method for method, path, _ in head.requests if "/packages/" in path].count("PUT") == 1

    def test_a_second_job_over_a_sink_is_refused_while_the_first_is_active(self, project, head: FakeHead):
        head.add("raysp-first")
        message = r"the job raysp-first writes to s3://bucket/labels already \(running\); follow it with `raysp jobs"
        with pytest.raises(PlanError, match=message):
            submit(Head(head.url), prepared(project))
        head.end("raysp-first", "STOPPED")
        submit(Head(head.url), prepared(project))
        assert len(head.jobs) == 2

    @pytest.mark.parametrize(("seconds", "is_withdrawn"), [(-60, True), (60, False)])
    def test_of_two_jobs_submitted_at_the_same_moment_the_later_one_is_withdrawn(
        self, project, head: FakeHead, monkeypatch, seconds, is_withdrawn
    ):
        """The other job is in the listing only after the submission."""
        send = Head.submit

        def submit_both(self: Head, *asked: object) -> None:
            head.add("raysp-other", start_time=int((time.time() + seconds) * 1000))
            send(self, *asked)

        monkeypatch.setattr(Head, "submit", submit_both)
        if is_withdrawn:
            with pytest.raises(PlanError, match="the job raysp-other writes to s3://bucket/labels already"):
                submit(Head(head.url), prepared(project))
        else:
            submit(Head(head.url), prepared(project))
        stopped = [name for name, job in head.jobs.items() if job.get("asked_to_stop")]
        assert len(stopped) == is_withdrawn
        assert "raysp-other" not in stopped

    def test_jobs_over_other_shares_of_the_shards_run_beside_each_other(self, project, head: FakeHead):
        submit(Head(head.url), prepared(project, share=Share(1, 2)))
        first = head.submitted()
        assert first["entrypoint"] == "python -m raysp run label_speech.py --shards 1/2"
        message = rf"the job {first['submission_id']} writes to s3://bucket/labels \(--shards 1/2\) already \(running\)"
        for overlapping in (Share(1, 2), Share(3, 4), Share(1, 3), ALL):
            with pytest.raises(PlanError, match=message):
                submit(Head(head.url), prepared(project, share=overlapping))
        submit(Head(head.url), prepared(project, share=Share(2, 2)))

    def test_secrets_travel_sealed_and_in_nothing_that_is_sent(self, project, head: FakeHead, monkeypatch):
        head.token = "4f1c" * 16
        monkeypatch.setenv("RAY_AUTH_TOKEN", head.token)
        monkeypatch.setattr("raysp.cluster.submitting.head.own_token", lambda: head.token)
        monkeypatch.setenv("CORPUS_SECRET", "hush-hush")
        submit(Head(head.url), prepared(project, secrets=["CORPUS_SECRET", "CORPUS_SECRET"]))
        job = head.submitted()
        assert "hush-hush" not in json.dumps(job)
        assert all(b"hush-hush" not in package for package in head.packages.values())
        assert json.loads(job["runtime_env"]["env_vars"]["RAYSP_SEALED"])["names"] == ["CORPUS_SECRET"]
        assert job["runtime_env"]["worker_process_setup_hook"] == "raysp.cluster.submitting.sealing.open_sealed"
        monkeypatch.delenv("CORPUS_SECRET")
        monkeypatch.setenv(sealing.SEALED, job["runtime_env"]["env_vars"]["RAYSP_SEALED"])
        monkeypatch.setattr(sealing, "own_token", lambda: head.token)
        sealing.check_opened()
        assert os.environ["CORPUS_SECRET"] == "hush-hush"

    def test_secrets_are_not_sent_to_a_cluster_without_a_token(self, project, head: FakeHead, monkeypatch):
        monkeypatch.setenv("CORPUS_SECRET", "hush-hush")
        with pytest.raises(SpecError, match=r"^--env CORPUS_SECRET: values are sealed with the token of the"):
            submit(Head(head.url), prepared(project, secrets=["CORPUS_SECRET"]))
        assert not head.jobs

    @pytest.mark.parametrize(("given", "extras"), [("", "[s3]"), ("[av,s3,speech]", "[av,s3,speech]")])
    def test_raysp_comes_along_as_a_wheel_or_by_a_requirement(self, project, head: FakeHead, tmp_path, given, extras):
        name = f"raysp-{raysp.__version__}-py3-none-any.whl"
        (tmp_path / name).write_bytes(b"wheel")
        submit(Head(head.url), prepared(project, with_raysp=f"{tmp_path / name}{given}"))
        [package] = head.packages.values()
        assert zipfile.ZipFile(io.BytesIO(package)).read(name) == b"wheel"
        pip = head.submitted()["runtime_env"]["pip"]["packages"]
        assert pip == ["${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/" + name + extras]
        head.jobs.clear()
        submit(Head(head.url), prepared(project, with_raysp=f"raysp=={raysp.__version__}"))
        assert head.submitted()["runtime_env"]["pip"]["packages"] == [f"raysp=={raysp.__version__}"]


def test_what_the_fixture_writes_is_a_pipeline(project):
    assert load_pipeline(str(write_pipeline(project))).source.url == "s3://bucket/in/*.parquet"
