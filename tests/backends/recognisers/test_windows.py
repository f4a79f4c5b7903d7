"""Long rows lose no audio: a stand-in for the model writes a letter for each tone that the features have."""

import io
import pathlib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from torch.nn.utils.rnn import pad_sequence

import raysp
from raysp.backends.hugging_face.recogniser import Recogniser
from raysp.backends.hugging_face.recogniser_families import FAMILIES, TextRequest
from raysp.backends.hugging_face.transducers import Transducer
from raysp.models.decoder.transducing import Path
from tests.backends.recognisers.builders import BUILDERS
from tests.backends.recognisers.loops import LANGUAGES
from tests.corpora import AUDIO
from tests.here import run_without_ray

RATE = 16_000
TONES = np.geomspace(300, 4000, 8)
SECONDS = (10, 29, 31, 41, 70)
FRAMES_PER_SECOND = 100


def tones(places, rate: int = RATE) -> np.ndarray:
    """Return a tone of 0.7 s in each second, over faint noise."""
    time, generator = np.arange(rate) / rate, np.random.default_rng(0)
    seconds = [0.5 * np.sin(2 * np.pi * TONES[place] * time) * (np.abs(time - 0.5) < 0.35) for place in places]
    samples = np.concatenate(seconds)
    return (samples + 1e-4 * generator.standard_normal(len(samples))).astype(np.float32)


def spectrum(inputs) -> torch.Tensor:
    """Return the energies (B, bins, T) of the features of a batch, 100 frames a second."""
    floats = [value for value in inputs.values() if isinstance(value, torch.Tensor) and value.is_floating_point()]
    features = max(floats, key=torch.Tensor.numel)
    if features.ndim == 2 or features.shape[1] == 1:
        window = torch.hann_window(400)
        samples = features.reshape(len(features), -1)
        return torch.stft(samples, 400, 160, window=window, return_complex=True).abs().clamp(min=0.1).log()
    return features if features.shape[1] < 200 else features.mT


def rows_of(inputs) -> Sequence[torch.Tensor]:
    """Return the energies (bins, T) of each row; those of Voxtral come in chunks of 30 s, of 375 tokens each."""
    energies, ids = spectrum(inputs), inputs.get("input_ids")
    if ids is None or len(ids) == len(energies):
        return energies
    chunks = (ids == 24).sum(1) // 375
    return [torch.cat([*part], dim=1) for part in energies.split(chunks.tolist())]


def played(inputs) -> list[list[torch.Tensor]]:
    """Return the mean energies of each tone of each row."""
    return [
        [
            energies[:, first:end].mean(1) - energies.mean(1)
            for first, end in runs(energies)
            if end - first > 0.3 * FRAMES_PER_SECOND
        ]
        for energies in rows_of(inputs)
    ]


def runs(energies: torch.Tensor) -> list[tuple[int, int]]:
    """Return first and end of the frames of each tone of a row."""
    strongest = energies.max(0).values
    is_tone = (strongest > (strongest.quantile(0.05) + strongest.quantile(0.9)) / 2).int()
    edges = torch.diff(is_tone, prepend=torch.zeros(1).int(), append=torch.zeros(1).int()).nonzero()[:, 0].tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


class HearingSteps:
    """Scores of what the stand-in writes."""

    def begin(self) -> None:
        pass

    def end(self, last: torch.Tensor) -> torch.Tensor:
        return torch.zeros(len(last), self.length)


def hear(recogniser: Recogniser, name: str) -> None:
    """Put the stand-in in place of a model."""
    steps, tokenizer = HearingSteps(), recogniser.files.processor.tokenizer
    request = TextRequest(language=LANGUAGES.get(name))
    [known] = played(recogniser.search.inputs([tones(range(len(TONES)), recogniser.summary.sample_rate)], request))
    assert len(known) == len(TONES)

    def generate(**inputs):
        named = [[closest(tone, known) for tone in row] for row in played(inputs)]
        letters = [tokenizer.convert_tokens_to_ids([chr(ord("a") + one) for one in row]) for row in named]
        steps.length = max(map(len, letters)) + 1
        end = tokenizer.eos_token_id
        return torch.tensor([[end, *row, *[end] * (steps.length - len(row))] for row in letters])

    recogniser.search.model.generate, recogniser.search.steps = generate, steps


def hear_as_transducer(transducer: Transducer) -> None:
    """Put the stand-in in place of the networks of a transducer: a frame for each letter."""
    search, tokenizer = transducer.search, transducer.files.processor.tokenizer
    [tones_of_letters] = played(search.inputs([tones(range(len(TONES)))], TextRequest()))

    def path(recordings, request):
        heard = [
            [closest(tone, tones_of_letters) for tone in row] for row in played(search.inputs(recordings, request))
        ]
        letters = [tokenizer.convert_tokens_to_ids([chr(ord("a") + one) for one in row]) for row in heard]
        tokens = pad_sequence([*map(torch.tensor, letters)], batch_first=True, padding_value=search.rules.blank)
        frames = torch.arange(tokens.shape[1]).expand_as(tokens)
        return Path(tokens, frames, torch.ones_like(frames), torch.zeros(tokens.shape))

    search.path = path


def closest(tone: torch.Tensor, tones_of_letters: list[torch.Tensor]) -> int:
    """Return the place of the tone that is most like another."""
    return int(torch.cosine_similarity(torch.stack(tones_of_letters), tone[None]).argmax())


def wav_of(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="WAV")
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize("name", BUILDERS)
def test_every_second_of_a_row_of_any_length_is_heard(recogniser, tmp_path, monkeypatch, name):
    run_without_ray(monkeypatch)
    load = Recogniser.__init__

    def loaded(self, *args, **options):
        load(self, *args, **options)
        hear_as_transducer(self) if isinstance(self, Transducer) else hear(self, name)

    monkeypatch.setattr(Recogniser, "__init__", loaded)
    monkeypatch.setattr(Recogniser, "check_padding", lambda self: None)
    check_heard(tmp_path, recogniser(name), min(FAMILIES[name].max_seconds or 60, 60), LANGUAGES.get(name))


def check_heard(
    tmp_path: pathlib.Path, checkpoint: pathlib.Path, window_seconds: float, language: str | None = None
) -> None:
    """Label rows of several lengths, and compare the letter of each second with its tone."""
    places_of_rows = [[(3 * second + second // 8) % len(TONES) for second in range(seconds)] for seconds in SECONDS]
    audio = [{"bytes": wav_of(tones(places)), "path": None} for places in places_of_rows]
    (tmp_path / "in").mkdir()
    table = pa.table({"id": [*map(str, SECONDS)], "audio": pa.array(audio, AUDIO)})
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    step = raysp.Label(str(checkpoint), outputs=[raysp.Transcript(language=language)], window_seconds=window_seconds)
    made = raysp.Pipeline(
        source=raysp.Shards(str(tmp_path / "in")),
        steps=[raysp.Decode(), step],
        sink=raysp.Parquet(str(tmp_path / "out")),
    )
    assert raysp.run(made).rows == len(SECONDS)
    rows = pq.read_table(tmp_path / "out" / "a.parquet").to_pylist()
    assert [row["error_message"] for row in rows] == [None] * len(SECONDS)
    expected = ["".join(chr(ord("a") + place) for place in places) for places in places_of_rows]
    assert [row["pred_text"].replace(" ", "") for row in rows] == expected
