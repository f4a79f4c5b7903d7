"""Results of transformers on the folder of a checkpoint, one recording at a time."""

import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.models.oracles import transformers
from tests.published.building import class_named
from tests.published.layout import Layout

RATE = 16_000


def results(layout: Layout, folder: Path, wave: np.ndarray) -> dict[str, Any]:
    """Return what a label row should hold, by its columns' names."""
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
        inputs = extractor(wave, sampling_rate=RATE, return_tensors="pt")
        model = class_named(layout.builds).from_pretrained(folder, dtype=torch.float32).eval()
        columns: dict[str, Any] = {}
        if "Embedding" in layout.outputs:
            columns["embedding"] = model.base_model(**inputs).last_hidden_state[0].mean(0)
        if "Transcript" in layout.outputs:
            options = {"do_phonemize": False} if "phonemizer_lang" in layout.tokenizer else {}  # it encodes by espeak
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
            logits = model(**inputs).logits[0]
            columns["pred_text"] = tokenizer.decode(logits.argmax(-1))
            columns["pred_score"] = _mean_score(logits, model.config.pad_token_id)
        if "Classes" in layout.outputs and layout.is_regression:
            columns["pred_label"] = [*model.config.id2label.values()]
            columns["pred_label_scores"] = model(**inputs).logits[0].tolist()
        elif "Classes" in layout.outputs:
            scores = model(**inputs).logits[0].softmax(-1)
            columns["pred_label"] = model.config.id2label[int(scores.argmax())]
            columns["pred_label_scores"] = float(scores.max())
        return columns


def _mean_score(logits: torch.Tensor, blank: int) -> float:
    """Return the mean over tokens of the log-probability at each token's best frame."""
    best = logits.log_softmax(-1).max(-1)
    frames = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    runs = [(token, [score for _, score in run]) for token, run in itertools.groupby(frames, key=lambda one: one[0])]
    return float(np.mean([max(scores) for token, scores in runs if token != blank]))
