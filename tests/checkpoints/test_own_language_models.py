"""Language models that come with a checkpoint: where they are read, what their weights mean, and what is refused."""

import gzip
import json
import shutil
import uuid
from pathlib import Path

import pytest

import raysp
from raysp import CheckpointError, PlanError, SpecError
from raysp.checkpoints.language_models import locate_own, read_own
from raysp.models import AutoProcessor, Wav2Vec2FeatureExtractor, Wav2Vec2Processor
from raysp.storage.stores import open_store
from tests import kit
from tests.corpora import CHECKPOINT, a_pipeline, write_shard
from tests.hub_server import lay_out, use_cache
from tests.text.beams.arpa_files import write_arpa
from tests.text.beams.kenlm_package import BINARIES

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


def pipeline_of(folder, checkpoint, **fields) -> raysp.Pipeline:
    write_shard(folder / "in" / "a.parquet", 2)
    label = raysp.Label(str(checkpoint), outputs=[raysp.Transcript(beams=8, **fields)])
    return a_pipeline(f"{folder}/in/*.parquet", folder / uuid.uuid4().hex, steps=[raysp.Decode(), label])


@pytest.fixture
def planned(tmp_path):
    """Return the plan of labelling by a checkpoint."""
    return lambda checkpoint, **fields: raysp.plan(pipeline_of(tmp_path, checkpoint, **fields))


@pytest.mark.lengthy
def test_a_run_with_the_own_model_has_the_labels_of_its_file_with_its_weights(tmp_path, checkpoint, planned):
    (checkpoint / FOLDER / "attrs.json").write_text(json.dumps({**ATTRS, "unk_score_offset": 0.0}))
    (checkpoint / FOLDER / "unigrams.txt").unlink()
    lm = str(shutil.copy(checkpoint / FOLDER / "5gram.arpa", tmp_path / "words.arpa"))
    rows = []
    for fields in ({"lm": "own"}, {"lm": lm, "lm_weight": 0.7, "word_bonus": 2.5}):
        pipeline = pipeline_of(tmp_path, checkpoint, nbest=3, **fields)
        raysp.run(pipeline, engine="here", progress=False)
        rows.append(kit.rows(pipeline.sink.url))
    assert rows[0] == rows[1]
    assert rows[0][0]["pred_nbest"]
    assert "lm of outputs.0 own (" in planned(checkpoint, nbest=3, lm="own").facts["other files"]


def test_without_a_model_the_plan_says_so(checkpoint, planned):
    shutil.rmtree(checkpoint / FOLDER)
    with pytest.raises(PlanError, match=r"lm='own': .*model comes with no language model, a folder 'language_model'"):
        planned(checkpoint, lm="own")
    with pytest.raises(SpecError, match="lm given with beams=1"):
        raysp.Transcript(lm="own")


def test_the_fingerprint_covers_the_model_its_words_and_its_weights(tmp_path, checkpoint, planned):
    def hashed(checkpoint: Path, **fields: object) -> str:
        return planned(checkpoint, **fields).fingerprint

    own = checkpoint / FOLDER
    first = hashed(checkpoint, lm="own")
    assert first != hashed(checkpoint)
    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    assert hashed(copy, lm="own") == first
    (own / "README").write_text("no part of it")
    assert hashed(checkpoint, lm="own") == first
    (own / "attrs.json").write_text(json.dumps({**ATTRS, "alpha": 0.6}))
    second = hashed(checkpoint, lm="own")
    (own / "unigrams.txt").write_text("ONE\n")
    third = hashed(checkpoint, lm="own")
    (own / "5gram.arpa.gz").write_bytes(gzip.compress((own / "5gram.arpa").read_bytes()))
    (own / "5gram.arpa").unlink()
    fourth = hashed(checkpoint, lm="own")
    (own / "5gram.arpa.gz").unlink()
    write_arpa(own / "5gram.arpa", SENTENCES, 2)
    fifth = hashed(checkpoint, lm="own")
    assert len({first, second, third, fourth, fifth, hashed(checkpoint, lm="own", lm_weight=1.0)}) == 6


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("attrs.json", "[]", r"attrs.json: found \[\], expected a JSON object"),
        ("attrs.json", '{"alpha": "much"}', "alpha is 'much', expected a number"),
        ("attrs.json", '{"score_boundary": 1}', "score_boundary is 1, expected true or false"),
        ("other.arpa", "", "found 5gram.arpa, other.arpa, expected one language model"),
        ("unigrams.txt", "\udcff", "unigrams.txt: .*expected a word a line in UTF-8"),
    ],
)
def test_a_damaged_folder_is_refused_with_the_file(checkpoint, planned, name, content, message):
    (checkpoint / FOLDER / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=message):
        planned(checkpoint, lm="own")


def test_the_processor_opens_and_decodes_greedily(checkpoint, tmp_path):
    processor = AutoProcessor.from_pretrained(checkpoint)
    assert type(processor) is Wav2Vec2Processor
    assert processor.batch_decode([[4, 5, 5]])
    processor.save_pretrained(tmp_path / "saved")
    assert type(AutoProcessor.from_pretrained(tmp_path / "saved")) is Wav2Vec2Processor


def test_inspect_shows_the_model(checkpoint, raysp_command):
    ran = raysp_command("inspect", checkpoint)
    shown = " ".join(ran.out.split())
    assert ran.code == 0
    assert "3-grams of 7 words (ARPA, 0.8 kB), alpha 0.7, beta 2.5" in shown
    facts = json.loads(raysp_command("inspect", checkpoint, "--json").out)["language_model"]
    assert (facts["order"], facts["alpha"], facts["score_boundary"]) == (3, 0.7, True)
    (checkpoint / FOLDER / "5gram.arpa").unlink()
    shutil.copy(BINARIES / "trie.binary", checkpoint / FOLDER / "lm.binary")
    assert "3-grams of 9 words (KenLM, trie, 1.4 kB)" in " ".join(raysp_command("inspect", checkpoint).out.split())
    shutil.rmtree(checkpoint / FOLDER)
    assert "lm='own' fetches it from the hub" in " ".join(raysp_command("inspect", checkpoint).out.split())
    assert "language model" not in raysp_command("inspect", CHECKPOINT).out


def test_the_model_of_a_checkpoint_on_object_storage_is_fetched_once(checkpoint):
    store = open_store(f"memory://{uuid.uuid4().hex}/model")
    assert locate_own(store.url) is None
    for file in (checkpoint / FOLDER).iterdir():
        store.create(f"{FOLDER}/{file.name}", file.read_bytes())
    store.create(f"{FOLDER}/notes.md", b"not read")
    folder = locate_own(store.url)
    assert sorted(file.name for file in folder.iterdir()) == ["5gram.arpa", "attrs.json", "unigrams.txt"]
    assert locate_own(store.url) == folder
    assert read_own(folder).alpha == 0.7


def test_the_model_of_a_hub_id_is_read_only_where_it_is_asked_for(checkpoint, planned, tmp_path, monkeypatch):
    use_cache(monkeypatch, tmp_path / "hub")
    monkeypatch.chdir(tmp_path)
    snapshot = lay_out(tmp_path / "hub", checkpoint)
    assert not (snapshot / FOLDER).exists()
    with pytest.raises(PlanError, match="comes with no language model"):
        planned("owner/name", lm="own")
    shutil.copytree(checkpoint / FOLDER, snapshot / FOLDER)
    assert "lm of outputs.0 own (" in planned("owner/name", lm="own").facts["other files"]
