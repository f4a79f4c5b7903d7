"""Small random models of every family, theirs and ours with the same weights, and a step of both compared."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch

import raysp.models
from raysp.models.base.row_layout import Layout
from raysp.models.features.processors import FeatureExtractor
from raysp.training.data.micro_batches import MicroBatch
from raysp.training.objectives.task import Criterion
from tests.models.decoder_oracles import BERT, CONFIGS, GPT2, perturbed
from tests.models.oracles import TINY, transformers
from tests.models.tokenizers.text_tokenizers import write_bert_tokenizer, write_byte_tokenizer

LAYER = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
HEADS = {"tdnn_dim": (16, 16, 16, 16, 24), "xvector_output_dim": 14, "classifier_proj_size": 12}
ENCODERS = {
    "wav2vec2 group": ("Wav2Vec2", {**TINY, **HEADS}),
    "wav2vec2 layer": ("Wav2Vec2", {**TINY, **HEADS, **LAYER}),
    "hubert": ("Hubert", {**TINY, **HEADS}),
    "unispeech": ("UniSpeech", {**TINY, **HEADS}),
    "sew-d": ("SEWD", {**TINY, **HEADS, "position_buckets": 16, "max_position_embeddings": 40}),
    "wav2vec2-bert": ("Wav2Vec2Bert", {**TINY, **HEADS, "conv_depthwise_kernel_size": 7}),
}
"""Prefix of the classes, and fields of the configuration."""
CTC = {"ctc_loss_reduction": "mean", "ctc_zero_infinity": True, "pad_token_id": 0}
LENGTHS = (6640, 5680, 4080)
"""Samples of rows; each gives an even number of log-mel frames."""


def still(config):
    """Turn off what is random in training."""
    for name, value in vars(config).items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    for part in (vars(config).get("encoder"), vars(config).get("decoder")):
        if part is not None:
            still(part)
    if hasattr(config, "apply_spec_augment"):
        config.apply_spec_augment = False
    return config


def class_of(encoder: str, head: str) -> str:
    """Return the name of the class of an encoder with a head."""
    return ENCODERS[encoder][0] + head


def model_pair(encoder: str, name: str, **fields):
    """Make a model of theirs, and ours with its weights and its arithmetic, both in training."""
    torch.manual_seed(0)
    theirs_class, mine_class = getattr(transformers, name), getattr(raysp.models, name)
    fields = {**ENCODERS[encoder][1], **fields}
    theirs = perturbed(theirs_class(still(theirs_class.config_class(**fields))))
    mine = mine_class(still(mine_class.config_class(**fields)))
    mine.load_state_dict(theirs.state_dict())
    return theirs.train(), mine.train()


def decoder_config(encoder: str, kind: str, **fields):
    """Return the configuration of theirs for an encoder with a decoder."""
    config_class, tiny = CONFIGS[kind]
    prefix, of_encoder = ENCODERS[encoder]
    return transformers.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        getattr(transformers, f"{prefix}Config")(**{**of_encoder, **fields}),
        config_class(**tiny),
        pad_token_id=1,
        decoder_start_token_id=3,
        eos_token_id=2,
    )


def decoder_model(config) -> raysp.models.SpeechEncoderDecoderModel:
    torch.manual_seed(0)
    values = {**config.to_dict(), "encoder": config.encoder.to_dict(), "decoder": config.decoder.to_dict()}
    return raysp.models.SpeechEncoderDecoderModel(raysp.models.SpeechEncoderDecoderConfig(**values)).train()


def decoder_pair(encoder: str, kind: str):
    """Make an encoder with a decoder of theirs, and ours."""
    torch.manual_seed(0)
    config = still(decoder_config(encoder, kind))
    theirs = perturbed(transformers.SpeechEncoderDecoderModel(config))
    mine = decoder_model(config)
    mine.load_state_dict(theirs.state_dict(), strict=False)
    return theirs.train(), mine


END = "<|endoftext|>"
"""Token that begins and ends the texts of GPT-2."""


def save_decoder(kind: str, folder: Path) -> Path:
    """Save a random text model with its tokenizer, as the hub has them."""
    torch.manual_seed(0)
    if kind == "bert":
        write_bert_tokenizer(folder)
        model = transformers.BertForPreTraining(transformers.BertConfig(**{**BERT, "vocab_size": 110}))
    elif kind == "gpt2":
        write_byte_tokenizer(folder, "GPT2Tokenizer", [END])
        fields = {**GPT2, "vocab_size": 268, "bos_token_id": 0, "eos_token_id": 0}
        model = transformers.GPT2LMHeadModel(transformers.GPT2Config(**fields))
    else:
        write_byte_tokenizer(folder, "BartTokenizer", ["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
        config_class, fields = CONFIGS[kind]
        config = config_class(**{**fields, "vocab_size": 300})
        theirs = {
            "bart": transformers.BartForConditionalGeneration,
            "mbart": transformers.MBartForConditionalGeneration,
        }
        model = theirs[kind](config)
    model.save_pretrained(folder)
    return folder


def extractor_of(encoder: str) -> FeatureExtractor:
    if ENCODERS[encoder][0] == "Wav2Vec2Bert":
        return raysp.models.SeamlessM4TFeatureExtractor()
    return raysp.models.Wav2Vec2FeatureExtractor(return_attention_mask=True)


def random_batch(targets: Sequence[Sequence[float]], lengths: Sequence[int] = LENGTHS, **values) -> MicroBatch:
    random = np.random.default_rng(1)
    waves = [random.normal(size=num_samples).astype(np.float32) for num_samples in lengths]
    return MicroBatch(0, range(len(targets)), waves[: len(targets)], targets, **values)


def features_of(objective: Criterion, batch: MicroBatch) -> dict[str, torch.Tensor]:
    """Return the inputs of the model, for theirs."""
    found: dict[str, torch.Tensor] = {}

    def collect(attention_mask: Layout, **features: torch.Tensor) -> None:
        found.update(features, attention_mask=attention_mask.valid(torch.device("cpu")))

    objective.passes(collect, batch.waves)
    return found


def padded(targets: Sequence[Sequence[int]]) -> torch.Tensor:
    rows = [torch.tensor(target) for target in targets]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)


def assert_step_equals(
    objective: Criterion, batch: MicroBatch, theirs: torch.nn.Module, loss_of: Callable[..., torch.Tensor]
) -> None:
    """Compare the mean loss and all gradients with those of the original, whose loss is a function of its inputs."""
    losses = objective(batch)
    expected = loss_of(**features_of(objective, batch))
    expected.backward()
    losses.total.backward()
    torch.testing.assert_close(losses.total.detach() / losses.count, expected.detach(), rtol=1e-4, atol=0)
    counts = torch.tensor([len(target) if losses.count > len(batch.rows) else 1 for target in batch.targets])
    torch.testing.assert_close((counts * losses.rows_B).sum(), losses.total.detach(), rtol=1e-5, atol=0)
    gradients = {name: one.grad for name, one in theirs.named_parameters() if one.grad is not None}
    found = {name: one.grad / losses.count for name, one in objective.model.named_parameters() if one.grad is not None}
    assert found.keys() == gradients.keys()
    norm = torch.linalg.vector_norm(torch.cat([one.flatten() for one in gradients.values()]))
    for name, gradient in gradients.items():
        distance = torch.linalg.vector_norm(found[name] - gradient)
        assert distance <= 1e-4 * torch.linalg.vector_norm(gradient) + 1e-5 * norm, name
