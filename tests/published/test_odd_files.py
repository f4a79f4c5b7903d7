"""Folders whose files are those of other releases, tools or people: they open as in transformers, or with a way out."""

import json
import shutil
import warnings
from pathlib import Path

import pytest
import torch

import raysp
from raysp import CheckpointError
from raysp.models import check_checkpoint
from tests.corpora import wav
from tests.models.oracles import transformers
from tests.published.building import lay_out
from tests.published.layout import LETTERS, SAFETENSORS, Layout
from tests.published.table import TYPED
from tests.published.test_layouts import labelled
from tests.published.theirs import samples_of

VOCAB = {token: index for index, token in enumerate([*"abcdefghijklmnopqrstuvwxyz'", "|", "[UNK]", "[PAD]"])}
SPECIAL = {"unk_token": "[UNK]", "pad_token": "[PAD]"}
TOKENS = {**SPECIAL, "bos_token": "<s>", "eos_token": "</s>", "word_delimiter_token": "|"}
LAYOUT = Layout("Wav2Vec2ForCTC", (), outputs=("Transcript",))


def made(folder: Path, size: int = 30) -> Path:
    """Write a checkpoint of transformers whose head has so many classes."""
    folder.mkdir()
    fields = {"vocab_size": size, "pad_token_id": 29}
    files = {"front": TYPED, "vocab": VOCAB, "special": SPECIAL}
    return lay_out(Layout("Wav2Vec2ForCTC", (*LETTERS, SAFETENSORS), fields=fields, **files), folder)


@pytest.fixture
def folder(tmp_path) -> Path:
    return made(tmp_path / "checkpoint")


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value))


def edit(path: Path, **values: object) -> None:
    write(path, {**json.loads(path.read_text()), **values})


def of_dicts(folder: Path) -> None:
    token = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    write(folder / "special_tokens_map.json", {name: {"content": one, **token} for name, one in SPECIAL.items()})


def renamed(folder: Path) -> None:
    write(folder / "tokenizer_config.json", {**SPECIAL, "tokenizer_class": "Wav2Vec2Tokenizer"})


OPENING = {
    "special tokens as objects": of_dicts,
    "a class of Flax": lambda folder: edit(folder / "config.json", architectures=["FlaxWav2Vec2ForCTC"]),
    "the tokenizer by the name of its first release": renamed,  # which theirs of today has no more
}


def text_of_theirs(folder: Path) -> str:
    wave = samples_of(wav(16_000))
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        model = transformers.Wav2Vec2ForCTC.from_pretrained(folder, dtype=torch.float32).eval()
        extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
        ids = model(**extractor(wave, sampling_rate=16_000, return_tensors="pt")).logits[0].argmax(-1)
        return transformers.AutoTokenizer.from_pretrained(folder).decode(ids)


@pytest.mark.parametrize("kind", OPENING)
def test_files_of_other_releases_open_with_the_text_of_transformers(kind, folder):
    OPENING[kind](folder)
    row = labelled(str(folder), LAYOUT, wav(16_000))
    assert row["status"] == "ok", row["error_message"]
    (folder / "tokenizer_config.json").unlink(missing_ok=True)
    assert row["pred_text"] == text_of_theirs(folder) != ""


def test_a_head_wider_than_its_vocabulary_is_refused_with_the_names_that_open_it(tmp_path):
    folder = made(tmp_path / "wide", 34)
    write(folder / "tokenizer_config.json", TOKENS)
    with pytest.raises(CheckpointError, match=r"classes without a token 32, 33: use the vocab.json of these") as error:
        check_checkpoint(folder)
    expected = text_of_theirs(folder)
    named = json.loads("{" + str(error.value).partition("name its unused classes there: ")[2] + "}")
    assert named == {"<s>": 30, "</s>": 31, "<unused 32>": 32, "<unused 33>": 33}
    write(folder / "vocab.json", {**VOCAB, **named})
    row = labelled(str(folder), LAYOUT, wav(16_000))
    assert row["pred_text"].replace("<unused 32>", "[UNK]").replace("<unused 33>", "[UNK]") == expected
    assert text_of_theirs(folder) == row["pred_text"]


def test_weights_of_a_variant_are_refused_with_the_name_that_opens_them(folder):
    (folder / "model.safetensors").rename(folder / "model.fp16.safetensors")
    with pytest.raises(CheckpointError, match=r"found model.fp16.safetensors.*copy it as model.safetensors"):
        raysp.Labeller([raysp.Decode(), raysp.Label(str(folder), outputs=[raysp.Transcript()])])
    shutil.copy(folder / "model.fp16.safetensors", folder / "model.safetensors")
    assert labelled(str(folder), LAYOUT, wav(16_000))["pred_text"] == text_of_theirs(folder)
