"""Texts of transformers as its documentation writes them, one recording after another."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel

from tests.backends.recognisers import tiny_ctc
from tests.backends.recognisers.tiny_ctc import TRANSDUCER_BUILDERS
from tests.models.oracles import transformers

RATE = 16_000
LANGUAGES = {"canary": "de", "cohere_asr": "de", "seamless_m4t": "deu", "seamless_m4t_v2": "deu"}
"""Languages of the families that need one."""
MOST_STEPS = 4000
"""More steps than a transducer takes for the recordings of a test: its texts end with the recording."""
LENGTHS = {"voxtral_realtime": {"max_new_tokens": 24}}
"""Options of families that do not read the length of their texts from generation_config.json."""


def request(processor: Any, name: str, wave: np.ndarray) -> Any:
    """Return the inputs of `generate`, as the documentation of the family has them."""
    if name == "canary":
        return processor.apply_transcription_request(audio=wave, source_language="de")
    if name == "cohere_asr":
        inputs = processor(audio=wave, language="de", sampling_rate=RATE)
        inputs.pop("audio_chunk_index")
        return inputs
    if name == "kyutai_speech_to_text":
        return processor(audio=wave, sampling_rate=24_000)
    if name == "voxtral":
        return processor.apply_transcription_request(
            audio=[wave], model_id="mistralai/Voxtral-Mini-3B-2507", sampling_rate=RATE, format=["WAV"]
        )
    if name in ("moonshine_streaming", "speecht5", "voxtral_realtime", *TRANSDUCER_BUILDERS, *tiny_ctc.BUILDERS):
        return processor(audio=wave, sampling_rate=RATE, return_tensors="pt")
    if name.startswith("seamless"):
        return {**processor(audio=wave, sampling_rate=RATE, return_tensors="pt"), "tgt_lang": "deu"}
    if name == "phi4_multimodal":
        text = "<|user|><|audio|>Transcribe the audio clip into text.<|end|><|assistant|>"
        return processor(text=text, audio=wave, sampling_rate=RATE, return_tensors="pt")
    if name in ("qwen2_audio", *WHOLE):
        prompt = "Transcribe the speech." if name == "qwen2_audio" else "Transcribe the audio into text."
        content = [{"type": "audio", "audio_url": "a.wav"}, {"type": "text", "text": prompt}]
        conversation = [{"role": "user", "content": content}]
        text = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
        return processor(text=text, audio=[wave], sampling_rate=RATE, return_tensors="pt")
    return processor.apply_transcription_request(audio=[wave], processor_kwargs={"return_tensors": "pt"})


WHOLE = {"qwen2_5_omni": "Qwen2_5Omni", "qwen3_omni_moe": "Qwen3OmniMoe"}
"""Models with parts that write audio, whose texts are those of the whole class."""


def audio_processor(folder: Path, name: str) -> Any:
    """Return the processor without its part for images, for which no package is here."""
    cls = getattr(transformers, f"{WHOLE.get(name, 'Phi4Multimodal')}Processor")
    unchecked = type("AudioProcessor", (cls,), {"check_argument_for_proper_class": lambda *_: None})
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    if name not in WHOLE:
        return unchecked(None, extractor, tokenizer)
    template = json.loads((folder / "chat_template.json").read_text())["chat_template"]
    return unchecked(None, None, extractor, tokenizer, chat_template=template)


def whole(folder: Path, name: str) -> tuple[Any, Any]:
    """Return the processor and the model."""
    processor = audio_processor(folder, name)
    model = getattr(transformers, f"{WHOLE[name]}ForConditionalGeneration").from_pretrained(folder).eval()
    generate, settings = model.generate, json.loads((folder / "generation_config.json").read_text())
    options = {f"thinker_{key}": settings[key] for key in ("suppress_tokens", "max_new_tokens")}
    options["thinker_eos_token_id"] = processor.tokenizer.eos_token_id
    model.generate = lambda do_sample, **inputs: generate(
        **inputs, **options, thinker_do_sample=do_sample, generation_mode="text"
    )
    return processor, model


def load(folder: Path, name: str) -> tuple[Any, Any]:
    """Return the processor and the model."""
    if name in WHOLE:
        return whole(folder, name)
    if name == "phi4_multimodal":
        model = transformers.Phi4MultimodalForCausalLM.from_pretrained(folder)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of PEFT about transformers
            model = PeftModel.from_pretrained(model, folder / "speech-lora")
        return audio_processor(folder, name), model.eval()
    config = transformers.AutoConfig.from_pretrained(folder)
    model = getattr(transformers, config.architectures[0]).from_pretrained(folder).eval()
    return transformers.AutoProcessor.from_pretrained(folder), model


def let_write(model: Any, ids: Sequence[int], **options: object) -> None:
    """Let a model write tokens, whatever it hears."""
    generate = model.generate
    model.generate = lambda **inputs: generate(
        **{**inputs, **options},
        prefix_allowed_tokens_fn=lambda _, row: [ids[len(row) - inputs["input_ids"].shape[1]]],
    )


def written(folder: Path, name: str, recordings: Sequence[np.ndarray]) -> list[str]:
    """Return the texts of recordings."""
    processor, model = load(folder, name)
    texts = []
    for wave in recordings:
        inputs = request(processor, name, wave)
        with torch.inference_mode():
            if name in tiny_ctc.BUILDERS:
                texts += processor.decode(model.generate(**inputs), skip_special_tokens=True)
                continue
            if name in TRANSDUCER_BUILDERS:
                sequences = model.generate(**inputs, max_new_tokens=MOST_STEPS).sequences
                texts += processor.decode(sequences, skip_special_tokens=True)
                continue
            ids = model.generate(**inputs, do_sample=False, **LENGTHS.get(name, {}))
        prompt = inputs.get("input_ids", inputs.get("decoder_input_ids"))
        begin = 1 if prompt is None else prompt.shape[1]
        texts += processor.tokenizer.batch_decode(ids[:, begin:], skip_special_tokens=True)
    return [text.strip() for text in texts]
