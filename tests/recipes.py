"""What tests of trainings share: a tiny checkpoint, shards of words, and recipes over them."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile
import torch

import raysp
from raysp import CTC, Batching, Checkpoint, Finetune, Schedule, Text
from raysp.models import (
    UniSpeechConfig,
    UniSpeechForCTC,
    UniSpeechModel,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    Wav2Vec2Processor,
)
from tests.corpora import AUDIO, wav, write_shard

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SMALL = {
    "vocab_size": 20,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": (16,) * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "pad_token_id": 0,
    "ctc_zero_infinity": True,
    "mask_time_prob": 0.05,
    "mask_time_length": 4,
}
"""Fields of a small wav2vec 2.0."""
MASKS = {"hidden_dropout": 0.1, "layerdrop": 0.2, "mask_time_prob": 0.2}
"""Fields of what is drawn in a training."""
WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "zero"]


def letters_tokenizer() -> Wav2Vec2CTCTokenizer:
    """Make a tokenizer of the letters, whose blank is token 0."""
    vocabulary = {token: number for number, token in enumerate(["<pad>", "<unk>", "|", *LETTERS])}
    named = {"unk_token": "<unk>", "pad_token": "<pad>", "word_delimiter_token": "|"}
    return Wav2Vec2CTCTokenizer(vocabulary, bos_token=None, eos_token=None, **named)


def tiny_checkpoint(folder: Path, *, head: bool = True) -> Path:
    """Write a checkpoint of random weights, with a CTC head on letters or without a head."""
    torch.manual_seed(0)
    tokenizer = letters_tokenizer()
    config = UniSpeechConfig(**{**SMALL, "vocab_size": len(tokenizer.get_vocab())})
    (UniSpeechForCTC if head else UniSpeechModel)(config).save_pretrained(folder)
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=16_000, do_normalize=True, return_attention_mask=True)
    if head:
        Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)
    else:
        extractor.save_pretrained(folder)
    return folder


def tiny_listener(folder: Path) -> Path:
    """Write a checkpoint of random weights without a head, of an architecture with a head for speakers."""
    torch.manual_seed(0)
    fields = {"tdnn_dim": (16, 16, 16, 16, 24), "xvector_output_dim": 12}
    Wav2Vec2Model(Wav2Vec2Config(**{**SMALL, **fields})).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=16_000, return_attention_mask=True).save_pretrained(folder)
    return folder


def words_table(num_rows: int, *, seed: int = 0, texts: list[str | None] | None = None) -> pa.Table:
    """Make rows of noise of 0.3 to 0.7 seconds with the word of a digit each."""
    lengths = np.random.default_rng(seed).integers(4800, 11_200, num_rows)
    recordings = [{"bytes": wav(int(n), seed=seed + i), "path": None} for i, n in enumerate(lengths)]
    return pa.table(
        {
            "id": [f"{seed}-{row}" for row in range(num_rows)],
            "audio": pa.array(recordings, AUDIO),
            "text": pa.array(texts or [WORDS[row % 10] for row in range(num_rows)], pa.string()),
            "speaker": [f"s{row % 3}" for row in range(num_rows)],
            "age": [20.0 + row % 5 for row in range(num_rows)],
        }
    )


def broken_table(num_rows: int) -> pa.Table:
    """Make rows that can be decoded only by their headers: the index does not know that their frames are broken."""
    table, file = words_table(num_rows, seed=9), io.BytesIO()
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 8000).astype(np.float32)
    soundfile.write(file, samples, 16_000, format="FLAC")
    broken = file.getvalue()[:200] + bytes(len(file.getvalue()) - 200)
    recordings = pa.array([{"bytes": broken, "path": None}] * num_rows, AUDIO)
    return table.set_column(table.column_names.index("audio"), "audio", recordings)


def write_words(folder: Path, *sizes: int) -> str:
    """Write shards of the given numbers of rows, in row groups of ten, and return their url."""
    for number, size in enumerate(sizes):
        write_shard(folder / f"{number}.parquet", table=words_table(size, seed=100 * number), row_group_size=10)
    return f"{folder}/*.parquet"


def second_shard(url: str, text: str | None = "text") -> raysp.Shards:
    """Return the second shard of words as a source: enough rows for an evaluation."""
    return raysp.Shards(url.replace("*", "1"), text=text)


def a_recipe(url: str, checkpoint: Path, sink: object, **fields: object) -> Finetune:
    """Make a recipe of a few steps; `objective`, or fields of that for CTC, and `steps` change those."""
    objective = fields.pop("objective", {})
    if isinstance(objective, dict):
        objective = CTC(str(checkpoint), **{"vocabulary": "build", "text": Text("lower"), **objective})
    given = {
        "steps": [raysp.Decode()],
        "schedule": Schedule(steps=4, learning_rate=1e-3),
        "pool": raysp.Pool(1, cpus=1),
        "batching": Batching(seconds=6, micro_batches=2, window_seconds=10),
        **fields,
    }
    source = given.pop("source", None) or raysp.Shards(url, text="text")
    sink = sink if isinstance(sink, Checkpoint) else Checkpoint(str(sink), every=2)
    return Finetune(source, objective=objective, sink=sink, **given)
