"""Every pipeline of pipelines/ and of the pages: its plan, with the estimate, and a run of three rows."""

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import raysp
from tests.classifiers import make_classifier
from tests.corpora import CHECKPOINT, a_pipeline, digits_table
from tests.device.class_cases import make_checkpoint

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FEWER = 'steps.1.outputs.0.generate={"num_beams": 2, "max_new_tokens": 4}'
LANGUAGES = "source.labels=languages"
SHIPPED = {
    "align.py": (1, "ctc", []),
    "by_language.py:english": (2, "ctc", [LANGUAGES]),
    "by_language.py:german": (2, "ctc", [LANGUAGES]),
    "by_language.py:languages": (1, "classes", []),
    "classify.py": (2, "classes", []),
    "embed.py": (1, "ctc", []),
    "label_ctc.py": (1, "ctc", []),
    "label_digits.py": (1, "ctc", []),
    "relabel_loop.py:label": (1, "ctc", []),
    "relabel_loop.py:relabel": (1, "ctc", []),
    "translate.py": (1, "texts", [FEWER]),
    "word_times.py": (1, "texts", [FEWER]),
}
"""Pipelines of pipelines/: the place of their `Label`, the checkpoint that they need, and further settings."""
ELSEWHERE = {"restore.py", "utterances.py"}
"""Pipelines that other tests run: `tests/labelling/engine/test_recipes.py` and `test_utterance_recipe.py`."""
PIPELINE = """
import raysp
{imports}
pipeline = raysp.Pipeline(raysp.Shards("audio"), steps={steps}, sink=raysp.Parquet("out"))
"""


def pages() -> Iterator[tuple[Path, list[str]]]:
    for page in [*sorted((ROOT / "docs").glob("*.md")), ROOT / "README.md"]:
        yield page, BLOCK.findall(page.read_text())


def steps_of_pages() -> dict[str, tuple[str, list[str]]]:
    """Return the steps of pipelines on pages as code, by page, each with the files that it imports; each steps once."""
    found: dict[str, tuple[str, list[str]]] = {}
    for page, blocks in pages():
        files = [block for block in blocks if re.match(r"# \w+\.py\n", block)]
        for block in blocks:
            for steps in filter(_has_label, ast.walk(ast.parse(block))):
                for label in filter(_is_label, ast.walk(steps)):
                    label.args = [ast.Name("CHECKPOINT")]
                code = ast.unparse(steps)
                found.setdefault(code, (page.name, files))
    return {f"{page}-{number}": (code, files) for number, (code, (page, files)) in enumerate(found.items())}


def _has_label(node: ast.AST) -> bool:
    is_of_page = {"Peak", "level", "measures"} & {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
    return isinstance(node, ast.List) and any(map(_is_label, node.elts)) and not is_of_page


def _is_label(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) == "raysp.Label"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with three recordings."""
    (tmp_path / "audio").mkdir()
    rows = digits_table(3)
    pq.write_table(rows, tmp_path / "audio" / "a.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def checkpoint(kind: str, folder: Path) -> str:
    place = folder / kind
    if kind == "classes":
        return make_classifier(place, "en", "de", "fr")
    if kind == "texts":
        make_checkpoint("SpeechEncoderDecoderModel", place)
        return str(place)
    return str(CHECKPOINT)


def check(command, target: str, settings: list[str]) -> None:
    """Check that the plan has an estimate of all rows, and that the rows of a run have a label."""
    options = [one for setting in settings for one in ("--set", setting)]
    ran = command("plan", target, *options, "--json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["estimate"]["rows_sampled"] == 3
    ran = command("run", target, *options, "--rows", 3, "--json")
    rows = json.loads(ran.out)["table"]
    assert len(rows) == 3, ran.err
    assert {row["status"] for row in rows} <= {"ok", "skipped"}, rows
    assert {row["error_type"] for row in rows if row["status"] == "skipped"} <= {"filtered"}


def test_every_pipeline_that_ships_is_here():
    files = {path.name for path in (ROOT / "pipelines").glob("*.py") if "raysp.Pipeline(" in path.read_text()}
    assert files == {name.partition(":")[0] for name in SHIPPED} | ELSEWHERE


@pytest.mark.parametrize("name", SHIPPED)
def test_a_pipeline_that_ships_plans_and_labels_three_rows(folder, raysp_command, name):
    step, kind, more = SHIPPED[name]
    if LANGUAGES in more:
        label = raysp.Label(checkpoint("classes", folder), outputs=[raysp.Classes()])
        labelling = a_pipeline("audio", "languages", steps=[raysp.Decode(), label])
        raysp.run(labelling, engine="here", progress=False)
    settings = ["source.url=audio", f"steps.{step}.checkpoint={checkpoint(kind, folder)}", "sink.url=out", *more]
    check(raysp_command, f"{ROOT}/pipelines/{name}", settings)


@pytest.mark.parametrize("name", STEPS := steps_of_pages())
def test_a_pipeline_of_a_page_plans_and_labels_three_rows(folder, raysp_command, name):
    steps, files = STEPS[name]
    for text in files:
        (folder / text.split()[1]).write_text(text)
    imports = "\n".join(f"import {Path(text.split()[1]).stem}" for text in files)
    code = PIPELINE.format(imports=f"{imports}\nCHECKPOINT = {str(CHECKPOINT)!r}", steps=steps)
    (folder / "of_a_page.py").write_text(code)
    check(raysp_command, "of_a_page.py", [])
