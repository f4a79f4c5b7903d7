"""The pipelines that ship: each runs as its docstring says, and is short."""

import importlib
import json
import runpy
from pathlib import Path

import pyarrow as pa
import pytest
import torch

import raysp
from tests import kit
from tests.classifiers import make_speaker_model
from tests.models.oracles import transformers

PIPELINES = Path(__file__).parents[3] / "pipelines"
ONE_WORKER = {"pool.actors": 1, "pool.cpus": 1}


def command(verb: str, target: object, settings: dict[str, object] | None = None, *options: str) -> dict:
    """Run a command for a recipe with settings, and return its JSON."""
    changes = [part for path, value in (settings or {}).items() for part in ("--set", f"{path}={value}")]
    ran = kit.run([verb, target, *changes, *options, "--json"])
    assert ran.code == 0, ran.err
    return json.loads(ran.out)


@pytest.mark.drivers
@pytest.mark.slow
@pytest.mark.parametrize("name", ["finetune_classes", "finetune_ctc", "train_digits"])
def test_a_recipe_trains(name):
    assert command("finetune", PIPELINES / f"{name}.py", ONE_WORKER, "--steps", "1")["is_done"]


def test_a_recipe_whose_checkpoint_is_not_bundled_is_a_recipe():
    for name in ("adapter", "finetune_seq2seq"):
        assert isinstance(runpy.run_path(str(PIPELINES / f"{name}.py"))["recipe"], raysp.Finetune)


@pytest.mark.drivers
@pytest.mark.slow
def test_the_loop_trains_on_its_labels_and_labels_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = PIPELINES / "relabel_loop.py"
    command("run", f"{file}:label")
    result = command("finetune", file, {**ONE_WORKER, "schedule.epochs": 1})
    assert result["is_done"]
    assert 0 < result["left_out"]["filtered"] < 60
    command("run", f"{file}:relabel")
    assert {path.name for path in (tmp_path / "loop-relabelled").glob("*.parquet")} == {
        path.name for path in (tmp_path / "loop-labels").glob("*.parquet")
    }


@pytest.mark.drivers
@pytest.mark.slow
def test_texts_get_the_marks_of_a_token_classifier(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    corpus = kit.corpus(tmp_path / "corpus", 6)
    raysp.run(corpus.pipeline("labels"), engine="here", progress=False)
    make_token_classifier(tmp_path / "marks", {"seven": ".", "four": "?"})
    copied = (
        (PIPELINES / "restore.py")
        .read_text()
        .replace("oliverguhr/fullstop-punctuation-multilang-large", f"{tmp_path}/marks")
    )
    (tmp_path / "restore_here.py").write_text(copied)
    speakers = make_speaker_model(tmp_path / "speakers")
    monkeypatch.syspath_prepend(str(tmp_path))
    command("run", "restore_here.py", {"steps.2.checkpoint": speakers})
    found = kit.rows("restored")
    texts = [row["pred_text"] for row in kit.rows("labels")]
    marks = {"SEVEN": ".", "FOUR": "?"}
    assert [row["restored_text"] for row in found] == [f"{text.capitalize()}{marks.get(text, '')}" for text in texts]
    assert {*marks} & {*texts}  # or nothing would be tested
    assert all(row["status"] == "ok" for row in found)
    module = importlib.import_module("restore_here")
    given = ["ONE SEVEN TWO FOUR THREE", "", None, "NINE " * 200]
    expected = ["One seven. Two four? Three", "", None, " ".join(["Nine", *["nine"] * 199])]
    assert module.restored(pa.table({"pred_text": given})) == {"restored_text": expected}


DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def make_token_classifier(folder: Path, marks: dict[str, str]) -> None:
    """Write a model of transformers whose class of a word is the mark given for it, else "0"."""
    words = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]", *DIGITS]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words))
    names = ["0", *sorted({*marks.values()})]
    config = transformers.BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=0, num_attention_heads=1, intermediate_size=4,
        id2label=dict(enumerate(names)), label2id={name: place for place, name in enumerate(names)},
    )  # fmt: skip
    model = transformers.BertForTokenClassification(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.bert.embeddings.LayerNorm.weight.fill_(1.0)
        for word, token in enumerate(words):
            model.bert.embeddings.word_embeddings.weight[word, names.index(marks.get(token, "0"))] = 1.0
        model.classifier.weight[:, : len(names)] = torch.eye(len(names))
    model.save_pretrained(folder)
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
