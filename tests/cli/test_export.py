"""What `raysp export` prints, and its exit codes."""

import re
import shlex
from pathlib import Path

import pytest

import raysp
from tests import kit
from tests.by_promise.export.sinks import make_sink
from tests.commands import write_recipe
from tests.exports import exported


@pytest.fixture(scope="module")
def sink(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    make_sink(folder, output=raysp.Transcript())
    return folder / "out"


@pytest.mark.lengthy
def test_an_export_of_no_row_ends_with_exit_code_3_and_the_reasons(raysp_command, tmp_path):
    pipeline = kit.corpus(tmp_path / "in", rows=0, faults=["not_audio"]).pipeline(tmp_path / "out")
    raysp.run(pipeline, engine="here", progress=False)
    ran = raysp_command("export", tmp_path / "out", tmp_path / "x", "--to", "dataset", "--trust")
    assert ran.code == 3
    assert "raysp: no row was exported; all were left out: 1 row (unsupported_format)" in ran.err


def test_the_sink_may_be_given_by_its_pipeline_file(raysp_command, sink, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYSP_ENGINE", "here")
    file = write_recipe(tmp_path, source=str(sink.parent / "in"), sink=str(sink))
    ran = raysp_command("export", file, tmp_path / "x", "--to", "srt")
    assert (ran.code, len(exported(tmp_path / "x"))) == (0, 7)
    [advice] = re.findall("run `raysp (run .*?)`", raysp_command("export", file, tmp_path / "y", "--to", "ctm").err)
    assert raysp_command(*shlex.split(advice)).code == 0
    assert raysp_command("export", tmp_path / "OTHER", tmp_path / "y", "--to", "ctm").code == 0


def test_a_format_of_the_documentation_is_one_file_beside_the_pipeline(raysp_command, sink, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    document = (Path(__file__).parents[2] / "docs" / "extend.md").read_text().partition("`lab.py`:")[2]
    (tmp_path / "lab.py").write_text(document.partition("```python\n")[2].partition("```")[0])
    file = write_recipe(tmp_path, source=str(sink.parent / "in"), sink=str(sink))
    command = re.search(r"raysp export label\.py lines (--to .*)", document)[1]
    ran = raysp_command("export", file, tmp_path / "lines", *shlex.split(command))
    assert ran.code == 0, ran.err
    lines = "".join(path.read_text() for path in sorted((tmp_path / "lines").rglob("*.lab"))).splitlines()
    texts = [line.partition(" ")[2] for line in lines]
    assert len(texts) == 7
    assert any(texts)
    assert texts == [text.lower() for text in texts]
    assert raysp_command("export", file, tmp_path / "x", "--to", "lab:Other").code == 2
