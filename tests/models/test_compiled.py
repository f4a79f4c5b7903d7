"""`torch.compile` and `torch.export` of every architecture, for batches of any number of rows of any length.

The backend runs the traced operators as they are: what is shown is that models can be traced, and what tracing makes of
them. A model has one layer and two convolutions, as the time goes into tracing each operator.
"""

import pytest
import torch
from torch.export import Dim

from raysp.models import (
    ParakeetForCTC,
    SEWDForCTC,
    SpeechEncoderDecoderConfig,
    SpeechEncoderDecoderModel,
    UniSpeechForCTC,
)
from raysp.models.encoder.relative_attention import bucket_rows, bucket_starts, by_distance, log_buckets
from tests.models.parity import inputs_and_mask
from tests.models.promises.test_padded_batches import CTC_CLASSES, LOG_MELS, random_model
from tests.soaked import some

# torch's own, of a tensor that a resumed program takes in: a check of labels' values interrupts the first one
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")

BART = {"vocab_size": 50, "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "decoder_ffn_dim": 24}
BART |= {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "max_position_embeddings": 64}
DECODERS = {
    "bart": BART,
    "mbart": BART,
    "bert": {"vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    | {"intermediate_size": 24, "max_position_embeddings": 64},
    "gpt2": {"vocab_size": 50, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 64},
}
SHORT = {"num_hidden_layers": 1, "conv_dim": (16, 16), "conv_stride": (20, 16), "conv_kernel": (24, 16)}
ANY_BATCH = ({0: Dim.DYNAMIC, 1: Dim.DYNAMIC}, {0: Dim.DYNAMIC, 1: Dim.DYNAMIC})


def small(cls):
    return random_model(cls, **({"num_hidden_layers": 1} if cls in LOG_MELS else SHORT))


def batches(cls):
    """Return two batches of unlike shapes."""
    if cls in LOG_MELS:
        return [inputs_and_mask((60, 41), LOG_MELS[cls]), inputs_and_mask((33, 20, 31), LOG_MELS[cls])]
    return [inputs_and_mask((6001, 4700), None), inputs_and_mask((8300, 3000, 5000), None)]


# `make test` compiles and exports an encoder with a decoder (below), and exports a model of log-mels.
@pytest.mark.slow
@pytest.mark.parametrize("cls", some(CTC_CLASSES, SEWDForCTC))
def test_a_compiled_model_is_one_graph_with_the_same_outputs(cls):
    torch._dynamo.reset()
    model = small(cls)
    compiled = torch.compile(model, backend="eager", dynamic=True, fullgraph=True)
    for inputs, mask in batches(cls):
        with torch.no_grad():
            torch.testing.assert_close(compiled(inputs, mask).logits, model(inputs, mask).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.soak
@pytest.mark.parametrize("cls", CTC_CLASSES)
def test_a_compiled_model_has_the_same_gradients_and_trains(cls):
    torch._dynamo.reset()
    model = small(cls)
    compiled = torch.compile(model, backend="eager", dynamic=True)
    inputs, mask = batches(cls)[1]
    labels = torch.tensor([[5, 6], [8, -100], [5, 3]])
    loss = model(inputs, mask, labels=labels).loss
    expected = torch.autograd.grad(loss, model.head.weight)
    torch.testing.assert_close(
        torch.autograd.grad(compiled(inputs, mask, labels=labels).loss, model.head.weight), expected
    )
    compiled.train()
    compiled(inputs, mask, labels=labels).loss.backward()
    assert model.head.weight.grad.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("cls", some(CTC_CLASSES, ParakeetForCTC))
@torch.no_grad()
def test_an_exported_model_has_the_same_outputs_for_any_batch(cls):
    model = small(cls)
    first, other = batches(cls)
    program = torch.export.export(model, first, dynamic_shapes=ANY_BATCH, strict=False).module()
    for inputs, mask in (first, other):
        torch.testing.assert_close(program(inputs, mask).logits, model(inputs, mask).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.drivers
@pytest.mark.slow
@pytest.mark.parametrize("kind", some(DECODERS, "bart"))
@torch.no_grad()
def test_an_encoder_decoder_model_compiles_and_exports(kind):
    torch._dynamo.reset()
    torch.manual_seed(0)
    encoder = small(UniSpeechForCTC).base_model.config.to_dict()
    config = SpeechEncoderDecoderConfig(encoder=encoder, decoder={"model_type": kind, **DECODERS[kind]})
    config.decoder.is_decoder = config.decoder.add_cross_attention = True
    model = SpeechEncoderDecoderModel(config).eval()
    (waves, mask), (more_waves, more_masks) = batches(UniSpeechForCTC)
    first = (waves, mask, torch.arange(2 * 7).reshape(2, 7))
    other = (more_waves, more_masks, torch.arange(3 * 11).reshape(3, 11))
    compiled = torch.compile(model, backend="eager", dynamic=True)
    exported = torch.export.export(model, first, dynamic_shapes=(*ANY_BATCH, ANY_BATCH[0]), strict=False).module()
    for inputs in (first, other):
        expected = model(*inputs).logits
        torch.testing.assert_close(compiled(*inputs).logits, expected, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(exported(*inputs).logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("span", "num_buckets", "furthest"),
    [(256, 256, 512), (512, 0, 512), (8, 8, 20), (5, 5, 64), (2, 2, 9), (40, -1, 40)],
)
def test_a_compiled_model_reads_the_same_rows_of_the_relative_position_table(span, num_buckets, furthest):
    starts = bucket_starts(span, num_buckets, furthest)
    for num_frames in (1, 2, 50, 700):
        rows = (log_buckets(num_frames, num_buckets, furthest) + span).clamp(0, 2 * span - 1)
        assert torch.equal(bucket_rows(num_frames, starts, torch.device("cpu")), by_distance(rows))
