"""`generate`: greedy decoding, sampling and beam search, with the options and the tokens of transformers.

sampling.py and beams.py hold the two ways of decoding, generation_config.py the options, logits.py their effect on
scores.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from raysp.models.base.configuration import Config
from raysp.models.base.modeling import Model
from raysp.models.base.outputs import GenerateOutput
from raysp.models.decoder.attention import frame_mask
from raysp.models.decoder.beams import BeamSearch
from raysp.models.decoder.generation_config import GenerationConfig, Settings
from raysp.models.decoder.logits import changes_of
from raysp.models.decoder.sampling import Decoding, Generators, TokenByToken, TokenDecoder


class GeneratingModel(Model):
    """A model that generates text.

    `generation_config` holds its defaults: from generation_config.json, else from the configuration when
    `generate` is called.
    """

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._generation_config: GenerationConfig | None = None

    @property
    def generation_config(self) -> GenerationConfig:
        """Default options of `generate`; assignable."""
        if self._generation_config is None:
            self._generation_config = GenerationConfig.from_model_config(self.config)
        return self._generation_config

    @generation_config.setter
    def generation_config(self, value: GenerationConfig) -> None:
        self._generation_config = GenerationConfig.of(value)

    def _load(self, folder: Path, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - as the base's
        """Load the weights, and generation_config.json unless it only repeats config.json."""
        loaded = super()._load(folder, *args, **kwargs)
        self._generation_config = GenerationConfig.from_file(folder)
        return loaded

    def _save_extra_files(self, folder: str | Path) -> None:
        """Write generation_config.json if its options were read or set."""
        if self._generation_config is not None:
            self._generation_config.save_pretrained(folder)

    def _options(self, config: GenerationConfig | None, keywords: dict[str, Any]) -> GenerationConfig:
        """Return the options of a call: its keywords, then its configuration, then the model's."""
        options = self._generation_config or GenerationConfig.from_model_config(self.config)
        if config is not None:
            options = options.merged(GenerationConfig.of(config))
        return options.merged(GenerationConfig.from_dict(keywords))


@torch.no_grad()
def generate(
    decoder: TokenDecoder,
    options: GenerationConfig,
    prompt_BT: Tensor,
    *,
    encoder_BSH: Tensor | None = None,
    encoder_mask_BS: Tensor | None = None,
    prompt_mask_BT: Tensor | None = None,
    num_positions: int | None = None,
    generators: Generators = None,
) -> Tensor | GenerateOutput:
    """Continue each row of a prompt.

    Args:
        decoder: Generates the text.
        options: Options of the call.
        prompt_BT: Tokens to start from, (B, T).
        encoder_BSH: Frames to attend to.
        encoder_mask_BS: Nonzero where a frame is attended to; None: everywhere.
        prompt_mask_BT: Nonzero where a token of the prompt counts; None: everywhere.
        num_positions: Limit of the default length.
        generators: Random generators for sampling; with a list, one per row, the text of a row does not depend on its
            batch.

    Returns:
        Tokens (B * num_return_sequences, T), prompt included, or `GenerateOutput` with `return_dict_in_generate=True`.
    """
    settings = Settings.of(options, prompt_BT.shape[1], num_positions)
    settings.check_tokens(decoder.config.vocab_size)
    if isinstance(generators, list) and len(generators) != len(prompt_BT):
        raise ValueError(f"{len(generators)} generators given for {len(prompt_BT)} rows, expected one per row")
    padding_B = None if prompt_mask_BT is None else (prompt_mask_BT != 0).int().argmax(-1)
    changes = changes_of(settings, prompt_BT.shape[1], prompt_BT.device, padding_B)
    room = settings.max_length - 1
    decoding = Decoding(decoder, encoder_BSH, frame_mask(encoder_mask_BS), room, prompt_mask_BT, settings.num_texts)
    search = BeamSearch if settings.num_beams > 1 else TokenByToken
    output = search(settings, decoding, changes, prompt_BT, generators).run()
    return output if settings.return_dict else output.sequences


def generators_of(generator: torch.Generator | None, generators: Sequence[torch.Generator] | None) -> Generators:
    """Return the generator of a call, or its list of one per row."""
    if generator is not None and generators is not None:
        raise ValueError("both generator and generators given, expected one of them")
    return generator if generators is None else list(generators)
