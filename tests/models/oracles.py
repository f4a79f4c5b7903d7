"""transformers as oracle: small random models of every kind, theirs and ours with the same weights."""

import json
import warnings
from pathlib import Path

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what transformers says while it is imported is not about raysp
    import transformers

from tests.models.tokenizers.small import TINY as TINY
from tests.models.tokenizers.small import TINY_PARAKEET as TINY_PARAKEET
from tests.models.tokenizers.small import fields_of as fields_of

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

VARIANTS = {
    "group": {},
    "layer": {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True},
    "group stable": {"do_stable_layer_norm": True, "conv_bias": True},
    "layer post": {"feat_extract_norm": "layer"},
    "adapter": {"do_stable_layer_norm": True, "adapter_attn_dim": 8},
    "adapter without stable": {"adapter_attn_dim": 8},
    "odd positions": {"num_conv_pos_embeddings": 15},
    "one group": {"num_conv_pos_embedding_groups": 1},
    "gelu_new": {"hidden_act": "gelu_new", "feat_extract_activation": "gelu_new"},
    "relu": {"hidden_act": "relu", "feat_extract_activation": "relu"},
    "gelu_python tanh": {"hidden_act": "gelu_python", "feat_extract_activation": "tanh"},
    "wide epsilon": {"layer_norm_eps": 0.1},
    "no mask embedding": {"mask_time_prob": 0.0},
    "feature mask": {"mask_time_prob": 0.0, "mask_feature_prob": 0.1},
    "no augmentation": {"apply_spec_augment": False},
    "default convolutions": {
        "conv_dim": (8,) * 7,
        "conv_stride": (5, 2, 2, 2, 2, 2, 2),
        "conv_kernel": (10, 3, 3, 3, 3, 2, 2),
    },
    "odd convolutions": {"conv_dim": (8, 12), "conv_stride": (7, 3), "conv_kernel": (5, 8)},
}


def make_oracle(name: str = "UniSpeechForCTC", **flags):
    """Make a random model of theirs, weights large enough that mistakes show."""
    torch.manual_seed(0)
    cls = getattr(transformers, name)
    model = cls(cls.config_class(**fields_of(name, flags))).eval()
    with torch.no_grad():
        for tensor in model.state_dict().values():
            if tensor.is_floating_point():  # running variances, too, stay positive
                tensor += 0.1 * (torch.rand_like(tensor) if bool((tensor == 1).all()) else torch.randn_like(tensor))
    return model


def make_pair(name: str, folder: Path, **flags):
    """Make a model of theirs, and ours as it loads what theirs saved."""
    import raysp.models

    oracle = make_oracle(name, **flags)
    oracle.save_pretrained(folder)
    return oracle, getattr(raysp.models, name).from_pretrained(folder, strict=True)


def save_checkpoint(folder: Path) -> Path:
    make_oracle().save_pretrained(folder)
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNO"]
    vocab = folder.parent / "vocab.json"
    vocab.write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(vocab))
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)
    return folder
