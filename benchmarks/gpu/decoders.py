"""Text decoders, beam search and alignment: what they add to a pass of the encoder."""

import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu import models, process, speech
from benchmarks.gpu.devices import seconds_of
from benchmarks.gpu.part import Case, Figures, Setting
from raysp import models as classes
from raysp.models.features.waves import as_float, pad
from raysp.models.loading import load_checkpoint
from raysp.specs.outputs.align import Align
from raysp.specs.outputs.transcript import Transcript
from tests.device.output_cases import ARPA

SECONDS = 50.0
TOKENS = 25
ROW_SECONDS = 10.0
BATCH_SECONDS, SMALL_SECONDS = 600, 10
REPEATS = 3
OUTPUTS: dict[str, Callable[[str], list[Any]]] = {
    "greedy": lambda lm: [Transcript()],
    "words and characters": lambda lm: [Transcript(words=True, chars=True)],
    "beams": lambda lm: [Transcript(beams=8)],
    "beams with a language model": lambda lm: [Transcript(beams=8, lm=lm, hot_words={"seven": 4.0})],
    "alignment": lambda lm: [Align("text", words=True)],
}
FEW = ("greedy", "alignment")


def cases(setting: Setting) -> Iterator[Case]:
    """Yield a case for each way to generate, then for each output of a CTC head."""
    for beams in (1, 4):
        if not setting.few or beams == 1:
            name = "greedy" if beams == 1 else f"{beams} beams"
            yield Case(f"encoder-decoder, {name}", partial(generate, beams, setting))
    with tempfile.TemporaryDirectory(prefix="raysp-gpu-") as work:
        lm = Path(work) / "lm.arpa"
        lm.write_text(ARPA)
        seconds: dict[str, float] = {}
        for name in FEW if setting.few else OUTPUTS:
            yield Case(name, partial(search, name, str(lm), setting, seconds))


def encoder_decoder(is_small: bool) -> tuple[Any, Any, Any]:
    """Return class, configuration and extractor: an encoder of 315M and a decoder of 12 layers, or small ones."""
    _, encoder, extractor = models.PUBLISHED["unispeech-large 315M"](is_small)
    width = 64 if is_small else 1024
    decoder = classes.BartConfig(
        vocab_size=500 if is_small else 50_265,
        d_model=width,
        decoder_layers=2 if is_small else 12,
        decoder_attention_heads=width // 16 if is_small else 16,
        decoder_ffn_dim=4 * width,
        is_decoder=True,
        add_cross_attention=True,
    )
    special = {"decoder_start_token_id": 2, "pad_token_id": 1, "eos_token_id": 2}
    config = classes.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder, **special)
    return classes.SpeechEncoderDecoderModel, config, extractor


def generate(beams: int, setting: Setting) -> Figures:
    """Encode a batch and write `TOKENS` tokens for each row: an encoder of 315M and a decoder of 12 layers."""
    loaded = models.loaded(*encoder_decoder(not setting.is_gpu), None, setting.device, "bfloat16")
    total = BATCH_SECONDS if setting.is_gpu else SMALL_SECONDS
    samples, counts = pad(speech.rows([ROW_SECONDS] * round(total / ROW_SECONDS)))
    options = {"max_new_tokens": TOKENS, "min_length": TOKENS + 1, "num_beams": beams}

    @torch.inference_mode()
    def run() -> Any:
        features = loaded.feature_extractor.extract(as_float(samples.to(setting.device)), counts.to(setting.device))
        return loaded.model.generate(**features, **options).cpu()

    tokens = run().shape[1] - 1
    taken = min(seconds_of(run, setting.device) for _ in range(REPEATS if setting.is_gpu else 1))
    return {"ms": 1000 * taken, "RTFx": total / taken, "tokens": tokens, "ms a token": 1000 * taken / tokens}


def search(name: str, lm: str, setting: Setting, seconds: dict[str, float]) -> Figures:
    """Label a batch of real speech with the small model of the demo, whose tokens are those of real frames.

    "times greedy" is what an output adds to a pass of the model of 94M, whose time the part on kernels has measured.
    """
    loaded = load_checkpoint(speech.CHECKPOINT, dtype="float32", device=setting.device)
    total = BATCH_SECONDS if setting.is_gpu else SMALL_SECONDS
    op = models.labelling(loaded, OUTPUTS[name](lm), float(total), setting.device)
    op.reads = ("text",) if name == "alignment" else ()
    spoken = joined(total)
    block = speech.block_of([wave for wave, _ in spoken], [text for _, text in spoken])

    def run() -> list[dict[str, Any]]:
        return op(block)[0].to_pylist()

    if failed := [row["error_message"] for row in run() if row["error_message"] is not None]:
        raise RuntimeError(f"{len(failed)} of {len(spoken)} rows failed: {failed[0]}")
    taken = seconds[name] = min(seconds_of(run, setting.device) for _ in range(REPEATS if setting.is_gpu else 1))
    audio = sum(len(wave) for wave, _ in spoken) / speech.RATE
    base = process.found(process.read(setting.out, "kernels"), "wav2vec2-base 94M, 10 s").get("RTFx")
    found: dict[str, object] = {"ms": 1000 * taken, "RTFx": audio / taken}
    if "greedy" in seconds and isinstance(base, float):
        found["times greedy"] = 1 + (taken - seconds["greedy"]) / (audio / base)
    return found


def joined(total: float) -> list[tuple[Any, str]]:
    """Return rows of spoken digits of about `ROW_SECONDS` each, with their texts."""
    import numpy as np

    rows: list[tuple[Any, str]] = []
    waves: list[Any] = []
    texts: list[str] = []
    digits = speech.digits()
    number = 0
    while sum(len(wave) for wave, _ in rows) < total * speech.RATE:
        wave, text = digits[number % len(digits)]
        number += 1
        waves.append(wave)
        texts.append(text)
        if sum(map(len, waves)) >= ROW_SECONDS * speech.RATE:
            rows.append((np.concatenate(waves), " ".join(texts)))
            waves, texts = [], []
    return rows
