"""Labels of rows in several orders, budgets and numbers of threads; a process of its own has another instruction set.

    ONEDNN_MAX_CPU_ISA=AVX2 python -m tests.ops.label_independence ParakeetForTDT bfloat16 3 20

prints the number of different labellings, of which one is expected, and the instructions that torch takes.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

import raysp
from raysp.audio import decode
from raysp.models import (
    BartConfig,
    BertConfig,
    GPT2Config,
    MBartConfig,
    SpeechEncoderDecoderConfig,
    SpeechEncoderDecoderModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
)
from raysp.ops.labelling import Labelling
from tests.device.class_cases import CASES, WAVES, make_checkpoint
from tests.models.tokenizers.text_tokenizers import BERT_VOCAB, write_bert_tokenizer
from tests.ops.test_labelling import block_of, labels
from tests.s3_servers import shared_folder

VOCAB_SIZE = len(dict.fromkeys(BERT_VOCAB))
ENDS = {"eos_token_id": [3, *range(5, 9)], "max_new_tokens": 16}
"""So many tokens end a text that lengths differ from row to row."""
DECODERS = {
    "BART": BartConfig(
        vocab_size=VOCAB_SIZE, d_model=256, decoder_layers=2, decoder_attention_heads=4, decoder_ffn_dim=1024,
        init_std=0.3,
    ),
    "mBART": MBartConfig(
        vocab_size=VOCAB_SIZE, d_model=144, decoder_layers=2, decoder_attention_heads=3, decoder_ffn_dim=330,
        init_std=0.3,
    ),
    "GPT-2": GPT2Config(
        vocab_size=VOCAB_SIZE, n_embd=512, n_layer=2, n_head=8, n_inner=2048, initializer_range=0.3, is_decoder=True
    ),
    "BERT": BertConfig(
        vocab_size=VOCAB_SIZE, hidden_size=256, num_hidden_layers=2, num_attention_heads=4, intermediate_size=1024,
        initializer_range=0.3, is_decoder=True,
    ),
}  # fmt: skip
WAYS = {
    "greedy": {},
    "beams": {"num_beams": 3},
    "sampling": {"do_sample": True, "top_k": 20},
    "repetition": {"repetition_penalty": 1.5, "no_repeat_ngram_size": 2},
}
WRITERS = {
    f"{decoder} {way}": [raysp.Transcript(generate={**ENDS, **options})]
    for decoder in DECODERS
    for way, options in WAYS.items()
}
"""Outputs by names of a decoder and of a way of writing."""


def make_writer(name: str, folder: Path) -> None:
    """Write the checkpoint of a case, with random weights."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 256, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 512}
    encoder = Wav2Vec2Config(**{**WAVES, **sizes}, feat_extract_norm="layer", do_stable_layer_norm=True)
    start = {"decoder_start_token_id": 2, "pad_token_id": 0, "eos_token_id": 3}
    config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder, DECODERS[name.split()[0]], **start)
    model = SpeechEncoderDecoderModel(config).init_weights()
    with torch.no_grad():
        for parameter in model.encoder.parameters():  # so that texts differ from row to row
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    write_bert_tokenizer(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)


TRAINED = ("unispeech-digits-ctc", "w2vbert-digits-ctc")
ORDERS = 10
BUDGETS = (2, 15, 60, 600)
THREADS = (1, 2)
FEW_ROWS = 30
LIMITS = {
    "AVX2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "AVX512_CORE": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "MKL_ENABLE_INSTRUCTIONS": "AVX512"},
    "AVX512_CORE_BF16": {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16", "MKL_ENABLE_INSTRUCTIONS": "AVX512"},
}
"""Environments in which libraries take no newer instructions."""


def digits() -> list[np.ndarray]:
    """Return recordings of one to six digits."""
    file = min((shared_folder() / "data" / "digits").glob("*.parquet"))
    cells = pq.read_table(file).column("audio").to_pylist()
    waves, generator = [decode(cell["bytes"], sample_rate=16_000) for cell in cells], np.random.default_rng(5)
    picked = (generator.integers(len(waves), size=1 + number % 6) for number in range(500))
    return [np.concatenate([waves[place] for place in places]) for places in picked]


def labellings(
    name: str,
    dtype: str,
    folder: Path,
    waves: Sequence[np.ndarray],
    *,
    orders: int = ORDERS,
    budgets: Sequence[float] = BUDGETS,
    threads: Sequence[int] = THREADS,
) -> set[str]:
    """Return the different labellings of a trained checkpoint, or of a case that is written to a folder."""
    checkpoint, outputs = shared_folder() / "checkpoints" / name, [raysp.Transcript(words=True)]
    if name not in TRAINED:
        checkpoint, outputs = folder, {**CASES, **WRITERS}[name]
        (make_writer if name in WRITERS else make_checkpoint)(name, folder)
    found: set[str] = set()
    for number, budget in itertools.product(threads, budgets):
        one = Labelling(
            str(checkpoint),
            lambda loaded: [output.op(loaded.summary, loaded) for output in outputs],
            batch_seconds=budget,
            dtype=dtype,
            threads=number,
        )
        assert one.is_alone
        for seed in range(orders):
            order = np.random.default_rng(seed).permutation(len(waves)).tolist()
            table = labels(one, block_of([waves[row] for row in order], order))
            assert {"ok"} <= {label["status"] for label in table.values()} <= {"ok", "skipped"}  # some are too short
            found.add(json.dumps([table[row] for row in range(len(waves))], default=str))
    return found


def count_with(instructions: str, name: str, dtype: str, orders: int, rows: int) -> int:
    """Return the number of different labellings in a process that takes no newer instructions."""
    command = [sys.executable, "-m", "tests.ops.label_independence", name, dtype, str(orders), str(rows)]
    limits = {**os.environ, **LIMITS[instructions]}
    done = subprocess.run(command, env=limits, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    number, capability = done.stdout.split()
    assert capability == ("AVX2" if instructions == "AVX2" else "AVX512")
    return int(number)


def main(name: str, dtype: str, orders: str, rows: str) -> None:
    """Print the number of different labellings."""
    with tempfile.TemporaryDirectory() as folder:
        few = {} if int(orders) > 3 else {"budgets": BUDGETS[:2]}
        found = labellings(name, dtype, Path(folder) / "checkpoint", digits()[: int(rows)], orders=int(orders), **few)
    print(len(found), torch.backends.cpu.get_cpu_capability())  # noqa: T201


if __name__ == "__main__":
    main(*sys.argv[1:])
