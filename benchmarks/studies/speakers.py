"""Who speaks when: error rates of `Turns` on joined recordings of speakers that its checkpoint never heard.

    python -m benchmarks speakers --digits 'digits/*.parquet' --speech sentences long

Digits of two speakers are joined to conversations, and LibriSpeech's sentences of two to six speakers, without and with
10 % of overlap. An x-vector checkpoint is trained by `Speakers` on all other speakers of the folders (manifest.jsonl
with `audio_filepath` and `speaker`); `--checkpoint` takes one that is trained. Rates are those of pyannote.metrics,
without a collar and with overlaps: `pip install pyannote.metrics`. Ideal vectors show what speech, windows and clusters
lose by themselves.
"""

import argparse
import io
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
import soxr
import torch

import raysp
from benchmarks.inputs.checkpoints import BUNDLED
from benchmarks.inputs.corpus import SCHEMA, read_utterances
from benchmarks.tables import show, write_json
from raysp.audio import decode
from raysp.ops.speakers.speaker_turns import Diarization
from raysp.ops.speakers.word_speakers import spoken
from raysp.specs.outputs.turns import CHANGE_SECONDS, DISTANCE

RATE = 16_000
HELD_DIGITS = ("lucas", "yweweler")
HELD_SENTENCES = tuple(f"librispeech-{one}" for one in (1998, 2033, 2609, 3005, 3331, 367))
PIECE_SECONDS = 2.0
MOST_PIECES = 80
"""Pieces of a speaker, so that none has most of the rows."""
SPEEDS = (0.9, 1.0, 1.1)
"""Speeds at which a speaker is another one: the pitch and the resonances of the voice change with it."""
Voices = dict[str, list[np.ndarray]]


@dataclass(frozen=True)
class Spoken:
    """A part of a recording that one speaker says, in samples; of digits with their places."""

    speaker: str
    samples: np.ndarray
    words: Sequence[tuple[int, int]] = ()


@dataclass(frozen=True)
class Joined:
    """A recording with its turns and words: speaker, start and end in seconds."""

    kind: str
    samples: np.ndarray
    turns: Sequence[tuple[str, float, float]]
    words: Sequence[tuple[str, float, float]]

    @property
    def num_speakers(self) -> int:
        """Number of its speakers."""
        return len({speaker for speaker, *_ in self.turns})


def read_voices(digits: str, folders: Sequence[Path]) -> Voices:
    """Return recordings at 16 kHz by speaker; those of several speakers are left out."""
    found = {
        speaker: [soxr.resample(one.samples / np.float32(32768), one.sample_rate, RATE) for one in utterances]
        for speaker, utterances in read_utterances(digits).items()
    }
    for folder in folders:
        for line in map(json.loads, (folder / "manifest.jsonl").read_text().splitlines()):
            if line["speaker"].startswith("several") or line.get("made") or "joined" in line["audio_filepath"]:
                continue
            samples = decode((folder / line["audio_filepath"]).read_bytes(), sample_rate=RATE)
            scale = np.float32(32768 if samples.dtype == np.int16 else 1)
            found.setdefault(line["speaker"], []).append(samples.astype(np.float32) / scale)
    return found


def pieces(recordings: Sequence[np.ndarray], draw: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield pieces of about two seconds: parts of longer recordings, and shorter ones joined."""
    held: list[np.ndarray] = []
    for one in recordings:
        if len(one) > PIECE_SECONDS * RATE:
            yield from np.array_split(one, round(len(one) / RATE / PIECE_SECONDS))
            continue
        held += [one, np.zeros(int(draw.uniform(0.02, 0.3) * RATE), np.float32)]
        if sum(map(len, held)) > PIECE_SECONDS * RATE:
            yield np.concatenate(held)
            held = []


def training_rows(voices: Voices) -> Iterator[dict[str, object]]:
    """Yield the rows of a training: pieces of each speaker at each speed, at random those of a speaker with many."""
    draw = np.random.default_rng(0)
    for speaker in sorted(voices.keys() - {*HELD_DIGITS, *HELD_SENTENCES}):
        for speed in SPEEDS:
            played = [soxr.resample(one, RATE * speed, RATE) for one in voices[speaker]]
            found = [*pieces(played, draw)]
            for number in draw.permutation(len(found))[:MOST_PIECES]:
                yield row(f"{speaker}-{speed}-{number}", found[number], f"{speaker} at {speed}")


def row(id_: str, samples: np.ndarray, speaker: str) -> dict[str, object]:
    """Return a row of a shard."""
    file = io.BytesIO()
    soundfile.write(file, np.clip(samples, -1, 1), RATE, format="WAV", subtype="PCM_16")
    return {"id": id_, "audio": {"bytes": file.getvalue(), "path": None}, "speaker_id": speaker}


def write(path: Path, rows: Sequence[Mapping[str, object]]) -> str:
    """Write a shard."""
    schema = pa.schema([SCHEMA.field(name) for name in ("id", "audio", "speaker_id")])
    pq.write_table(pa.Table.from_pylist(list(rows), schema), path, row_group_size=100)
    return str(path)


def train(voices: Voices, folder: Path, steps: int) -> str:
    """Train an x-vector checkpoint from random weights, and return its folder."""
    from raysp.models import SeamlessM4TFeatureExtractor, Wav2Vec2BertConfig, Wav2Vec2BertForXVector

    torch.manual_seed(0)
    off = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "conformer_conv_dropout")
    config = Wav2Vec2BertConfig(
        hidden_size=160,
        num_hidden_layers=0,
        num_attention_heads=4,
        intermediate_size=192,
        output_hidden_size=160,
        mask_time_prob=0.0,
        layerdrop=0.0,
        tdnn_dim=(192, 192, 192, 512),
        tdnn_kernel=(5, 3, 3, 1),
        tdnn_dilation=(1, 2, 3, 1),
        xvector_output_dim=128,
        initializer_range=0.1,  # with 0.02 the first hundred steps change little
        **dict.fromkeys(off, 0.0),
    )
    Wav2Vec2BertForXVector(config).save_pretrained(folder / "random")
    # Normalised over windows of 1.5 s, energies lose most of what differs between speakers.
    SeamlessM4TFeatureExtractor(do_normalize_per_mel_bins=False).save_pretrained(folder / "random")
    rows = [*training_rows(voices)]
    np.random.default_rng(0).shuffle(rows)  # type: ignore[arg-type]
    recipe = raysp.Finetune(
        raysp.Shards(write(folder / "train.parquet", rows)),
        steps=[raysp.Decode()],
        objective=raysp.Speakers(str(folder / "random"), column="speaker_id", margin=0.2, crop_seconds=1.5),
        schedule=raysp.Schedule(steps=steps, learning_rate=1e-3, head_rate=1),
        batching=raysp.Batching(seconds=64, micro_batches=1),
        augment=[raysp.Gain((-6, 6))],
        sink=raysp.Checkpoint(str(folder / "vectors")),
    )
    raysp.finetune(recipe)
    return str(folder / "vectors")


def joined(kind: str, parts: Sequence[Spoken], draw: np.random.Generator, overlap: float = 0.0) -> Joined:
    """Join parts, with pauses between them; or each begins before the one before it ends, by a share of its length."""
    places: list[tuple[int, int]] = []
    for part in parts:
        start = int(0.2 * RATE) if not places else places[-1][1] + int(draw.uniform(0.1, 0.6) * RATE)
        if places and overlap:
            least = places[-2][1] if len(places) > 1 else places[-1][0] + 1  # at most two speak at once
            shared = int(overlap * draw.uniform(0.5, 1.5) * min(len(part.samples), places[-1][1] - places[-1][0]))
            start = max(places[-1][1] - shared, least)
        places.append((start, start + len(part.samples)))
    samples = 1e-4 * draw.standard_normal(places[-1][1] + RATE // 5)
    for part, (start, end) in zip(parts, places, strict=True):
        samples[start:end] += part.samples
    placed = [(part, *place) for part, place in zip(parts, places, strict=True)]
    return Joined(
        kind,
        samples.astype(np.float32),
        [(part.speaker, start / RATE, end / RATE) for part, start, end in placed],
        [(one.speaker, (at + a) / RATE, (at + b) / RATE) for one, at, _ in placed for a, b in one.words],
    )


def conversations(voices: Voices, count: int) -> Iterator[Joined]:
    """Yield recordings of two speakers of digits, who say two to six digits in turn."""
    draw = np.random.default_rng(1)
    for _ in range(count):
        first = int(draw.integers(2))
        speakers = [HELD_DIGITS[(first + turn) % 2] for turn in range(int(draw.integers(6, 14)))]
        yield joined("digits, 2 speakers", [_digits(speaker, voices[speaker], draw) for speaker in speakers], draw)


def _digits(speaker: str, voice: Sequence[np.ndarray], draw: np.random.Generator) -> Spoken:
    samples = np.zeros(0, np.float32)
    words: list[tuple[int, int]] = []
    for number in range(int(draw.integers(2, 7))):
        gap = np.zeros(int(draw.uniform(0.05, 0.3) * RATE) if number else 0, np.float32)
        digit = voice[int(draw.integers(len(voice)))]
        words.append((len(samples) + len(gap), len(samples) + len(gap) + len(digit)))
        samples = np.concatenate([samples, gap, digit])
    return Spoken(speaker, samples, words)


def meetings(voices: Voices, count: int, overlap: float) -> Iterator[Joined]:
    """Yield recordings of two to six readers, each with three sentences."""
    draw = np.random.default_rng(2)
    for number in range(2, 7):
        for _ in range(count):
            chosen = [str(one) for one in draw.choice(HELD_SENTENCES, number, replace=False)]
            order = [str(one) for _ in range(3) for one in draw.permutation(chosen)]
            parts = [Spoken(one, voices[one][int(draw.integers(len(voices[one])))]) for one in order]
            yield joined(f"sentences, {overlap:.0%} overlap", parts, draw, overlap)


def label(recordings: Sequence[Joined], folder: Path, output: raysp.Turns) -> list[dict[str, Any]]:
    """Return the labels of recordings: words of the bundled checkpoint, regions of speech, and turns."""
    source = write(folder / "in.parquet", [row(f"r{i}", one.samples, "") for i, one in enumerate(recordings)])
    with tempfile.TemporaryDirectory(dir=folder) as sink:
        steps = [
            raysp.Decode(),
            raysp.Label(str(BUNDLED), outputs=[raysp.Transcript(words=True), raysp.Speech(), output]),
        ]
        raysp.run(raysp.Pipeline(raysp.Shards(source), steps=steps, sink=raysp.Parquet(f"{sink}/out")))
        return pq.read_table(f"{sink}/out/in.parquet").to_pylist()


def ideal(one: Joined, labels: Mapping[str, Any]) -> dict[str, Any]:
    """Return labels with the turns of vectors that are the speakers' shares of their windows."""
    output = raysp.Turns()
    number, half = one.num_speakers, output.window_seconds / 2
    names = sorted({speaker for speaker, *_ in one.turns})
    middles = np.arange(output.step_seconds / 2, len(one.samples) / RATE, output.step_seconds)
    vectors = np.full((len(middles), number), 1e-3)  # (windows, speakers)
    for speaker, start, end in one.turns:
        shared = np.minimum(end, middles + half) - np.maximum(start, middles - half)
        vectors[:, names.index(speaker)] += np.maximum(shared, 0)
    diarization = Diarization(
        threshold=DISTANCE,
        bounds=(number, number),
        least_seconds=output.least_seconds,
        merge_seconds=output.merge_seconds,
        step_seconds=output.step_seconds,
        window_seconds=output.window_seconds,
        change_seconds=CHANGE_SECONDS,
    )
    regions = [(region["start"], region["end"]) for region in labels["pred_speech"]]
    turns = [turn._asdict() for turn in diarization(regions, middles, vectors)]
    return {**labels, "pred_turns": turns, "pred_words": spoken(turns, labels["pred_words"])}


def rates(recordings: Sequence[Joined], labels: Sequence[Mapping[str, Any]]) -> dict[str, object]:
    """Return the error rate of all recordings, its parts, and the shares of right numbers and right words."""
    from pyannote.core import Annotation, Segment
    from pyannote.metrics.diarization import DiarizationErrorRate

    metric = DiarizationErrorRate(collar=0.0, skip_overlap=False)
    right: list[bool] = []
    for one, found in zip(recordings, labels, strict=True):
        said, heard = Annotation(), Annotation()
        for number, (speaker, start, end) in enumerate(one.turns):
            said[Segment(start, end), number] = speaker
        for number, turn in enumerate(found["pred_turns"]):
            heard[Segment(turn["start"], turn["end"]), number] = str(turn["speaker"])
        metric(said, heard)
        names = metric.optimal_mapping(said, heard)
        right += [names.get(_speaker_at(found["pred_words"], start, end)) == who for who, start, end in one.words]
    numbers = [len({turn["speaker"] for turn in found["pred_turns"]}) for found in labels]
    counted = [found == one.num_speakers for found, one in zip(numbers, recordings, strict=True)]
    parts = {name: metric[name] / metric["total"] for name in ("missed detection", "false alarm", "confusion")}
    shares = {"error rate": abs(metric), **parts, "number right": sum(counted) / len(counted)}
    if right:
        shares["words right"] = sum(right) / len(right)
    return {name: f"{share:.1%}" for name, share in shares.items()}


def _speaker_at(words: Sequence[Mapping[str, Any]], start: float, end: float) -> str:
    """Return the speaker of the word that has the most of a time; empty if none is there."""
    over = [(min(end, one["end"]) - max(start, one["start"]), -place) for place, one in enumerate(words)]
    most, place = max(over, default=(0.0, 0))
    return str(words[-place]["speaker"]) if most > 0 else ""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, join, label and compare."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks speakers", description=__doc__.splitlines()[0])
    parser.add_argument("--digits", required=True, help="shards of digits with `speaker_id`")
    parser.add_argument("--speech", required=True, nargs="+", type=Path, help="folders with a manifest.jsonl")
    parser.add_argument("--checkpoint", help="trained checkpoint with x-vectors")
    parser.add_argument("--steps", type=int, default=400, help="steps of the training")
    parser.add_argument(
        "--recordings", type=int, default=10, help="recordings of digits; a fifth for each number of readers"
    )
    parser.add_argument("--json", type=Path, help="file of the results")
    given = parser.parse_args(arguments)
    try:
        import pyannote.metrics  # noqa: F401
    except ImportError:
        raise SystemExit(
            "speakers needs pyannote.metrics, which counts the errors: pip install pyannote.metrics"
        ) from None
    voices = read_voices(given.digits, given.speech)
    recordings = [*conversations(voices, given.recordings)]
    for overlap in (0.0, 0.1):
        recordings += meetings(voices, max(1, given.recordings // 5), overlap)
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = given.checkpoint or train(voices, Path(folder), given.steps)
        results = [*compared(recordings, Path(folder), checkpoint)]
    show("speakers", results)
    if given.json:
        write_json(given.json, {"speakers": results})


def compared(recordings: Sequence[Joined], folder: Path, checkpoint: str) -> Iterator[dict[str, object]]:
    """Yield the rates of each kind of recordings, with the number of speakers found and given."""
    for kind in dict.fromkeys(one.kind for one in recordings):
        of_kind = [one for one in recordings if one.kind == kind]
        found = label(of_kind, folder, raysp.Turns(checkpoint=checkpoint))
        yield {"recordings": kind, "speakers": "found", **rates(of_kind, found)}
        by_number = sorted(of_kind, key=lambda one: one.num_speakers)
        found = []
        for number in dict.fromkeys(one.num_speakers for one in by_number):
            chosen = [one for one in by_number if one.num_speakers == number]
            found += label(chosen, folder, raysp.Turns(checkpoint=checkpoint, speakers=number))
        yield {"recordings": kind, "speakers": "given", **rates(by_number, found)}
        perfect = [ideal(*both) for both in zip(by_number, found, strict=True)]
        yield {"recordings": kind, "speakers": "given, ideal vectors", **rates(by_number, perfect)}


if __name__ == "__main__":
    main()
