"""Runs, evaluations, try-outs and calls of Python programs on the stand-in device: the labels of the CPU."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import raysp
from benchmarks.gpu import packed_rows
from benchmarks.gpu.independence import write_certificate
from benchmarks.gpu.part import Setting
from raysp import Labeller, PlanError, RunError
from raysp.cluster.resources import local_resources
from raysp.labelling.engine.datasets.applying import TableActor
from raysp.labelling.engine.datasets.table_job import Columns, table_job
from raysp.labelling.engine.running import try_out
from raysp.labelling.planning.planned_checkpoint import digest_of
from raysp.models.base.arithmetic import arithmetic
from raysp.ops import labelling
from raysp.ops.labelling import Labelling, as_float, highest_memory
from raysp.ops.precision import Batching
from raysp.specs.steps import Step
from raysp.verbs.verify import verifying
from raysp.verbs.verify.recomputing import differing
from tests.corpora import CHECKPOINT, DEMO, write_shard
from tests.device.conftest import assert_same, few_places
from tests.device.stand_in import NAME, counted
from tests.here import run_without_ray

ROOT = Path(__file__).parents[2]
ROWS = 9


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """A shard of real speech with its texts, and one row that is no audio."""
    folder = tmp_path_factory.mktemp("corpus")
    table = pq.ParquetFile(min((DEMO / "audio").glob("*.parquet"))).read_row_group(0).slice(0, ROWS)
    audio = table.column("audio").to_pylist()
    audio[4] = {"bytes": b"no audio", "path": None}
    place = table.column_names.index("audio")
    return write_shard(folder / "a.parquet", table=table.set_column(place, "audio", pa.array(audio)))


def steps(device: str, **fields: object) -> list[Step]:
    outputs = [raysp.Transcript(words=True), raysp.Embedding()]
    return [
        raysp.Decode(),
        raysp.Label(str(CHECKPOINT), outputs=outputs, device=device, dtype="float32", **fields),
    ]


def pipeline(corpus: Path, device: str, sink: Path | str = "not written") -> raysp.Pipeline:
    source = raysp.Shards(str(corpus), text="text")
    return raysp.Pipeline(source, steps=steps(device), sink=raysp.Parquet(str(sink)))


def test_a_small_run_starts_no_ray(corpus, tmp_path):
    """The device is registered in each process by torch itself, which loads the backends of installed packages."""
    code = tmp_path / "code"
    installed = code / "standin-1.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: standin\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[torch.backends]\nstandin = tests.device.stand_in:install\n")
    (code / "ray.py").write_text("raise ImportError('Ray is imported')\n")
    (tmp_path / "label.py").write_text(
        "import raysp\n"
        "label = raysp.Label(\n"
        f"    {str(CHECKPOINT)!r}, outputs=[raysp.Transcript(words=True), raysp.Embedding()], dtype='float32'\n"
        ")\n"
        f"pipeline = raysp.Pipeline(raysp.Shards({str(corpus)!r}, text='text'), steps=[raysp.Decode(), label], "
        "sink=raysp.Parquet('out'))\n"
    )
    path = os.pathsep.join([str(code), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "RAYSP_CERTIFICATES": str(certificates(tmp_path))}
    command = [sys.executable, "-m", "raysp", "run", "label.py", "--set", f"steps.1.device={NAME}"]
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    labels = pq.read_table(tmp_path / "out").to_pylist()
    assert [row["status"] for row in labels].count("ok") == ROWS - 1
    assert_same(labels, try_out(pipeline(corpus, "cpu"), ROWS)[1].to_pylist())
    assert f"{SHOWN}\n" in ran.stderr
    [entry] = json.loads((tmp_path / "out" / ".raysp" / "run.json").read_text())["runs"]
    assert entry["resolved"]["cards"][0]["certificate"]["rows"]["float32"] == {"rows": 50, "texts": 50, "bits": 49}
    assert entry["resolved"]["cards"][0]["certificate"]["keeps_graphs"] == {"UniSpeechForCTC float32": True}


SHOWN = "in float32 50 of 50 rows had one text in all batches, and no product was measured"


def certificates(folder: Path) -> Path:
    """Write a certificate of the stand-in device as the benchmark writes it, and return its folder."""
    made = folder / "certificates"
    made.mkdir()
    runs = {"architecture": "UniSpeechForCTC", "dtype": "float32", "rows": 2, "frames": 74, "passes": 3, "unequal": 0}
    write_certificate((), Setting(NAME, made), {"float32": {"rows": 50, "texts": 50, "bits": 49}}, [], [runs], [])
    return made


def test_a_plan_says_what_the_certificate_of_the_card_shows(corpus, tmp_path, monkeypatch):
    monkeypatch.setenv("RAYSP_CERTIFICATES", str(tmp_path))
    card = raysp.plan(pipeline(corpus, NAME, tmp_path / "out")).facts["card"]
    assert card.startswith(f"standin, torch {torch.__version__}: no certificate in {tmp_path} (")
    monkeypatch.setenv("RAYSP_CERTIFICATES", str(certificates(tmp_path)))
    assert raysp.plan(pipeline(corpus, NAME, tmp_path / "out")).facts["card"].endswith(SHOWN)
    assert "card" not in raysp.plan(pipeline(corpus, "cpu", tmp_path / "out")).facts


@pytest.fixture(scope="module")
def packs(tmp_path_factory) -> Path:
    """Folder with a certificate of the stand-in device that has packs of two sizes with the checkpoint, as measured."""
    made = tmp_path_factory.mktemp("certificates")
    found: list[dict[str, object]] = []
    graphs: list[dict[str, object]] = []
    setting = Setting(NAME, made, checkpoints=(str(CHECKPOINT),))
    makes = {(name, dtype): make for name, dtype, make in packed_rows.made(setting)}
    with pytest.MonkeyPatch.context() as patched:
        few_places(patched)
        patched.setattr(packed_rows, "SMALL_ORDERS", 2)
        patched.setattr(packed_rows, "absent", lambda _: True)  # speech is no output here
        packed_rows.compare(makes[str(CHECKPOINT), "bfloat16"], "bfloat16", setting, found, graphs)
    assert [one["unequal"] for one in found + graphs] == [0, 0, 0]
    write_certificate((), setting, {}, [], graphs, found)
    return made


def in_packs(corpus: Path, sink: Path, seconds: float, **given: object) -> raysp.Pipeline:
    outputs = [raysp.Transcript(words=True), raysp.Embedding()]
    sizes = {"batch_seconds": seconds, "window_seconds": 3, "overlap_seconds": 1, **given}
    label = raysp.Label(str(CHECKPOINT), outputs=outputs, device=NAME, dtype="bfloat16", **sizes)
    return raysp.Pipeline(
        raysp.Shards(str(corpus), text="text"), steps=[raysp.Decode(), label], sink=raysp.Parquet(str(sink))
    )


def test_labels_in_packs_by_a_certificate_do_not_depend_on_their_size_or_graphs(corpus, packs, tmp_path, monkeypatch):
    run_without_ray(monkeypatch)
    monkeypatch.setenv("RAYSP_CERTIFICATES", str(packs))
    shards = tmp_path / "shards"
    shards.mkdir()
    for name in "abc":
        shutil.copy(corpus, shards / f"{name}.parquet")
    first, second = (
        in_packs(shards, tmp_path / str(seconds), seconds, graphs=graphs)
        for seconds, graphs in ((8, "never"), (4, "auto"))
    )
    plans = [raysp.plan(one) for one in (first, second)]
    assert [one.settings.batching for one in plans] == [Batching.PACKED] * 2
    assert [one.settings.packs.frames for one in plans] == [512, 256]
    assert plans[0].fingerprint == plans[1].fingerprint
    assert [one.settings.graphs.is_on for one in plans] == [False, True]
    for one, has_graphs in ((first, False), (second, True)):
        with counted() as counts:
            assert raysp.run(one, progress=False).rows == 3 * ROWS
        assert any("graph of" in at for at in counts.launches_at) == has_graphs
    labels = [pq.read_table(tmp_path / str(seconds)).to_pylist() for seconds in (8, 4)]
    assert labels[0] == labels[1]


def test_packs_on_the_same_card_are_verified_row_by_row_and_by_rate_on_another(corpus, packs, tmp_path, monkeypatch):
    run_without_ray(monkeypatch)
    monkeypatch.setenv("RAYSP_CERTIFICATES", str(packs))
    raysp.run(in_packs(corpus, tmp_path / "out", 8), progress=False)
    verified = raysp.verify(str(tmp_path / "out"), sample=ROWS, trust=True)
    assert (verified.differences, verified.sampled, verified.sampled_equal) == ((), ROWS - 1, ROWS - 1)
    first_of_each = iter([True])

    def one_differs(*given: object, **options: object) -> str:
        return "another text" if next(first_of_each, False) else differing(*given, **options)

    monkeypatch.setattr(verifying, "differing", one_differs)
    [difference] = raysp.verify(str(tmp_path / "out"), sample=ROWS, trust=True).differences
    assert re.search(r": row \d: another text$", difference)
    first_of_each = iter([True])
    record = tmp_path / "out" / ".raysp" / "run.json"
    record.write_text(record.read_text().replace(f'"torch": "{torch.__version__}", "cuda"', '"torch": "1", "cuda"'))
    [entry] = json.loads(record.read_text())["runs"]
    assert entry["resolved"]["pack_frames"] == 512
    assert entry["resolved"]["packs"].startswith("the certificate of ")
    elsewhere = raysp.verify(str(tmp_path / "out"), sample=ROWS, trust=True)
    assert (elsewhere.differences, elsewhere.made_on) == ((), ())
    first_of_each = iter([True])
    card = json.dumps({"card": NAME, "driver": None, "torch": torch.__version__, "cuda": torch.version.cuda})
    record.write_text(record.read_text().replace('"cards": [', f'"cards": [{card}, '))
    verified = raysp.verify(str(tmp_path / "out"), sample=ROWS, trust=True)
    assert (verified.differences, [one.partition(",")[0] for one in verified.made_on]) == ((), [NAME, NAME])


def test_a_few_rows_are_labelled_in_this_process(corpus):
    result, found = try_out(pipeline(corpus, NAME), ROWS)
    assert (result.rows, sum(result.errors.values())) == (ROWS, 1)
    assert_same(found.to_pylist(), try_out(pipeline(corpus, "cpu"), ROWS)[1].to_pylist())


def test_memory_of_the_device_counts_and_not_that_of_the_process(monkeypatch):
    assert highest_memory(NAME) == 0  # its backend does not count
    monkeypatch.setattr(torch.get_device_module(NAME), "max_memory_allocated", lambda device: 7, raising=False)
    assert highest_memory(NAME) == 7
    assert highest_memory("cpu") > 7


def test_a_batch_that_exceeds_the_memory_of_the_device_is_halved(corpus, monkeypatch):
    expected = try_out(pipeline(corpus, NAME), ROWS)[1].to_pylist()
    sizes = []

    def with_little_memory(waves):
        sizes.append(len(waves))
        if len(waves) > 2 or waves.shape[1] > 8000:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return as_float(waves)

    monkeypatch.setattr(labelling, "as_float", with_little_memory)
    found = try_out(pipeline(corpus, NAME), ROWS)[1].to_pylist()
    assert max(sizes) > 2
    too_large = [row["error_type"] == "out_of_memory" for row in found]
    assert 0 < sum(too_large) < ROWS - 1
    kept = [(row, other) for row, other, large in zip(found, expected, too_large, strict=True) if not large]
    assert_same(*map(list, zip(*kept, strict=True)))


def test_a_device_that_fails_ends_the_try_out_with_an_error(corpus, monkeypatch):
    def lost(*_: object) -> None:
        raise RuntimeError("CUDA error: unspecified launch failure")

    monkeypatch.setattr(labelling, "as_float", lost)
    with pytest.raises(RunError, match=r"the device failed and cannot be used any more.*launch failure"):
        try_out(pipeline(corpus, NAME), ROWS)


def test_a_device_that_torch_cannot_use_is_refused(corpus):
    with pytest.raises(PlanError, match=r"steps\.1\.device='xpu': the installed torch can use no such device"):
        try_out(pipeline(corpus, "xpu"), 3)
    with pytest.raises(RunError, match="device 'xpu': the installed torch cannot use it"):
        Labelling(str(CHECKPOINT), lambda loaded: [], batch_seconds=8, device="xpu")


def test_an_evaluation_has_the_scores_of_the_cpu(corpus):
    found, expected = (
        raysp.evaluate(steps(device)[1], raysp.Shards(str(corpus), id=None), text="text", rows=ROWS)
        for device in (NAME, "cpu")
    )
    assert found.scores == expected.scores


def test_a_labeller_in_a_program(corpus):
    rows = pq.read_table(corpus)
    with Labeller(steps(NAME), id=None) as found, Labeller(steps("cpu"), id=None) as expected:
        assert_same(found(rows).to_pylist(), expected(rows).to_pylist())


def test_actors_of_apply(corpus):
    rows = pq.read_table(corpus)

    def label(device: str) -> list[dict[str, object]]:
        job = table_job(steps(device), Columns(None, "audio", ["text"], None, None, None), local_resources)
        actor = TableActor(job, [digest_of(job.settings.checkpoint.path, job.settings.checkpoint.backend, None)])
        return actor(rows).to_pylist()

    assert_same(label(NAME), label("cpu"))


def test_products_are_steady_on_the_device():
    assert not torch.backends.cudnn.deterministic
    with arithmetic(dtype="bfloat16", device=NAME):
        assert torch.backends.cudnn.deterministic
