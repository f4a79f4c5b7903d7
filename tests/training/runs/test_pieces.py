"""Training of Parakeet, whose vocabulary has pieces of words, on real digits."""

import pyarrow.parquet as pq
import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

import raysp
from raysp import Batching, PlanError, Schedule, finetune
from raysp.models import (
    ParakeetCTCConfig,
    ParakeetFeatureExtractor,
    ParakeetForCTC,
    ParakeetProcessor,
    ParakeetTokenizer,
)
from tests.corpora import DEMO, write_shard

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "subsampling_conv_channels": 32,
    "layerdrop": 0.0,
    "initializer_range": 0.1,
}
SMALL |= dict.fromkeys(("dropout", "activation_dropout", "attention_dropout"), 0.0)


def parakeet_checkpoint(folder):
    """Write random weights with a vocabulary of the digits, each of them a piece, and return their folder."""
    pieces = ["<unk>", *(f"▁{word}" for word in WORDS), "▁"]
    backend = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    backend.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    backend.add_special_tokens([AddedToken("<unk>", special=True), AddedToken("<pad>", special=True)])
    tokenizer = ParakeetTokenizer(backend, "ParakeetTokenizer", unk_token="<unk>", pad_token="<pad>")
    config = ParakeetCTCConfig(encoder_config=SMALL, vocab_size=len(pieces) + 1, pad_token_id=len(pieces))
    ParakeetForCTC(config).save_pretrained(folder)
    ParakeetProcessor(ParakeetFeatureExtractor(), tokenizer).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return parakeet_checkpoint(tmp_path_factory.mktemp("parakeet"))


def write_digits(file):
    """Write a shard with a recording of each digit, and return its path."""
    table = pq.read_table(min((DEMO / "audio").glob("*.parquet")))
    texts, chosen = table.column("text").to_pylist(), []
    for word in WORDS:
        chosen += [number for number, text in enumerate(texts) if text == word][:1]
    write_shard(file, table=table.take(sorted(chosen)))
    return str(file)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    return write_digits(tmp_path_factory.mktemp("digits") / "a.parquet")


def recipe(digits, checkpoint, sink, **objective):
    return raysp.Finetune(
        raysp.Shards(digits, text="text"),
        steps=[raysp.Decode()],
        objective=raysp.CTC(
            str(checkpoint), **{"vocabulary": "keep", "random_weights": True, "blank_bias": 0.0, **objective}
        ),
        schedule=Schedule(steps=90, learning_rate=2e-3, head_rate=1.0, shape="constant"),
        batching=Batching(seconds=12, micro_batches=1),
        sink=raysp.Checkpoint(str(sink)),
        pool=raysp.Pool(1, cpus=1),
    )


@pytest.mark.drivers
@pytest.mark.slow
def test_digits_are_learnt_and_labelled_in_any_batch(digits, checkpoint, tmp_path):
    assert finetune(recipe(digits, checkpoint, tmp_path / "out")).is_done
    found = []
    for seconds in (1, 600):
        label = raysp.Label(str(tmp_path / "out"), outputs=[raysp.Transcript()], batch_seconds=seconds)
        sink = raysp.Parquet(str(tmp_path / f"labels-{seconds}"), keep=["text"])
        raysp.run(
            raysp.Pipeline(raysp.Shards(digits), steps=[raysp.Decode(), label], sink=sink),
            engine="here",
            progress=False,
        )
        found.append(pq.read_table(tmp_path / f"labels-{seconds}" / "a.parquet"))
    alone, together = found
    assert alone.column("pred_text").to_pylist() == alone.column("text").to_pylist()
    assert together.column("pred_text").equals(alone.column("pred_text"))


def test_a_vocabulary_of_characters_is_refused(digits, checkpoint, tmp_path):
    with pytest.raises(PlanError, match="ParakeetForCTC has one of pieces of words: use vocabulary='keep'"):
        finetune(recipe(digits, checkpoint, tmp_path / "out", vocabulary="build"))
