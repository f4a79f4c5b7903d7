"""The pipeline of the README labels rows of several sources exactly as printed."""

import re
from pathlib import Path

import datasets
import pytest

from tests.corpora import wav
from tests.hub_server import lay_out, use_cache
from tests.published.building import lay_out as published_layout
from tests.published.table import TABLE

README = Path(__file__).parents[1] / "README.md"
[PIPELINE] = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
[CHECKPOINT] = re.findall(r'Label\("([^"]+)"', PIPELINE)


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory, and a cache of the hub with the published layout of the checkpoint."""
    monkeypatch.chdir(tmp_path)
    cache = tmp_path / "hub"
    published = tmp_path / "published"
    published.mkdir()
    lay_out(cache, published_layout(TABLE[CHECKPOINT], published), name=CHECKPOINT)
    use_cache(monkeypatch, cache)
    return tmp_path


def tried(raysp_command, here: Path, start: str) -> str:
    assert len(start.splitlines()) <= 10
    (here / "label_it.py").write_text(start)
    ran = raysp_command("run", "label_it.py", "--rows", 2)
    assert ran.code == 0, ran.err
    assert ran.out.startswith("The first 2 rows (nothing was kept)")
    assert ran.out.splitlines()[-1].split(maxsplit=1) == ["next", "raysp run label_it.py"]
    return ran.out


@pytest.mark.slow
def test_a_folder_of_recordings_and_a_data_set_of_datasets(raysp_command, here):
    for name in ("a.wav", "deep/b.wav"):
        (here / "recordings" / name).parent.mkdir(parents=True, exist_ok=True)
        (here / "recordings" / name).write_bytes(wav(8000))
    assert "deep/b.wav" in tried(raysp_command, here, PIPELINE)
    made = datasets.Dataset.from_dict({"audio": ["recordings/a.wav"] * 2, "text": ["one"] * 2})
    made.cast_column("audio", datasets.Audio(decode=False)).save_to_disk("corpus")
    assert "one" in tried(raysp_command, here, PIPELINE.replace('"recordings"', '"corpus", text="text"'))
