"""transformers as oracle of text decoders and of models that write text: small and random, the same weights on both."""

import warnings
from pathlib import Path

import torch

from raysp.models import AutoTokenizer, SpeechEncoderDecoderModel
from tests.models.oracles import TINY, make_oracle, transformers
from tests.models.parity import assert_close as assert_close
from tests.models.parity import inputs_and_mask
from tests.models.tokenizers.small import OF_ALL
from tests.models.tokenizers.text_tokenizers import write_bert_tokenizer

VOCAB = 50
BERT = {**OF_ALL, "vocab_size": VOCAB, "num_hidden_layers": 2, "max_position_embeddings": 64}
GPT2 = {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1}
GPT2 |= {"eos_token_id": 2}
OF_BART = {"layers": 2, "attention_heads": 4, "ffn_dim": 48}
BART = {
    **{f"{part}_{field}": value for part in ("encoder", "decoder") for field, value in OF_BART.items()},
    **{"vocab_size": VOCAB, "d_model": 32, "max_position_embeddings": 64},
}
CONFIGS = {
    "bert": (transformers.BertConfig, BERT),
    "gpt2": (transformers.GPT2Config, GPT2),
    "bart": (transformers.BartConfig, BART),
    "mbart": (transformers.MBartConfig, BART),
}
LENGTHS = (1000, 700, 400)


def perturbed(model):
    """Make weights large enough that mistakes show, and let nothing stay at its constant initial value."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model.eval()


def make_decoder(kind, model_class, **flags):
    """Make a random text decoder of theirs, with cross attention."""
    config_class, tiny = CONFIGS[kind]
    torch.manual_seed(0)
    config = config_class(**{**tiny, "is_decoder": True, "add_cross_attention": True, **flags})
    config._attn_implementation = "eager"
    return perturbed(model_class(config))


def make_speech_model(kind="bart", *, encoder_flags=None, config_flags=None, **flags):
    """Make a random UniSpeech encoder with a text decoder of theirs."""
    config_class, tiny = CONFIGS[kind]
    torch.manual_seed(0)
    encoder = transformers.UniSpeechConfig(**{**TINY, "feat_extract_norm": "layer", **(encoder_flags or {})})
    config = transformers.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        encoder,
        config_class(**{**tiny, **flags}),
        **{"pad_token_id": 1, "decoder_start_token_id": 3, "eos_token_id": 2, **(config_flags or {})},
    )
    config._attn_implementation = "eager"
    return perturbed(transformers.SpeechEncoderDecoderModel(config))


def save_pair(oracle, folder):
    """Return theirs and ours, loaded from what theirs saved."""
    oracle.save_pretrained(folder)
    return oracle, SpeechEncoderDecoderModel.from_pretrained(folder)


def waves_and_mask(lengths=LENGTHS):
    return inputs_and_mask(lengths, None)


def frames_and_mask(width=32, seed=1):
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(9) < torch.tensor([9, 5])[:, None]
    return torch.randn(2, 9, width, generator=generator), mask.long()


def token_ids(rows=2, length=7, seed=2):
    return torch.randint(4, VOCAB, (rows, length), generator=torch.Generator().manual_seed(seed))


def theirs_generated(oracle, *args, **options):
    """Run the generation of transformers, without its warnings about defaults."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return oracle.generate(*args, **options)


def save_parts(folder: Path) -> tuple[Path, Path]:
    """Save a pretrained encoder with a head and a pretrained BERT with its tokenizer."""
    encoder, decoder = folder / "encoder", folder / "decoder"
    make_oracle(feat_extract_norm="layer").save_pretrained(encoder)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(encoder)
    torch.manual_seed(0)
    write_bert_tokenizer(decoder)
    size = len(AutoTokenizer.from_pretrained(decoder, tokenizer_class="BertTokenizer"))
    config = transformers.BertConfig(**{**BERT, "vocab_size": size})
    transformers.BertForPreTraining(config).save_pretrained(decoder)
    return encoder, decoder
