"""Language models that come with a checkpoint: where they are read, what their weights mean, and what is refused."""

import gzip
import json
import shutil
import uuid

import fsspec
import pytest

import raysp
from raysp import CheckpointError, PlanError, SpecError
from raysp.models import AutoProcessor, Wav2Vec2FeatureExtractor, Wav2Vec2Processor
from tests.corpora import CHECKPOINT, a_pipeline, digits_table, write_shard
from tests.hub_server import lay_out, use_cache
from tests.text.beams.arpa_files import write_arpa

FOLDER = "language_model"
SENTENCES = [["ONE", "TWO"], ["NINE"], ["TWO", "ONE", "ONE"], ["SEVEN", "NINE", "TWO"]]
ATTRS = {"alpha": 0.7, "beta": 2.5, "unk_score_offset": -10.0, "score_boundary": True}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def checkpoint(tmp_path):
    """The demo's checkpoint with a language model, in the layout of published ones: no tokenizer_config.json."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "vocab.json"):
        shutil.copy(CHECKPOINT / name, folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    front = json.loads((folder / "preprocessor_config.json").read_text())
    del front["feature_extractor_type"]
    (folder / "preprocessor_config.json").write_text(
        json.dumps({**front, "processor_class": "Wav2Vec2ProcessorWithLM"})
    )
    (folder / "alphabet.json").write_text(json.dumps({"labels": ["A"], "is_bpe": False}))
    own = folder / FOLDER
    own.mkdir()
    write_arpa(own / "5gram.arpa", SENTENCES, 3)
    (own / "unigrams.txt").write_text("NINE\nONE\nTWO\nUNHEARD\n")
    (own / "attrs.json").write_text(json.dumps(ATTRS))
    return folder


@pytest.fixture
def planned(tmp_path):
    """Return the plan of labelling by a checkpoint."""

    def plan(checkpoint, **fields):
        write_shard(tmp_path / "in" / "a.parquet", 2)
        label = raysp.Label(str(checkpoint), outputs=[raysp.Transcript(beams=8, **fields)])
        return raysp.plan(a_pipeline(f"{tmp_path}/in", tmp_path / "out", steps=[raysp.Decode(), label]))

    return plan


@pytest.mark.lengthy
def test_the_own_model_gives_the_labels_of_its_file_with_its_weights_from_a_folder_and_from_storage(
    tmp_path, checkpoint
):
    (checkpoint / FOLDER / "attrs.json").write_text(json.dumps({**ATTRS, "unk_score_offset": 0.0}))
    (checkpoint / FOLDER / "unigrams.txt").unlink()
    (checkpoint / FOLDER / "notes.md").write_text("not read")
    lm = str(shutil.copy(checkpoint / FOLDER / "5gram.arpa", tmp_path / "words.arpa"))
    url = f"memory://{uuid.uuid4().hex}/model"
    for file in filter(lambda one: one.is_file(), checkpoint.rglob("*")):
        fsspec.filesystem("memory").pipe_file(f"{url}/{file.relative_to(checkpoint)}", file.read_bytes())

    def labels(checkpoint, **fields):
        output = raysp.Transcript(beams=8, nbest=3, **fields)
        label = raysp.Labeller([raysp.Decode(), raysp.Label(str(checkpoint), outputs=[output])])
        return label(digits_table(2)).to_pylist()

    expected = labels(checkpoint, lm=lm, lm_weight=0.7, word_bonus=2.5)
    assert labels(checkpoint, lm="own") == labels(url, lm="own") == expected
    assert expected[0]["pred_nbest"]
    [fetched] = (tmp_path / "cache").rglob("5gram.arpa")
    assert sorted(one.name for one in fetched.parent.iterdir()) == ["5gram.arpa", "attrs.json"]


def test_the_fingerprint_covers_the_model_its_words_and_its_weights(tmp_path, checkpoint, planned):
    own = checkpoint / FOLDER
    found = [planned(checkpoint, **fields).fingerprint for fields in ({}, {"lm": "own", "lm_weight": 1.0})]

    def add():
        found.append(planned(checkpoint, lm="own").fingerprint)

    add()
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    (own / "README").write_text("no part of it")
    assert {planned(one, lm="own").fingerprint for one in (copy, checkpoint)} == {found[-1]}
    (own / "attrs.json").write_text(json.dumps({**ATTRS, "alpha": 0.6}))
    add()
    (own / "unigrams.txt").write_text("ONE\n")
    add()
    (own / "5gram.arpa.gz").write_bytes(gzip.compress((own / "5gram.arpa").read_bytes()))
    (own / "5gram.arpa").unlink()
    add()
    assert len({*found}) == 6


DAMAGED = [
    ("attrs.json", "[]", r"attrs.json: found \[\], expected a JSON object"),
    ("attrs.json", '{"alpha": "much"}', "alpha is 'much', expected a number"),
    ("attrs.json", '{"score_boundary": 1}', "score_boundary is 1, expected true or false"),
    ("unigrams.txt", "\udcff", "unigrams.txt: .*expected a word per line in UTF-8"),
    ("other.arpa", "", "found 5gram.arpa, other.arpa, expected one language model"),
]


def test_a_damaged_folder_is_refused_with_the_file(checkpoint, planned):
    for name, content, message in DAMAGED:
        (checkpoint / FOLDER / "attrs.json").write_text(json.dumps(ATTRS))
        (checkpoint / FOLDER / name).write_bytes(content.encode("utf-8", "surrogateescape"))
        with pytest.raises(CheckpointError, match=message):
            planned(checkpoint, lm="own")


def test_the_model_of_a_hub_id_is_read_only_where_it_is_asked_for(checkpoint, planned, tmp_path, monkeypatch):
    use_cache(monkeypatch, tmp_path / "hub")
    monkeypatch.chdir(tmp_path)
    snapshot = lay_out(tmp_path / "hub", checkpoint)
    assert not (snapshot / FOLDER).exists()
    with pytest.raises(SpecError, match="lm given with beams=1"):
        raysp.Transcript(lm="own")
    with pytest.raises(PlanError, match=r"lm='own': .* comes with no language model, a folder 'language_model'"):
        planned("owner/name", lm="own")
    assert type(AutoProcessor.from_pretrained(snapshot)) is Wav2Vec2Processor  # which searches without one
    shutil.copytree(checkpoint / FOLDER, snapshot / FOLDER)
    assert "lm of outputs.0 own (" in planned("owner/name", lm="own").facts["other files"]
