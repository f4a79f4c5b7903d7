"""The pipelines that ship: each runs as its docstring says, and is short."""

import importlib
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pysubs2
import pytest
import torch

import raysp
from raysp import Pool, Schedule, finetune
from raysp.models import Wav2Vec2Config, Wav2Vec2FeatureExtractor, Wav2Vec2Model
from raysp.specs.values import override
from raysp.specs.work_files import load_pipeline, with_overrides
from raysp.training.finetuning import try_out
from raysp.training.specs.recipe import load_recipe
from tests.classifiers import make_classifier, make_speaker_model
from tests.corpora import CHECKPOINT, DEMO, rows_table, write_shard
from tests.device.class_cases import make_checkpoint
from tests.models.oracles import transformers
from tests.training.conftest import SMALL

PIPELINES = Path(__file__).parents[3] / "pipelines"
CASES = {
    "label_ctc": (None, {"pred_text", "pred_score", "pred_words", "embedding"}),
    "label_digits": (None, {"pred_text"}),
    "subtitles": (None, {"pred_text", "pred_words"}),
    "align": (None, {"text", "aligned_score", "aligned_words"}),
    "embed": (None, {"embedding"}),
    "classify": ("Wav2Vec2BertForSequenceClassification", {"pred_label", "pred_label_scores"}),
    "translate": ("SpeechEncoderDecoderModel", {"pred_text", "pred_score"}),
}

TRAINED = ("adapter", "finetune_classes", "finetune_ctc", "finetune_seq2seq", "pretrain", "train_digits")
"""Recipes of trainings."""
LOOP = "relabel_loop"
"""Two pipelines, and a recipe between them."""
BY_LANGUAGE = "by_language"
"""Three pipelines, whose labels are merged."""
RESTORE = "restore"
"""A pipeline over the labels of another one."""
NOT_BUNDLED = ("adapter", "finetune_seq2seq")
"""Those that name checkpoints that are not bundled."""


def test_every_recipe_is_tested_and_short():
    files = sorted(PIPELINES.glob("*.py"))
    assert [file.stem for file in files] == sorted([*CASES, *TRAINED, LOOP, BY_LANGUAGE, RESTORE])
    assert all(len(file.read_text().splitlines()) <= 40 for file in files)


@pytest.mark.drivers
@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_a_recipe_trains(name):
    recipe = load_recipe(str(PIPELINES / f"{name}.py"))
    if name not in NOT_BUNDLED:
        assert try_out(replace(recipe, pool=Pool(1, cpus=1)), 1).is_done


@pytest.mark.drivers
@pytest.mark.slow
def test_the_recipe_of_an_adapter_trains_a_checkpoint_with_adapter_layers(words, tmp_path):
    mms = tmp_path / "mms"
    Wav2Vec2Model(Wav2Vec2Config(**SMALL, do_stable_layer_norm=True, adapter_attn_dim=8)).save_pretrained(mms)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(mms)
    recipe, sink = load_recipe(str(PIPELINES / "adapter.py")), tmp_path / "out"
    settings = {"source.url": words, "objective.checkpoint": mms, "sink.url": sink, "schedule.epochs": 1}
    for path, value in settings.items():
        recipe = override(recipe, path, str(value))
    assert finetune(replace(recipe, pool=Pool(1, cpus=1))).is_done
    assert {"adapter.tur.safetensors", "config.json", "vocab.json"} <= {file.name for file in sink.iterdir()}


@pytest.mark.drivers
@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_recipe_labels_a_corpus(name, tmp_path):
    checkpoint, columns = CASES[name]
    folder = CHECKPOINT
    if checkpoint:
        folder = tmp_path / "checkpoint"
        make_checkpoint(checkpoint, folder)
    write_shard(tmp_path / "in" / "a.parquet", table=pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 5))
    loaded = load_pipeline(str(PIPELINES / f"{name}.py"))
    step = loaded.steps.index(loaded.label)
    settings = [f"source.url={tmp_path}/in", f"steps.{step}.checkpoint={folder}", f"sink.url={tmp_path}/out"]
    raysp.run(with_overrides(loaded, settings), engine="here", progress=False)
    rows = pq.read_table(tmp_path / "out" / "a.parquet").to_pylist()
    assert {row["status"] for row in rows} == {"ok"}
    assert columns <= rows[0].keys()


@pytest.mark.drivers
@pytest.mark.slow
def test_the_recipe_of_subtitles_writes_a_file_for_each_recording_and_adds_new_ones(tmp_path):
    spoken = [
        row["bytes"] for row in pq.read_table(min((DEMO / "audio").glob("*.parquet"))).column("audio").to_pylist()
    ]
    folder = tmp_path / "recordings" / "2024"
    folder.mkdir(parents=True)
    main = runpy.run_path(str(PIPELINES / "subtitles.py"))["main"]
    for number in (1, 2):
        (folder / f"rec {number}.wav").write_bytes(spoken[number])
        main(str(tmp_path / "recordings"), str(tmp_path / "subtitles"), str(CHECKPOINT))
        names = [f"2024/rec {one}.srt" for one in range(1, number + 1)]
        assert [
            str(path.relative_to(tmp_path / "subtitles")) for path in sorted(tmp_path.glob("subtitles/*/*"))[-number:]
        ] == names
    [cue] = pysubs2.load(str(tmp_path / "subtitles" / "2024" / "rec 1.srt"))
    assert cue.plaintext == pq.read_table(tmp_path / "subtitles-labels").column("pred_text")[0].as_py()
    main(str(tmp_path / "recordings"), f"{tmp_path}/recordings/", str(CHECKPOINT))
    assert sorted(path.name for path in folder.glob("*.srt")) == ["rec 1.srt", "rec 2.srt"]


@pytest.mark.drivers
@pytest.mark.parametrize(
    ("given", "said"), [(["recordings"], "pipelines/subtitles.py RECORDINGS SUBTITLES"), (["no", "x"], "subtitles: ")]
)
def test_the_recipe_of_subtitles_ends_with_one_message_if_it_cannot_begin(tmp_path, given, said):
    command = [sys.executable, str(PIPELINES / "subtitles.py"), *given, *([str(CHECKPOINT)] if len(given) > 1 else [])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.drivers
@pytest.mark.slow
def test_the_loop_trains_on_its_labels_and_labels_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = PIPELINES / f"{LOOP}.py"
    raysp.run(load_pipeline(f"{file}:label"), engine="here", progress=False)
    recipe = load_recipe(str(file))
    result = finetune(replace(recipe, pool=Pool(1, cpus=1), schedule=Schedule(steps=1)))
    assert result.is_done
    assert 0 < result.left_out["filtered"] < 60
    raysp.run(load_pipeline(f"{file}:relabel"), engine="here", progress=False)
    assert {path.name for path in (tmp_path / "loop-relabelled").glob("*.parquet")} == {
        path.name for path in (tmp_path / "loop-labels").glob("*.parquet")
    }


@pytest.mark.drivers
@pytest.mark.slow
def test_each_row_has_the_label_of_the_checkpoint_of_its_language(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_shard(
        tmp_path / "corpus" / "a.parquet", table=pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 9)
    )
    checkpoints = {"english": CHECKPOINT, "german": tmp_path / "german"}
    make_checkpoint("Wav2Vec2ForCTC", checkpoints["german"])
    file = PIPELINES / f"{BY_LANGUAGE}.py"
    classifier = make_classifier(tmp_path / "classifier", "de", "en")
    raysp.run(
        with_overrides(load_pipeline(f"{file}:languages"), [f"steps.1.checkpoint={classifier}"]),
        engine="here",
        progress=False,
    )
    for name, checkpoint in checkpoints.items():
        raysp.run(
            with_overrides(load_pipeline(f"{file}:{name}"), [f"steps.2.checkpoint={checkpoint}"]),
            engine="here",
            progress=False,
        )
        alone = raysp.Pipeline(
            raysp.Shards(f"{tmp_path}/corpus"),
            steps=[raysp.Decode(), raysp.Label(str(checkpoint), outputs=[raysp.Transcript()])],
            sink=raysp.Parquet(f"alone-{name}"),
        )
        raysp.run(alone, engine="here", progress=False)
    assert raysp.merge("labels-english", "labels-german", by="pred_score", to="labels").exit_code == 0
    classes = pq.read_table(tmp_path / "languages" / "a.parquet").column("pred_label").to_pylist()
    assert {*classes} == {"de", "en"}
    rows = pq.read_table(tmp_path / "labels" / "a.parquet").to_pylist()
    alone = {name: pq.read_table(tmp_path / f"alone-{name}" / "a.parquet").to_pylist() for name in checkpoints}
    names = {"de": "german", "en": "english"}
    expected = [alone[names[one]][row] for row, one in enumerate(classes)]
    assert [(row["id"], row["pred_text"]) for row in rows] == [(row["id"], row["pred_text"]) for row in expected]


@pytest.mark.drivers
@pytest.mark.slow
def test_texts_get_the_marks_of_a_token_classifier(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_shard(
        tmp_path / "corpus" / "a.parquet", table=pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 6)
    )
    write_shard(tmp_path / "corpus" / "b.parquet", 1, table=rows_table(1, audio=b"nothing"))
    label = raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()])
    steps, sink = [raysp.Decode(), label], raysp.Parquet("labels")
    raysp.run(raysp.Pipeline(raysp.Shards("corpus"), steps=steps, sink=sink), engine="here", progress=False)
    make_token_classifier(tmp_path / "marks", {"seven": ".", "four": "?"})
    copied = (
        (PIPELINES / f"{RESTORE}.py")
        .read_text()
        .replace("oliverguhr/fullstop-punctuation-multilang-large", f"{tmp_path}/marks")
    )
    (tmp_path / "restore_here.py").write_text(copied)
    speakers = make_speaker_model(tmp_path / "speakers")
    monkeypatch.syspath_prepend(str(tmp_path))
    raysp.run(
        with_overrides(load_pipeline("restore_here.py"), [f"steps.2.checkpoint={speakers}"]),
        engine="here",
        progress=False,
    )
    found = pq.read_table(tmp_path / "restored" / "a.parquet").to_pylist()
    texts = pq.read_table(tmp_path / "labels" / "a.parquet").column("pred_text").to_pylist()
    marks = {"SEVEN": ".", "FOUR": "?"}
    assert [row["restored_text"] for row in found] == [f"{text.capitalize()}{marks.get(text, '')}" for text in texts]
    assert {*marks} & {*texts}  # or nothing would be tested
    assert all(row["status"] == "ok" for row in found)
    module = sys.modules.get("restore_here") or importlib.import_module("restore_here")
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
