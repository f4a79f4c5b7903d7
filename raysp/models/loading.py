"""Loading of checkpoints: the model, further heads, feature extractor and tokenizer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache, cached_property
from pathlib import Path
from typing import Any, cast

import torch

from raysp.capabilities import TEXT, Capability
from raysp.checkpoints.hub import local_checkpoint
from raysp.errors import CheckpointError
from raysp.models.base.modeling import Model, Padding
from raysp.models.base.outputs import ModelOutput
from raysp.models.base.packs import (
    EncodedPack,
    EncodesPacks,
    Pack,
    PackOutput,
    PackPass,
    PackResults,
    Places,
    ReadsPacks,
)
from raysp.models.checking import CheckpointSummary, check_checkpoint, load_feature_extractor
from raysp.models.encoder.encoder_heads import ForCTC
from raysp.models.encoder.heads import layer_weights_of
from raysp.models.encoder.languages import LanguageSwitch
from raysp.models.encoder.packed_attention import kernel_of_rows
from raysp.models.encoder.several_heads import encoded_before, encoded_by, with_encoder_of
from raysp.models.features.processors import FeatureExtractor
from raysp.models.kernels.pack_sizes import most_rows, slot_frames, whole_parts
from raysp.models.kernels.packing import Packing
from raysp.models.kernels.row_tables import RowTables
from raysp.models.labelled_passes import ModelPass
from raysp.models.registry import model_classes
from raysp.models.tokenizers.named_tokenizers import TextOrCTCTokenizer, read_tokenizer
from raysp.models.tokenizers.written import CTCTokenizer


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A model with its feature extractor and tokenizer."""

    summary: CheckpointSummary
    model: Model
    feature_extractor: FeatureExtractor
    tokenizer: "TextOrCTCTokenizer | None"
    """None for a model without text output."""
    more_heads: tuple[Model, ...] = ()
    """Further heads over the model's encoder, if config.json names several architectures."""

    @property
    def sample_rate(self) -> int:
        """Samples per second that the model expects."""
        return self.feature_extractor.sampling_rate

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.model.device

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the weights."""
        return self.model.dtype

    @property
    def layer_weights(self) -> torch.Tensor | None:
        """Learned weights (K,) of the hidden states, of the first head that reads their sum; None without one."""
        found = (layer_weights_of(model) for model in (self.model, *self.more_heads))
        return next((one for one in found if one is not None), None)

    @property
    def text_tokenizer(self) -> CTCTokenizer:
        """The tokenizer of a CTC head; that of a text decoder is `tokenizer`."""
        if self.tokenizer is None or not self.tokenizer.is_of_ctc:
            raise CheckpointError(f"{type(self.model).__name__} has no CTC head: use a checkpoint with one for text")
        return cast(CTCTokenizer, self.tokenizer)

    @cached_property
    def _switch(self) -> LanguageSwitch:
        model = next(one for one in (self.model, *self.more_heads) if isinstance(one, ForCTC))
        return LanguageSwitch(model, self.summary.path, self.summary.language)

    def use_language(self, language: str) -> None:
        """Exchange adapter layers and CTC head for those of a language; not while the model runs.

        Raises:
            CheckpointError: the checkpoint lacks the file of the language, or it does not match the model.
            StoreError: the file cannot be fetched.
        """
        self._switch.use(language)

    def num_frames(self, num_samples: Sequence[int]) -> tuple[list[int], list[int]]:
        """Return the number of output frames of each row, and that of hidden states, from its number of samples."""
        samples_B = torch.tensor(num_samples, dtype=torch.int64)
        return self.model.num_frames(samples_B).tolist(), self.model.num_hidden_frames(samples_B).tolist()

    def run(self, waves_BS: torch.Tensor, num_samples_B: torch.Tensor, *, hidden_states: bool) -> ModelPass:
        """Run the encoder once, and all heads over it, as `LabellingModel` says."""
        model, weighs_layers = self.model, any(layer_weights_of(head) is not None for head in self.more_heads)
        features = self.feature_extractor.extract(waves_BS, num_samples_B)
        with encoded_by(model) as encoded:
            # Heads of pre-training, and text decoders, have no output of frames that a label is made of.
            first = model if model.gives and not self.summary.writes_text else model.speech_encoder
            output = first(**features, output_hidden_states=hidden_states or weighs_layers)
        heads: dict[Capability, ModelOutput] = {}
        if not self.summary.writes_text:
            heads |= {one: output for one in self.summary.gives if one is not Capability.HIDDEN_STATES}
        for head in self.more_heads:
            with encoded_before(model, encoded[0]):
                heads |= dict.fromkeys(head.gives, head(**features))
        model = self.model
        frames = model.num_frames(num_samples_B), model.num_hidden_frames(num_samples_B)
        return self._pass(heads, encoded[0], features, *frames)

    def run_pack(
        self,
        waves: Sequence[torch.Tensor],
        num_samples_R: torch.Tensor,
        *,
        hidden_states: bool,
        size: int | None = None,
        samples_S: torch.Tensor | None = None,
        run: Callable[..., PackPass] | None = None,
    ) -> list[ModelPass]:
        """Run the encoder over a pack of rows, and all heads over it; for a model that takes packs.

        Args:
            waves: float32 samples (S,) of each row.
            num_samples_R: their numbers, on the device of the samples; zeros for rows that the pack does not have, as
                many as attention has places for.
            hidden_states: as for `run`.
            size: frames of hidden states of the pack; None: as few whole products as the rows need.
            samples_S: all samples of the pack, in which on a device rows begin at frames of hidden states, one behind
                the other; None: rows go one after another through what mixes frames, as on a CPU.
            run: what runs a pass as `run_whole`, as graphs do; None: `run_whole`.

        Returns:
            What `run` returns for each row alone, but that a row has the same bits whatever the other rows.
        """
        num_samples = [len(wave_S) for wave_S in waves]
        if samples_S is None or self.summary.writes_text or not self._takes_rows_at_once:  # a decoder reads features
            features, inputs = self._of_each_row(waves, num_samples_R)
            stride = self._encoder_of_packs.inputs_a_frame
            size = size or whole_parts(sum(slot_frames(len(row), stride) for row in inputs))
            num_valid = [self.feature_extractor.num_inputs(count) for count in num_samples]
            pack = Pack.of(inputs, self.num_frames(num_samples)[1], stride, size, num_valid)
            return self._rows(self._encoded(pack, hidden_states), features, num_samples, num_samples_R)
        if run is None or self._has_long_rows(num_samples):
            run = self.run_whole
        found = run(samples_S, num_samples_R, hidden_states=hidden_states, lengths=num_samples)
        places = self._places(found.encoded, num_samples_R, len(samples_S))
        if not found.encoded.packing.counts:
            found = found.placed(*self.num_frames(num_samples), self._slots(num_samples))
        rows = self._rows(found, [{} for _ in waves], num_samples, num_samples_R)
        results = PackResults(found, places)
        return [replace(one, in_pack=(results, row)) for row, one in enumerate(rows)]

    def run_whole(
        self,
        samples_S: torch.Tensor,
        num_samples_R: torch.Tensor,
        *,
        hidden_states: bool,
        lengths: Sequence[int] = (),
    ) -> PackPass:
        """Run the encoder and all heads over all rows of a pack at once.

        Args:
            samples_S: as for `run_pack`.
            num_samples_R: as for `run_pack`.
            hidden_states: as for `run`.
            lengths: numbers of samples of the rows, for what takes them one after another; none: whatever does raises
                an error, and `PackPass.placed` has the results.
        """
        num_samples_R, tables = self._tables(num_samples_R, len(samples_S))
        packing = Packing.in_slots(self.num_frames(lengths)[1], self._slots(lengths), tables.size, tables)
        num_valid = [self.feature_extractor.num_inputs(count) for count in lengths]
        num_inputs = map(max, num_valid, packing.counts)  # of one input a frame, a last part of one is an input too
        num_valid_R = self.feature_extractor.num_inputs(num_samples_R).clamp(min=0)
        values_S = self.feature_extractor.extract_pack(samples_S, num_samples_R, tables)
        stride = self._encoder_of_packs.inputs_a_frame
        pack = Pack(values_S, tuple(num_inputs), packing, stride, tuple(num_valid), num_valid_R)
        return self._encoded(pack, hidden_states)

    def _of_each_row(
        self, waves: Sequence[torch.Tensor], num_samples_R: torch.Tensor
    ) -> tuple[list[dict[str, torch.Tensor]], list[torch.Tensor]]:
        """Return the features of each row, and of these the inputs of the encoder."""
        each = zip(waves, torch.split(num_samples_R[: len(waves)], 1), strict=True)
        features = [self.feature_extractor.extract(wave_S[None], count_1) for wave_S, count_1 in each]
        return features, [of_row[self.model.speech_encoder.main_input_name][0] for of_row in features]

    def _encoded(self, pack: Pack, hidden_states: bool) -> PackPass:
        models = (self.model, *self.more_heads)
        weighs_layers = any(layer_weights_of(head) is not None for head in models)
        encoded = self._encoder_of_packs.encode_pack(pack, with_states=hidden_states or weighs_layers)
        heads: dict[Capability, PackOutput] = {}
        for head in models:
            if isinstance(head, ReadsPacks):
                heads |= dict.fromkeys(head.gives, head.read_pack(encoded))
        return PackPass(encoded, heads)

    def _rows(
        self,
        found: PackPass,
        features: Sequence[Mapping[str, torch.Tensor]],
        num_samples: Sequence[int],
        num_samples_R: torch.Tensor,
    ) -> list[ModelPass]:
        """Return the results of each row."""
        heads: list[dict[Capability, ModelOutput]] = [{} for _ in num_samples]
        by_head: dict[int, list[Capability]] = {}
        for capability, whole in found.heads.items():
            by_head.setdefault(id(whole), []).append(capability)
        for capabilities in by_head.values():
            for of_row, output in zip(heads, found.heads[capabilities[0]].rows, strict=True):
                of_row |= dict.fromkeys(capabilities, output)
        num_samples_B = num_samples_R[: len(num_samples)]
        frames = self.model.num_frames(num_samples_B), self.model.num_hidden_frames(num_samples_B)
        rows = zip(heads, found.encoded.outputs, features, *(torch.split(one, 1) for one in frames), strict=True)
        return [self._pass(*of_row) for of_row in rows]

    @property
    def _encoder_of_packs(self) -> EncodesPacks:
        return cast("EncodesPacks", self.model.speech_encoder)

    def _slots(self, num_samples: Sequence[int]) -> list[int]:
        """Return the frames of hidden states of a pack that rows of so many samples take."""
        return [slot_frames(count, self.model.hidden_stride) for count in num_samples]

    def _has_long_rows(self, num_samples: Sequence[int]) -> bool:
        """Return whether a layer takes a row by itself, as it is longer than those that it takes together."""
        most: int | None = getattr(self.model.speech_encoder, "most_frames_at_once", None)
        return most is not None and max(self.num_frames(num_samples)[1]) > most

    @property
    def _takes_rows_at_once(self) -> bool:
        """Whether a kernel of the device takes all rows of a pack at once."""
        config: Any = self.model.speech_encoder.config
        head_size = config.hidden_size // config.num_attention_heads
        return kernel_of_rows(self.device, self.dtype, head_size) is not None

    def _tables(self, num_samples_R: torch.Tensor, whole_samples: int) -> tuple[torch.Tensor, RowTables]:
        """Return the numbers of samples of all rows that a pack may have, and the places of these, at frames."""
        stride, attended_rows = self.model.hidden_stride, len(num_samples_R)
        size = whole_samples // stride
        num_samples_R = torch.nn.functional.pad(num_samples_R, (0, max(0, most_rows(size) - attended_rows)))
        slots_R = (num_samples_R + (stride - 1)) // stride
        tables = RowTables.of(self.model.num_hidden_frames(num_samples_R), slots_R, size, attended_rows)
        return num_samples_R, tables

    def _places(self, encoded: EncodedPack, num_samples_R: torch.Tensor, whole_samples: int) -> Places | None:
        """Return the places of rows for `PackResults`."""
        if encoded.packing.tables is None:
            return None

        @cache
        def places(of_states: bool) -> RowTables:
            if not of_states and encoded.states_packing is None:
                return places(True)
            all_samples_R, tables = self._tables(num_samples_R, whole_samples)
            if of_states:
                return tables
            factor = encoded.hidden_1NH.shape[1] // tables.size
            return tables.scaled(factor, self.model.num_frames(all_samples_R))

        return places

    def _pass(
        self,
        heads: Mapping[Capability, ModelOutput],
        encoded: ModelOutput,
        features: Mapping[str, torch.Tensor],
        num_frames_B: torch.Tensor,
        hidden_frames_B: torch.Tensor,
    ) -> ModelPass:
        return ModelPass(
            heads=heads,
            num_frames_B=num_frames_B,
            encoded=encoded,
            features=features,
            hidden_frames_B=hidden_frames_B,
            frames_a_hidden_frame=Fraction(self.model.hidden_stride, self.model.frame_stride),
        )


def load_model(
    folder: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    padding: Padding = "exact",
) -> Model:
    """Load the model of a checkpoint folder or hub id in eval mode; the first of several heads.

    Arguments as for `Model.from_pretrained`.
    """
    return load_models(folder, dtype=dtype, device=device, padding=padding)[0]


def load_models(
    folder: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    padding: Padding = "exact",
) -> list[Model]:
    """Load the model of a checkpoint and further heads over its encoder, as `load_model` does."""
    folder = local_checkpoint(folder)
    classes = model_classes(folder)
    options: dict[str, Any] = {"return_dict": True, "output_attentions": False, "output_hidden_states": False}
    options |= {"dtype": dtype, "padding": padding, "strict": len(classes) == 1}
    if len(classes) > 1:
        # Checks all weights against all classes; each class below ignores those of others.
        check_checkpoint(folder, is_announced=False)
    model = classes[0].from_pretrained(folder, device=device, **options)
    return [model, *(with_encoder_of(model, cls.from_pretrained(folder, **options)) for cls in classes[1:])]


def load_checkpoint(
    folder: str | Path,
    *,
    dtype: torch.dtype | str | None = None,
    device: torch.device | str | None = None,
    padding: Padding = "exact",
    is_announced: bool = True,
) -> LoadedCheckpoint:
    """Load the model of a checkpoint folder or hub id with its feature extractor and its tokenizer.

    Arguments as for `Model.from_pretrained` and `check_checkpoint`; without `is_announced`, `use_language` follows.
    """
    folder = local_checkpoint(folder)
    model, *more_heads = load_models(folder, dtype=dtype, device=device, padding=padding)
    summary = check_checkpoint(folder, is_announced=is_announced)
    has_text = TEXT & {*summary.gives} and not summary.contradiction
    loaded = LoadedCheckpoint(
        summary,
        model,
        load_feature_extractor(folder),
        read_tokenizer(folder) if has_text else None,
        tuple(more_heads),
    )
    if summary.adapter is not None and summary.language is not None:
        loaded.use_language(summary.language)
    return loaded
