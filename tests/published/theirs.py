"""Results of transformers on the folder of a checkpoint, one recording at a time."""

import io
import itertools
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch

from tests.backends.recognisers import loops
from tests.backends.recognisers.tiny_omni import BUILDERS
from tests.models.oracles import transformers
from tests.published.building import class_named
from tests.published.layout import Layout

RATE = 16_000
CLASSES = {
    "many_languages": "Wav2Vec2ForCTC",
    "whisper": "WhisperForConditionalGeneration",
    "parakeet": "ParakeetForCTC",
    "parakeet_tdt": "ParakeetForTDT",
    "translation": "SpeechEncoderDecoderModel",
}
"""Classes of checkpoints that `written.py` writes."""


def samples_of(recording: bytes) -> np.ndarray:
    """Return the samples of a recording of 16 kHz in a file, in [-1, 1]."""
    samples, rate = soundfile.read(io.BytesIO(recording), dtype="float32")
    assert rate == RATE
    return samples


def results(layout: Layout, folder: Path, wave: np.ndarray) -> dict[str, Any]:
    """Return what a label row should hold, by its columns' names."""
    if layout.builds in BUILDERS:
        [text] = loops.written(folder, layout.builds, [wave])
        return {"pred_text": text}
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore")
        extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
        inputs = extractor(wave, sampling_rate=RATE, return_tensors="pt")
        cls = class_named(CLASSES.get(layout.builds, layout.builds))
        model = cls.from_pretrained(folder, dtype=torch.float32).eval()
        columns: dict[str, Any] = {}
        if "Embedding" in layout.outputs:
            hidden = _encoder(layout, model)(**inputs).last_hidden_state[0]
            is_padded = layout.builds == "whisper"
            columns["embedding"] = hidden[: len(wave) // 320 if is_padded else None].mean(0)
        if "Transcript" in layout.outputs:
            columns |= _text(layout, folder, model, inputs)
        if "Classes" in layout.outputs:
            columns |= _classes(layout, model, model(**inputs).logits[0])
        return columns


def _encoder(layout: Layout, model: Any) -> Any:
    if model.config.is_encoder_decoder:
        return model.get_encoder()
    return model.encoder if layout.builds == "parakeet" else model.base_model


def _text(layout: Layout, folder: Path, model: Any, inputs: Any) -> dict[str, Any]:
    options = {"do_phonemize": False} if "phonemizer_lang" in layout.tokenizer else {}  # it encodes by espeak
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **options)
    if model.config.is_encoder_decoder:
        written = model.generate(**inputs, do_sample=False)
        if layout.builds == "parakeet_tdt":  # its tokenizer would join equal tokens, as that of a CTC model
            return {"pred_text": tokenizer.decode(written.sequences[0], skip_special_tokens=True, group_tokens=False)}
        return {"pred_text": tokenizer.batch_decode(written, skip_special_tokens=True)[0].strip()}
    logits = model(**inputs).logits[0]
    return {
        "pred_text": tokenizer.decode(logits.argmax(-1)),
        "pred_score": _score(logits, model.config.pad_token_id),
    }


def _score(logits: torch.Tensor, blank: int) -> float:
    """Return the mean over tokens of the log-probability at each token's best frame."""
    best = logits.log_softmax(-1).max(-1)
    frames = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    runs = [(token, [score for _, score in run]) for token, run in itertools.groupby(frames, key=lambda one: one[0])]
    return float(np.mean([max(scores) for token, scores in runs if token != blank]))


def _classes(layout: Layout, model: Any, logits: torch.Tensor) -> dict[str, Any]:
    names = [model.config.id2label[index] for index in range(len(logits))]
    if layout.is_regression:
        return {"pred_label": names, "pred_label_scores": logits.tolist()}
    scores = logits.softmax(-1)
    return {"pred_label": names[int(scores.argmax())], "pred_label_scores": float(scores.max())}
