"""Switching of the language of a loaded model: adapter layers and head are exchanged, the other weights stay."""

from collections import OrderedDict
from pathlib import Path

import torch
from torch import Tensor

from raysp.models.base.modeling import Model
from raysp.models.encoder.adapters import adapter_weights, exchange_adapter, read_adapter
from raysp.models.encoder.languages import adapter_of

MOST_KEPT = 32
"""Languages whose weights stay in memory: 9 MB each of a model of a billion parameters in float32."""


class LanguageSwitch:
    """Languages of a model, of which those used last are kept in memory.

    Args:
        model: a model with adapter layers and a CTC head.
        folder: its checkpoint.
        own: language of the weights that it was loaded with; None: unknown.
    """

    def __init__(self, model: Model, folder: Path, own: str | None) -> None:
        self.model = model
        self.folder = folder
        self.own = own
        self.language: str | None = None
        """Language in use; None: that of the weights that the model was loaded with."""
        self._own_weights = {name: weight.detach() for name, weight in adapter_weights(model).items()}
        self._kept: OrderedDict[str, dict[str, Tensor]] = OrderedDict()

    def use(self, language: str) -> None:
        """Exchange adapter layers and head for those of a language.

        Raises:
            CheckpointError: the checkpoint lacks its file, or its names or shapes do not match the model.
            StoreError: the file cannot be fetched.
        """
        if language == self.language:
            return
        if language not in self._kept:
            self._kept[language] = self._read(language)
            if len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(language)
        exchange_adapter(self.model, self._kept[language])
        self.language = language

    def _read(self, language: str) -> dict[str, Tensor]:
        path = adapter_of(self.folder, language, is_own=language == self.own)
        if path is None:
            return self._own_weights
        like = self._own_weights
        return {  # copies, whose memory is aligned as that of other weights, whatever the place in the file
            name: torch.empty_like(value, dtype=like[name].dtype, device=like[name].device).copy_(value)
            for name, value in read_adapter(self.model, path).items()
        }
