"""Crossings that a batch of an output seldom or never reaches: of programs, of evaluations, and of rare rows.

A case is a function of a folder and a device. It returns a function that runs on the device, whose result is compared
with that of the CPU; values of tensors that should be on the host are not read, so a tensor that is left on the device
is found.
"""

import copy
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import raysp
from raysp import models
from raysp.audio import decode
from raysp.models.decoder.sampling import Generators
from raysp.ops import late_steps
from raysp.ops.labelling import Labelling
from raysp.ops.rows import Place, with_places
from raysp.ops.writing import Prompt
from raysp.text import alignment
from raysp.text import greedy_ctc as ctc
from tests.corpora import CHECKPOINT, DEMO
from tests.device.class_cases import make_checkpoint
from tests.device.output_cases import generating
from tests.device.test_training import OBJECTIVES, STILL, steps_of
from tests.models.tokenizers.phonemes import write_tokenizer
from tests.ops.test_labelling import block_of
from tests.training.conftest import small_model

Run = Callable[[], Any]
IDS = ([5, 6, 6, 7], [8, 9, 9, 9])


@functools.cache
def spoken() -> tuple[list[np.ndarray], list[str]]:
    """Return recordings of digits with their texts."""
    cells = pq.ParquetFile(min((DEMO / "audio").glob("*.parquet"))).read_row_group(0, ["audio", "text"]).to_pylist()
    waves = [decode(cell["audio"]["bytes"], sample_rate=16_000) for cell in cells[:6]]
    return waves, [cell["text"] for cell in cells[:6]]


def on_the_host(value: Any) -> Any:
    """Return values without the types of arrays; a tensor that is still on the device is an error."""
    if isinstance(value, torch.Tensor):
        if value.device.type != "cpu":
            raise TypeError(f"a tensor is still on {value.device}")
        return value.tolist()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: on_the_host(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [on_the_host(one) for one in value]
    return on_the_host(vars(value)) if hasattr(value, "__dict__") else value


def masks(_: Path, device: str) -> Run:
    """Masks of a training by time, given, and by channel, drawn by numpy."""
    fields = {"mask_time_prob": 0.3, "mask_feature_prob": 0.3, "mask_feature_length": 2, **STILL}
    model = small_model(models.Wav2Vec2Model, models.Wav2Vec2Config, **fields).to(device).train()
    wave = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 8000)).astype(np.float32)).to(device)
    given = torch.zeros(2, 24, dtype=torch.bool)
    given[:, 3:9] = True

    def run() -> Any:
        np.random.seed(0)
        found = model(wave, mask_time_indices=given).last_hidden_state
        return found.detach().cpu().tolist()

    return run


def pretraining(_: Path, device: str) -> Run:
    """A pass of a program, which knows no lengths and gives masks and negatives."""
    sizes = {"codevector_dim": 16, "proj_codevector_dim": 16, "num_codevectors_per_group": 8, "num_negatives": 5}
    model = small_model(models.UniSpeechForPreTraining, models.UniSpeechConfig, num_ctc_classes=20, **sizes, **STILL)
    model = model.to(device).eval()
    rng = np.random.default_rng(0)
    wave = torch.from_numpy(rng.standard_normal((2, 8000)).astype(np.float32)).to(device)
    valid = torch.ones(2, 8000, dtype=torch.long)
    valid[1, 6000:] = 0
    valid = valid.to(device)
    masked = torch.zeros(2, 24, dtype=torch.bool)
    masked[:, 3:9] = True
    negatives = torch.from_numpy(rng.integers(3, 9, (2, 24, 5)))
    negatives[1] += 24
    given = {"mask_time_indices": masked, "sampled_negative_indices": negatives}

    def run() -> Any:
        with torch.no_grad():
            found = model(wave, attention_mask=valid, **given)
        return [found.loss.item(), found.projected_states.sum().item()]

    return run


def collapsed(_: Path, device: str) -> Run:
    """Tokens of logits."""
    logits = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 20, 6)).astype(np.float32))
    frames, num_frames = ctc.best_frames(logits.to(device)), torch.tensor([20, 11]).to(device)
    return lambda: on_the_host(ctc.collapse(frames, num_frames, blank=0))


def tokens(make: Callable[[Path], Any], folder: Path, device: str) -> Run:
    """Texts of ids by a tokenizer."""
    tokenizer = make(folder)
    ids = torch.tensor(IDS).to(device)
    return lambda: [tokenizer.batch_decode(ids), tokenizer.decode(ids[0])]


def checkpoint(name: str, folder: Path) -> Path:
    """Return a checkpoint below a folder, where it is made once."""
    place = folder / "checkpoint"
    if not place.exists():
        make_checkpoint(name, place)
    return place


def of_checkpoint(name: str) -> Callable[[Path], Any]:
    """Return what makes the tokenizer of a checkpoint."""

    def make(folder: Path) -> Any:
        return models.load_checkpoint(checkpoint(name, folder)).tokenizer

    return make


def phonemes(folder: Path) -> Any:
    return models.Wav2Vec2PhonemeCTCTokenizer.from_pretrained(write_tokenizer(folder / "phonemes"))


def predictions(name: str, folder: Path, device: str) -> Run:
    """An evaluation of a training: losses and predictions of rows."""
    make, targets = OBJECTIVES[name]
    (folder / "objective").mkdir(exist_ok=True)
    objective = copy.deepcopy(make(folder / "objective"))
    objective.model.to(device).tie_weights()
    batch = steps_of(targets)[0][0]
    if name == "pre-training":
        return lambda: on_the_host(objective.evaluate(batch))
    if name.startswith(("CTC", "RNN-T", "TDT")):
        tokenizer = models.load_checkpoint(CHECKPOINT).tokenizer
        return lambda: on_the_host(objective.recognise(batch, tokenizer))
    return lambda: on_the_host(objective.predict(batch))


def writer(folder: Path, device: str) -> tuple[Any, torch.Tensor, torch.Tensor]:
    """Return an encoder-decoder, two recordings and their mask."""
    place = checkpoint("SpeechEncoderDecoderModel", folder)
    model = models.SpeechEncoderDecoderModel.from_pretrained(place, device=device).eval()
    waves = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 12_000)).astype(np.float32))
    waves *= torch.tensor([[0.1], [0.5], [2.0], [8.0]])
    mask = torch.arange(12_000) < torch.tensor([[12_000], [9_000], [5_000], [11_000]])
    return model, waves.to(device), mask.to(device)


def prompted(folder: Path, device: str, **options: Any) -> Run:
    """Texts that begin with tokens of a program, some of which are padding."""
    model, waves, mask = writer(folder, device)
    ids = torch.tensor([[5, 6, 7], [0, 5, 6], [0, 0, 5], [8, 9, 5]]).to(device)
    given = {"decoder_input_ids": ids, "decoder_attention_mask": (ids != 0).long(), "max_new_tokens": 4, **options}
    return lambda: model.generate(waves, mask, **given).cpu().tolist()


def texts_that_end_early(folder: Path, device: str, **options: Any) -> Run:
    """Texts of which half end after a few tokens, and leave the batch."""
    model, waves, mask = writer(folder, device)
    found = {"max_new_tokens": 8, "repetition_penalty": 4.0, **options}

    def generators() -> Generators:
        return [torch.Generator(device).manual_seed(seed) for seed in range(4)] if options.get("do_sample") else None

    def write(**more: Any) -> torch.Tensor:
        return model.generate(waves, mask, generators=generators(), **{**found, **more}).cpu()

    whole = write(eos_token_id=[model.config.decoder.vocab_size - 1])[:, 1:].tolist()
    end = next(token for token in sorted({token for text in whole for token in text}) if _ends_half(whole, token))
    return lambda: write(eos_token_id=[end]).tolist()


def _ends_half(texts: Sequence[list[int]], token: int) -> bool:
    """Return whether half of the texts have a token while another goes on."""
    places = sorted(text.index(token) if token in text else len(text) for text in texts)
    return places[len(texts) // 2 - 1] + 1 < places[-1]


def long_alignment(_: Path, device: str) -> Run:
    """The path of a text of so many tokens that states are dropped, within a beam."""
    rng = np.random.default_rng(0)
    log_probs = torch.from_numpy(rng.standard_normal((1, 1200, 12)).astype(np.float32)).log_softmax(-1).to(device)
    target = alignment.Target(rng.integers(1, 12, 500).tolist())

    def run() -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(alignment, "EXACT_CELLS", 2**16)
            [found] = alignment.align(log_probs, [1200], [target], blank=0)
        return on_the_host(found)

    return run


def at_pauses(outputs: Sequence[Any], _: Path, device: str) -> Run:
    """Windows that are cut at pauses, which stage values of frames."""
    waves, texts = spoken()
    waves = [(32767 * wave).astype(np.int16) if wave.dtype != np.int16 else wave for wave in waves[:2]]
    places = [Place(3, 0, len(wave) // 320 - 1, np.ones(4, np.float32), 0, len(wave)) for wave in waves]
    reads = tuple({one.text for one in outputs if getattr(one, "text", None)})
    op = Labelling(
        str(CHECKPOINT),
        lambda loaded: [one.op(loaded.summary, loaded) for one in outputs],
        batch_seconds=8,
        device=device,
        reads=reads,
    )
    block = with_places(block_of(waves), places)
    for name in reads:
        block = block.append_column(late_steps.CARRIED + name, pa.array(texts[:2]))
    return lambda: op(block)[0].to_pylist()


def with_a_prompt(folder: Path, device: str) -> Run:
    """Texts that begin with the tokens of a language and a task."""
    place = checkpoint("SpeechEncoderDecoderModel", folder)

    def outputs(loaded: Any) -> list[Any]:
        op = generating().op(loaded.summary, loaded)
        return [type(op)(op.schema, op.staged, op.model, op.tokenizer, op.options, Prompt({}, (5, 6)))]

    op = Labelling(str(place), outputs, batch_seconds=8, device=device)
    block = block_of(spoken()[0][:2])
    return lambda: op(block)[0].to_pylist()


LABELS = {"SequenceClassification": [0, 2]}


def losses(_: Path, device: str) -> Run:
    """Losses by labels of the host, as programs may give them."""
    found = [(getattr(models, f"Wav2Vec2For{head}"), torch.tensor(labels)) for head, labels in LABELS.items()]
    frames = torch.zeros(2, 24, 3).scatter_(2, torch.arange(48).view(2, 24, 1) % 3, 1.0)
    found.append((models.Wav2Vec2ForAudioFrameClassification, frames))
    waves = torch.from_numpy(np.random.default_rng(0).standard_normal((2, 8000)).astype(np.float32)).to(device)
    made = [
        (small_model(cls, models.Wav2Vec2Config, num_labels=3, **STILL).to(device).eval(), labels)
        for cls, labels in found
    ]
    return lambda: [model(waves, labels=labels).loss.item() for model, labels in made]


class _Streamer:
    """What a program gives to read tokens as they come."""

    def __init__(self) -> None:
        self.found: list[Any] = []

    def put(self, tokens: torch.Tensor) -> None:
        self.found.append(on_the_host(tokens))

    def end(self) -> None:
        self.found.append("end")


def streamed(folder: Path, device: str) -> Run:
    """Tokens that a program reads one by one."""
    model, waves, mask = writer(folder, device)

    def run() -> Any:
        streamer = _Streamer()
        model.generate(waves[:1], mask[:1], max_new_tokens=4, streamer=streamer)
        return streamer.found

    return run


BEAMS = raysp.Transcript(beams=4)
CASES: dict[str, Callable[[Path, str], Run]] = {
    "masks": masks,
    "pre-training by a program": pretraining,
    "tokens of logits": collapsed,
    "texts of ids": functools.partial(tokens, of_checkpoint("UniSpeechForCTC")),
    "texts of ids by pieces": functools.partial(tokens, of_checkpoint("ParakeetForCTC")),
    "texts of ids of a decoder": functools.partial(tokens, of_checkpoint("SpeechEncoderDecoderModel")),
    "phonemes of ids": functools.partial(tokens, phonemes),
    **{f"evaluation: {name}": functools.partial(predictions, name) for name in OBJECTIVES},
    "a prompt with padding": prompted,
    "a prompt with padding by beams": functools.partial(prompted, num_beams=2),
    "texts that end early": texts_that_end_early,
    "samples that end early": functools.partial(texts_that_end_early, do_sample=True),
    "beams that end early": functools.partial(texts_that_end_early, num_beams=2),
    "sampled beams that end early": functools.partial(texts_that_end_early, num_beams=2, do_sample=True),
    "a long alignment": long_alignment,
    "windows at pauses": functools.partial(at_pauses, [raysp.Transcript(words=True)]),
    "beams over windows at pauses": functools.partial(at_pauses, [BEAMS]),
    "alignment over windows at pauses": functools.partial(at_pauses, [raysp.Align("text", words=True)]),
    "alignment of labels at pauses": functools.partial(at_pauses, [raysp.Transcript(), raysp.Align(of="pred")]),
    "beams that differ from the best tokens": lambda folder, device: unlikely(folder, device),
    "a prompt of several tokens": with_a_prompt,
    "losses by labels of the host": losses,
    "tokens that are streamed": streamed,
}


def unlikely(_: Path, device: str) -> Run:
    """Beams whose best text is not that of the best tokens, so that its tokens are aligned."""
    output = raysp.Transcript(beams=8, words=True, hot_words={"two": 40.0, "nine": 40.0})
    op = Labelling(str(CHECKPOINT), lambda loaded: [output.op(loaded.summary, loaded)], batch_seconds=8, device=device)
    block = block_of(spoken()[0][:3])
    return lambda: op(block)[0].to_pylist()
