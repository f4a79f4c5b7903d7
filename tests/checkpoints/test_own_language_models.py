"""Language models that come with a checkpoint: where they are read, what their weights mean, and what is refused."""

import gzip
import json
import math
import shutil
import uuid
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import raysp
from raysp import CheckpointError, PlanError, SpecError
from raysp.checkpoints import language_models
from raysp.checkpoints.language_models import FOLDER, locate_own, read_own
from raysp.cluster.resources import Resources
from raysp.labelling.planning.planned_checkpoint import located_outputs
from raysp.labelling.planning.settings import label_parts, resolve_settings
from raysp.models import AutoProcessor, Wav2Vec2FeatureExtractor, Wav2Vec2Processor, load_checkpoint
from raysp.specs.pipeline import fingerprint
from raysp.storage.stores import open_store
from raysp.text.beams import arpa
from raysp.text.beams.language_model import NgramScores
from tests.corpora import CHECKPOINT, a_pipeline, write_shard
from tests.hub_server import lay_out
from tests.ops.phases import columns_of
from tests.ops.test_transcribing import ctc_forward
from tests.text.beams.arpa_files import write_arpa
from tests.text.beams.kenlm_package import BINARIES, kenlm_package  # noqa: F401 - a fixture

SENTENCES = [["ONE", "TWO"], ["NINE"], ["TWO", "ONE", "ONE"], ["SEVEN", "NINE", "TWO"]]
ATTRS = {"alpha": 0.7, "beta": 2.5, "unk_score_offset": -10.0, "score_boundary": True}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    language_models._opened.cache_clear()
    language_models._opened_binary.cache_clear()


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


def located(pipeline, planned=None):
    return located_outputs(pipeline, Path(pipeline.label.checkpoint), planned)[0]


def pipeline_of(checkpoint, **fields) -> raysp.Pipeline:
    output = raysp.Transcript(beams=8, **fields)
    return a_pipeline(steps=[raysp.Decode(), raysp.Label(str(checkpoint), outputs=[output])])


def hashed(checkpoint, **fields) -> str:
    pipeline = pipeline_of(checkpoint, **fields)
    return fingerprint(label_parts(pipeline, (one.settings for one in resolve_settings(pipeline, Resources(4, 0)))))


@pytest.mark.lengthy
def test_a_run_with_the_own_model_has_the_labels_of_its_file_with_its_weights(tmp_path, checkpoint):
    (checkpoint / FOLDER / "attrs.json").write_text(json.dumps({**ATTRS, "unk_score_offset": 0.0}))
    (checkpoint / FOLDER / "unigrams.txt").unlink()
    lm = str(shutil.copy(checkpoint / FOLDER / "5gram.arpa", tmp_path / "words.arpa"))
    write_shard(tmp_path / "in" / "a.parquet", 2)
    rows = []
    for number, fields in enumerate(({"lm": "own"}, {"lm": lm, "lm_weight": 0.7, "word_bonus": 2.5})):
        output = raysp.Transcript(beams=8, nbest=3, **fields)
        label = raysp.Label(str(checkpoint), outputs=[output])
        pipeline = a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / f"out{number}", steps=[raysp.Decode(), label])
        raysp.run(pipeline, engine="here", progress=False)
        rows.append(pq.read_table(tmp_path / f"out{number}" / "a.parquet").to_pylist())
    assert rows[0] == rows[1]
    assert rows[0][0]["pred_nbest"]
    assert "lm of outputs.0 own (" in raysp.plan(a_pipeline(
        f"{tmp_path}/in/*.parquet", tmp_path / "out0",
        steps=[raysp.Decode(), raysp.Label(str(checkpoint), outputs=[raysp.Transcript(beams=8, nbest=3, lm="own")])],
    )).facts["other files"]  # fmt: skip


@pytest.mark.parametrize("boundary", [True, False])
def test_scores_are_weighed_as_pyctcdecode_does(checkpoint, boundary):
    """alpha * ln 10 * (log10 P(word) + offset of unknown ones, and of the end) + beta for each word."""
    own = checkpoint / FOLDER
    (own / "attrs.json").write_text(json.dumps({**ATTRS, "score_boundary": boundary, "unk_score_offset": -4.0}))
    [output] = located(pipeline_of(checkpoint, lm="own", nbest=8))
    [plain] = located(pipeline_of(checkpoint, nbest=8))
    loaded = load_checkpoint(checkpoint)
    ids = loaded.text_tokenizer("ONE SEVEN NIN")["input_ids"]
    logits = torch.full((1, 2 * len(ids), 20), -9.0)
    logits[0, torch.arange(0, 2 * len(ids), 2), torch.tensor(ids)] = 5.0
    logits[0, 1::2, loaded.text_tokenizer.pad_token_id] = 5.0
    forward = ctc_forward(logits, torch.tensor([2 * len(ids)]), [None])
    with_lm, without = (
        {one["text"]: one["score"] for one in columns_of(op.op(loaded.summary, loaded), forward)[2][0]}
        for op in (output, plain)
    )
    model = arpa.parse(own / "5gram.arpa")
    scores, words = NgramScores(model), ["ONE", "SEVEN", "NIN"]  # SEVEN is no unigram, NIN no word of the model
    context = np.array(scores.start() if boundary else [-1, -1])
    expected = without["ONE SEVEN NIN"]
    for word in [*words, "</s>"][: 4 if boundary else 3]:
        log_prob, context = scores(context, model.ids([word])[0])
        unknown = -4.0 * math.log(10) if word in ("SEVEN", "NIN") else 0.0
        expected += 0.7 * (float(log_prob) + unknown) + (2.5 if word != "</s>" else 0.0)
    assert with_lm["ONE SEVEN NIN"] == pytest.approx(expected, abs=1e-3)


def test_given_weights_take_the_place_of_the_checkpoints(checkpoint):
    own = language_models.weighed(str(checkpoint / FOLDER), None, None)[2]
    given = language_models.weighed(str(checkpoint / FOLDER), 0.1, 0.0)[2]
    assert (own.log_prob, own.bonus, own.unknown) == (0.7, 2.5, pytest.approx(-10 * math.log(10)))
    assert (given.log_prob, given.bonus, given.unknown) == (0.1, 0.0, own.unknown)


def test_without_a_model_the_plan_says_so(tmp_path, checkpoint):
    shutil.rmtree(checkpoint / FOLDER)
    with pytest.raises(PlanError, match=r"lm='own': .*model comes with no language model, a folder 'language_model'"):
        resolve_settings(pipeline_of(checkpoint, lm="own"), Resources(4, 0))
    with pytest.raises(SpecError, match="lm given with beams=1"):
        raysp.Transcript(lm="own")


def test_the_fingerprint_covers_the_model_its_words_and_its_weights(tmp_path, checkpoint):
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
    write_arpa(own / "5gram.arpa", SENTENCES, 2)
    assert len({first, second, third, hashed(checkpoint, lm="own"), hashed(checkpoint, lm="own", lm_weight=1.0)}) == 5


def test_a_model_that_changed_since_the_plan_is_refused_by_a_worker(checkpoint):
    pipeline = pipeline_of(checkpoint, lm="own")
    settings = resolve_settings(pipeline, Resources(4, 0))[0].settings
    (checkpoint / FOLDER / "attrs.json").write_text(json.dumps({**ATTRS, "alpha": 0.6}))
    with pytest.raises(CheckpointError, match=r"its digest was .* when the run was planned"):
        located(pipeline, settings.file_digests)


def test_the_files_may_be_compressed_or_binary(checkpoint, kenlm_package):  # noqa: F811
    own = checkpoint / FOLDER
    expected = resolve_settings(pipeline_of(checkpoint, lm="own"), Resources(4, 0))[0].settings.file_digests
    (own / "5gram.arpa.gz").write_bytes(gzip.compress((own / "5gram.arpa").read_bytes()))
    (own / "5gram.arpa").unlink()
    assert resolve_settings(pipeline_of(checkpoint, lm="own"), Resources(4, 0))[0].settings.file_digests != expected
    (own / "5gram.arpa.gz").unlink()
    shutil.copy(BINARIES / "quantised.binary", own / "lm.binary")
    loaded = load_checkpoint(checkpoint)
    [output] = located(pipeline_of(checkpoint, lm="own"))
    output.check(loaded.summary)
    logits = torch.randn(1, 30, 20, generator=torch.Generator().manual_seed(0))
    forward = ctc_forward(logits, torch.tensor([30]), [None])
    [text] = columns_of(output.op(loaded.summary, loaded), forward)[0]
    assert isinstance(text, str)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("attrs.json", "[]", r"attrs.json: found \[\], expected a JSON object"),
        ("attrs.json", "{", "attrs.json: .* expected a JSON object"),
        ("attrs.json", '{"alpha": "much"}', "alpha is 'much', expected a number"),
        ("attrs.json", '{"beta": NaN}', "beta is nan, expected a number"),
        ("attrs.json", '{"unk_score_offset": true}', "unk_score_offset is True, expected a number"),
        ("attrs.json", '{"score_boundary": 1}', "score_boundary is 1, expected true or false"),
        ("other.arpa", "", "found 5gram.arpa, other.arpa, expected one language model"),
        ("unigrams.txt", "\udcff", "unigrams.txt: .*expected a word a line in UTF-8"),
    ],
)
def test_a_damaged_folder_is_refused_with_the_file(checkpoint, name, content, message):
    (checkpoint / FOLDER / name).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(CheckpointError, match=message):
        resolve_settings(pipeline_of(checkpoint, lm="own"), Resources(4, 0))


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


def test_the_model_of_a_hub_id_is_read_only_where_it_is_asked_for(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    snapshot = lay_out(tmp_path / "hub", checkpoint)
    assert not (snapshot / FOLDER).exists()
    assert locate_own("owner/name") is None
    shutil.copytree(checkpoint / FOLDER, snapshot / FOLDER)
    assert locate_own("owner/name") == snapshot / FOLDER
    assert resolve_settings(pipeline_of("owner/name", lm="own"), Resources(4, 0))[0].settings.file_digests["own"]
