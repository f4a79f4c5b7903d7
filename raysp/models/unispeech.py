"""UniSpeech (Wang et al. 2021, arXiv:2101.07597): a wav2vec 2.0 encoder with a CTC head.

Read from top to bottom: configuration, positional convolution, attention, layers, encoder, models. The convolutional
front end is in waveform.py, the positional convolution's weight in weight_norm.py. Names of modules and weights are
those of published checkpoints.

Legend: B batch, S samples, T frames, C channels of the front end, H hidden, A attention heads, D head, V vocabulary.
"""

import math
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from raysp.errors import CheckpointError
from raysp.models.activations import activation
from raysp.models.augmentation import compute_mask_indices
from raysp.models.configuration import Config
from raysp.models.modeling import Count, Model
from raysp.models.outputs import CausalLMOutput, Wav2Vec2BaseModelOutput
from raysp.models.waveform import FeatureEncoder, conv_output_frames, receptive_samples
from raysp.models.weight_norm import WeightNorm, WeightNormConv1d

_compute_mask_indices = compute_mask_indices  # the name that training scripts import


class UniSpeechConfig(Config):
    """Fields and defaults of `UniSpeechConfig` in transformers."""

    model_type: ClassVar[str] = "unispeech"

    vocab_size: int | None = 32
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout: float = 0.1
    activation_dropout: float = 0.1
    attention_dropout: float = 0.1
    feat_proj_dropout: float = 0.0
    feat_quantizer_dropout: float = 0.0
    final_dropout: float = 0.1
    layerdrop: float = 0.1
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-5
    feat_extract_norm: str = "group"
    feat_extract_activation: str = "gelu"
    conv_dim: tuple[int, ...] = (512, 512, 512, 512, 512, 512, 512)
    conv_stride: tuple[int, ...] = (5, 2, 2, 2, 2, 2, 2)
    conv_kernel: tuple[int, ...] = (10, 3, 3, 3, 3, 2, 2)
    conv_bias: bool = False
    num_conv_pos_embeddings: int = 128
    num_conv_pos_embedding_groups: int = 16
    do_stable_layer_norm: bool = False
    adapter_attn_dim: int | None = None
    apply_spec_augment: bool = True
    mask_time_prob: float = 0.05
    mask_time_length: int = 10
    mask_time_min_masks: int = 2
    mask_feature_prob: float = 0.0
    mask_feature_length: int = 10
    mask_feature_min_masks: int = 0
    num_codevectors_per_group: int = 320
    num_codevector_groups: int = 2
    contrastive_logits_temperature: float = 0.1
    num_negatives: int = 100
    codevector_dim: int = 256
    proj_codevector_dim: int = 256
    diversity_loss_weight: float = 0.1
    ctc_loss_reduction: str = "mean"
    ctc_zero_infinity: bool = False
    use_weighted_layer_sum: bool = False
    classifier_proj_size: int = 256
    num_ctc_classes: int = 80
    pad_token_id: int | None = 0
    bos_token_id: int | None = 1
    eos_token_id: int | list[int] | None = 2
    replace_prob: float = 0.5

    @property
    def num_feat_extract_layers(self) -> int:
        """Number of convolutions of the front end."""
        return len(self.conv_dim)

    @property
    def inputs_to_logits_ratio(self) -> int:
        """Samples from one frame to the next."""
        return math.prod(self.conv_stride)

    def validate(self) -> None:
        """Check what must agree before a model can be built."""
        counts = {name: len(getattr(self, name)) for name in ("conv_dim", "conv_stride", "conv_kernel")}
        if len(set(counts.values())) != 1 or not self.conv_dim:
            raise CheckpointError(f"lengths are {counts}, expected one length for all three: correct config.json")
        for name, divisor in (
            ("num_attention_heads", self.num_attention_heads),
            ("num_conv_pos_embedding_groups", self.num_conv_pos_embedding_groups),
        ):
            if divisor < 1 or self.hidden_size % divisor:
                raise CheckpointError(f"{name} is {divisor}, expected a divisor of hidden_size {self.hidden_size}")
        if min(*self.conv_dim, *self.conv_stride, *self.conv_kernel, self.num_conv_pos_embeddings) < 1:
            raise CheckpointError("a convolution's width, stride or kernel is below 1, expected positive numbers")


class UniSpeechFeatureProjection(nn.Module):
    """Normalise the front end's features and bring them to the hidden width."""

    def __init__(self, config: UniSpeechConfig) -> None:
        super().__init__()
        self.config = config
        self.layer_norm = nn.LayerNorm(config.conv_dim[-1], eps=config.layer_norm_eps)
        self.projection = nn.Linear(config.conv_dim[-1], config.hidden_size)

    def forward(self, features_BTC: Tensor) -> tuple[Tensor, Tensor]:
        """Return the projected and the normalised features."""
        features_BTC = self.layer_norm(features_BTC)
        hidden_BTH = F.dropout(self.projection(features_BTC), self.config.feat_proj_dropout, self.training)
        return hidden_BTH, features_BTC


class UniSpeechPositionalConvEmbedding(nn.Module):
    """Tell frames their place by a wide convolution over their neighbours."""

    def __init__(self, config: UniSpeechConfig) -> None:
        super().__init__()
        self.conv = WeightNormConv1d(
            config.hidden_size, config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups
        )
        self.act = activation(config.feat_extract_activation)

    def forward(self, hidden_BTH: Tensor) -> Tensor:
        """Return what is added to each frame."""
        x_BHT = self.conv(hidden_BTH.transpose(1, 2))[:, :, : hidden_BTH.shape[1]]  # an even kernel makes one too many
        return self.act(x_BHT).transpose(1, 2)


class UniSpeechAttention(nn.Module):
    """Multi-head attention of frames over frames."""

    def __init__(self, config: UniSpeechConfig) -> None:
        super().__init__()
        self.config = config
        self.k_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.v_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.q_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, hidden_BTH: Tensor, keys_B11T: Tensor | None, with_weights: bool) -> tuple[Tensor, Tensor | None]:
        """Return the attended frames, and the weights_BATT where they are asked for."""
        q_BATD, k_BATD, v_BATD = (
            projection(hidden_BTH).unflatten(-1, (self.config.num_attention_heads, -1)).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        dropout = self.config.attention_dropout if self.training else 0.0
        weights_BATT: Tensor | None = None
        if with_weights:
            scores_BATT = q_BATD @ k_BATD.transpose(2, 3) * q_BATD.shape[-1] ** -0.5
            if keys_B11T is not None:
                scores_BATT = scores_BATT.masked_fill(~keys_B11T, torch.finfo(scores_BATT.dtype).min)
            weights_BATT = F.dropout(scores_BATT.softmax(-1), dropout, self.training)
            mixed_BATD = weights_BATT @ v_BATD
        else:
            mixed_BATD = F.scaled_dot_product_attention(q_BATD, k_BATD, v_BATD, keys_B11T, dropout)
        return self.out_proj(mixed_BATD.transpose(1, 2).flatten(2)), weights_BATT


class UniSpeechFeedForward(nn.Module):
    """Two dense layers with an activation between them."""

    def __init__(self, config: UniSpeechConfig) -> None:
        super().__init__()
        self.config = config
        self.intermediate_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.act = activation(config.hidden_act)
        self.output_dense = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_BTH: Tensor) -> Tensor:
        """Apply to each frame by itself."""
        inner_BTI = self.act(self.intermediate_dense(hidden_BTH))
        inner_BTI = F.dropout(inner_BTI, self.config.activation_dropout, self.training)
        return F.dropout(self.output_dense(inner_BTI), self.config.hidden_dropout, self.training)


class UniSpeechAttnAdapterLayer(nn.Module):
    """A narrow residual network that adapts a layer to a language (MMS, Pratap et al. 2023)."""

    def __init__(self, config: UniSpeechConfig, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size)  # its epsilon is PyTorch's, whatever config.layer_norm_eps says
        self.linear_1 = nn.Linear(config.hidden_size, width)
        self.linear_2 = nn.Linear(width, config.hidden_size)

    def forward(self, hidden_BTH: Tensor) -> Tensor:
        """Return what is added to each frame."""
        adapted_BTH: Tensor = self.linear_2(F.relu(self.linear_1(self.norm(hidden_BTH))))
        return adapted_BTH


class UniSpeechEncoderLayer(nn.Module):
    """Attention and feed-forward; `do_stable_layer_norm` normalises before each, else after."""

    def __init__(self, config: UniSpeechConfig) -> None:
        super().__init__()
        self.config = config
        self.attention = UniSpeechAttention(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = UniSpeechFeedForward(config)
        self.final_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.adapter_layer: UniSpeechAttnAdapterLayer | None = None
        if config.do_stable_layer_norm and config.adapter_attn_dim is not None:
            self.adapter_layer = UniSpeechAttnAdapterLayer(config, config.adapter_attn_dim)

    def forward(self, hidden_BTH: Tensor, keys_B11T: Tensor | None, with_weights: bool) -> tuple[Tensor, Tensor | None]:
        """Return the layer's output, and attention weights where they are asked for."""
        if self.config.do_stable_layer_norm:
            return self._forward_stable(hidden_BTH, keys_B11T, with_weights)
        attended_BTH, weights_BATT = self.attention(hidden_BTH, keys_B11T, with_weights)
        hidden_BTH = self.layer_norm(hidden_BTH + self._dropout(attended_BTH))
        return self.final_layer_norm(hidden_BTH + self.feed_forward(hidden_BTH)), weights_BATT

    def _forward_stable(
        self, hidden_BTH: Tensor, keys_B11T: Tensor | None, with_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        attended_BTH, weights_BATT = self.attention(self.layer_norm(hidden_BTH), keys_B11T, with_weights)
        hidden_BTH = hidden_BTH + self._dropout(attended_BTH)
        hidden_BTH = hidden_BTH + self.feed_forward(self.final_layer_norm(hidden_BTH))
        if self.adapter_layer is not None:
            hidden_BTH = hidden_BTH + self.adapter_layer(hidden_BTH)
        return hidden_BTH, weights_BATT

    def _dropout(self, x_BTH: Tensor) -> Tensor:
        return F.dropout(x_BTH, self.config.hidden_dropout, self.training)


class UniSpeechEncoder(nn.Module):
    """The positional convolution and the layers."""

    def __init__(self, config: UniSpeechConfig) -> None:
        super().__init__()
        self.config = config
        self.pos_conv_embed = UniSpeechPositionalConvEmbedding(config)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.layers = nn.ModuleList(UniSpeechEncoderLayer(config) for _ in range(config.num_hidden_layers))

    def forward(
        self, hidden_BTH: Tensor, valid_BT: Tensor | None, with_states: bool, with_weights: bool
    ) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Return the last hidden state, the input of the first layer and the output of each, and attention weights."""
        keys_B11T: Tensor | None = None
        if valid_BT is not None:
            hidden_BTH = hidden_BTH.masked_fill(~valid_BT[:, :, None], 0.0)
            keys_B11T = _attended_keys(valid_BT)
        hidden_BTH = hidden_BTH + self.pos_conv_embed(hidden_BTH)
        if not self.config.do_stable_layer_norm:
            hidden_BTH = self.layer_norm(hidden_BTH)
        hidden_BTH = F.dropout(hidden_BTH, self.config.hidden_dropout, self.training)
        states, weights = [hidden_BTH], []
        for layer in self.layers:
            if self.training and self.config.layerdrop > 0.0 and torch.rand([]) < self.config.layerdrop:
                continue
            hidden_BTH, weights_BATT = layer(hidden_BTH, keys_B11T, with_weights)
            if with_states:
                states.append(hidden_BTH)
            if weights_BATT is not None:
                weights.append(weights_BATT)
        if self.config.do_stable_layer_norm:
            hidden_BTH = self.layer_norm(hidden_BTH)
        return hidden_BTH, tuple(states), tuple(weights)


def _attended_keys(valid_BT: Tensor) -> Tensor | None:
    """Return which frames may be attended to, or None for all of them (known without waiting for a GPU)."""
    if valid_BT.device.type == "cpu" and bool(valid_BT.all()):
        return None
    first_T = torch.arange(valid_BT.shape[1], device=valid_BT.device) == 0
    return (valid_BT | first_T)[:, None, None]  # a row without frames attends to something, or it would give NaN


class UniSpeechPreTrainedModel(Model):
    """What all UniSpeech models share: lengths, and how weights are first drawn."""

    config_class: ClassVar[type[Config]] = UniSpeechConfig
    base_model_prefix: ClassVar[str] = "unispeech"
    training_only: ClassVar[tuple[str, ...]] = ("masked_spec_embed",)
    config: UniSpeechConfig

    @property
    def min_samples(self) -> int:
        """Samples of the shortest input, which gives one frame."""
        return receptive_samples(self.config.conv_kernel, self.config.conv_stride)

    @property
    def frame_stride(self) -> int:
        """Samples from one frame to the next."""
        return self.config.inputs_to_logits_ratio

    def num_frames(self, num_samples: Count) -> Count:
        """Return the frames that inputs of these numbers of samples give, at least 0."""
        frames = conv_output_frames(num_samples, self.config.conv_kernel, self.config.conv_stride)
        return frames * (frames > 0)

    def _get_feat_extract_output_lengths(self, input_lengths: Count) -> Count:
        return conv_output_frames(input_lengths, self.config.conv_kernel, self.config.conv_stride)

    def _get_feature_vector_attention_mask(self, feature_vector_length: int, attention_mask: Tensor) -> Tensor:
        """Return valid_BT for a mask over samples; "reference" makes a row without frames all valid."""
        num_frames_B = self._get_feat_extract_output_lengths(attention_mask.sum(-1))
        if self.padding == "reference":
            num_frames_B = torch.where(num_frames_B < 1, num_frames_B + feature_vector_length, num_frames_B)
        return torch.arange(feature_vector_length, device=attention_mask.device) < num_frames_B[:, None]

    def freeze_feature_encoder(self) -> None:
        """Take the convolutional front end out of training."""
        for module in self.modules():
            if isinstance(module, FeatureEncoder):
                module.requires_grad_(False)

    def freeze_base_model(self) -> None:
        """Train the head alone."""
        self.base_model.requires_grad_(False)

    def _init_module(self, module: nn.Module) -> None:
        match module:
            case UniSpeechModel() if module.masked_spec_embed is not None:
                nn.init.uniform_(module.masked_spec_embed)
            case WeightNormConv1d(kernel=kernel, groups=groups, bias=bias):
                weight = torch.empty_like(module.norm.original1)
                nn.init.normal_(weight, std=2 * math.sqrt(1 / (kernel * weight.shape[1] * groups)))
                module.parametrizations.weight = WeightNorm(weight)
                nn.init.zeros_(bias)
            case UniSpeechFeatureProjection(projection=projection):
                bound = math.sqrt(1 / projection.in_features)
                nn.init.uniform_(projection.weight, -bound, bound)
                nn.init.uniform_(projection.bias, -bound, bound)
            case nn.Linear():
                nn.init.normal_(module.weight, std=self.config.initializer_range)
                nn.init.zeros_(module.bias)
            case nn.Conv1d():
                nn.init.kaiming_normal_(module.weight)
                if module.bias is not None:
                    bound = math.sqrt(1 / (module.in_channels * module.kernel_size[0]))
                    nn.init.uniform_(module.bias, -bound, bound)
            case nn.LayerNorm() | nn.GroupNorm():
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)


class UniSpeechModel(UniSpeechPreTrainedModel):
    """The encoder without a head."""

    def __init__(self, config: UniSpeechConfig) -> None:
        super().__init__(config)
        self.masked_spec_embed: nn.Parameter | None = None
        if config.mask_time_prob > 0.0 or config.mask_feature_prob > 0.0:
            self.masked_spec_embed = nn.Parameter(torch.rand(config.hidden_size))
        self.feature_extractor = FeatureEncoder(
            config.conv_dim,
            config.conv_kernel,
            config.conv_stride,
            bias=config.conv_bias,
            norm=config.feat_extract_norm,
            act=config.feat_extract_activation,
        )
        self.feature_projection = UniSpeechFeatureProjection(config)
        self.encoder = UniSpeechEncoder(config)

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Wav2Vec2BaseModelOutput | tuple[Tensor | tuple[Tensor, ...], ...]:
        """Encode waveforms.

        Args:
            input_values: (B, S) normalised samples.
            attention_mask: (B, S), nonzero where a sample is part of its row, on the left; None: all of them.
            mask_time_indices: (B, T), true where a frame is replaced by the learned mask.
            output_attentions: Ask for `attentions`, (B, A, T, T) for each layer; None: as the configuration says.
            output_hidden_states: Ask for `hidden_states`, (B, T, H) before the first layer and after each. With
                `do_stable_layer_norm` the last of them is not yet normalised.
            return_dict: False gives a plain tuple.
        """
        output = self.encode(input_values, attention_mask, mask_time_indices, output_attentions, output_hidden_states)
        return output.to_tuple() if _asked(return_dict, self.config.return_dict) is False else output

    def encode(
        self,
        waves_BS: Tensor,
        mask_BS: Tensor | None = None,
        mask_time_indices: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> Wav2Vec2BaseModelOutput:
        """Do what `forward` does, and always return the named output."""
        with_weights = _asked(output_attentions, self.config.output_attentions)
        with_states = _asked(output_hidden_states, self.config.output_hidden_states)
        num_samples_B = mask_BS.sum(-1) if mask_BS is not None and self.padding == "exact" else None
        features_BTC = self.feature_extractor(waves_BS, num_samples_B)
        valid_BT: Tensor | None = None
        if mask_BS is not None:
            valid_BT = self._get_feature_vector_attention_mask(features_BTC.shape[1], mask_BS)
        hidden_BTH, features_BTC = self.feature_projection(features_BTC)
        hidden_BTH = self._mask_hidden_states(hidden_BTH, mask_time_indices, valid_BT)
        hidden_BTH, states, weights = self.encoder(hidden_BTH, valid_BT, with_states, with_weights)
        return Wav2Vec2BaseModelOutput(
            last_hidden_state=hidden_BTH,
            extract_features=features_BTC,
            hidden_states=states if with_states else None,
            attentions=weights if with_weights else None,
        )

    def _mask_hidden_states(
        self, hidden_BTH: Tensor, mask_time_indices: Tensor | None, valid_BT: Tensor | None
    ) -> Tensor:
        """Apply SpecAugment: in training by drawn spans, else where `mask_time_indices` says."""
        config = self.config
        if not config.apply_spec_augment:
            return hidden_BTH
        batch, num_frames, hidden_size = hidden_BTH.shape
        if mask_time_indices is None and config.mask_time_prob > 0 and self.training:
            drawn = compute_mask_indices(
                (batch, num_frames),
                config.mask_time_prob,
                config.mask_time_length,
                valid_BT,
                config.mask_time_min_masks,
            )
            mask_time_indices = torch.from_numpy(drawn)
        if mask_time_indices is not None:
            if self.masked_spec_embed is None:
                raise ValueError("mask_time_indices given to a model without masked_spec_embed: set mask_time_prob > 0")
            masked_BT1 = mask_time_indices.to(hidden_BTH.device, torch.bool)[:, :, None]
            hidden_BTH = torch.where(masked_BT1, self.masked_spec_embed.to(hidden_BTH.dtype), hidden_BTH)
        if config.mask_feature_prob > 0 and self.training:
            drawn = compute_mask_indices(
                (batch, hidden_size),
                config.mask_feature_prob,
                config.mask_feature_length,
                min_masks=config.mask_feature_min_masks,
            )
            hidden_BTH = hidden_BTH.masked_fill(torch.from_numpy(drawn).to(hidden_BTH.device)[:, None], 0.0)
        return hidden_BTH


class UniSpeechForCTC(UniSpeechPreTrainedModel):
    """The encoder with a linear head over the vocabulary; `pad_token_id` is the blank."""

    outputs: ClassVar[tuple[str, ...]] = ("Transcript",)

    def __init__(self, config: UniSpeechConfig) -> None:
        super().__init__(config)
        if config.vocab_size is None:
            raise CheckpointError("vocab_size is None, expected the number of tokens: pass vocab_size=...")
        self.unispeech = UniSpeechModel(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)

    def forward(
        self,
        input_values: Tensor,
        attention_mask: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        labels: Tensor | None = None,
    ) -> CausalLMOutput | tuple[Tensor | tuple[Tensor, ...], ...]:
        """Return logits_BTV, and the CTC loss where labels are given.

        `labels` are (B, L) ids; -100 and the blank are left out. For the rest see `UniSpeechModel.forward`.
        """
        if labels is not None and int(labels.max()) >= self.lm_head.out_features:
            raise ValueError(f"label {int(labels.max())} found, expected below vocab_size {self.lm_head.out_features}")
        encoded = self.unispeech.encode(
            input_values,
            attention_mask,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        logits_BTV = self.lm_head(F.dropout(encoded.last_hidden_state, self.config.final_dropout, self.training))
        output = CausalLMOutput(
            loss=None if labels is None else self._loss(logits_BTV, input_values, attention_mask, labels),
            logits=logits_BTV,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )
        return output.to_tuple() if _asked(return_dict, self.config.return_dict) is False else output

    def _loss(self, logits_BTV: Tensor, waves_BS: Tensor, mask_BS: Tensor | None, labels_BL: Tensor) -> Tensor:
        num_samples_B = torch.full_like(waves_BS[:, 0], waves_BS.shape[1], dtype=torch.long)
        if mask_BS is not None:
            num_samples_B = mask_BS.sum(-1)
        blank = self.config.pad_token_id or 0
        kept_BL = (labels_BL != -100) & (labels_BL != blank)
        with torch.backends.cudnn.flags(enabled=False):
            return F.ctc_loss(
                logits_BTV.log_softmax(-1, dtype=torch.float32).transpose(0, 1),
                labels_BL[kept_BL].to(logits_BTV.device),
                self.num_frames(num_samples_B),
                kept_BL.sum(-1),
                blank=blank,
                reduction=self.config.ctc_loss_reduction,
                zero_infinity=self.config.ctc_zero_infinity,
            )


def _asked(argument: bool | None, configured: bool) -> bool:
    return configured if argument is None else argument
