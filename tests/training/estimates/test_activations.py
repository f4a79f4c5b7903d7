"""Activations of small models, compared with the values that torch saves for the backward pass."""

import numpy as np
import pytest
import torch

import raysp.models
from raysp.models import (
    ParakeetCTCConfig,
    ParakeetEncoderConfig,
    ParakeetFeatureExtractor,
    ParakeetForCTC,
)
from raysp.models.base.placing import without_weights
from raysp.training.data.micro_batches import MicroBatch, Objective
from raysp.training.estimates.activation_memory import ALLOCATOR, Arithmetic, Batch, activation_bytes
from raysp.training.tasks.ctc_task import CTCObjective
from raysp.training.tasks.seq2seq_task import Seq2SeqObjective
from tests.soaked import some
from tests.training.objectives.originals import decoder_pair

RATE = 16_000
FIELDS = {
    "vocab_size": 32,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 256,
    "pad_token_id": 0,
    "layerdrop": 0.0,
}
OF_WAVES = {"conv_dim": (32,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4}
LAYER_NORM = {"feat_extract_norm": "layer", "conv_bias": True, "do_stable_layer_norm": True}
MODELS = {
    "group norm": ("UniSpeech", OF_WAVES),
    "layer norm": ("Wav2Vec2", {**OF_WAVES, **LAYER_NORM}),
    "no dropout": ("UniSpeech", {**OF_WAVES, "attention_dropout": 0.0}),
    "SEW-D": ("SEWD", {**OF_WAVES, "conv_dim": (16, *(32,) * 12), "position_buckets": 16}),
    "conformer": ("Wav2Vec2Bert", {}),
    "conformer with dropout": ("Wav2Vec2Bert", {"attention_dropout": 0.1}),
    "relative positions": ("Wav2Vec2Bert", {"position_embeddings_type": "relative"}),
    "fast conformer": ("Parakeet", {"subsampling_conv_channels": 16}),
}
EXTRACTORS = {"Wav2Vec2Bert": raysp.models.SeamlessM4TFeatureExtractor, "Parakeet": ParakeetFeatureExtractor}


def model_of(kind: str):
    name, fields = MODELS[kind]
    values = {**FIELDS, **fields}
    if name == "Parakeet":
        encoder = {key: one for key, one in values.items() if hasattr(ParakeetEncoderConfig, key)}
        return ParakeetForCTC(ParakeetCTCConfig(vocab_size=32, pad_token_id=0, encoder_config=encoder)).train()
    cls = getattr(raysp.models, f"{name}ForCTC")
    return cls(cls.config_class(**{key: one for key, one in values.items() if hasattr(cls.config_class, key)})).train()


def objective_of(kind: str) -> CTCObjective:
    extractor = EXTRACTORS.get(MODELS[kind][0])
    of_waves = raysp.models.Wav2Vec2FeatureExtractor(return_attention_mask=True)
    return CTCObjective(model_of(kind), extractor() if extractor else of_waves)


def saved_bytes(objective: Objective, batch: Batch) -> int:
    """Return the bytes that a forward pass leaves for the backward pass, without the weights."""
    random, model = np.random.default_rng(0), objective.model
    waves = [random.normal(size=round(batch.seconds * RATE)).astype(np.float32) for _ in range(batch.rows)]
    weights = {one.untyped_storage().data_ptr() for one in model.parameters()}
    found: dict[int, tuple[torch.Tensor, int]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            found[storage.data_ptr()] = tensor, storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        losses = objective(MicroBatch(0, range(batch.rows), waves, [[5, 6] * (batch.labels // 2)] * batch.rows))
    assert losses.total.requires_grad
    return sum(num_bytes for _, num_bytes in found.values())


def predicted(kind: str, batch: Batch, *, frozen: str = "", checkpointing: bool = False) -> float:
    with without_weights():
        model = model_of(kind)
    freeze(model, frozen)
    arithmetic = Arithmetic(on_gpu=False, is_half=False, checkpointing=checkpointing)
    return activation_bytes(model, batch, RATE, arithmetic)


def freeze(model, frozen: str) -> None:
    if frozen:
        (model.freeze_feature_encoder if frozen == "convolutions" else model.freeze_base_model)()


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
def test_a_pass_needs_more_than_what_is_saved_and_not_much_more(kind):
    for batch in (Batch(4, 2.0, 2), Batch(1, 16.0, 2)):
        assert 1.2 <= predicted(kind, batch) / saved_bytes(objective_of(kind), batch) < 2.5


@pytest.mark.slow
@pytest.mark.parametrize("kind", some(["bert", "gpt2", "bart"], "bart"))
def test_a_decoder_needs_more_than_what_is_saved_and_not_much_more(kind):
    model = decoder_pair("unispeech", kind)[1]
    objective = Seq2SeqObjective(model, raysp.models.Wav2Vec2FeatureExtractor(return_attention_mask=True))
    with without_weights():
        planned = type(model)(model.config)
    arithmetic = Arithmetic(on_gpu=False, is_half=False, checkpointing=False)
    for batch in (Batch(8, 1.0, 40), Batch(2, 8.0, 48)):
        found = activation_bytes(planned, batch, RATE, arithmetic)
        assert 1.2 <= found / saved_bytes(objective, batch) < 3.0


def test_frozen_convolutions_keep_nothing():
    batch = Batch(8, 10.0)
    values = 8 * 10.0 * RATE * 32 * sum(1 / (5 * 2**layer) for layer in range(7))
    kept = predicted("layer norm", batch) - predicted("layer norm", batch, frozen="convolutions")
    assert kept == pytest.approx(ALLOCATOR * 3 * 4 * values, rel=0.01)


@pytest.mark.parametrize("kind", ["group norm", "SEW-D", "conformer"])
def test_less_is_needed_with_checkpointing_and_least_if_the_head_alone_is_trained(kind):
    batch = Batch(4, 8.0)
    whole, checkpointed = predicted(kind, batch), predicted(kind, batch, checkpointing=True)
    assert predicted(kind, batch, frozen="base") < checkpointed < 0.7 * whole


def test_the_same_audio_in_longer_rows_needs_more_scores_of_attention():
    assert predicted("group norm", Batch(1, 20.0)) > 1.1 * predicted("group norm", Batch(10, 2.0))
    assert predicted("no dropout", Batch(1, 20.0)) == pytest.approx(predicted("no dropout", Batch(10, 2.0)), rel=0.02)


def test_bfloat16_halves_the_front_end():
    with without_weights():
        model = model_of("layer norm")
    on_gpu = Arithmetic(on_gpu=True, is_half=True, checkpointing=False)
    assert activation_bytes(model, Batch(4, 5.0), RATE, on_gpu) < 0.6 * predicted("layer norm", Batch(4, 5.0))
