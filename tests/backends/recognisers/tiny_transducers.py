"""Tiny random transducers of transformers with their whole processors, like conversions of NeMo archives."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tests.models.oracles import transformers as T

TAGS = ["<de-DE>", "<en-US>", "<fr-FR>"]
LETTERS = [*"abcdefghijklmnopqrstuvwxyz.,"]
ENCODER = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64,
    "subsampling_conv_channels": 16, "num_mel_bins": 80, "layerdrop": 0.0, "sliding_window": 9,
    "default_num_lookahead_tokens": 3,
}  # fmt: skip
PROMPTS = {"de-DE": 0, "de": 0, "en-US": 1, "fr-FR": 2, "auto": 5}


def tokenizer() -> Any:
    """Make a tokenizer of letters and words; the blank of the model has the id of its padding."""
    pieces = ["<unk>", *TAGS, *(f"▁{letter}" for letter in LETTERS[:26]), *LETTERS, "▁", "th", "▁an"]
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


def _saved(folder: Path, cls: str, config: Any, processor: Any) -> Path:
    """Write a random model, half of whose steps are blanks."""
    torch.manual_seed(0)
    model = getattr(T, cls)(config)
    torch.manual_seed(1)
    for weight in model.parameters():  # else texts of random models are one token
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.3)
    model.joint.head.bias.data[config.blank_token_id] = 3.0
    model.generation_config.decoder_start_token_id = config.blank_token_id
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def _config(made: Any, **fields: Any) -> dict[str, Any]:
    sizes = {"decoder_hidden_size": 32, "num_decoder_layers": 2, "max_symbols_per_step": 3}
    blank = made.convert_tokens_to_ids("<pad>")
    return {"vocab_size": blank + 1, "blank_token_id": blank, "encoder_config": ENCODER, **sizes, **fields}


def nemotron_asr_streaming(folder: Path) -> Path:
    made, extractor = tokenizer(), T.NemotronAsrStreamingFeatureExtractor()
    processor = T.NemotronAsrStreamingProcessor(extractor, made, supported_num_lookahead_tokens=[3, 0])
    return _saved(folder, "NemotronAsrStreamingForRNNT", T.NemotronAsrStreamingConfig(**_config(made)), processor)


def nemotron3_5_asr(folder: Path) -> Path:
    made, extractor = tokenizer(), T.NemotronAsrStreamingFeatureExtractor()
    processor = T.Nemotron3_5AsrProcessor(
        extractor, made, supported_num_lookahead_tokens=[3, 0], prompt_dictionary=PROMPTS, num_prompts=8
    )
    fields = {"num_prompts": 8, "prompt_intermediate_size": 48, "default_prompt_id": 5}
    return _saved(folder, "Nemotron3_5AsrForRNNT", T.Nemotron3_5AsrConfig(**_config(made, **fields)), processor)


TRANSDUCER_BUILDERS: dict[str, Callable[[Path], Path]] = {
    "nemotron3_5_asr": nemotron3_5_asr,
    "nemotron_asr_streaming": nemotron_asr_streaming,
}
