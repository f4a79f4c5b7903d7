"""Training of a head on pieces of words that are learnt from the texts: vocabulary, texts, times, exports, resuming."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import soxr
import torch
from safetensors.torch import load_file

import raysp
from raysp import Batching, ChangedError, Schedule, finetune
from raysp.models import load_checkpoint
from tests.corpora import AUDIO, CHECKPOINT, DEMO, write_shard
from tests.models.oracles import transformers
from tests.recipes import a_recipe, words_table
from tests.training.runs.test_pieces import parakeet_checkpoint
from tests.training.trained import planned

SIZE = 32


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> str:
    """A shard with recordings of two digits each."""
    table = pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 8)
    waves = [soundfile.read(io.BytesIO(one["bytes"]), dtype="float32") for one in table.column("audio").to_pylist()]
    texts, recordings = table.column("text").to_pylist(), []
    for (first, rate), (second, _) in zip(waves[::2], waves[1::2], strict=True):
        file = io.BytesIO()
        soundfile.write(file, np.concatenate([first, np.zeros(rate // 5, np.float32), second]), rate, format="WAV")
        recordings.append({"bytes": file.getvalue(), "path": None})
    joined = [f"{one} {other}" for one, other in zip(texts[::2], texts[1::2], strict=True)]
    file = tmp_path_factory.mktemp("pairs") / "a.parquet"
    ids = [f"r{row}" for row in range(len(joined))]
    write_shard(file, table=pa.table({"id": ids, "audio": pa.array(recordings, AUDIO), "text": joined}))
    return str(file)


def recipe(pairs, sink, *, steps=1, rate=5e-4, shape="constant", **fields) -> raysp.Finetune:
    objective = {"checkpoint": CHECKPOINT, "vocabulary": f"bpe:{SIZE}"}
    checkpoint, vocabulary = (fields.pop(name, value) for name, value in objective.items())
    return raysp.Finetune(
        raysp.Shards(pairs, text="text"),
        steps=[raysp.Decode()],
        objective=raysp.CTC(str(checkpoint), text=raysp.Text("lower"), vocabulary=vocabulary),
        schedule=Schedule(steps=steps, learning_rate=rate, shape=shape),
        batching=Batching(seconds=30, micro_batches=1),
        sink=raysp.Checkpoint(str(sink), every=10),
        pool=raysp.Pool(1, cpus=1),
        **fields,
    )


@pytest.fixture(scope="module")
def trained(pairs, tmp_path_factory):
    sink = tmp_path_factory.mktemp("trained")
    evaluation = raysp.Evaluation(raysp.Shards(pairs, text="text"), every=30)
    assert finetune(recipe(pairs, sink, steps=60, rate=1.5e-3, shape="linear", evaluation=evaluation)).is_done
    return sink


@pytest.mark.slow
def test_texts_come_back_with_their_spaces_and_times(trained, pairs, tmp_path):
    label = raysp.Label(str(trained), outputs=[raysp.Transcript(words=True)])
    sink = raysp.Parquet(str(tmp_path / "labels"), keep=["text"])
    raysp.run(
        raysp.Pipeline(raysp.Shards(pairs), steps=[raysp.Decode(), label], sink=sink), engine="here", progress=False
    )
    found = pq.read_table(tmp_path / "labels" / "a.parquet")
    assert found.column("pred_text").to_pylist() == found.column("text").to_pylist()
    columns = (found.column(name).to_pylist() for name in ("text", "pred_words", "seconds"))
    for text, words, seconds in zip(*columns, strict=True):
        assert [one["word"] for one in words] == text.split(" ")
        times = [time for one in words for time in (one["start"], one["end"])]
        assert times == sorted(times)
        assert times[-1] <= seconds
    raysp.export(str(tmp_path / "labels"), to="csv", dest=str(tmp_path / "csv"))
    exported = next((tmp_path / "csv").rglob("*.csv")).read_text()
    assert all(f",{text}" in exported for text in found.column("text").to_pylist())
    assert json.loads((trained / "metrics.json").read_text())["best"]["value"] == 0.0


@pytest.mark.slow
def test_transformers_reads_the_files_and_the_same_texts(trained, pairs):
    processor = transformers.AutoProcessor.from_pretrained(trained)
    assert type(processor.tokenizer).__name__ == "ParakeetTokenizer"
    assert len(processor.tokenizer) == SIZE
    theirs = transformers.AutoModelForCTC.from_pretrained(trained).eval()
    ours, table = load_checkpoint(trained), pq.read_table(pairs)
    for one, text in zip(table.column("audio").to_pylist(), table.column("text").to_pylist(), strict=True):
        samples, rate = soundfile.read(io.BytesIO(one["bytes"]), dtype="float32")
        wave = soxr.resample(samples, rate, 16_000, quality="HQ")
        values = processor(wave, sampling_rate=16_000, return_tensors="pt")["input_values"]
        with torch.no_grad():
            ids = theirs(values).logits.argmax(-1)
        assert processor.batch_decode(ids) == [text] == [ours.tokenizer.decode(ids[0])]
        assert processor.tokenizer(text)["input_ids"] == ours.tokenizer(text)["input_ids"]


@pytest.mark.slow
def test_a_trained_head_is_kept_by_a_further_training(trained, pairs, tmp_path):
    again = recipe(pairs, tmp_path / "out", checkpoint=trained, vocabulary="keep", rate=1e-30)
    plan = planned(again)
    assert plan["vocabulary"] == load_checkpoint(trained).tokenizer.get_vocab()
    assert plan["left_out"] == {}
    assert "outside" not in plan.facts["characters"]
    finetune(again)
    before, after = (
        load_file(folder / "model.safetensors")["lm_head.weight"] for folder in (trained, tmp_path / "out")
    )
    assert torch.equal(after, before)
    assert len(after) == SIZE


@pytest.mark.slow
def test_a_stopped_training_goes_on_bit_for_bit(pairs, parakeet, tmp_path):
    made = {name: recipe(pairs, tmp_path / name, steps=4, checkpoint=parakeet) for name in ("whole", "stopped")}
    finetune(made["whole"])
    asked = iter([False, True])
    assert finetune(made["stopped"], should_stop=lambda: next(asked)).steps == 2
    assert finetune(made["stopped"]).is_done
    whole, stopped = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "stopped"))
    assert all(torch.equal(one, stopped[name]) for name, one in whole.items())
    other = recipe(pairs, tmp_path / "stopped", steps=4, checkpoint=parakeet, vocabulary=f"bpe:{SIZE + 1}")
    with pytest.raises(ChangedError, match=r"vocabulary_digest.*objective.vocabulary"):
        finetune(other)


@pytest.fixture(scope="module")
def parakeet(tmp_path_factory):
    return parakeet_checkpoint(tmp_path_factory.mktemp("parakeet"))


@pytest.mark.slow
def test_rows_whose_words_no_frames_hold_are_left_out_and_pieces_too_many_fail(tiny, tmp_path):
    texts = ["one two"] * 4 + ["o n e " * 30, "abcdefghijklmnopqrstuvwxyz"]
    write_shard(tmp_path / "in" / "0.parquet", table=words_table(6, texts=texts))
    made = a_recipe(f"{tmp_path}/in/*.parquet", tiny, tmp_path / "out", objective={"vocabulary": "bpe:40"})
    result = finetune(made)
    assert result.left_out == {"label_too_long": 1}
    assert result.rows == 5
    assert result.errors.keys() == {"label_too_long"}


def test_texts_with_marks_of_pieces_are_left_out(tiny, tmp_path):
    write_shard(tmp_path / "in" / "0.parquet", table=words_table(4, texts=["a|b", "\u2581a", "a <pad> b", "a b"]))
    made = a_recipe(f"{tmp_path}/in/*.parquet", tiny, tmp_path / "out", objective={"vocabulary": "bpe:10"})
    plan = planned(made)
    assert plan["left_out"] == {"outside_vocabulary": 2}
    assert {"|", "a", "b"} <= plan["vocabulary"].keys()
    assert plan.facts["pieces"] == f"{len(plan['vocabulary'])} tokens, learnt from 3 different words"


def write_texts(folder: Path, texts: list[str]) -> str:
    write_shard(folder / "0.parquet", table=words_table(len(texts), texts=texts))
    return f"{folder}/*.parquet"


def test_pieces_do_not_depend_on_the_order_of_words(tiny, tmp_path):
    drawn = np.random.default_rng(0)
    words = ["".join(drawn.choice([*"abcdefg"], drawn.integers(1, 5))) for _ in range(160)]
    found = []
    for name in ("sorted", "shuffled"):
        url = write_texts(tmp_path / name, [" ".join(words[first : first + 2]) for first in range(0, 160, 2)])
        plan = planned(a_recipe(url, tiny, tmp_path / "out", objective={"vocabulary": "bpe:60"}))
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
    schedule = Schedule(steps=1)
    finetune(a_recipe(url, tiny, tmp_path / "out", objective={"vocabulary": "bpe:17"}, schedule=schedule))
    model = json.loads((tmp_path / "out" / "tokenizer.json").read_text())["model"]
    assert [*map(tuple, model["merges"][:3])] == [("e", "s"), ("es", "t"), ("l", "o")]
    tokenizer = load_checkpoint(tmp_path / "out").tokenizer
    assert tokenizer.decode(tokenizer("lowest newer")["input_ids"]) == "lowest newer"
