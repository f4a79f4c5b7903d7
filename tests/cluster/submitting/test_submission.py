"""What is checked before a job is submitted, and what is submitted."""

import io
import json
import re
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

import raysp
from tests.cluster.submitting.conftest import write_pipeline
from tests.cluster.submitting.fake_head import FakeHead
from tests.corpora import CHECKPOINT, write_shard
from tests.kit import run


def git_ignores(folder: Path, patterns: str) -> None:
    subprocess.run(["git", "init", "-q", folder], check=True)
    (folder / ".gitignore").write_text(patterns)


def test_places_that_a_job_does_not_have_are_refused(project, refusal):
    (project / "data").mkdir()
    shutil.copytree(CHECKPOINT, project / "model")
    (project / "words.arpa").write_text("ngram")
    git_ignores(project, "model/\nwords.arpa\n")
    for setting, message in {
        "source.url=corpus": "source.url: 'corpus' is relative to a folder of this machine",
        "source.root=corpus": "source.root: 'corpus' is relative to a folder of this machine",
        "sink.url=corpus": "sink.url: 'corpus' is relative to a folder of this machine",
        f"sink.url={project}/data": "/data' is in the folder of the submitted file, which a job",
        f"steps.2.checkpoint={project}/model": "/model' is a folder of this machine that is not shipped",
        f"steps.2.outputs.0.lm={project}/words.arpa": "/words.arpa' is a file of this machine that is not shipped",
    }.items():
        more = ["--set=steps.2.outputs.0.beams=2"] if "lm" in setting else []
        assert message in refusal(project, *more, f"--set={setting}")


def test_a_checkpoint_beside_the_pipeline_file_travels(project, monkeypatch, head: FakeHead, submitted, refusal):
    shutil.copytree(CHECKPOINT, project / "model")
    monkeypatch.chdir(project)
    for place in (f"{project}/model", "model"):
        submitted(project, f"--set=steps.2.checkpoint={place}")
        assert "model/config.json" in head.sent()
    submitted(project, "--set=steps.2.checkpoint=owner/name")  # of the hub
    monkeypatch.chdir(project.parent)
    said = "steps.2.checkpoint: 'project/model' is relative to "
    assert refusal(project, "--set=steps.2.checkpoint=project/model").startswith(said)


def test_code_and_wheels_that_do_not_travel_are_refused(project, monkeypatch, tmp_path, refusal):
    (tmp_path / "raysp-1-any.whl").write_bytes(b"")
    found = refusal(project, "--with-raysp", tmp_path / "raysp-1-any.whl")
    assert f"the wheel is outside of {project}, the folder of the submitted file" in found
    git_ignores(project, "helper.py\n")
    assert re.search(r"helper.py: .* left out of the package .*by the line !helper.py", refusal(project))
    elsewhere = project.parent / "lib"
    elsewhere.mkdir()
    shutil.move(project / "helper.py", elsewhere / "helper.py")
    monkeypatch.syspath_prepend(elsewhere)
    sys.modules.pop("helper", None)
    outside = f"{elsewhere}/helper.py: code of the submitted file is outside of {project}"
    assert refusal(project).startswith(outside)


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


def test_the_job_of_a_recipe_trains_and_places_of_this_machine_alone_are_refused(project, submitted, refusal):
    def write(*, checkpoint: str = str(CHECKPOINT), evaluated: str = "s3://bucket/dev") -> Path:
        (project / "train_speech.py").write_text(RECIPE.format(checkpoint=checkpoint, evaluated=evaluated))
        return project / "train_speech.py"

    job = submitted(write(), "--set=seed=3")
    assert job["entrypoint"] == "python -m raysp finetune train_speech.py --set seed=3"
    found = job["metadata"]
    assert (found["raysp_sink"], found["raysp_file"]) == ("s3://bucket/model", "train_speech.py")
    found = refusal(write(evaluated="dev"))
    assert re.search(r"^evaluation\.source\.url: 'dev' is relative to a folder of this machine", found)
    (project / "model").mkdir()
    git_ignores(project, "model/\n")
    found = refusal(write(checkpoint=f"{project}/model"))
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


def test_a_job_has_package_command_and_metadata(project, head: FakeHead, submitted):
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
    assert head.sent() == ["helper.py", "label_speech.py"]
    run(["submit", project / "label_speech.py", "--address", head.url, "--detach"])
    assert [method for method, path, _ in head.requests if "/packages/" in path].count("PUT") == 1
    named = Path(f"{project}/label_speech.py:pipeline")
    job = submitted(named, "--set=steps.2.pool.actors=[1, 4]", "--set=sink.url=s3://b/o")
    assert job["entrypoint"] == (
        "python -m raysp run label_speech.py:pipeline --set 'steps.2.pool.actors=[1, 4]' --set sink.url=s3://b/o"
    )


class TestSubmitting:
    def test_a_secret_is_refused_with_the_way_to_give_it(self, project, monkeypatch, submitted, refusal):
        for name in ("CORPUS_SECRET", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "RAY_AUTH_TOKEN", "DB_PASSWORD"):
            monkeypatch.setenv(name, "hush-hush")
            found = refusal(project, "--env", name)
            assert found.startswith(f"--env {name}: looks like a secret, and Ray shows the variables of a job")
            assert ("Kubernetes Secret" in found, "hush-hush" in found) == (True, False)
        monkeypatch.delenv("RAY_AUTH_TOKEN")
        monkeypatch.setenv("OMP_NUM_THREADS", "3")
        job = submitted(project, "--env", "OMP_NUM_THREADS")
        assert job["runtime_env"]["env_vars"]["OMP_NUM_THREADS"] == "3"


def test_raysp_comes_along_as_a_wheel_or_by_a_requirement(project, head: FakeHead, submitted):
    name = f"raysp-{raysp.__version__}-py3-none-any.whl"
    (project / name).write_bytes(b"wheel")
    place = "${RAY_RUNTIME_ENV_CREATE_WORKING_DIR}/"
    for given, pip in (
        (f"{project / name}[av,s3]", f"{place}{name}[av,s3]"),
        (f"{project / name}", f"{place}{name}[s3]"),
        (f"raysp=={raysp.__version__}", f"raysp=={raysp.__version__}"),
    ):
        job = submitted(project, "--with-raysp", given)
        assert job["runtime_env"]["pip"]["packages"] == [pip]
        assert name in head.sent()


@pytest.mark.parametrize(("seconds", "is_withdrawn"), [(-60, True), (60, False)])
def test_a_second_job_over_a_sink_is_refused_and_of_two_at_the_same_moment_the_later_one_withdrawn(
    project, head: FakeHead, refusal, seconds, is_withdrawn
):
    """The other job is in the listing only after the submission."""
    head.add("raysp-first")
    message = "the job raysp-first writes to s3://bucket/labels already (running); follow it with `raysp jobs"
    assert message in refusal(project)
    head.end("raysp-first", "STOPPED")
    head.beside = lambda: head.add("raysp-other", start_time=int((time.time() + seconds) * 1000))
    ran = run(["submit", project / "label_speech.py", "--address", head.url, "--detach"])
    assert ran.code == (2 if is_withdrawn else 0)
    assert ("the job raysp-other writes to s3://bucket/labels already" in ran.err) == is_withdrawn
    stopped = [name for name, job in head.jobs.items() if job.get("asked_to_stop")]
    assert (len(stopped), "raysp-other" in stopped) == (is_withdrawn, False)
