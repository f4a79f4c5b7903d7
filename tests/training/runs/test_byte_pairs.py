"""Training of a head on pieces of words that are learnt from the texts: vocabulary, texts, times, exports."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch

import raysp
from raysp import Schedule, finetune
from raysp.models import load_checkpoint
from tests import kit
from tests.corpora import write_shard
from tests.models.oracles import transformers
from tests.recipes import WORDS, a_recipe, words_table
from tests.training.trained import planned, weights

SIZE = 32


def write_texts(folder: Path, texts: list[str]) -> str:
    write_shard(folder / "0.parquet", table=words_table(len(texts), texts=texts))
    return f"{folder}/*.parquet"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> str:
    """Eight rows of two digits each."""
    texts = [f"{one} {other}" for one, other in zip(WORDS[:8], WORDS[2:], strict=True)]
    return write_texts(tmp_path_factory.mktemp("pairs"), texts)


def recipe(url, checkpoint, sink, vocabulary: str, rate: float = 1e-3) -> raysp.Finetune:
    objective = {"vocabulary": vocabulary, "blank_bias": -1.0}
    return a_recipe(url, checkpoint, sink, objective=objective, schedule=Schedule(steps=2, learning_rate=rate))


@pytest.fixture(scope="module")
def trained(pairs, tiny, tmp_path_factory) -> Path:
    """A checkpoint that writes many pieces."""
    sink = tmp_path_factory.mktemp("trained") / "out"
    assert finetune(recipe(pairs, tiny, sink, f"bpe:{SIZE}")).is_done
    return sink


@pytest.mark.slow
def test_texts_with_spaces_and_times_are_those_that_transformers_reads_from_the_files(trained, pairs, tmp_path):
    label = raysp.Label(str(trained), outputs=[raysp.Transcript(words=True)], dtype="float32")
    sink = raysp.Parquet(str(tmp_path / "labels"), keep=["text"])
    pipeline = raysp.Pipeline(raysp.Shards(pairs), steps=[raysp.Decode(), label], sink=sink)
    raysp.run(pipeline, engine="here", progress=False)
    processor = transformers.AutoProcessor.from_pretrained(trained)
    assert (type(processor.tokenizer).__name__, len(processor.tokenizer)) == ("ParakeetTokenizer", SIZE)
    theirs, ours = transformers.AutoModelForCTC.from_pretrained(trained).eval(), load_checkpoint(trained)
    recordings = pq.read_table(pairs.replace("*", "0"))["audio"].to_pylist()
    waves = [soundfile.read(io.BytesIO(one["bytes"]), dtype="float32")[0] for one in recordings]
    rows = kit.rows(sink.url)
    assert any(" " in row["pred_text"] for row in rows)
    for row, wave in zip(rows, waves, strict=True):
        values = processor(wave, sampling_rate=16_000, return_tensors="pt")["input_values"]
        with torch.no_grad():
            ids = theirs(values).logits.argmax(-1)
        assert processor.batch_decode(ids) == [row["pred_text"]]
        assert processor.tokenizer(row["text"])["input_ids"] == ours.tokenizer(row["text"])["input_ids"]
        assert [one["word"] for one in row["pred_words"]] == row["pred_text"].split()
        times = [time for one in row["pred_words"] for time in (one["start"], one["end"])]
        assert times == sorted(times)
        assert max(times, default=0.0) <= row["seconds"]


@pytest.mark.slow
def test_a_trained_head_is_kept_by_a_further_training(trained, pairs, tmp_path):
    again = recipe(pairs, trained, tmp_path / "out", "keep", rate=1e-30)
    plan = planned(again)
    assert plan["vocabulary"] == load_checkpoint(trained).tokenizer.get_vocab()
    assert plan["left_out"] == {}
    assert "outside" not in plan.facts["characters"]
    finetune(again)
    before, after = (weights(folder)["lm_head.weight"] for folder in (trained, tmp_path / "out"))
    assert torch.equal(after, before)
    assert len(after) == SIZE


@pytest.mark.slow
def test_rows_whose_words_no_frames_hold_are_left_out_and_pieces_too_many_fail(tiny, tmp_path):
    url = write_texts(tmp_path / "in", ["one two"] * 4 + ["o n e " * 30, "abcdefghijklmnopqrstuvwxyz"])
    result = finetune(recipe(url, tiny, tmp_path / "out", "bpe:40"))
    assert (result.rows, result.left_out) == (5, {"label_too_long": 1})
    assert result.errors.keys() == {"label_too_long"}


def test_texts_with_marks_of_pieces_are_left_out(tiny, tmp_path):
    url = write_texts(tmp_path / "in", ["a|b", "\u2581a", "a <pad> b", "a b"])
    plan = planned(recipe(url, tiny, tmp_path / "out", "bpe:10"))
    assert plan["left_out"] == {"outside_vocabulary": 2}
    assert {"|", "a", "b"} <= plan["vocabulary"].keys()
    assert plan.facts["pieces"] == f"{len(plan['vocabulary'])} tokens, learnt from 3 different words"


def test_pieces_do_not_depend_on_the_order_of_words(tiny, tmp_path):
    drawn = np.random.default_rng(0)
    words = ["".join(drawn.choice([*"abcdefg"], drawn.integers(1, 5))) for _ in range(160)]
    found = []
    for name in ("sorted", "shuffled"):
        url = write_texts(tmp_path / name, [" ".join(words[first : first + 2]) for first in range(0, 160, 2)])
        plan = planned(recipe(url, tiny, tmp_path / "out", "bpe:60"))
        assert plan["left_out"] == {}
        found.append(plan["vocabulary"])
        drawn.shuffle(words)
    assert found[0] == found[1]
    assert len(found[0]) == 60
    assert [found[0][one] for one in ("<pad>", "<unk>")] == [0, 1]


@pytest.mark.slow
def test_pieces_follow_byte_pair_encoding(tiny, tmp_path):
    """The example of Sennrich et al. 2016: low 5, lower 2, newest 6, widest 3."""
    url = write_texts(tmp_path / "in", ["low"] * 5 + ["lower"] * 2 + ["newest"] * 6 + ["widest"] * 3)
    finetune(recipe(url, tiny, tmp_path / "out", "bpe:17"))
    model = json.loads((tmp_path / "out" / "tokenizer.json").read_text())["model"]
    assert [*map(tuple, model["merges"][:3])] == [("e", "s"), ("es", "t"), ("l", "o")]
    tokenizer = load_checkpoint(tmp_path / "out").tokenizer
    assert tokenizer.decode(tokenizer("lowest newer")["input_ids"]) == "lowest newer"
