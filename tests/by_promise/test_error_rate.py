"""Runs that stop because too many rows fail: what they leave, and what the same command does next."""

import json
import re
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysp
from tests import kit
from tests.corpora import a_pipeline, wav, write_shard

MANIFESTS, ROWS = 10, 6
GOOD, BAD = wav(), b"no audio at all"
pytestmark = pytest.mark.slow


def write_recordings(corpus: Path, bad: dict[int, int], rows: int = ROWS) -> None:
    """Write manifests of recordings by path, or the recordings again; the first `bad` of each cannot be decoded."""
    for number in range(MANIFESTS):
        folder = corpus / f"{number}"
        folder.mkdir(parents=True, exist_ok=True)
        if not (corpus / f"m{number}.jsonl").exists():
            lines = [{"audio_filepath": f"{number}/{row}.wav", "id": f"{number}-{row}"} for row in range(rows)]
            (corpus / f"m{number}.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
        for row in range(rows):
            file, data = folder / f"{row}.wav", BAD if row < bad.get(number, 0) else GOOD
            if not file.exists() or file.read_bytes() != data:
                file.write_bytes(data)


ALL_BAD = dict.fromkeys(range(MANIFESTS), ROWS)


@pytest.fixture
def corpus(tmp_path) -> Path:
    return tmp_path / "in"


def by_path(corpus: Path, **fields: object) -> raysp.Pipeline:
    return a_pipeline(f"{corpus}/*.jsonl", corpus.parent / "out", **fields)


def run(pipeline: raysp.Pipeline, **options: object):
    return raysp.run(pipeline, engine="here", progress=False, **options)


def statuses(pipeline: raysp.Pipeline) -> dict[str, list[str]]:
    """Return the statuses of the rows of each label shard."""
    files = sorted(Path(pipeline.sink.url).glob("*.parquet"))
    return {file.name: pq.read_table(file).column("status").to_pylist() for file in files}


def name(number: int) -> str:
    return f"m{number}-00000.parquet"


ALL_OK = {name(number): ["ok"] * ROWS for number in range(MANIFESTS)}


def check_corrected(pipeline: raysp.Pipeline) -> None:
    """Run, and check the labels, and that nothing is left to do."""
    run(pipeline)
    assert statuses(pipeline) == ALL_OK
    assert raysp.verify(pipeline.sink.url, trust=True).differences == ()
    again = raysp.plan(pipeline)
    assert (again.rows_todo, len(again.done)) == (0, len(ALL_OK))


def test_status_and_report_have_the_reason_of_the_stop_until_the_same_command_labels_a_corrected_input(
    corpus, raysp_command
):
    write_recordings(corpus, ALL_BAD)
    expected = r"rows failed.*more than max_error_rate=0.5; for example .*\. For .*Correct the input.*run again$"
    with pytest.raises(raysp.RunError, match=expected) as stopped:
        run(by_path(corpus))
    assert 1 <= str(stopped.value).count(".parquet row ") <= 3
    assert len(str(stopped.value)) < 900
    assert "\n" not in str(stopped.value)
    assert statuses(by_path(corpus)) == {}
    sink = by_path(corpus).sink.url
    reason = json.loads(raysp_command("status", sink, "--json").out)["stopped"]
    assert reason
    assert str(stopped.value).startswith(reason)
    shown = " ".join(raysp_command("status", sink).out.split())
    assert re.search(r"stopped:? \d+ of \d+ rows failed .* more than max_error_rate=0.5", shown), shown
    assert raysp_command("report", sink).code == 0
    assert "more than max_error_rate=0.5" in (Path(sink) / ".raysp" / "report.html").read_text()
    write_recordings(corpus, {})
    check_corrected(by_path(corpus))
    assert json.loads(raysp_command("status", sink, "--json").out)["stopped"] is None


def test_rows_that_a_step_behind_label_fails_in_the_last_commits_count(corpus, monkeypatch, raysp_command):
    """Two of ten shards wait for the end; the first of them exceeds the limit, and the other one is not committed."""
    rows, module = 21, f"rules_{corpus.parent.name}"
    write_recordings(corpus, {8: 4, 9: 4}, rows)
    (corpus.parent / f"{module}.py").write_text(
        "def wanted(rows):\n    return [1 / (name not in ('8-20', '9-20')) > 0 for name in rows['id'].to_pylist()]\n"
    )
    monkeypatch.syspath_prepend(corpus.parent)
    steps = [*by_path(corpus).steps, raysp.Keep(where=f"{module}:wanted")]
    pipeline = by_path(corpus, steps=steps, max_error_rate=0.04)
    ran = raysp_command("run", kit.pipeline_file(corpus.parent / "label.py", pipeline))
    assert ran.code == 1
    assert "9 of 210 rows failed (8 unsupported_format, 1 step_failed), more than max_error_rate=0.04" in ran.err
    ok, last = ["ok"] * rows, ["ok"] * (rows - 1) + ["error"]
    first = {**{name(number): ok for number in range(8)}, name(8): ["error"] * 4 + last[4:]}
    assert statuses(pipeline) == first
    write_recordings(corpus, {}, rows)
    assert raysp_command("run", corpus.parent / "label.py").code == 0
    assert statuses(pipeline) == {**first, name(9): last}


@pytest.fixture
def mapped(corpus, monkeypatch):
    """A function that returns a pipeline for a sink; its step fails for every row while the file `broken` exists."""
    name = f"rules_{corpus.parent.name}"
    (corpus.parent / f"{name}.py").write_text(
        f"from pathlib import Path\n\ndef level(rows):\n    if Path({str(corpus / 'broken')!r}).exists():\n"
        "        raise OSError('no levels here')\n    return {'level': [1] * rows.num_rows}\n"
    )
    monkeypatch.syspath_prepend(corpus.parent)
    for number in range(MANIFESTS):
        write_shard(corpus / f"m{number}-00000.parquet", ROWS)
    step = raysp.Map(f"{name}:level", adds={"level": "int64"}, reads=["id"])
    (corpus / "broken").touch()
    return lambda sink: a_pipeline(f"{corpus}/*.parquet", sink, steps=[step])


def test_a_driver_that_dies_while_it_stops_leaves_no_error_row(corpus, mapped):
    line = ["run", kit.pipeline_file(corpus.parent / "label.py", mapped("memory://labels"))]
    with kit.failing_files() as files:
        ran = kit.run(line)
        assert (ran.code, "rows failed (" in ran.err) == (1, True), ran.err
        changes = files.changes
    for n in (changes, changes - 2):  # the last changes remove what is staged
        (corpus / "broken").touch()
        with kit.failing_files() as files:
            files.fail_at(n, "death")
            assert kit.run(line).code == kit.DEAD
            files.revive()
            (corpus / "broken").unlink()
            assert kit.run(line).code == 0
            assert [row["status"] for row in kit.rows("memory://labels")] == ["ok"] * MANIFESTS * ROWS, n


def test_results_that_a_worker_of_the_stopped_run_stages_late_are_not_used(corpus, mapped):
    pipeline = mapped(corpus.parent / "out")
    stage, aside = Path(pipeline.sink.url) / ".raysp" / "stage", corpus.parent / "aside"

    def keep(_: object) -> None:
        if stage.exists():
            shutil.copytree(stage, aside, dirs_exist_ok=True)

    with pytest.raises(raysp.RunError, match="step_failed"):
        run(pipeline, on_progress=keep)
    assert sum(file.is_file() for file in aside.rglob("*")) >= 3
    (corpus / "broken").unlink()
    shutil.copytree(aside, stage, dirs_exist_ok=True)
    run(pipeline, on_plan=lambda _: shutil.copytree(aside, stage, dirs_exist_ok=True))
    assert statuses(pipeline) == ALL_OK
    shutil.copytree(aside, stage, dirs_exist_ok=True)
    check_corrected(pipeline)
    assert raysp.gc(pipeline.sink.url).orphans != ()
    check_corrected(pipeline)
