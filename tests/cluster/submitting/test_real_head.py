"""A pipeline submitted to a real head with dashboard and token, from object storage to object storage."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from prometheus_client.parser import text_string_to_metric_families

import raysp
from tests.cluster.submitting.real_head import RealHead, real_head
from tests.corpora import wav
from tests.kit import pipeline_file
from tests.kubernetes.manifests import METRICS, SINK
from tests.runs import CHECKPOINT, audio_shard, row_hash
from tests.s3_servers import S3Server

pytestmark = [pytest.mark.cluster, pytest.mark.drivers, pytest.mark.slow]

HOLDING = """
import time
from pathlib import Path


def hold(rows):
    while rows.num_rows and Path({file!r}).exists() and rows["id"][0].as_py() not in {first!r}:
        time.sleep(0.1)
    return [True] * rows.num_rows
"""
"""A filter that holds rows while a file exists, except for those of the first shard, and keeps every row."""


def secrets_of(s3: S3Server) -> dict[str, str]:
    """Return what a pipeline needs from its environment: here, and on the nodes of the cluster."""
    return {
        "CORPUS_SECRET": s3.secret,
        "AWS_ACCESS_KEY_ID": s3.key,
        "AWS_SECRET_ACCESS_KEY": s3.secret,
        "AWS_ENDPOINT_URL": s3.endpoint,
    }


@pytest.fixture(scope="module")
def head(s3_server: S3Server):
    with real_head(secrets_of(s3_server)) as started:
        yield started


@pytest.fixture
def bucket(s3, small_shards) -> str:
    name = s3.bucket()
    s3.upload(small_shards, name, "in/")
    s3.upload(CHECKPOINT, name, "models/digits/")
    return name


@pytest.fixture
def project(s3: S3Server, bucket, small_shards, tmp_path, monkeypatch) -> Path:
    """A pipeline file and a module beside it, whose filter holds all shards but the first."""
    (folder := tmp_path / "project").mkdir()
    first = pq.read_table(small_shards / "part-0.parquet").column("id").to_pylist()
    (folder / "holding.py").write_text(HOLDING.format(file=str(tmp_path / "held"), first=first))
    (tmp_path / "held").touch()
    monkeypatch.syspath_prepend(folder)
    options = {"key": s3.key, "secret": raysp.Env("CORPUS_SECRET"), "endpoint_url": s3.endpoint}
    label = raysp.Label(f"s3://{bucket}/models/digits", outputs=[raysp.Transcript()])
    pipeline = raysp.Pipeline(
        raysp.Shards(f"s3://{bucket}/in/*.parquet", text="text", storage_options=options),
        steps=[raysp.Keep(where="holding:hold"), raysp.Decode(), label],
        sink=raysp.Parquet(f"s3://{bucket}/labels", keep=["speaker_id"], storage_options=options),
    )
    pipeline_file(folder / "label_digits_on_s3.py", pipeline)
    return folder


@pytest.fixture
def start(head: RealHead, s3: S3Server, project) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """A function that starts a command of raysp in a process of its own, with the token of the cluster."""
    environment = {**head.environment, **secrets_of(s3), "XDG_CACHE_HOME": str(project.parent / "cache")}
    started: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "raysp", *arguments]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, env=environment, stdout=pipe, stderr=pipe, text=True, cwd="/"))
        return started[-1]

    yield begin
    for command in started:  # that a failed test left behind
        command.kill()
        command.wait()


def ended(command: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, said = command.communicate(timeout=300)
    return command.returncode, out, said


def committed(s3: S3Server, bucket: str, folder: Path) -> list[str]:
    return sorted(key for key in s3.download(bucket, folder) if key.startswith("labels/part-"))


def test_a_job_that_is_stopped_half_way_and_submitted_again_gives_the_rows_of_one_machine(
    s3, bucket, start, project, head, make_pipeline, small_shards, tmp_path
):
    file, address = str(project / "label_digits_on_s3.py"), ("--address", head.url)
    following = start("submit", file, *address)
    shown = []
    for line in following.stderr:  # live: the job cannot end before its rows are released
        shown.append(line)
        if "120 of 120 rows to do" in line:
            break
    assert following.poll() is None, "".join(shown)
    job_id = next(line for line in shown if "following" in line).split()[2].rstrip(";")
    while not s3.client.list_objects_v2(Bucket=bucket, Prefix="labels/part-").get("KeyCount"):
        assert following.poll() is None, following.communicate()
        time.sleep(0.1)

    code, out, said = ended(start("stop", job_id, *address, "--json"))
    assert (code, json.loads(out)["status"]) == (0, "stopped"), said
    code, out, said = ended(following)
    assert code == 143
    assert said.count("To resume: submit it again") == 1, said  # of the job, or of its client if Ray killed it first
    committed = [key for key in s3.download(bucket, tmp_path / "half") if key.startswith("labels/part-")]
    assert committed == ["labels/part-0.parquet"]
    (tmp_path / "held").unlink()

    code, out, said = ended(start("submit", file, *address, "--json"))
    assert (code, json.loads(out)["exit_code"]) == (0, 0), said
    assert "1 of 6 shards committed already" in said
    alone = make_pipeline(small_shards, sink="alone", source={"text": "text"}, sink_options={"keep": ["speaker_id"]})
    raysp.run(alone, engine="here", progress=False)
    s3.download(bucket, tmp_path / "all")
    assert row_hash(tmp_path / "all" / "labels") == row_hash(tmp_path / "alone")

    # By --address too: nothing is left to do, which another fingerprint would refuse.
    code, out, said = ended(start("run", file, "--json", "--address", head.gcs))
    assert (code, json.loads(out or "{}").get("rows")) == (0, 0), said
    refuse_secrets_in_what_ray_shows(head, s3)


def refuse_secrets_in_what_ray_shows(head: RealHead, s3: S3Server) -> None:
    for path in ("/api/jobs/", "/api/v0/actors?detail=true", "/api/v0/runtime_envs?detail=true", "/api/v0/jobs"):
        request = urllib.request.Request(head.url + path, headers={"Authorization": f"Bearer {head.token}"})
        shown = urllib.request.urlopen(request, timeout=60).read().decode()
        assert s3.secret not in shown
    logs = [file for file in head.folder.rglob("*") if file.is_file() and file.suffix in (".log", ".out", ".err")]
    assert any("runtime_env_agent" in file.name for file in logs)
    assert not [file for file in logs if s3.secret.encode() in file.read_bytes()]


RUN_IN_A_PROGRAM = """
import json, sys, time
import ray, raysp

source, checkpoint, sink, address = sys.argv[1:]
for attempt in range(60):  # on a busy machine the node of a head comes up after its dashboard
    try:
        ray.init(address=address, log_to_driver=False)
        break
    except ConnectionError:
        time.sleep(2)
pipeline = raysp.Pipeline(
    source=raysp.Shards(source),
    steps=[raysp.Decode(), raysp.Keep(max_seconds=20), raysp.Label(checkpoint, outputs=[raysp.Transcript()])],
    sink=raysp.Parquet(sink),
)
result = raysp.run(pipeline, progress=False)
names = ("rows", "errors", "skipped", "audio_seconds", "shards_committed", "rtfx", "padding_efficiency", "wait_share")
print(json.dumps({name: getattr(result, name) for name in names}), flush=True)
sys.stdin.read()  # its gauges are exported while it runs
"""


def scraped(url: str, sink: str) -> dict[tuple[str, str], float]:
    """Return the metrics of a sink at the endpoint of a node, by name and label."""
    text = urllib.request.urlopen(url, timeout=30).read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    mine = [sample for sample in samples if sample.name.startswith("ray_raysp_") and sample.labels[SINK] == sink]
    assert {sample.name.removeprefix("ray_") for sample in mine} <= {*METRICS}
    labels = {f"ray_{name}": label for name, (_, label) in METRICS.items()}
    return {(sample.name, sample.labels.get(labels[sample.name], "")): sample.value for sample in mine}


def test_prometheus_reads_the_figures_of_a_run_from_its_node(head, small_shards, tmp_path):
    audio_shard(small_shards / "odd.parquet", [("bad", b"no audio"), ("long", wav(21 * 16_000)), ("good", wav(16_000))])
    sink = str(tmp_path / "labels")
    command = [sys.executable, "-c", RUN_IN_A_PROGRAM, f"{small_shards}/*.parquet", str(CHECKPOINT), sink, head.gcs]
    pipe = subprocess.PIPE
    program = subprocess.Popen(command, env=head.environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
    try:
        line = program.stdout.readline()
        assert line, program.stderr.read()
        result = json.loads(line)
        wanted = {
            ("ray_raysp_rows_total", "ok"): 121,
            ("ray_raysp_rows_total", "error"): 1,
            ("ray_raysp_rows_total", "skipped"): 1,
            ("ray_raysp_errors_total", "unsupported_format"): 1,
            ("ray_raysp_audio_seconds_total", ""): pytest.approx(result["audio_seconds"]),
            ("ray_raysp_shards_committed_total", ""): 7,
            ("ray_raysp_blocks_labelled_total", ""): pytest.approx(12, abs=12),
            ("ray_raysp_pieces_in_flight", ""): 0,
            ("ray_raysp_rtfx", ""): pytest.approx(result["rtfx"], rel=0.2),
            ("ray_raysp_padding_efficiency", ""): pytest.approx(result["padding_efficiency"]),
            ("ray_raysp_wait_share", ""): pytest.approx(result["wait_share"]),
            ("ray_raysp_batch_memory_bytes", ""): pytest.approx(2e9, abs=1.9e9),
        }
        assert result["rows"] == 123
        assert (result["errors"], result["skipped"]) == ({"unsupported_format": 1}, {"filtered": 1})
        deadline = time.monotonic() + 120
        while (found := scraped(head.metrics, sink)) != wanted and time.monotonic() < deadline:
            time.sleep(1)
        assert found == wanted
    finally:
        program.communicate("", timeout=120)
