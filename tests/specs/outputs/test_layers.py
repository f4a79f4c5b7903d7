"""Embeddings of several layers and of their learned sum: the hidden states of transformers, also over windows."""

import numpy as np
import pytest
import torch

import raysp
from raysp import CheckpointError, SpecError
from raysp.models import Wav2Vec2FeatureExtractor, check_checkpoint
from tests.corpora import labels_alone, samples_of, wav
from tests.models.oracles import make_oracle, transformers

LENGTHS = (3_000, 9_000, 6_400)


@pytest.fixture(scope="module")
def oracle(tmp_path_factory):
    """A classifier of transformers over a learned sum of its layers, and its folder."""
    folder = tmp_path_factory.mktemp("layers")
    model = make_oracle("UniSpeechForSequenceClassification", use_weighted_layer_sum=True)
    with torch.no_grad():
        model.layer_weights.copy_(torch.tensor([0.5, -1.0, 2.0]))
    model.save_pretrained(folder)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return model, folder


def labelled(folder, output: raysp.Embedding, recordings: list[bytes], **windows: float) -> list[dict]:
    return labels_alone(folder, output, recordings, batch_seconds=2, **windows)


def states_of(model, recording: bytes) -> list[np.ndarray]:
    """Return the hidden states (T, H) of transformers for a recording alone, and their learned sum."""
    values = transformers.Wav2Vec2FeatureExtractor()(samples_of(recording), sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        states = torch.stack(model(values.input_values, output_hidden_states=True).hidden_states)[:, 0]
        mix = (states * model.layer_weights.softmax(-1)[:, None, None]).sum(0)
    return [*states.numpy(), mix.numpy()]


@pytest.mark.parametrize(
    ("layer", "places", "pooling"),
    [
        ("all", (0, 1, 2), "mean"),
        ((2, 0), (2, 0), "none"),
        ((1,), (1,), "none"),
        ("mix", 3, "mean"),
        ("mix", 3, "none"),
    ],
)
def test_they_are_the_hidden_states_of_transformers(oracle, layer, places, pooling):
    model, folder = oracle
    recordings = [wav(n, seed=n) for n in LENGTHS]
    found = labelled(folder, raysp.Embedding(layer=layer, pooling=pooling), recordings)
    for row, recording in zip(found, recordings, strict=True):
        states = states_of(model, recording)
        expected = [states[k] for k in places] if isinstance(places, tuple) else states[places]
        given = np.array(row["embedding"])  # (layers, T, H); without frames if pooled, without layers for a sum
        np.testing.assert_allclose(given, np.mean(expected, -2) if pooling == "mean" else np.array(expected), atol=1e-4)


@pytest.mark.parametrize("options", [{"pooling": "none", "dtype": "float16"}, {"normalize": True}])
def test_layers_of_a_longer_row_are_those_of_outputs_of_one_layer(oracle, options):
    _, folder = oracle
    rows, windows = [wav(24_000, seed=1)], {"window_seconds": 1, "overlap_seconds": 0.25}
    [found] = labelled(folder, raysp.Embedding(layer="all", **options), rows, **windows)
    for layer in (0, 2):
        [alone] = labelled(folder, raysp.Embedding(layer=layer, **options), rows, **windows)
        assert found["embedding"][layer] == alone["embedding"]


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"layer": ()}, "expected different layers, at least one"),
        ({"layer": (1, -2)}, "greater than or equal to -1"),
        ({"layer": "all", "pooling": "xvector"}, "reads no layer"),
    ],
)
def test_layers_that_cannot_be_are_refused(fields, words):
    with pytest.raises(SpecError, match=words):
        raysp.Embedding(**fields)


def test_layers_that_a_checkpoint_lacks_are_refused(oracle, tmp_path):
    with pytest.raises(CheckpointError, match=r"layer=3, found 2 layers; give -1 to 2"):
        raysp.Embedding(layer=(0, 3)).check(check_checkpoint(oracle[1]))
    make_oracle("UniSpeechForSequenceClassification").save_pretrained(tmp_path)
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=r"layer='mix', but no head of UniSpeechForSequenceClassification has"):
        raysp.Embedding(layer="mix").check(check_checkpoint(tmp_path))
