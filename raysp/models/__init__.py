"""Speech models under their Hugging Face names, resolved when first used: importing this package imports no torch.

The output of a row in a padded batch equals its output alone only with `attention_mask`, which marks its end. Pass
`padding=True, return_attention_mask=True` to the processor of a batch: logits of a CTC head are then the blank after
each row's end, so that `processor.batch_decode(model(**inputs).logits.argmax(-1))` gives the texts of the rows alone.
"""

from raysp.public_names import lazily

# A public name is imported when it is first used; the names and their modules are listed in __init__.pyi.
_public, __dir__, _names = lazily(__name__, __file__)
_FLAX = frozenset(name for name in _names if name.startswith("Flax"))
__all__ = [name for name in _names if name not in _FLAX]  # `import *` must work without JAX

_ELSEWHERE = {  # names in the models' documents, with their replacements
    "BatchEncoding": "tokenizers and processors return a BatchFeature, a dict with attributes and .to(device)",
    "BertForCausalLM": "use BertLMHeadModel",
    "PreTrainedTokenizer": "tokenizers are Wav2Vec2CTCTokenizer and TextTokenizer, loaded by AutoTokenizer",
    "Speech2TextFeatureExtractor": "log-mels are extracted by SeamlessM4TFeatureExtractor",
    "Speech2TextProcessor": "the processors here are Wav2Vec2Processor and Wav2Vec2BertProcessor",
}


def __getattr__(name: str) -> object:
    """Import the module that defines a public name."""
    # ImportError: of an AttributeError `from raysp.models import ...` would show no more than that it has no such name.
    if name.startswith("Flax"):
        return _flax(name)
    if name in _ELSEWHERE:
        raise ImportError(f"{name!r} is not in raysp: {_ELSEWHERE[name]}")
    return _public(name)


def _flax(name: str) -> object:
    """Import the module that defines a class of JAX."""
    if name not in _FLAX:
        raise ImportError(
            f"{name!r} is a JAX class that raysp does not have: use {name.removeprefix('Flax')!r}, or one of "
            f"{', '.join(sorted(_FLAX))}"
        )
    try:
        return _public(name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("flax", "jax", "jaxlib"):
            raise
        raise ImportError(f'{name!r} needs JAX and Flax: pip install "raysp[jax]"') from error
