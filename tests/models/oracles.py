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


def random_model(name: str = "UniSpeechForCTC", **flags):
    """Make a model of ours with random weights."""
    import raysp.models

    torch.manual_seed(0)
    cls = getattr(raysp.models, name)
    return cls(cls.config_class(**fields_of(name, flags))).init_weights().eval()


def save_checkpoint(folder: Path) -> Path:
    make_oracle().save_pretrained(folder)
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNO"]
    vocab = folder.parent / "vocab.json"
    vocab.write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    tokenizer = transformers.Wav2Vec2CTCTokenizer(str(vocab))
    extractor = transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    transformers.Wav2Vec2Processor(extractor, tokenizer).save_pretrained(folder)
    return folder
