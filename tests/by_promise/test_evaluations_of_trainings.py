"""Evaluation during a training is `raysp evaluate`: the last equals that of the exported checkpoint, bit for bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import raysp
from raysp.models import (
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2Model,
    Wav2Vec2Processor,
)
from tests.corpora import AUDIO
from tests.kit import sound
from tests.recipes import SMALL, letters_tokenizer, words_table
from tests.soaked import soaked
from tests.training.objectives.originals import save_decoder

LONG = 33
"""Seconds of the long rows: two windows."""
MASKS = {"hidden_dropout": 0.1, "layerdrop": 0.2, "mask_time_prob": 0.2}


def tones(num_rows: int, *, seed: int = 0) -> pa.Table:
    """Make short rows of different tones, but one of two windows, one without a reference and one that is damaged."""
    table = words_table(num_rows, seed=seed)
    random = np.random.default_rng(seed)
    recordings = []
    for row in range(num_rows):
        times = np.arange(LONG * 16_000 if row == 1 else random.integers(4800, 11_200)) / 16_000
        tone = np.sin(2 * np.pi * (150 + 70 * row) * times) + 0.3 * random.normal(size=len(times))
        recordings.append({"bytes": b"junk" if row == 2 else sound(0.2 * tone.astype(np.float32)), "path": None})
    table = table.set_column(1, "audio", pa.array(recordings, AUDIO))
    for name, missing in (("text", {3: None}), ("speaker", {3: None, 8: ""})):
        values = [missing.get(row, value) for row, value in enumerate(table.column(name).to_pylist())]
        table = table.set_column(table.column_names.index(name), name, pa.array(values, pa.string()))
    return table


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with rows to train on, and rows to evaluate on."""
    folder = tmp_path_factory.mktemp("corpus")
    for name, num_rows, seed in (("train", 12, 0), ("dev", 9, 50)):
        (folder / name).mkdir()
        pq.write_table(tones(num_rows, seed=seed), folder / name / "0.parquet", row_group_size=4)
    return folder


def headless(folder: Path, **fields: Any) -> str:
    """Write an encoder of random weights, which may have adapter layers."""
    torch.manual_seed(0)
    Wav2Vec2Model(Wav2Vec2Config(**{**SMALL, "do_stable_layer_norm": True, **fields})).save_pretrained(folder)
    Wav2Vec2FeatureExtractor(sampling_rate=16_000, return_attention_mask=True).save_pretrained(folder)
    return str(folder)


def with_letters(folder: Path) -> str:
    """Write a checkpoint of random weights with a CTC head, which writes letters."""
    torch.manual_seed(0)
    config = Wav2Vec2Config(**{**SMALL, "vocab_size": 29, "do_stable_layer_norm": True})
    Wav2Vec2ForCTC(config).save_pretrained(folder)
    extractor = Wav2Vec2FeatureExtractor(sampling_rate=16_000, return_attention_mask=True)
    Wav2Vec2Processor(extractor, letters_tokenizer()).save_pretrained(folder)
    return str(folder)


def characters(folder: Path, **fields: Any) -> raysp.CTC:
    """Make an objective whose new head writes many letters."""
    fields = {"vocabulary": "build", "text": raysp.Text("lower"), "blank_bias": -1.0, **fields}
    return raysp.CTC(headless(folder), masks=MASKS, **fields)


def written(folder: Path, **fields: Any) -> raysp.Seq2Seq:
    decoder = save_decoder("bart", folder / "decoder")
    return raysp.Seq2Seq(
        headless(folder / "encoder"),
        decoder=str(decoder),
        generate={"min_new_tokens": 4, "max_new_tokens": 8},
        **fields,
    )


def speakers(folder: Path) -> raysp.Speakers:
    sizes = {"tdnn_dim": (16, 16, 16, 16, 24), "xvector_output_dim": 12}
    checkpoint = headless(folder, **sizes, initializer_range=0.5)  # whose vectors are not all the same
    return raysp.Speakers(checkpoint, column="speaker", crop_seconds=0.5)


OBJECTIVES: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "characters": (characters, "cer", "text"),
    "kept characters": (lambda folder: raysp.CTC(with_letters(folder), text=raysp.Text("lower")), "cer", "text"),
    "pieces that are learnt": (lambda folder: characters(folder, vocabulary="bpe:30"), "cer", "text"),
    "LoRA": (lambda folder: characters(folder, lora=raysp.LoRA(4, dropout=0.1)), "cer", "text"),
    "adapter of a language": (lambda folder: characters(folder, adapter="eng"), "cer", "text"),
    "texts of a decoder": (written, "cer", "text"),
    "classes": (lambda folder: raysp.Classify(headless(folder), column="speaker", masks=MASKS), "accuracy", "label"),
    "speakers": (speakers, "eer", "speaker"),
}


def last_evaluation(corpus: Path, folder: Path, name: str, **fields: Any) -> Any:
    """Train, and return the evaluation of the weights that come out."""
    make, best, argument = OBJECTIVES[name]
    seen = []
    source = raysp.Shards(f"{corpus}/dev/*.parquet", text="text" if argument == "text" else None)
    steps, rate = (12, 3e-3) if name == "texts of a decoder" else (3, 1e-3)  # until labels differ
    recipe = raysp.Finetune(
        raysp.Shards(f"{corpus}/train/*.parquet", text="text"),
        steps=[raysp.Decode(), raysp.Keep(max_seconds=10)],
        objective=make(folder / "checkpoint"),
        schedule=raysp.Schedule(steps=steps, learning_rate=rate),
        batching=raysp.Batching(seconds=6, micro_batches=2),
        evaluation=raysp.Evaluation(source, every=steps, best=best, by=["seconds"]),
        sink=raysp.Checkpoint(str(folder / "out")),
        pool=raysp.Pool(1, cpus=1),
        seed=1,
        **fields,
    )

    def follow(progress: Any) -> None:
        seen.append(progress.last[-1].evaluation)

    result = raysp.finetune(recipe, engine="here", on_progress=follow)
    assert result.best == seen[-1].scores.metrics[best].value
    return seen[-1]


LATER = ("kept characters", "pieces that are learnt", "LoRA", "adapter of a language")


@pytest.mark.parametrize("name", [*(name for name in OBJECTIVES if name not in LATER), *soaked(LATER)])
def test_the_last_evaluation_equals_that_of_the_exported_checkpoint(corpus, tmp_path, name):
    last = last_evaluation(corpus, tmp_path, name, ema=0.5 if name in ("characters", "LoRA") else None)
    argument = OBJECTIVES[name][2]
    reference = "text" if argument == "text" else "speaker"
    expected = raysp.evaluate(
        str(tmp_path / "out"), f"{corpus}/dev/*.parquet", **{argument: reference}, engine="here", progress=False
    )
    metrics = {metric: last.scores.metrics[metric] for metric in expected.scores.metrics}
    assert metrics == expected.scores.metrics
    assert (last.scores.rows, last.failed) == (expected.rows.compared, sum(expected.rows.errors.values()))
    for group, same in zip(last.by["seconds"], expected.by["seconds"], strict=True):
        assert group.value == same.value
        assert {metric: group.scores.metrics[metric] for metric in same.scores.metrics} == same.scores.metrics
    if argument == "text":
        assert last.scores.counts == expected.scores.counts
        worst = [(row.hypothesis, row.errors) for row in expected.worst]
        assert [(row.hypothesis, row.errors) for row in last.worst][: len(worst)] == worst
        assert {row.hypothesis for row in expected.worst} != {""}
