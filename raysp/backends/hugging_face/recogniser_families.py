"""Families of recognisers of transformers: how each takes recordings and options, and writes its texts.

Recordings go through the processor of a checkpoint, which knows the prompt that the model was trained with. A family
that has `apply_transcription_request` needs no function of its own.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, TypeAlias

import numpy as np

TRANSLATE = "translate"
MISTRAL = "mistral-common"
CODES = "text_decoder_lang_to_code_id"
"""Setting by which SeamlessM4T finds the token of a language."""
SPEECH_ADAPTER = "speech-lora"
"""Folder of the adapter of Phi-4-multimodal for speech."""


@dataclass(frozen=True)
class TextRequest:
    """Options of a transcript; None or empty: not set."""

    language: str | None = None
    task: str | None = None
    prompt: str | None = None
    keywords: Sequence[str] = ()


Inputs: TypeAlias = Callable[[Any, np.ndarray, TextRequest], Any]
"""Returns the inputs of `generate`, a mapping, from a processor, a recording at its rate, and the options of a
transcript."""


def transcription_request(processor: Any, wave: np.ndarray, request: TextRequest) -> Any:  # noqa: ANN401
    """Return the inputs by `apply_transcription_request`, whose arguments are named as the options."""
    arguments = {name: value for name, value in vars(request).items() if value}
    options = {"return_tensors": "pt"}
    return processor.apply_transcription_request(audio=[wave], **arguments, processor_kwargs=options)


@dataclass(frozen=True)
class Family:
    """How a family takes recordings and options, and writes its texts."""

    inputs: Inputs = transcription_request
    takes: tuple[str, ...] = ()
    """Options of `Transcript` that it takes."""
    languages: Callable[[Any], Iterable[str]] = lambda processor: ()
    """Languages by the processor; none: any text is passed on."""
    codes: str = ""
    """Setting of generation_config.json that must have a language too."""
    needs_language: bool = False
    """Whether it writes no text without a language."""
    max_seconds: float | None = None
    """Seconds of the longest recording that the model takes; None: any."""
    chunk_frames: Callable[[Any], int] = lambda config: 0
    """Returns the frames of a chunk by the configuration, if the encoder pads shorter recordings to the longest one of
    a batch, which changes their frames: each is a pass of its own. 0: it does not."""
    has_seeded_noise: bool = False
    """Whether its features have noise whose seed is the length of the recording, which a label may depend on."""
    begins: str = ""
    """Token after which the text begins, if the model writes it; what precedes it is the language."""
    language_of: Callable[[str], str | None] | None = None
    """Returns the language by what precedes the text, or by a token; None: the family writes none."""
    is_stream: bool = False
    """Whether it writes a token for each frame, up to the end of the recording."""
    adapter: str = ""
    """Folder of the LoRA by which it recognises speech."""
    thinker: str = ""
    """Class that writes texts, of a checkpoint with parts that write audio, which are not loaded."""
    text_of: Callable[[str], str] = str.strip
    """Returns the words of a text as the model writes it."""
    package: str = ""
    """Package that its processor needs besides transformers."""

    def probed_language(self, languages: Sequence[str]) -> str | None:
        """Return the language with which inputs are tried, of those of a checkpoint; None: none has to be named."""
        return languages[0] if self.needs_language else None


def _with_token(processor: Any, begin: str = "<|", end: str = "|>") -> set[str]:  # noqa: ANN401
    """Return the names in tokens such as "<|de|>", which are languages or others."""
    tokens = (token for token in processor.tokenizer.get_vocab() if token.startswith(begin) and token.endswith(end))
    return {token.removeprefix(begin).removesuffix(end) for token in tokens}


def _of_module(family: str, name: str = "LANGUAGE_CODE_TO_NAME") -> Any:  # noqa: ANN401
    """Return a constant of the processor of a family of transformers, such as the names of languages by code."""
    return getattr(import_module(f"transformers.models.{family}.processing_{family}"), name)


# Qwen3-ASR


def _heard_by_qwen(head: str) -> str | None:
    """Return the language in "language English", which precedes a text."""
    codes = {name: code for code, name in _of_module("qwen3_asr").items()}
    return codes.get(head.strip().removeprefix("language").strip())


# Canary


def _of_canary(processor: Any, wave: np.ndarray, request: TextRequest) -> Any:  # noqa: ANN401
    """Return the inputs for the language of the recording; a translation is English, as with Whisper."""
    target = "en" if request.task == TRANSLATE else request.language
    languages = {"source_language": request.language, "target_language": target}
    return processor.apply_transcription_request(audio=[wave], **languages)


# Cohere


def _of_cohere(processor: Any, wave: np.ndarray, request: TextRequest) -> Mapping[str, Any]:  # noqa: ANN401
    """Return the inputs with the prompt of a language; no window is so long that the extractor divides it."""
    rate = processor.feature_extractor.sampling_rate
    inputs = processor(audio=[wave], language=request.language, sampling_rate=rate)
    return {name: value for name, value in inputs.items() if name != "audio_chunk_index"}


# Omnilingual


def _languages_of_omniasr(processor: Any) -> Iterable[str]:  # noqa: ANN401
    """Return the languages that have a token, also as their processor writes them (eng_Latn), and short codes."""
    codes = _with_token(processor, "<|lang:") - {_of_module("omniasr", "LANGUAGE_AGNOSTIC")}
    short_codes = _of_module("omniasr", "ISO_639_1_TO_LANGUAGE").items()
    documented = (f"{name}_{script.title()}" for name, _, script in (code.partition("_") for code in codes) if script)
    return {*codes, *documented, *(short for short, code in short_codes if code in codes)}


# Families without a request: processors that take recordings alone, or a conversation


def _of_recording(processor: Any, wave: np.ndarray, request: TextRequest, **more: str) -> Any:  # noqa: ANN401
    """Return the inputs of a model without a prompt of words."""
    rate = processor.feature_extractor.sampling_rate
    return processor(audio=wave, sampling_rate=rate, return_tensors="pt", **more)


def _of_seamless(processor: Any, wave: np.ndarray, request: TextRequest) -> Mapping[str, Any]:  # noqa: ANN401
    """Return the inputs with the language of the text."""
    return {**_of_recording(processor, wave, request), "tgt_lang": request.language}


def _chat(default: str, *, is_padded: bool = False) -> Inputs:
    """Return the inputs of a conversation that begins with the recording and a prompt.

    Args:
        default: the prompt, where the transcript has none.
        is_padded: whether the processor pads to 300 s; two frames have the same effect.
    """

    def inputs(processor: Any, wave: np.ndarray, request: TextRequest) -> Any:  # noqa: ANN401
        content = [{"type": "audio"}, {"type": "text", "text": request.prompt or default}]
        text = processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        extractor = processor.feature_extractor
        options = {"sampling_rate": extractor.sampling_rate}
        if is_padded:
            options["max_length"] = (len(wave) // extractor.hop_length + 3) * extractor.hop_length
        return processor(text=[text], audio=[wave], audio_kwargs=options, return_tensors="pt")

    return inputs


def _of_phi(processor: Any, wave: np.ndarray, request: TextRequest) -> Any:  # noqa: ANN401
    """Return the inputs with the documented prompt; the chat template has no place for a recording."""
    prompt = request.prompt or "Transcribe the audio clip into text."
    text = f"<|user|>{processor.audio_token}{prompt}<|end|><|assistant|>"
    options = {"sampling_rate": processor.audio_processor.sampling_rate}
    return processor(text=[text], audio=[wave], audio_kwargs=options, return_tensors="pt")


# Transducers of Nemotron, whose encoder has 5,000 positions of 80 ms


AUTO = "auto"
"""Language with which Nemotron 3.5 finds the language itself."""


def _of_nemotron(processor: Any, wave: np.ndarray, request: TextRequest) -> Any:  # noqa: ANN401
    """Return the inputs with the number of a language."""
    return _of_recording(processor, wave, request, language=request.language or AUTO)


def _languages_of_nemotron(processor: Any) -> Iterable[str]:  # noqa: ANN401
    """Return the languages that have a number."""
    return (language for language in processor.prompt_dictionary if language != AUTO)


def _tagged(token: str) -> str | None:
    """Return the language of a token such as "<de-DE>"."""
    return token[1:-1] if token.startswith("<") and token.endswith(">") else None


# Voxtral


VOXTRAL_LANGUAGES = ("de", "en", "es", "fr", "hi", "it", "nl", "pt")
"""Languages that its documentation names."""


def _of_voxtral(processor: Any, wave: np.ndarray, request: TextRequest) -> Any:  # noqa: ANN401
    """Return the inputs of a transcription, padded to a multiple of 30 s."""
    options = {"sampling_rate": processor.feature_extractor.sampling_rate, "format": ["WAV"]}
    return processor.apply_transcription_request(audio=[wave], model_id="", language=request.language, **options)


# Texts in segments


SEGMENT = re.compile(r"\[[^\[\]]+\]\[S\d+\](.*?)\[[^\[\]]+\]", re.DOTALL)
"""A segment of MOSS-Transcribe-Diarize: [start][speaker]text[end]."""


def _words_of_moss(text: str) -> str:
    """Return the words of the segments of a text; a text without segments as it is."""
    segments = SEGMENT.findall(text)
    return " ".join(map(str.strip, segments)) if segments else text.strip()


SEAMLESS = Family(
    inputs=_of_seamless,
    takes=("language",),
    languages=lambda processor: _with_token(processor, "__", "__"),
    codes=CODES,
    needs_language=True,
)
FAMILIES: Mapping[str, Family] = {
    "canary": Family(
        inputs=_of_canary,
        takes=("language", "task"),
        languages=lambda processor: _with_token(processor) & {*_of_module("canary")},
        needs_language=True,
        max_seconds=40,
    ),
    "cohere_asr": Family(
        inputs=_of_cohere,
        takes=("language",),
        languages=lambda processor: _with_token(processor) & {*_of_module("cohere_asr", "LANGUAGES")},
        has_seeded_noise=True,
        needs_language=True,
        max_seconds=35,
    ),
    "glmasr": Family(takes=("prompt",), max_seconds=30),
    "kyutai_speech_to_text": Family(inputs=_of_recording, is_stream=True),
    "moonshine_streaming": Family(inputs=_of_recording),
    "moss_transcribe_diarize": Family(takes=("prompt", "keywords"), text_of=_words_of_moss, max_seconds=30),
    "nemo_speechlm": Family(takes=("prompt",)),
    "nemotron3_5_asr": Family(
        inputs=_of_nemotron, takes=("language",), languages=_languages_of_nemotron, language_of=_tagged, max_seconds=399
    ),
    "nemotron_asr_streaming": Family(inputs=_of_recording, max_seconds=399),
    "omniasr": Family(takes=("language",), languages=_languages_of_omniasr, max_seconds=40),
    "phi4_multimodal": Family(inputs=_of_phi, takes=("prompt",), max_seconds=40, adapter=SPEECH_ADAPTER),
    "qwen2_5_omni": Family(
        inputs=_chat("Transcribe the audio into text.", is_padded=True),
        takes=("prompt",),
        max_seconds=300,
        thinker="Qwen2_5OmniThinkerForConditionalGeneration",
    ),
    "qwen2_audio": Family(inputs=_chat("Transcribe the speech."), takes=("prompt",), max_seconds=30),
    "qwen3_asr": Family(
        takes=("language", "prompt"),
        languages=lambda processor: _of_module("qwen3_asr"),
        begins="<asr_text>",
        language_of=_heard_by_qwen,
    ),
    "qwen3_omni_moe": Family(
        inputs=_chat("Transcribe the audio into text."),
        takes=("prompt",),
        chunk_frames=lambda config: 2 * int(config.audio_config.n_window),
        thinker="Qwen3OmniMoeThinkerForConditionalGeneration",
    ),
    "seamless_m4t": SEAMLESS,
    "seamless_m4t_v2": SEAMLESS,
    "speecht5": Family(inputs=_of_recording),
    "voxtral": Family(
        inputs=_of_voxtral, takes=("language",), languages=lambda processor: VOXTRAL_LANGUAGES, package=MISTRAL
    ),
    "voxtral_realtime": Family(inputs=_of_recording, max_seconds=30, package=MISTRAL),
}
"""Families by model type."""
TORCHAUDIO = "its features need torchaudio, whose 2.11 loads only with a CUDA build of torch, so that it was not tried"
REFUSED: Mapping[str, str] = {
    "fun_asr_nano": TORCHAUDIO,
    "granite_speech": TORCHAUDIO,
    "granite_speech_plus": TORCHAUDIO,
    "vibevoice_asr": "it adds random noise to the frames of a recording, so labels would differ from run to run",
}
"""Model types of recognisers that are refused, with the reason."""
