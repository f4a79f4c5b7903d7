"""Crossings that programs alone reach: they give values of the host to a model of the device, or of it to the host.

Cases are those of `crossing_cases.py`: functions of a folder and a device, which return a function to run there.
"""

import copy
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import raysp
from raysp import crossing, models
from raysp.backends.finding import choose
from raysp.models import ParakeetFeatureExtractor, SeamlessM4TFeatureExtractor
from raysp.models.encoder import conformer, encoder_heads
from raysp.models.encoder.heads import GumbelVectorQuantizer, contrastive_losses
from raysp.ops.labelling import Labelling
from raysp.training.loop import state
from raysp.training.loop.optimizing import group_parameters, new_optimizer
from raysp.training.loop.process_settings import process_settings
from tests.backends import theirs
from tests.corpora import CHECKPOINT
from tests.device.class_cases import CONFIGS
from tests.device.crossing_cases import Run, on_the_host, spoken, writer
from tests.device.test_training import OBJECTIVES, STILL, steps_of, training_of
from tests.ops.test_labelling import block_of
from tests.training.conftest import small_model

WAVES = (0.1 * np.random.default_rng(0).standard_normal((2, 8000))).astype(np.float32)


def small_ctc() -> Any:
    """Return a CTC model of few weights, on the CPU."""
    return small_model(models.Wav2Vec2ForCTC, models.Wav2Vec2Config, **STILL)


def pretraining_with_masks(_: Path, device: str) -> Run:
    """Masks of the device for a model that finds the lengths of rows on the host."""
    sizes = {"codevector_dim": 16, "proj_codevector_dim": 16, "num_codevectors_per_group": 8, "num_negatives": 5}
    model = small_model(models.UniSpeechForPreTraining, models.UniSpeechConfig, num_ctc_classes=20, **sizes, **STILL)
    model = model.to(device).eval()
    masked = torch.zeros(2, 24, dtype=torch.bool)
    masked[:, 3:9] = True
    waves, masked, valid = (one.to(device) for one in (torch.from_numpy(WAVES), masked, torch.ones(2, 8000).long()))

    def run() -> Any:
        np.random.seed(0)
        with torch.no_grad():
            return model(waves, attention_mask=valid, mask_time_indices=masked).loss.item()

    return run


def quantized(_: Path, device: str) -> Run:
    """Codes and losses of frames that masks of the device select."""
    torch.manual_seed(0)
    quantizer = GumbelVectorQuantizer(8, num_groups=2, num_codes=4, dim=6).eval()
    frames, predicted, negatives = torch.randn(3, 5, 8), torch.randn(3, 5, 6), torch.arange(15).view(3, 5, 1)
    masked = torch.tensor([[0, 1, 1, 0, 1], [1, 1, 0, 0, 0], [0, 1, 0, 1, 1]]).bool()
    quantizer = quantizer.to(device)
    frames, predicted, negatives, masked = (one.to(device) for one in (frames, predicted, negatives, masked))

    def run() -> Any:
        with torch.no_grad():
            found, perplexity, codes = quantizer(frames, masked)
            losses = contrastive_losses(predicted, found, codes, masked, negatives, 0.1)
        return [perplexity.item(), losses.cpu().tolist()]

    return run


def tables_while_compiling(_: Path, device: str) -> Run:
    """Tables of positions in programs that torch compiles, which keep none."""
    like = torch.zeros(1).to(device)

    def run() -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.compiler, "is_compiling", lambda: True)
            tables = conformer.sinusoids(5, 8, like), conformer.rotations(5, 4, 10_000, like)
        return [one.cpu().tolist() for one in tables]

    return run


def features(extractor: Any, _: Path, device: str) -> Run:
    """Features of waveforms of the device by numbers of samples of the host."""
    waves, lengths = torch.from_numpy(WAVES).to(device), torch.tensor([8000, 6100])
    return lambda: {name: one.cpu().tolist() for name, one in extractor.extract(waves, lengths).items()}


def batch_of_features(_: Path, device: str) -> Run:
    """Features of a processor that are sent to a model."""
    processor = models.AutoProcessor.from_pretrained(CHECKPOINT)
    inputs = processor([*WAVES], sampling_rate=16_000, return_tensors="pt", padding=True)
    model = models.AutoModelForCTC.from_pretrained(CHECKPOINT).to(device).eval()
    with torch.no_grad():
        return lambda: model(**type(inputs)(inputs).to(device)).logits.argmax(-1).cpu().tolist()


def transformers_pass(folder: Path, device: str) -> Run:
    """A pass of a model of transformers without a labelling, with features that its own extractor computes."""
    place = folder / "speech2text"
    if not place.exists():
        theirs.tiny_writer(place, "Speech2Text")
    model = choose(place, "transformers").open().load(place, dtype="float32", device=device)
    waves, lengths = torch.from_numpy(WAVES), torch.tensor([8000, 8000])
    return lambda: _summary(model.run(waves.to(device), lengths, hidden_states=False))


def _summary(found: Any) -> Any:
    return [found.num_frames_B.cpu().tolist(), {name: one.sum().item() for name, one in found.features.items()}]


def texts_by_values_of_the_host(folder: Path, device: str) -> Run:
    """Losses of an encoder-decoder by labels and masks of tokens of the host."""
    model, waves, mask = writer(folder, device)
    tokens = torch.tensor([[5, 6, 7], [8, 9, 5], [5, 5, 6], [8, 9, 5]])
    of_tokens = torch.tensor([[1, 1, 1], [1, 1, 0], [1, 0, 0], [1, 1, 1]])
    given = {"decoder_input_ids": tokens.to(device), "decoder_attention_mask": of_tokens, "labels": tokens}

    def run() -> Any:
        with torch.no_grad():
            return model(waves, mask, **given).loss.item()

    return run


def next_tokens(_: Path, device: str) -> Run:
    """Losses of a text decoder by labels of the host."""
    torch.manual_seed(0)
    config = models.BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24, is_decoder=True
    )
    model = models.BertLMHeadModel(config).to(device).eval()
    tokens = torch.tensor([[5, 6, 7], [8, 9, 5]])

    def run() -> Any:
        with torch.no_grad():
            return model(tokens.to(device), labels=tokens).loss.item()

    return run


def combined(_: Path, device: str) -> Run:
    """An encoder and a decoder of a device, between which there is a projection."""
    encoder = models.Wav2Vec2Model(CONFIGS["Wav2Vec2"]).to(device)
    config = models.BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        is_decoder=True, add_cross_attention=True,
    )  # fmt: skip
    decoder = models.BertLMHeadModel(config).to(device)

    def run() -> Any:
        made = models.SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(
            encoder_model=encoder, decoder_model=decoder
        )
        return all(parameter.device.type == device for parameter in made.parameters())

    return run


def heads_of_two_devices(folder: Path, device: str) -> Run:
    """Heads to be saved together, of which one is on the device and the other is not."""
    torch.manual_seed(0)
    first = models.Wav2Vec2ForCTC(CONFIGS["Wav2Vec2"])
    second = models.Wav2Vec2ForSequenceClassification(CONFIGS["Wav2Vec2"])
    encoder_heads.with_encoder_of(first, second)
    second = copy.deepcopy(second).to(device)  # the encoder of the first one stays

    def run() -> Any:
        encoder_heads.save_heads([first, second], folder / "heads")
        return sorted(load_file(folder / "heads" / "model.safetensors"))

    return run


def moments(folder: Path, device: str) -> Run:
    """The state of an optimizer of the device, which is copied to the host, and set again."""
    model = small_ctc().to(device)
    groups = group_parameters(model)
    optimizer = new_optimizer(groups, learning_rate=1e-3, weight_decay=0.01)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()

    def run() -> Any:
        copies = state.moments(optimizer, groups)
        state.write(copies, folder / "optimizer")
        again = new_optimizer(groups, learning_rate=1e-3, weight_decay=0.01)
        state.load_moments(again, groups, folder / "optimizer")
        places = [
            value.device.type == device for found in again.state.values() for value in found.values() if value.ndim
        ]
        return [sum(map(len, _flat(on_the_host(copies)))), places]

    return run


def _flat(values: dict[str, Any]) -> list[list[Any]]:
    return [value for value in values.values() if isinstance(value, list)]


def deterministic_steps(_: Path, device: str) -> Run:
    """Steps of a training whose kernels are to be deterministic, so that losses are computed on the host."""
    make, targets = OBJECTIVES["CTC"]
    objective = make(Path())
    objective.model.to(device).tie_weights()
    training = training_of(objective)

    def run() -> Any:
        with process_settings(1, deterministic=True):
            return [training.step(0, *one, learning_rate=0.0).loss for one in enumerate(steps_of(targets))]

    return run


CHARACTERS = """\\data\\
ngram 1=7
ngram 2=1

\\1-grams:
-1 <unk>
-99 <s> -0.3
-1 </s>
-0.7 e -0.2
-0.9 n -0.1
-1.1 t -0.1
-0.8 | -0.1

\\2-grams:
-0.3 n e

\\end\\
"""


def model_of_characters(folder: Path, device: str) -> Run:
    """Beams with a language model of characters."""
    (folder / "characters.arpa").write_text(CHARACTERS)
    output = raysp.Transcript(beams=4, lm=str(folder / "characters.arpa"))
    op = Labelling(str(CHECKPOINT), lambda loaded: [output.op(loaded.summary, loaded)], batch_seconds=8, device=device)
    block = block_of(spoken()[0][:2])
    return lambda: op(block)[0].to_pylist()


def without_memory(_: Path, device: str) -> Run:
    """Arrays and tensors that are sent to a device without memory."""
    del device
    meta = torch.device("meta")

    def run() -> Any:
        sent: Sequence[Tensor] = [
            *crossing.send(meta, np.arange(3)),
            *crossing.Sending(meta, (np.int64, (2,))).tensors(),
        ]
        return [one.device.type for one in sent]

    return run


def sent_back(_: Path, device: str) -> Run:
    """Tensors of a device that are sent to the host, or to where they are."""
    values = torch.arange(3).to(device)
    return lambda: [on_the_host(crossing.sent(values, "cpu")), crossing.sent(values, device).cpu().tolist()]


CASES: dict[str, Callable[[Path, str], Run]] = {
    "pre-training with masks of the device": pretraining_with_masks,
    "quantised frames": quantized,
    "tables while torch compiles": tables_while_compiling,
    "features of SeamlessM4T by counts of the host": functools.partial(features, SeamlessM4TFeatureExtractor()),
    "features of Parakeet by counts of the host": functools.partial(features, ParakeetFeatureExtractor()),
    "features of a processor": batch_of_features,
    "a pass of transformers without a labelling": transformers_pass,
    "texts by values of the host": texts_by_values_of_the_host,
    "next tokens by labels of the host": next_tokens,
    "an encoder and a decoder combined": combined,
    "heads of two devices": heads_of_two_devices,
    "moments of an optimizer": moments,
    "deterministic steps": deterministic_steps,
    "beams with a model of characters": model_of_characters,
    "devices without memory": without_memory,
    "tensors that are sent back": sent_back,
}
