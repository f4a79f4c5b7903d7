"""Training of an encoder of speech with a decoder of text."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from raysp.crossing import sent
from raysp.models.base.modeling import overridden
from raysp.models.decoder.generation_config import GenerationConfig
from raysp.models.encoder.heads import IGNORED_LABEL
from raysp.models.features.processors import FeatureExtractor
from raysp.models.speech_encoder_decoder import SpeechEncoderDecoderConfig, SpeechEncoderDecoderModel
from raysp.models.tokenizers.text import TextTokenizer
from raysp.training.data.micro_batches import Losses, MicroBatch
from raysp.training.data.randomness import seeded
from raysp.training.objectives.decoder_tokens import SpecialIds, special_ids, token_ids
from raysp.training.objectives.passes import Passes, evaluation_mode, padded_targets
from raysp.training.objectives.starting_model import NAMED_OUTPUTS, Masks, anew, expecting_new_weights

MAX_TOKENS = 256
"""Tokens of the longest text that `generate` writes unless told otherwise; 30 seconds of speech have fewer."""


class Seq2SeqObjective:
    """Cross entropy of the next token with label smoothing (Szegedy et al. 2016), summed over the tokens of targets.

    Targets end with the decoder's end token, and do not have its start token.

    Args:
        model: an encoder-decoder.
        feature_extractor: that of its checkpoint.
        smoothing: share of the probability that is spread over the vocabulary.
        dtype: dtype of the arithmetic; weights and loss stay in float32.
    """

    terms: tuple[str, ...] = ()

    def __init__(
        self,
        model: SpeechEncoderDecoderModel,
        feature_extractor: FeatureExtractor,
        *,
        smoothing: float = 0.1,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.model = model
        self.passes = Passes(model, feature_extractor, dtype)
        self.smoothing = smoothing

    def __call__(self, batch: MicroBatch) -> Losses:
        """Run the model on a micro-batch of at least one row."""
        rows_B, num_tokens_B = self._run(batch)
        return Losses(rows_B.sum(), float(num_tokens_B.sum()), rows_B.detach())

    @torch.inference_mode()
    def predict(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return the tokens that `generate` writes, (B, L), and the mean losses of targets (B,), on the CPU."""
        with evaluation_mode(self.model):
            rows_B, num_tokens_B = self._run(batch)
            ids_BL, _ = self.passes(self.model.generate, batch.waves)
        assert isinstance(ids_BL, Tensor)
        return ids_BL.cpu(), rows_B.cpu() / num_tokens_B.clamp(min=1)

    def _run(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """Return the losses of rows (B,), summed over their tokens, and their numbers of tokens (B,), on the CPU."""
        targets_BL = padded_targets(batch, self.model.config.decoder.vocab_size)
        labels_BL = sent(targets_BL, self.model.device)
        inputs_BL = self.model.prepare_decoder_input_ids_from_labels(labels_BL)
        output, _ = self.passes(self.model, batch.waves, decoder_input_ids=inputs_BL, use_cache=False)
        return token_losses(output.logits, labels_BL, self.smoothing), (targets_BL != IGNORED_LABEL).sum(-1)


def token_losses(logits_BLV: Tensor, labels_BL: Tensor, smoothing: float) -> Tensor:
    """Return the sum of the losses of each row's tokens, float32 (B,).

    Gradients are computed again from the logits, so that float32 values exist for one row at a time.
    """

    def loss(logits_LV: Tensor, labels_L: Tensor) -> Tensor:
        return F.cross_entropy(
            logits_LV.float(), labels_L, ignore_index=IGNORED_LABEL, reduction="sum", label_smoothing=smoothing
        )

    rows = zip(logits_BLV.unbind(), labels_BL, strict=True)
    return torch.stack([checkpoint(loss, *row, use_reentrant=False, preserve_rng_state=False) for row in rows])


def load_encoder_decoder(
    folder: Path,
    tokenizer: TextTokenizer,
    *,
    decoder: Path | None = None,
    masks: Masks | None = None,
    prompt_tokens: Sequence[str] = (),
    generate: Mapping[str, Any] | None = None,
    seed: int = 0,
    random_weights: bool = False,
) -> SpeechEncoderDecoderModel:
    """Load an encoder-decoder, or combine an encoder and a decoder, in training mode and float32.

    Its configuration has the special ids that training and `generate` need, from the decoder's configuration or its
    tokenizer.

    Args:
        folder: checkpoint of an encoder-decoder; with `decoder`, of an encoder of speech.
        tokenizer: that of the decoder.
        decoder: checkpoint of a text model that has a decoder.
        masks: fields of the encoder's configuration.
        prompt_tokens: tokens that begin every text.
        generate: options of `generate`, in place of its defaults.
        seed: seed of initial weights, such as those of cross attention.
        random_weights: whether all weights are initialised.

    Raises:
        CheckpointError: files, weights or widths do not fit; a special token is missing.
    """
    with seeded(seed), expecting_new_weights():
        model = _loaded(folder, decoder, masks or {}).float()
        if random_weights:
            model = anew(model, seed=seed)
        if len(tokenizer) > model.config.decoder.vocab_size:
            model.resize_token_embeddings(len(tokenizer))
    config: Any = model.config
    special = special_ids(tokenizer, config, config.decoder)
    config.decoder_start_token_id, config.eos_token_id, config.pad_token_id = special
    for name, value in NAMED_OUTPUTS.items():
        setattr(config, name, value)
    options = _default_options(special, model.decoder.num_positions)
    if decoder is None:
        options = options.merged(model.generation_config)
    if prompt_tokens:
        options.forced_bos_token_id = token_ids(tokenizer, prompt_tokens)[0]
    model.generation_config = options.merged(GenerationConfig.from_dict(generate or {}))
    return model.train()


def _loaded(folder: Path, decoder: Path | None, masks: Masks) -> SpeechEncoderDecoderModel:
    if decoder is not None:
        of_encoder: dict[str, Any] = {f"encoder_{name}": value for name, value in masks.items()}
        return SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(folder, decoder, **of_encoder)
    config = SpeechEncoderDecoderConfig.from_pretrained(folder)
    config.encoder = overridden(config.encoder, masks)
    return SpeechEncoderDecoderModel.from_pretrained(folder, config=config)


def _default_options(special: SpecialIds, num_positions: int) -> GenerationConfig:
    """Return options of `generate` for speech, in place of those of a decoder's checkpoint, which are for text."""
    return GenerationConfig(
        max_length=min(MAX_TOKENS, num_positions),
        decoder_start_token_id=special.start,
        eos_token_id=special.end,
        pad_token_id=special.padding,
    )
