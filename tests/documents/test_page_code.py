"""The blocks of Python on the pages for users run in their order, a page in one namespace and a folder of its own."""

import ast
import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import fsspec
import numpy as np
import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

import raysp
from tests.corpora import AUDIO, CHECKPOINT, DEMO
from tests.here import run_without_ray

REPOSITORY = Path(__file__).parents[2]
PAGES = [*sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "README.md"]
BLOCK = re.compile(
    r"(?:^<!-- (?P<elsewhere>[^\n]*) -->\n\n)?(?:^`(?P<file>\w+\.py)`[^\n]*\n\n)?^```python\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
NAMED = re.compile(r"# (\w+\.py)\n")
"""First line of a block that is a file, which later blocks import."""
RUN_BY = re.compile(r"run by (tests/[\w/]+\.py)")
NEEDS = re.compile(r"not run by a test: needs [\w ]+")


class Block(NamedTuple):
    """A block of Python, the file that it is, and what the page says where it does not run here."""

    code: str
    file: str
    elsewhere: str


def blocks_of(page: Path) -> list[Block]:
    found = [one.groupdict(default="") for one in BLOCK.finditer(page.read_text())]
    return [Block(one["code"], one["file"] or _name_of(one["code"]), one["elsewhere"]) for one in found]


def _name_of(code: str) -> str:
    found = NAMED.match(code)
    return found[1] if found else ""


BLOCKS = {page.name: blocks for page in PAGES if (blocks := blocks_of(page))}


def shards(*names: str) -> None:
    """Write shards of three recordings of some seconds, spoken digits joined, with the columns that pages name."""
    digits = pq.read_table(DEMO / "audio").slice(0, 30)
    samples = [soundfile.read(io.BytesIO(one["bytes"].as_py()))[0] for one in digits["audio"]]
    texts = [" ".join(digits["text"].to_pylist()[first : first + 10]) for first in (0, 10, 20)]
    table = pa.table(
        {
            "id": ["a", "b", "c"],
            "audio": pa.array([{"bytes": _wav(samples[first : first + 10])} for first in (0, 10, 20)], AUDIO),
            **dict.fromkeys(("text", "sentence", "transcription"), texts),
            "accent": ["us", "us", "in"],
            "speaker_id": ["one", "two", "three"],
        }
    )
    for name in map(Path, names):
        name.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, name)


def _wav(samples: list[np.ndarray]) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.concatenate(samples), 8000, format="WAV")
    return file.getvalue()


def checkpoint(name: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).symlink_to(CHECKPOINT)


def label_shards() -> None:
    """Label shards into the folder `labels`."""
    shards("in/a.parquet")
    label = raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript(words=True)])
    source = raysp.Shards("in/*.parquet", text="text")
    raysp.run(
        raysp.Pipeline(source, steps=[raysp.Decode(), label], sink=raysp.Parquet("labels")),
        engine="here",
        progress=False,
    )


def for_data(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    shards("PolyAI/minds14/train.parquet")
    table = pq.read_table("PolyAI/minds14/train.parquet")
    fs = fsspec.filesystem("memory")
    fs.makedirs("/corpus/labels", exist_ok=True)
    with fs.open("/corpus/labels/a.parquet", "wb") as file:
        pq.write_table(table.select(["id", "text"]), file)
    monkeypatch.setenv("CORPUS_SECRET", "secret")
    dataset = datasets.load_dataset("PolyAI/minds14", split="train").cast_column("audio", datasets.Audio(decode=False))
    return {"datasets": datasets, "pandas": pandas, "os": import_module("os"), "dataset": dataset}


def for_evaluate(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    checkpoint("models/ctc")
    shards("dev/a.parquet")
    return {}


def for_export(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    label_shards()
    raysp.export("labels", raysp.LabelStudio(audio="{id}.wav"), "made", trust=True)
    tasks = [task for file in Path("made").glob("*.json") for task in json.loads(file.read_text())]
    annotated = [{**task, "annotations": [{"result": task["predictions"][0]["result"]}]} for task in tasks]
    Path("annotations.json").write_text(json.dumps(annotated))
    shutil.rmtree("made")
    return {"datasets": datasets}


def for_index(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    label_shards()
    return {}


def for_models(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    from raysp.models import UniSpeechForSequenceClassification

    checkpoint("folder")
    checkpoint("speech")
    UniSpeechForSequenceClassification.from_pretrained(CHECKPOINT).save_pretrained("speech-emotion")
    _processor("speech-emotion", "vocab.json")
    waves = torch.randn(2, 16_000)
    return {
        "waveform": waves[0].numpy(),
        "waveforms": [*waves.numpy()],
        "input_values": waves,
        "attention_mask": torch.ones(2, 16_000, dtype=torch.int64),
    }


def for_reference(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    from raysp.models import BartConfig, BartForCausalLM
    from tests.models.flax.sisters import BART, VOCAB, WAVES, speech_encoder_decoder

    checkpoint("pipelines/demo/unispeech-digits-ctc")
    speech_encoder_decoder("wav2vec2", "bart").save_pretrained("speech-to-text")
    _processor("speech-to-text")
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *(chr(ord("A") + index) for index in range(VOCAB - 5))]
    Path("speech-to-text/vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    wav2vec2("facebook/wav2vec2-base", **WAVES)
    BartForCausalLM(BartConfig(**BART)).save_pretrained("facebook/bart-base")
    waves = np.random.default_rng(0).normal(size=(2, 900)).astype(np.float32)
    labels = np.array([[5, 6, 7, 2], [8, 2, -100, -100]])
    return {"waves": [*waves], "batch": waves, "mask": np.ones((2, 900), np.int32), "labels": labels}


def _processor(folder: str, *others: str) -> None:
    for name in ("processor_config.json", "tokenizer_config.json", *others):
        shutil.copy(CHECKPOINT / name, folder)


def wav2vec2(name: str, **small: object) -> None:
    from raysp.models import Wav2Vec2Config, Wav2Vec2Model

    Wav2Vec2Model(Wav2Vec2Config(**small)).save_pretrained(name)


def for_outputs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    return {"CHECKPOINT": "models/ctc", "WRITES": "openai/whisper-small", "CTC": "models/ctc"}


def for_train(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    wav2vec2("models/wav2vec2-base", **small, num_conv_pos_embedding_groups=4)
    return {}


GIVEN: dict[str, Callable[[pytest.MonkeyPatch], dict[str, Any]]] = {
    "data.md": for_data,
    "evaluate.md": for_evaluate,
    "export.md": for_export,
    "index.md": for_index,
    "models.md": for_models,
    "outputs.md": for_outputs,
    "reference.md": for_reference,
    "train.md": for_train,
}
"""What pages take as given, by page: each writes files into the working folder and returns names."""
IN_PLACE = {"data.md": {'read_parquet("s3://': 'read_parquet("memory://', 'data_files="s3://': 'data_files="memory://'}}
"""Words of pages, and those with which they run here: an object store in memory."""

LONG = {"models.md", "reference.md"}
"""Pages with programs that torch and JAX compile, which takes long."""


@pytest.fixture
def given(request, tmp_path, monkeypatch) -> dict[str, Any]:
    """Names that a page takes as given, in a working folder with the files that it names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    run_without_ray(monkeypatch)
    names = GIVEN.get(request.param, lambda _: {})(monkeypatch)
    return {"raysp": raysp, "__name__": "page", **names}


@pytest.mark.parametrize(
    ("page", "given"),
    [pytest.param(page, page, id=page, marks=[pytest.mark.drivers] if page in LONG else []) for page in BLOCKS],
    indirect=["given"],
)
def test_the_blocks_of_a_page_run_in_their_order(page, given, monkeypatch):
    for block in BLOCKS[page]:
        if block.elsewhere:
            continue  # `test_a_block_that_does_not_run_here_...`
        if block.file:
            Path(block.file).write_text(block.code)
            monkeypatch.delitem(sys.modules, Path(block.file).stem, raising=False)
        code = block.code
        for words, here in IN_PLACE.get(page, {}).items():
            code = code.replace(words, here)
        exec(compile(code, f"{page}: {code.splitlines()[0]}", "exec"), given)


@pytest.mark.parametrize(
    "block",
    [pytest.param(block, id=page) for page, blocks in BLOCKS.items() for block in blocks if block.elsewhere],
)
def test_a_block_that_does_not_run_here_runs_in_another_test_or_has_its_reason_and_names_that_exist(block):
    if other := RUN_BY.fullmatch(block.elsewhere):
        assert "```python" in (REPOSITORY / other[1]).read_text()
    else:
        assert NEEDS.fullmatch(block.elsewhere), block.elsewhere
    for name in names_of_raysp(block.code):
        assert resolved(name) is not None, name


def names_of_raysp(code: str) -> list[str]:
    """Return the dotted names of raysp that code imports or reads."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "raysp":
            found.append(f"raysp.{node.attr}")
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("raysp"):
            found += [f"{node.module}.{alias.name}" for alias in node.names]
    return found


def resolved(name: str) -> object:
    module, _, attribute = name.rpartition(".")
    return getattr(import_module(module), attribute)


def test_every_block_of_python_is_found():
    found = sum(len(blocks) for blocks in BLOCKS.values())
    assert found == sum(page.read_text().count("```python\n") for page in PAGES)
    assert found > 45
    assert sum(bool(block.elsewhere) for blocks in BLOCKS.values() for block in blocks) <= 5
