"""Digest of what decides the shapes of a model's passes: the key by which a certificate of packs is looked up."""

import hashlib
import json
from collections.abc import Iterator, Sequence

from raysp.models.base.modeling import Model
from raysp.models.files.configuration import Config

WAY = 2
"""Number of the way in which a pack is computed: with another one kernels are others, and certificates do not hold."""
WITHOUT_SHAPE = ("architectures", "dtype", "id2label", "label2id")
"""Fields of configurations that change no kernel, besides those of training (`mask_`) and ids of tokens."""


def shape_digest(models: Sequence[Model]) -> str:
    """Return a hash of the shapes of weights, of the sizes and switches of configurations, and of `WAY`.

    Over packs of one size models with equal hashes run the same kernels on the same shapes: they differ in values of
    weights, in probabilities and in names of tokens and classes. A field that may have no effect counts too.
    """
    found = [
        [
            type(model).__name__,
            sorted((name, [*value.shape]) for name, value in model.state_dict().items()),
            [*_settings(model.config)],
        ]
        for model in models
    ]
    return hashlib.sha256(json.dumps([WAY, found]).encode()).hexdigest()[:32]


def _settings(config: Config, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield the sizes and switches of a configuration and of those in it, by name; other keys are left out."""
    for name in sorted(name for name in vars(config) if hasattr(type(config), name)):
        value = getattr(config, name)
        if isinstance(value, Config):
            yield from _settings(value, f"{prefix}{name}.")
        elif not (name in WITHOUT_SHAPE or name.startswith("mask_") or name.endswith("token_id")) and _is_plain(value):
            yield f"{prefix}{name}", value


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, int | str)
