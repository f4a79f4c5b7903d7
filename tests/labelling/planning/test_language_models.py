"""Language models of transcripts: where they are refused, and how they become part of a fingerprint."""

import gzip
import shutil

import pyarrow.parquet as pq
import pytest

import raysp
from raysp import CheckpointError, SpecError
from tests.corpora import a_pipeline, write_shard
from tests.text.beams.arpa_files import write_arpa

PAIRS = [["ONE", "TWO"], ["NINE"], ["TWO", "ONE", "ONE"]]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def lm(tmp_path):
    return write_arpa(tmp_path / "words.arpa", PAIRS, 2)


@pytest.fixture
def searching(tmp_path):
    """Make a pipeline with a beam search over two rows."""
    write_shard(tmp_path / "in" / "a.parquet", 2)

    def make(**fields: object) -> raysp.Pipeline:
        outputs = [raysp.Transcript(**{"beams": 8, **fields})]
        return a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out", label={"outputs": outputs})

    return make


@pytest.fixture
def planned(searching):
    return lambda **fields: raysp.plan(searching(**fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"nbest": 2}, "nbest given with beams=1; they need a beam search, such as beams=8"),
        ({"lm": "a.arpa", "hot_words": {"ONE": 1.0}}, "lm, hot_words given with beams=1"),
        ({"beams": 2, "nbest": 3}, "nbest=3 is more than beams=2; raise beams, or lower nbest"),
        ({"beams": 2, "lm_weight": 0.6}, "lm_weight given without lm, the language model; give lm, or set null"),
        ({"hot_words": {}, "word_bonus": 0.0}, "word_bonus given without lm"),
        ({"beams": 2, "hot_words": {"ONE  TWO": 1.0}}, "hot_words holds 'ONE  TWO'; give words separated by single"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(fields, message):
    with pytest.raises(SpecError, match=message):
        raysp.Transcript(**fields)


def test_a_model_that_does_not_exist_or_is_broken_is_refused_before_any_work(tmp_path, lm, planned):
    with pytest.raises(CheckpointError, match=r"language model '.*none.arpa': no such file; expected an ARPA file"):
        planned(lm=str(tmp_path / "none.arpa"))
    lm.write_text(lm.read_text().replace("\\2-grams:", "\\3-grams:"))
    with pytest.raises(CheckpointError, match=r"language model '.*words.arpa', line 13: found .*3-grams:'; expected"):
        planned(lm=str(lm))


def test_a_model_whose_words_the_checkpoint_cannot_write_is_refused(tmp_path, planned):
    path = write_arpa(tmp_path / "lower.arpa", [["one", "two"], ["three"]], 2)
    message = r"has 3 words, of which the checkpoint can write 0, not 'one'; its letters are '.*' *: write the text"
    with pytest.raises(CheckpointError, match=message):
        planned(lm=str(path))


def test_the_fingerprint_has_the_model_by_content(tmp_path, lm, planned):
    def hashed(**fields: object) -> str:
        return planned(**fields).fingerprint

    first = hashed(lm=str(lm))
    assert hashed() != first
    assert hashed(lm=str(shutil.copy(lm, tmp_path / "other.arpa"))) == first
    assert hashed(lm=str(lm), lm_weight=0.6) != first
    write_arpa(lm, [*PAIRS, ["NINE", "ONE"]], 2)
    assert hashed(lm=str(lm)) != first
    assert hashed(word_bonus=1.0) == hashed(lm_weight=0.5) == hashed()


def test_a_plan_shows_the_model_and_a_run_writes_its_columns(tmp_path, lm):
    packed = tmp_path / "words.arpa.gz"
    packed.write_bytes(gzip.compress(lm.read_bytes()))
    write_shard(tmp_path / "in" / "a.parquet", 2)
    output = raysp.Transcript(beams=4, nbest=2, lm=str(packed))
    pipeline = a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out", label={"outputs": [output]})
    assert raysp.plan(pipeline).facts["other files"].startswith(f"lm of outputs.0 {packed} (")
    raysp.run(pipeline, engine="here", progress=False)
    rows = pq.read_table(tmp_path / "out" / "a.parquet").to_pylist()
    assert [row["pred_nbest"][0]["text"] for row in rows] == [row["pred_text"] for row in rows]
    assert raysp.plan(pipeline).rows_todo == 0
