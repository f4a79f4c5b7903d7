"""Spoken digits as the programs load them, and what they share beside the models."""

import io
from pathlib import Path

import datasets
import numpy as np
import soundfile
import soxr

DEMO = Path(__file__).parents[4] / "pipelines" / "demo"
DIGITS = DEMO / "unispeech-digits-ctc"
RATE = 16_000


def digits(rows: int = 8) -> datasets.DatasetDict:
    """Return some digits to train on, and others to evaluate on."""
    files = {"train": "digits-00000-of-00002.parquet", "eval": "digits-00001-of-00002.parquet"}
    splits = {}
    for split, name in files.items():
        whole = datasets.Dataset.from_parquet(str(DEMO / "audio" / name), keep_in_memory=True)
        splits[split] = whole.select(range(rows))
    return datasets.DatasetDict(splits).cast_column("audio", datasets.Audio(sampling_rate=RATE, decode=False))


def decoded(sample) -> dict:
    """Return the waveform of a value of the column "audio", as `datasets` returns it where it decodes."""
    samples, rate = soundfile.read(io.BytesIO(sample["bytes"]), dtype="float32")
    return {"array": soxr.resample(samples, rate, RATE), "sampling_rate": RATE}


def word_error_rate(found: list[str], expected: list[str]) -> float:
    """Return the share of texts, of one word each, that differ."""
    return float(np.mean([one != other for one, other in zip(found, expected, strict=True)]))


def reported(trainer, trained, evaluation) -> None:
    """Log and save metrics and state, as the ends of all programs do."""
    for split, metrics in (("train", trained.metrics), ("eval", evaluation)):
        metrics[f"{split}_samples"] = len(trainer.train_dataset if split == "train" else trainer.eval_dataset)
        trainer.log_metrics(split, metrics)
        trainer.save_metrics(split, metrics)
    trainer.save_state()
