"""Parakeet transducers: the encoder of parakeet.py, an LSTM over the tokens so far, and a layer that joins the two.

RNN-T (Graves 2012, arXiv:1211.3711) and TDT, which predicts the duration of each token too (Xu et al. 2023,
arXiv:2304.06795). In this order: configurations, outputs, networks, models. The search is in decoder/transducing.py.
Names of modules and weights follow published checkpoints.

Legend: B batch, M log-mel frames, N mel bins, T frames, H hidden, U tokens, R rows of a step, K frames of a step, S
steps, J width of the joint network, V vocabulary, D durations.
"""

from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from raysp.capabilities import Capability
from raysp.errors import CheckpointError
from raysp.models.base.configuration import Config, write_json
from raysp.models.base.kernels import activation, dense, few_rows
from raysp.models.base.outputs import ModelOutput, output
from raysp.models.base.row_layout import Layout
from raysp.models.decoder.transducing import Path as SearchPath
from raysp.models.decoder.transducing import Rules, State, search
from raysp.models.encoder.speech_model import Reading
from raysp.models.parakeet import ParakeetEncoder, ParakeetHeadConfig, ParakeetPreTrainedModel
from raysp.models.parakeet import check_features as check_features

GREEDY: dict[str, tuple[object, ...]] = {
    "num_beams": (1,),
    "do_sample": (False,),
    "num_return_sequences": (1,),
    "return_dict_in_generate": (False, True),
}
"""Options of `generate` and the values that they may have."""


class ParakeetRNNTConfig(ParakeetHeadConfig):
    """Fields and defaults of `ParakeetRNNTConfig` in transformers."""

    model_type: ClassVar[str] = "parakeet_rnnt"

    vocab_size: int = 8193
    decoder_hidden_size: int = 640
    num_decoder_layers: int = 2
    hidden_act: str = "relu"
    max_symbols_per_step: int = 10
    pad_token_id: int | None = 2
    blank_token_id: int = 8192
    is_encoder_decoder: bool = True

    def validate(self) -> None:
        """Raise CheckpointError for fields that contradict each other."""
        if not 0 <= self.blank_token_id < self.vocab_size:
            raise CheckpointError(
                f"blank_token_id is {self.blank_token_id}, expected a token of the {self.vocab_size} (vocab_size)"
            )
        for name in ("decoder_hidden_size", "num_decoder_layers", "max_symbols_per_step"):
            if getattr(self, name) < 1:
                raise CheckpointError(f"{name} is {getattr(self, name)}, expected at least 1")


class ParakeetTDTConfig(ParakeetRNNTConfig):
    """Fields and defaults of `ParakeetTDTConfig` in transformers."""

    model_type: ClassVar[str] = "parakeet_tdt"

    durations: list[int] | tuple[int, ...] = (0, 1, 2, 3, 4)

    def validate(self) -> None:
        """Raise CheckpointError for fields that contradict each other."""
        super().validate()
        if not self.durations or min(self.durations) < 0 or max(self.durations) < 1:
            raise CheckpointError(
                f"durations is {self.durations!r}, expected numbers of frames such as [0, 1, 2, 3, 4]"
            )


@output
class ParakeetRNNTOutput(ModelOutput):
    """`last_hidden_state` (B, T, H), `pooler_output` (B, T, J), states, weights, `logits` (B, T, U, V + D)."""

    last_hidden_state: Tensor
    pooler_output: Tensor
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    logits: Tensor | None = None


@output
class ParakeetRNNTGenerateOutput(ModelOutput):
    """`sequences` (B, S + 1), tokens and blanks after a first blank; `durations` (B, S + 1), frames that each takes."""

    sequences: Tensor
    durations: Tensor


class ParakeetRNNTDecoder(nn.Module):
    """The prediction network."""

    def __init__(self, config: ParakeetRNNTConfig) -> None:
        super().__init__()
        size = config.decoder_hidden_size
        self.embedding = nn.Embedding(config.vocab_size, size)
        self.lstm = nn.LSTM(size, size, config.num_decoder_layers, batch_first=True)
        self.decoder_projector = nn.Linear(size, size)

    def forward(self, tokens_BU: Tensor) -> Tensor:
        """Return predicted_BUJ, each for the tokens up to it."""
        hidden_BUJ, _ = self.lstm(self.embedding(tokens_BU))
        return dense(self.decoder_projector, hidden_BUJ)

    def step(self, tokens_R: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Return predicted_RJ for one more token of each row, and the state: hidden and cell state of each layer."""
        x_RJ = self.embedding(tokens_R)
        weights = [self.lstm.all_weights[layer] for layer in range(self.lstm.num_layers)]
        states = (torch.zeros_like(x_RJ),) * (2 * len(weights)) if state is None else state
        after: list[Tensor] = []
        for layer, (of_input, of_hidden, *biases) in enumerate(weights):
            hidden_RJ, cell_RJ = states[2 * layer : 2 * layer + 2]
            gates_R4J = few_rows(x_RJ, of_input, biases[0]) + few_rows(hidden_RJ, of_hidden, biases[1])
            entry_RJ, kept_RJ, new_RJ, exit_RJ = gates_R4J.chunk(4, dim=-1)
            cell_RJ = kept_RJ.sigmoid() * cell_RJ + entry_RJ.sigmoid() * new_RJ.tanh()
            x_RJ = exit_RJ.sigmoid() * cell_RJ.tanh()
            after += [x_RJ, cell_RJ]
        return few_rows(x_RJ, self.decoder_projector.weight, self.decoder_projector.bias), tuple(after)


class ParakeetRNNTJointNetwork(nn.Module):
    """A layer over the sums of frames and predictions."""

    def __init__(self, config: ParakeetRNNTConfig, num_durations: int = 0) -> None:
        super().__init__()
        self.act = activation(config.hidden_act)
        self.head = nn.Linear(config.decoder_hidden_size, config.vocab_size + num_durations)

    def forward(self, predicted: Tensor, frames: Tensor) -> Tensor:
        """Return logits (..., V + D) for predictions and frames (..., J)."""
        return dense(self.head, self.act(frames + predicted))


class ParakeetForRNNT(ParakeetPreTrainedModel):
    """The encoder with a transducer's head; `blank_token_id` is the blank, and begins each text."""

    config_class: ClassVar[type[Config]] = ParakeetRNNTConfig
    gives: ClassVar[tuple[Capability, ...]] = (Capability.TRANSDUCER,)
    config: ParakeetRNNTConfig  # type: ignore[assignment]  # the encoder's is within

    def __init__(self, config: ParakeetRNNTConfig) -> None:
        super().__init__(config)
        self.encoder = ParakeetEncoder(config.encoder_config)
        self.encoder_projector = nn.Linear(config.encoder_config.hidden_size, config.decoder_hidden_size)
        self.decoder = ParakeetRNNTDecoder(config)
        self.joint = ParakeetRNNTJointNetwork(config, len(self.durations))

    @property
    def durations(self) -> tuple[int, ...]:
        """Frames of each duration; none for RNN-T."""
        return ()

    @property
    def blank(self) -> int:
        """Id of the blank."""
        return self.config.blank_token_id

    def forward(
        self,
        input_features: Tensor,
        attention_mask: Tensor | Layout | None = None,
        decoder_input_ids: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> ParakeetRNNTOutput | tuple[Any, ...]:
        """Return the frames of the encoder, also projected to the joint network, and logits for input tokens.

        Args:
            input_features: As for `ParakeetEncoder.forward`.
            attention_mask: As for `ParakeetEncoder.forward`.
            decoder_input_ids: (B, U) the blank and the first tokens of each text; None: no logits.
            output_attentions: As for `ParakeetEncoder.forward`.
            output_hidden_states: As for `ParakeetEncoder.forward`.
            return_dict: False returns a plain tuple.
        """
        layout = self.input_layout(input_features, attention_mask)
        encoded = self.encoded(input_features, layout, output_attentions, output_hidden_states)
        outputs = self.read(Reading(encoded, input_features, layout))
        if decoder_input_ids is not None:
            frames_BTJ = outputs.pooler_output
            outputs.logits = self.joint(self.decoder(decoder_input_ids)[:, None], frames_BTJ[:, :, None])
        return self.returned(outputs, return_dict)

    def read(self, reading: Reading) -> ParakeetRNNTOutput:
        """Return the output of the encoder and its projected frames: see the base."""
        last_BTH = reading.encoded.last_hidden_state
        frames_BTJ = dense(self.encoder_projector, last_BTH)
        return reading.output(ParakeetRNNTOutput, last_hidden_state=last_BTH, pooler_output=frames_BTJ)

    def predict(self, tokens_R: Tensor, state: State | None) -> tuple[Tensor, State]:
        """Return predicted_RJ for one more token of each row, and the state of the prediction network."""
        return self.decoder.step(tokens_R, state)

    def join(self, frames_RKJ: Tensor, predicted_RJ: Tensor) -> Tensor:
        """Return logits (R, K, V + D)."""
        joint = self.joint
        return few_rows(joint.act(frames_RKJ + predicted_RJ[:, None]), joint.head.weight, joint.head.bias)

    def search(self, frames_BTJ: Tensor, num_frames_B: Tensor, *, frames_a_step: int | None = None) -> SearchPath:
        """Return the most probable tokens of projected frames, see `raysp.models.decoder.transducing.search`."""
        config = self.config
        # The original of TDT takes the number of a duration for its frames, and any number of tokens at one frame.
        rules = Rules(config.blank_token_id, config.vocab_size, self.durations, config.max_symbols_per_step)
        return search(self, frames_BTJ, num_frames_B, rules, frames_a_step=frames_a_step)

    @torch.no_grad()
    def generate(
        self,
        input_features: Tensor,
        attention_mask: Tensor | Layout | None = None,
        **options: Any,  # noqa: ANN401 - options of `GREEDY`
    ) -> ParakeetRNNTGenerateOutput:
        """Return the most probable token of each step, and the frames that it takes.

        After a row's end there are `pad_token_id` and 0. Rows do not depend on each other, and TDT too continues after
        `max_symbols_per_step` tokens at a frame. `tokenizer.decode` takes the tokens without
        blanks with `group_tokens=False`.

        Args:
            input_features: As for `forward`.
            attention_mask: As for `forward`.
            options: `return_dict_in_generate` has no effect; `num_beams=1` and `do_sample=False` are accepted: the
                search is greedy.

        Raises:
            ValueError: Another option is given.
        """
        if refused := [f"{name}={value!r}" for name, value in options.items() if value not in GREEDY.get(name, ())]:
            raise ValueError(f"{type(self).__name__} searches greedily and takes no {', '.join(refused)}: omit it")
        frames_BTJ = self(input_features, attention_mask, return_dict=True).pooler_output
        layout = self.input_layout(input_features, attention_mask)
        num_frames_B = self.frame_layout(layout, frames_BTJ.shape[1]).counts(input_features.device)
        path = self.search(frames_BTJ, num_frames_B, frames_a_step=1)
        is_ended_BS = path.spans_BS.cumsum(1) - path.spans_BS >= num_frames_B[:, None]
        pad = self.config.blank_token_id if self.config.pad_token_id is None else self.config.pad_token_id
        tokens_BS = path.tokens_BS.masked_fill(is_ended_BS, pad)
        blank_B1 = tokens_BS.new_full((len(tokens_BS), 1), self.config.blank_token_id)
        return ParakeetRNNTGenerateOutput(
            sequences=torch.cat([blank_B1, tokens_BS], dim=1),
            durations=torch.cat([torch.zeros_like(blank_B1), path.spans_BS], dim=1),
        )

    def _save_extra_files(self, folder: str | Path) -> None:
        """Write generation_config.json, from which transformers takes the first token."""
        config = self.config
        beyond = [*range(config.vocab_size, config.vocab_size + len(self.durations))]
        options: dict[str, object] = {"suppress_tokens": beyond} if beyond else {}
        options |= {"decoder_start_token_id": config.blank_token_id, "pad_token_id": config.pad_token_id}
        write_json(Path(folder) / "generation_config.json", options)

    def _init_module(self, module: nn.Module) -> None:
        match module:
            case nn.LSTM():
                for weight in module.parameters():
                    (nn.init.xavier_uniform_ if weight.ndim > 1 else nn.init.zeros_)(weight)
            case _:
                super()._init_module(module)


class ParakeetForTDT(ParakeetForRNNT):
    """The encoder with the head of a transducer that predicts durations too."""

    config_class: ClassVar[type[Config]] = ParakeetTDTConfig
    config: ParakeetTDTConfig

    @property
    def durations(self) -> tuple[int, ...]:
        """Frames of each duration."""
        return tuple(self.config.durations)
