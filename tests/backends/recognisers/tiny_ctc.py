"""Tiny random CTC models and transducers of transformers with their whole processors, a folder for each model type."""

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from tests.backends.recognisers.tiny import WAVEFORM
from tests.models.oracles import transformers as T

WORDS = ("▁", *"abcdefgh", "▁a", "▁be", "▁ca", "ing", "de")
LETTERS = [" ", *"abcdefghijklm", "'"]


def with_mels() -> None:
    """Put the two functions of torchaudio that features of Granite need into transformers, unless it is installed."""
    module = import_module("transformers.models.granite_speech5.feature_extraction_granite_speech5")
    if not hasattr(module, "torchaudio"):
        transforms, functional = SimpleNamespace(MelSpectrogram=_Mels), SimpleNamespace(compute_deltas=_deltas)
        module.torchaudio = SimpleNamespace(transforms=transforms, functional=functional)
        for package in (T, import_module("transformers.models.granite_speech5")):
            package.GraniteSpeech5FeatureExtractor = module.GraniteSpeech5FeatureExtractor


class _Mels(torch.nn.Module):
    """Energies of mel bins with the defaults of torchaudio."""

    def __init__(self, *, sample_rate: int, n_fft: int, win_length: int, hop_length: int, n_mels: int) -> None:
        super().__init__()
        self.sizes = n_fft, hop_length, win_length
        self.window = torch.hann_window(win_length)
        filters = T.audio_utils.mel_filter_bank(n_fft // 2 + 1, n_mels, 0.0, sample_rate / 2, sample_rate)
        self.filters = torch.from_numpy(filters).float()

    def forward(self, waves: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(waves, *self.sizes, window=self.window, return_complex=True)
        return self.filters.T @ spectrum.abs().square()


def _deltas(values: torch.Tensor, *, win_length: int) -> torch.Tensor:
    half = win_length // 2
    steps = torch.arange(-half, half + 1)
    padded = torch.nn.functional.pad(values, (half, half), mode="replicate")
    return (padded.unfold(-1, win_length, 1) * steps).sum(-1) / (steps.square().sum())


@torch.no_grad()
def _saved(folder: Path, cls: str, config: Any, processor: Any) -> Path:
    """Write a random model, whose texts are letters, and its processor; LASR writes special tokens within words."""
    torch.manual_seed(0)
    model = getattr(T, cls)(config)
    torch.manual_seed(1)
    for weight in model.parameters():  # else texts of random models are one token
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    if "RNNT" in cls:  # half of the steps are blanks
        model.joint.head.bias[config.blank_token_id] = 3.0
        model.generation_config.decoder_start_token_id = config.blank_token_id
    elif "Lasr" not in cls:  # else texts are special tokens alone
        model.ctc_head.bias[[*{*processor.tokenizer.all_special_ids} - {0}]] = -50
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def omniasr_ctc(folder: Path) -> Path:
    """Write a model of letters, whose blank is not its padding."""
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *LETTERS]
    made = Tokenizer(models.BPE(vocab={one: place for place, one in enumerate(tokens)}, merges=[], unk_token="<unk>"))
    made.normalizer, made.decoder = normalizers.Strip(), decoders.Fuse()
    made.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_next")
    made.add_special_tokens([AddedToken(one, special=True, normalized=False) for one in tokens[:4]])
    names = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = T.ParakeetTokenizer(tokenizer_object=made, clean_up_tokenization_spaces=False, **names)
    config = T.OmniASRCTCConfig(audio_config=WAVEFORM, vocab_size=len(tokens))
    processor = T.OmniASRCTCProcessor(T.OmniASRFeatureExtractor(), tokenizer)
    return _saved(folder, "OmniASRForCTC", config, processor)


def lasr_ctc(folder: Path) -> Path:
    """Write a model of pieces of words, with the tokenizer of SentencePiece that ends texts."""
    vocabulary = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), *((one, -len(one)) for one in WORDS)]
    tokenizer = T.LasrTokenizer(vocab=[*vocabulary, ("<extra_id_0>", 0.0)], extra_ids=1)
    encoder = {
        "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
        "subsampling_conv_channels": 16, "layerdrop": 0.0,
    }  # fmt: skip
    config = T.LasrCTCConfig(encoder_config=encoder, vocab_size=len(tokenizer))
    processor = T.LasrProcessor(T.LasrFeatureExtractor(), tokenizer)
    return _saved(folder, "LasrForCTC", config, processor)


def granite_speech5_ctc(folder: Path) -> Path:
    """Write a model of pieces of words, some of whose layers halve the frames."""
    with_mels()
    tokens = ["<|blank|>", "<unk>", *WORDS]
    made = Tokenizer(models.BPE(vocab={one: place for place, one in enumerate(tokens)}, merges=[], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    made.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    made.add_special_tokens([AddedToken("<|blank|>", special=True, normalized=False)])
    tokenizer = T.ParakeetTokenizer(tokenizer_object=made, pad_token="<|blank|>", unk_token="<unk>")
    encoder = {
        "vocab_size": len(tokens), "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 64, "context_size": 12, "max_position_embeddings": 16,
    }  # fmt: skip
    config = T.GraniteSpeech5CTCConfig(encoder_config=encoder, vocab_size=len(tokens))
    processor = T.GraniteSpeech5Processor(T.GraniteSpeech5FeatureExtractor(), tokenizer)
    return _saved(folder, "GraniteSpeech5ForCTC", config, processor)


TAGS = ["<de-DE>", "<en-US>", "<fr-FR>"]
SPOKEN = [*"abcdefghijklmnopqrstuvwxyz.,"]
ENCODER = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "subsampling_conv_channels": 16, "num_mel_bins": 80, "layerdrop": 0.0, "sliding_window": 9,
    "default_num_lookahead_tokens": 3,
}  # fmt: skip
PROMPTS = {"de-DE": 0, "de": 0, "en-US": 1, "fr-FR": 2, "auto": 5}


def transducer_tokenizer() -> Any:
    """Make a tokenizer of letters and words; the blank of the model has the id of its padding."""
    pieces = ["<unk>", *TAGS, *(f"▁{letter}" for letter in SPOKEN[:26]), *SPOKEN, "▁", "th", "▁an"]
    made = Tokenizer(
        models.BPE(vocab={piece: place for place, piece in enumerate(pieces)}, merges=[], unk_token="<unk>")
    )
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    fast = T.ParakeetTokenizer(tokenizer_object=made, clean_up_tokenization_spaces=False)
    for name in ("<pad>", "<blank>"):
        fast.add_tokens([AddedToken(name, normalized=False, special=True)])
    special = {name: AddedToken(f"<{name[:3]}>", normalized=False, special=True) for name in ("pad_token", "unk_token")}
    fast.add_special_tokens(special)
    fast.add_special_tokens({"extra_special_tokens": [AddedToken(tag, normalized=False, special=True) for tag in TAGS]})
    return fast


def _config(made: Any, **fields: Any) -> dict[str, Any]:
    sizes = {"decoder_hidden_size": 32, "num_decoder_layers": 2, "max_symbols_per_step": 3}
    blank = made.convert_tokens_to_ids("<pad>")
    return {"vocab_size": blank + 1, "blank_token_id": blank, "encoder_config": ENCODER, **sizes, **fields}


def nemotron_asr_streaming(folder: Path) -> Path:
    made, extractor = transducer_tokenizer(), T.NemotronAsrStreamingFeatureExtractor()
    processor = T.NemotronAsrStreamingProcessor(extractor, made, supported_num_lookahead_tokens=[3, 0])
    return _saved(folder, "NemotronAsrStreamingForRNNT", T.NemotronAsrStreamingConfig(**_config(made)), processor)


def nemotron3_5_asr(folder: Path) -> Path:
    made, extractor = transducer_tokenizer(), T.NemotronAsrStreamingFeatureExtractor()
    processor = T.Nemotron3_5AsrProcessor(
        extractor, made, supported_num_lookahead_tokens=[3, 0], prompt_dictionary=PROMPTS, num_prompts=8
    )
    fields = {"num_prompts": 8, "prompt_intermediate_size": 48, "default_prompt_id": 5}
    return _saved(folder, "Nemotron3_5AsrForRNNT", T.Nemotron3_5AsrConfig(**_config(made, **fields)), processor)


TRANSDUCER_BUILDERS: dict[str, Callable[[Path], Path]] = {
    "nemotron3_5_asr": nemotron3_5_asr,
    "nemotron_asr_streaming": nemotron_asr_streaming,
}
BUILDERS: Mapping[str, Callable[[Path], Path]] = {
    "granite_speech5_ctc": granite_speech5_ctc,
    "lasr_ctc": lasr_ctc,
    "omniasr_ctc": omniasr_ctc,
}
"""Functions that write a checkpoint into a folder, by model type."""
