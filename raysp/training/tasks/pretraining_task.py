"""`Pretrain`: codes of masked frames, and characters of the texts that there are: loss and task.

The loss is UniSpeech's (Wang et al. 2021, arXiv:2101.07597, section 3.2).
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from raysp.crossing import sent
from raysp.errors import CheckpointError, PlanError
from raysp.evaluation.scores import Comparison, no_metrics
from raysp.models.auto import AutoConfig
from raysp.models.base.kernels import dropped
from raysp.models.base.modeling import Model
from raysp.models.base.row_layout import Layout
from raysp.models.encoder.heads import ctc_loss
from raysp.models.features.processors import FeatureExtractor
from raysp.models.loading import load_feature_extractor
from raysp.models.unispeech import UniSpeechConfig, UniSpeechForPreTraining, UniSpeechPreTrainingLosses
from raysp.specs.values import JsonValue, hashed_fields
from raysp.text import targets as vocabularies
from raysp.text.targets import NO_TEXT, CharacterTargets, Target
from raysp.training.characters import HeadTokenizer, encode_of, tokenizer_for
from raysp.training.data.micro_batches import Losses, MicroBatch, Objective, seed_micro_batch, seeded
from raysp.training.objectives.objective_models import begun, naming_masks
from raysp.training.objectives.passes import Passes, evaluation_mode, padded_targets
from raysp.training.objectives.starting_model import Masks, load_head
from raysp.training.planning.objective_checks import KEEP
from raysp.training.planning.training_plan import TrainingPlan
from raysp.training.specs.objectives import Pretrain
from raysp.training.tasks import task_texts as texts
from raysp.training.tasks.task import PredictedRows, Prediction

CONTRAST, DIVERSITY, CTC = "contrast", "diversity", "ctc"
"""Terms of the loss, reported without their weights, by masked frame."""


@dataclass(frozen=True)
class Temperature:
    """Temperature of the Gumbel noise by which codes are drawn: it falls by a factor with each update."""

    first: float = 2.0
    last: float = 0.5
    factor: float = 0.999995

    def after(self, updates: int) -> float:
        """Return the temperature after a number of updates."""
        return max(self.last, self.first * self.factor**updates)


class PretrainingObjective:
    """Contrastive loss with the diversity of codes, and CTC over frames of which a share is replaced by their codes.

    Both are summed and divided by the number of masked frames. A row with labels counts with `1 - alpha` in the first
    and with `alpha` in the second; a row without labels counts in the first alone.

    Args:
        model: the model; its configuration has the masks, and `replace_prob`.
        feature_extractor: extractor of its checkpoint.
        alpha: weight of CTC.
        temperature: of the Gumbel noise.
        dtype: dtype of the arithmetic; weights and losses stay in float32.

    Raises:
        ValueError: as `check_masks`.
    """

    terms: tuple[str, ...] = (CONTRAST, DIVERSITY, CTC)

    def __init__(
        self,
        model: UniSpeechForPreTraining,
        feature_extractor: FeatureExtractor,
        *,
        alpha: float = 0.5,
        temperature: Temperature | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        check_masks(model.config)
        self.model = model
        self.passes = Passes(model, feature_extractor, dtype)
        self.alpha = alpha
        self.temperature = temperature or Temperature()

    def __call__(self, batch: MicroBatch) -> Losses:
        """Run the model, which is in training mode, on a micro-batch of at least one row."""
        if not self.model.training:
            raise ValueError("the model is in eval mode, expected training mode, in which it draws codes")
        self.model.set_gumbel_temperature(self.temperature.after(batch.updates))
        losses, ctc_B, is_labelled_B = self._run(batch)
        weights_B, rows_B = self._weighted(losses, ctc_B, is_labelled_B)
        labelled = torch.tensor([place for place, target in enumerate(batch.targets) if len(target)], dtype=torch.int64)
        # The diversity is computed over the micro-batch: a row that is not finite would affect the losses of all rows.
        total = rows_B.sum() + losses.diversity * (weights_B * sent(losses.num_masked_B, weights_B.device)).sum()
        num_masked = losses.num_masked_B.sum()
        terms = {
            CONTRAST: losses.contrast_B.sum(),
            DIVERSITY: losses.diversity * num_masked,
            CTC: ctc_B[sent(labelled, ctc_B.device)].sum(),
        }
        return Losses(total, float(num_masked), rows_B.detach(), terms)

    @torch.inference_mode()
    def evaluate(self, batch: MicroBatch) -> Tensor:
        """Return the losses of rows by masked frame, float32 (B,) on the CPU.

        The model is in evaluation mode. Masks and negatives are drawn from a fixed seed, so that evaluations of other
        weights can be compared; codes are the likeliest codes.
        """
        seed_micro_batch(0, 0, 0, 0)
        with evaluation_mode(self.model):
            losses, ctc_B, is_labelled_B = self._run(batch)
        weights_B, rows_B = self._weighted(losses, ctc_B, is_labelled_B)
        num_masked_B = sent(losses.num_masked_B.clamp(min=1), rows_B.device)
        return (rows_B / num_masked_B + weights_B * losses.diversity).cpu()

    def _run(self, batch: MicroBatch) -> tuple[UniSpeechPreTrainingLosses, Tensor, Tensor]:
        """Return the losses over masked frames, the losses of CTC (B,), and whether rows have labels (B,)."""
        config, device = self.model.config, self.model.device
        labels_BL = padded_targets(batch, config.num_ctc_classes)
        (losses, logits_BTV), num_frames_B = self.passes(self._pass, batch.waves)
        ctc_B = ctc_loss(
            logits_BTV, num_frames_B, labels_BL, blank=config.pad_token_id, reduction="none", zero_infinity=True
        )
        return losses, ctc_B, sent(torch.tensor([len(target) > 0 for target in batch.targets]), device)

    def _weighted(
        self, losses: UniSpeechPreTrainingLosses, ctc_B: Tensor, is_labelled_B: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the weights of codes (B,), and the losses of rows without the diversity (B,)."""
        ctc_weights_B = self.alpha * is_labelled_B
        weights_B = 1 - ctc_weights_B
        return weights_B, weights_B * losses.contrast_B + ctc_weights_B * ctc_B

    def _pass(self, input_values: Tensor, attention_mask: Layout) -> tuple[UniSpeechPreTrainingLosses, Tensor]:
        """Return the losses over masked frames, and the logits of CTC (B, T, V)."""
        model = self.model
        output, losses = model.pretrain(
            input_values, attention_mask, mask_time_indices=model.draw_mask(input_values, attention_mask)
        )
        assert losses is not None
        states_BTH, codes_BTH = output["projected_states"], output["projected_quantized_states"]
        replaced_BT = self._replaced(states_BTH)
        mixed_BTH = torch.where(replaced_BT[:, :, None], codes_BTH, states_BTH)
        return losses, model.ctc_proj(dropped(mixed_BTH, model.config.final_dropout, model.training))

    def _replaced(self, states_BTH: Tensor) -> Tensor:
        """Draw the frames (B, T) that their codes replace."""
        return torch.rand(states_BTH.shape[:2], device=states_BTH.device) < self.model.config.replace_prob


def check_masks(config: UniSpeechConfig) -> None:
    """Raise ValueError if a model of a configuration masks no frames."""
    if not config.apply_spec_augment or config.mask_time_prob <= 0:
        raise ValueError(
            f"apply_spec_augment is {config.apply_spec_augment} and mask_time_prob {config.mask_time_prob}, "
            "expected masked frames, which pre-training identifies: set them in masks"
        )


def load_pretraining_model(
    folder: Path,
    *,
    num_classes: int | None = None,
    blank: int | None = None,
    masks: Masks | None = None,
    seed: int = 0,
    random_weights: bool = False,
) -> UniSpeechForPreTraining:
    """Load a UniSpeech checkpoint for pre-training, in training mode.

    Args:
        folder: model folder; weights that it lacks besides the encoder are initialised.
        num_classes: tokens of a vocabulary that is not the checkpoint's, for which the CTC head is initialised; None:
            it stays.
        blank: id of the blank in this vocabulary; None: from the checkpoint's configuration.
        masks: fields of the configuration.
        seed: seed of initial weights.
        random_weights: whether all weights are initialised.
    """
    model = load_head(UniSpeechForPreTraining, folder, masks=masks or {}, seed=seed, random_weights=random_weights)
    assert isinstance(model, UniSpeechForPreTraining)
    if num_classes is not None:
        with seeded(seed):
            model.ctc_proj = nn.Linear(model.config.hidden_size, num_classes)
            model._init_module(model.ctc_proj)
        model.config.num_ctc_classes = model.config.vocab_size = num_classes
    if blank is not None:
        model.config.pad_token_id = blank
    return model


class OptionalTexts:
    """Ids of the characters of texts; empty, and no reason to leave a row out, where there is no text.

    Args:
        texts: targets of rows with a text; None: no row has one.
    """

    def __init__(self, texts: CharacterTargets | None) -> None:
        self.texts = texts
        self.counts: Counter[str] = Counter() if texts is None else texts.counts
        """Occurrences of each character in the texts so far."""

    def __call__(self, value: object) -> Target:
        """Return the target of a text, and count its characters."""
        target = Target((), NO_TEXT) if self.texts is None else self.texts(value)
        return Target(()) if target.reason == NO_TEXT else target

    def misfit(self, target: Target, num_frames: int) -> str:
        """Return the reason of a text that needs more frames for CTC, else an empty text."""
        return "" if self.texts is None else self.texts.misfit(target, num_frames)


@dataclass(frozen=True)
class PretrainingTask:
    """Task of `Pretrain`.

    Attributes:
        spec: the objective.
        tokenizer: of the CTC head; None: it is built from the texts, or there are none.
        has_texts: whether any row of the corpus has a text; True until it is determined.
    """

    spec: Pretrain
    tokenizer: HeadTokenizer | None
    has_texts: bool = True

    tags = ("pretraining", "raysp")

    @classmethod
    def of(cls, spec: Pretrain, plan: TrainingPlan) -> "PretrainingTask":
        """Return the task before its corpus is indexed.

        Raises:
            PlanError: the vocabulary or the masks cannot be used.
            CheckpointError: the vocabulary to be kept is missing, or does not fit the head.
        """
        folder = plan.checkpoint.path
        masks: dict[str, Any] = {**spec.masks}
        config: Any = AutoConfig.from_pretrained(folder, **masks)
        try:
            check_masks(config)
        except ValueError as error:
            raise PlanError(f"objective.masks: {error}") from None
        if spec.vocabulary == KEEP and not (folder / "vocab.json").is_file():
            raise CheckpointError(
                f"{spec.checkpoint}: vocab.json not found, so there is no vocabulary to keep; set "
                "objective.vocabulary='build', or to the url of a vocab.json"
            )
        tokenizer = texts.given_tokenizer(spec.vocabulary, plan)
        if tokenizer is not None and _keeps_head(spec, plan):
            _check_head(spec, config, tokenizer)
        return cls(spec, tokenizer)

    @property
    def index_parts(self) -> Mapping[str, JsonValue]:
        """Rules for the texts, and the vocabulary if the objective sets it; rows without a text are kept."""
        return {"text": hashed_fields(self.spec.text), "vocabulary": self._vocabulary, "without_text": "kept"}

    @property
    def outputs(self) -> Mapping[str, JsonValue]:
        """The vocabulary, if there is one."""
        return {"vocabulary": self._vocabulary}

    @property
    def digest(self) -> str:
        """Hash of the vocabulary."""
        return texts.digest_of(self._vocabulary)

    @property
    def _vocabulary(self) -> dict[str, JsonValue] | None:
        return {**self.tokenizer.get_vocab()} if self.tokenizer else None

    def settled(self, counts: Mapping[str, int]) -> "PretrainingTask":
        """Return the task with a vocabulary of the characters, unless the objective sets it or there are no texts."""
        if self.tokenizer or not counts:
            return replace(self, has_texts=bool(counts))
        return replace(self, tokenizer=tokenizer_for(vocabularies.build(counts)))

    def facts(self, counts: Mapping[str, int]) -> Mapping[str, str]:
        """Return the size of the vocabulary, and the characters outside it."""
        if not self.tokenizer or not self.has_texts:
            return {"characters": "no row has a text: the CTC head is not trained"}
        return {"characters": texts.described_characters(counts, self.tokenizer)}

    def targets(self) -> OptionalTexts:
        """Return the ids of characters."""
        if not self.has_texts:
            return OptionalTexts(None)
        encode = encode_of(self.tokenizer) if self.tokenizer else None
        return OptionalTexts(CharacterTargets(texts.rules_of(self.spec.text), encode))

    def min_samples(self, plan: TrainingPlan) -> int:
        """Return the samples of one frame."""
        return plan.checkpoint.min_samples

    def objective(self, plan: TrainingPlan) -> PretrainingObjective:
        """Return the loss with its model."""
        spec, folder, tokenizer = self.spec, plan.checkpoint.path, self.tokenizer
        is_new = tokenizer is not None and not _keeps_head(spec, plan)
        with naming_masks():
            model = load_pretraining_model(
                folder,
                num_classes=len(tokenizer.get_vocab()) if tokenizer and is_new else None,
                blank=tokenizer.pad_token_id if tokenizer else None,
                masks=spec.masks,
                seed=plan.recipe.seed,
                random_weights=spec.random_weights,
            )
        model.ctc_proj.requires_grad_(self.has_texts)
        return PretrainingObjective(
            begun(model, plan, None),
            load_feature_extractor(folder),
            alpha=spec.alpha,
            temperature=Temperature(spec.temperature, spec.final_temperature, spec.temperature_decay),
            dtype=getattr(torch, plan.dtype),
        )

    def frozen_at_first(self, model: Model) -> Iterator[nn.Parameter]:
        """Yield nothing: all is trained from the first step on."""
        return iter(())

    def shown(self, target: Sequence[float]) -> str:
        """Return an empty text: no text is predicted."""
        return ""

    def reference(self, value: object) -> str | None:
        """Return an empty text: rows without a text are evaluated too."""
        return ""

    def predict(self, objective: Objective, batch: MicroBatch) -> list[Prediction]:
        """Return the losses."""
        assert isinstance(objective, PretrainingObjective)
        return [Prediction("", loss) for loss in objective.evaluate(batch).tolist()]

    def compare(self, rows: PredictedRows) -> Comparison:
        """Return no metrics: there is the loss alone."""
        return no_metrics(len(rows.references))


def _keeps_head(spec: Pretrain, plan: TrainingPlan) -> bool:
    """Return whether the CTC head is the checkpoint's."""
    return spec.vocabulary == KEEP and plan.checkpoint.architecture == UniSpeechForPreTraining.__name__


def _check_head(spec: Pretrain, config: Any, tokenizer: HeadTokenizer) -> None:  # noqa: ANN401 - a configuration
    """Raise CheckpointError if a tokenizer does not fit the CTC head of its checkpoint."""
    actual = (len(tokenizer.get_vocab()), tokenizer.pad_token_id)
    if actual != (config.num_ctc_classes, config.pad_token_id):
        raise CheckpointError(
            f"{spec.checkpoint}: vocab.json has {actual[0]} tokens with the blank {actual[1]}, the head "
            f"{config.num_ctc_classes} with the blank {config.pad_token_id} (config.json: num_ctc_classes, "
            "pad_token_id); set objective.vocabulary='build', or to the url of a vocab.json"
        )
