"""The blocks of Python in the reference run in their order, a page in one namespace and a folder of its own."""

import ast
import json
import re
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import raysp
from tests.corpora import CHECKPOINT
from tests.here import run_without_ray

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "docs/models.md", *sorted((REPOSITORY / "docs/reference").glob("*.md")), REPOSITORY / "README.md"]
"""Pages whose blocks need files that a test makes; `test_guide.py` follows those of the guide."""
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
    names = [NAMED.match(one["code"]) for one in found]
    return [
        Block(one["code"], one["file"] or (name[1] if name else ""), one["elsewhere"])
        for one, name in zip(found, names, strict=True)
    ]


BLOCKS = {page.name: blocks for page in PAGES if (blocks := blocks_of(page))}


def checkpoint(name: str) -> None:
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).symlink_to(CHECKPOINT)


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


GIVEN: dict[str, Callable[[pytest.MonkeyPatch], dict[str, Any]]] = {
    "api.md": for_reference,
    "models.md": for_models,
}
"""What pages take as given, by page: each writes files into the working folder and returns names."""
LONG = {"api.md", "models.md"}
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
def test_the_blocks_of_a_page_run_in_their_order(page, given):
    for block in BLOCKS[page]:
        if block.elsewhere:
            continue
        if block.file:
            Path(block.file).write_text(block.code)
            sys.modules.pop(Path(block.file).stem, None)
        code = block.code
        exec(compile(code, f"{page}: {code.splitlines()[0]}", "exec"), given)


def names_of_raysp(code: str) -> list[tuple[str, str]]:
    """Return the modules and names of raysp that code imports or reads."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "raysp":
            found.append(("raysp", node.attr))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("raysp"):
            found += [(node.module, alias.name) for alias in node.names]
    return found


def test_blocks_that_do_not_run_here_are_few_run_in_another_test_or_have_a_reason_and_name_what_exists():
    blocks = [block for found in BLOCKS.values() for block in found]
    assert len(blocks) == sum(page.read_text().count("```python\n") for page in PAGES) >= 15
    elsewhere = [block for block in blocks if block.elsewhere]
    assert len(elsewhere) <= 5
    for block in elsewhere:
        if other := RUN_BY.fullmatch(block.elsewhere):
            assert "```python" in (REPOSITORY / other[1]).read_text()
        else:
            assert NEEDS.fullmatch(block.elsewhere), block.elsewhere
        for module, name in names_of_raysp(block.code):
            assert hasattr(import_module(module), name), name
