"""The page for choosing a model: its commands run on layouts of the table, and documents name no other checkpoint."""

import re
import shlex
from pathlib import Path

import pyarrow as pa
import pytest

from tests.corpora import AUDIO, wav, write_shard
from tests.published.table import TABLE

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "models.md").read_text().partition("## Which model?")[2].partition("\n## ")[0]
BLOCK = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)[0]
OWNERS = {name.partition("/")[0] for name in TABLE} | {
    "google",
    "distil-whisper",
    "speechbrain",
    "pyannote",
    "kotoba-tech",
}
NAMED = re.compile(rf"(?<![\w/.:-])((?:{'|'.join(sorted(OWNERS))})/[A-Za-z0-9][\w.-]*[A-Za-z0-9](?:@[\w./-]*\w)?)")
ARGUMENT = re.compile(
    r"""(?:from_pretrained|Label|CTC|Seq2Seq|Classify|Speakers|checkpoint=|decoder=)\(?["']"""
    r"""([A-Za-z0-9][\w.-]*/[\w.-]+(?:@[\w./-]+)?)["']"""
)
STAND_INS = ("owner/", "models/", "teacher/", "pipelines/")
"""First parts of folders, and of names that stand for any checkpoint."""
OTHERS = {"facebook/bart-base", "Qwen/Qwen2-Audio-7B-Instruct", "Systran/faster-whisper-small"}
"""A text decoder, which recipes join with an encoder, and checkpoints whose layouts are refused."""


def documents() -> list[Path]:
    kept = [path for folder in ("raysp", "pipelines", "docs", "cluster") for path in (ROOT / folder).rglob("*")]
    return [ROOT / "README.md", *(path for path in kept if path.suffix in (".py", ".pyi", ".md", ".yaml"))]


def test_each_checkpoint_that_documents_and_docstrings_name_is_in_the_table():
    found: dict[str, set[str]] = {}
    for path in documents():
        text = path.read_text()
        for name in NAMED.findall(text) + ARGUMENT.findall(text):
            if not name.startswith(STAND_INS):
                found.setdefault(name.removesuffix("@main"), set()).add(str(path.relative_to(ROOT)))
    assert len(found) > 15
    assert {name: paths for name, paths in found.items() if name not in TABLE and name not in OTHERS} == {}


def test_the_page_for_choosing_has_a_command_for_each_of_its_checkpoints():
    rows = re.findall(r"^\| [^|]+ \| `([^`]+)`", PAGE, re.MULTILINE)
    assert len(rows) > 10
    assert [name for name in rows if name not in BLOCK] == []
    assert [name for name in rows if name not in TABLE] == []


@pytest.fixture
def recordings(tmp_path, hub) -> Path:
    """Three recordings, and a corpus with texts, in the working directory; each checkpoint of the page on the hub."""
    rows = {
        "id": ["a", "b", "c"],
        "audio": pa.array([{"bytes": wav(16_000, seed=k), "path": None} for k in range(3)], AUDIO),
    }
    write_shard(tmp_path / "recordings" / "a.parquet", table=pa.table(rows))
    write_shard(tmp_path / "texts" / "a.parquet", table=pa.table({**rows, "text": ["one two"] * 3}))
    (tmp_path / "pipelines").symlink_to(ROOT / "pipelines")
    return tmp_path


def commands() -> list[list[str]]:
    """Return the commands of the page that differ in more than the checkpoint, each with the one that makes its folder.

    Each checkpoint is opened in test_layouts.py.
    """
    lines = [shlex.split(line) for line in BLOCK.splitlines()]
    made = {line[3]: line for line in lines if line[1] == "convert"}
    runs = [line for line in lines if line[1] in ("run", "label")]
    assert len(runs) + len(made) == len(lines)
    different = {" ".join(run).replace(_checkpoint(run), ""): run for run in reversed(runs)}
    return [[made.get(_checkpoint(run), []), run] for run in different.values()]


def _checkpoint(run: list[str]) -> str:
    if run[1] == "label":
        return run[run.index("--model") + 1]
    return next(value.partition("=")[2] for value in run if ".checkpoint=" in value)


@pytest.mark.drivers
@pytest.mark.parametrize("steps", [pytest.param(steps, id=_checkpoint(steps[1])) for steps in commands()])
def test_each_command_of_the_page_runs(steps, recordings, hub, raysp_command):
    convert, run = steps
    hub((convert or ["", "", _checkpoint(run)])[2])
    if convert:
        done = raysp_command(*convert[1:])
        assert done.code == 0, done.err
    smaller = TABLE[(convert or ["", "", _checkpoint(run)])[2]].label
    extra = [word for name, value in sorted(smaller.items()) for word in ("--set", f"steps.1.{name}={value}")]
    if "pipelines/translate.py" in run:  # whose random weights write as much as they may
        extra += ["--set", "steps.1.outputs.0.generate.max_new_tokens=8"]
    done = raysp_command(*run[1:], *extra)
    assert done.code == 0, done.err
    assert done.out.startswith("The first 3 rows (nothing was kept)")
    assert "error" not in done.out
