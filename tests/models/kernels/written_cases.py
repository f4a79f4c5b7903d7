"""Checkpoints with text decoders whose products are wide, and outputs by each way of writing texts."""

from pathlib import Path

import torch

import raysp
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
from tests.device.class_cases import WAVES
from tests.models.tokenizers.text_tokenizers import BERT_VOCAB, write_bert_tokenizer

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
