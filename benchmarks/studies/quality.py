"""Word error rate of the rows that pass thresholds on scores and signals, on real speech in known conditions.

    python -m benchmarks quality
    python -m benchmarks quality --digits 'digits/*.parquet' --speech sentences --checkpoint CHECKPOINT CHECKPOINT

Spoken digits of one speaker are joined to rows of known words, over faint noise. Many stay as they were recorded.
Others get noise, white or of eight other voices, are clipped, faint or muffled, or are replaced by other speech than
the checkpoint knows, from a folder with a manifest.jsonl (`audio_filepath`, `text`). Thresholds are conditions of a
`Keep` behind `Label`. With other speech, the signals are compared with noise of a known level added to it, and with a
band of a known width.
"""

import argparse
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import soundfile
import soxr

from benchmarks.inputs import corpus
from benchmarks.inputs.checkpoints import BUNDLED
from benchmarks.tables import show, write_json
from raysp import Decode, Label, Labeller, Signals, Transcript
from raysp.audio import decode
from raysp.ops.step_ops import Keeping, column_of
from raysp.text.error_rates import count_errors

RATE = 16_000
WORDS = (3, 12)
GAP_SECONDS = (0.08, 0.45)
FLOOR = 1e-3
"""RMS of white noise in all digits, -60 dBFS: they were recorded at 8 kHz, and a checkpoint may need the rest."""
VOICES = 8
SHARES = {
    "as recorded": 0.4,
    "other voices, 0 to 20 dB": 0.2,
    "white noise, 0 to 20 dB": 0.1,
    "clipped, 6 to 30 dB over": 0.1,
    "faint, -60 to -30 dB": 0.05,
    "muffled, below 0.8 to 3 kHz": 0.05,
    "other speech": 0.1,
}
Condition = tuple[str, str, float]
THRESHOLDS: Sequence[tuple[str, str, Sequence[float]]] = (
    ("pred_score", ">", (-0.2, -0.1, -0.05, -0.02)),
    ("signal.snr", ">", (5, 10, 15, 20)),
    ("signal.noise", "<", (-30, -40, -50)),
    ("signal.clipped", "<", (0.1, 0.01, 0.001)),
    ("signal.bandwidth", ">", (2_000, 3_000)),
    ("signal.loudness", ">", (-60, -40)),
    ("signal.peak", ">", (-40, -20)),
    ("signal.speech_share", ">", (0.4, 0.6)),
    ("signal.words_per_second", "<", (2, 1.5)),
    ("signal.chars_per_second", "<", (8, 6)),
    ("signal.compression", "<", (1.5, 1.25)),
    ("signal.repetition", "<", (3, 2)),
)
TOGETHER: Sequence[Sequence[Condition]] = (
    (("pred_score", ">", -0.1), ("signal.snr", ">", 10)),
    (("pred_score", ">", -0.1), ("signal.words_per_second", "<", 2)),
    (("signal.snr", ">", 10), ("signal.clipped", "<", 0.01), ("signal.words_per_second", "<", 2)),
)
"""Conditions of one `Keep`."""
KEPT = (0.8, 0.6)
KNOWN_SNR, CLEAN_SNR = (0, 10, 20), 30
DRAWS = 1_000


@dataclass(frozen=True)
class Row:
    """A recording with its reference text."""

    condition: str
    samples: np.ndarray
    text: str


@dataclass(frozen=True)
class Labelled:
    """Labels of all rows by one checkpoint, with their errors."""

    labels: pa.Table
    errors: np.ndarray
    words: np.ndarray

    def rate(self, rows: np.ndarray) -> float:
        """Return the word error rate of some rows."""
        return float(self.errors[rows].sum() / max(1, self.words[rows].sum()))

    def interval(self, rows: np.ndarray) -> tuple[float, float]:
        """Return the bounds of the rate of some rows within which it is in 95 % of draws of rows."""
        if not len(rows):
            return 0.0, 0.0
        drawn = np.random.default_rng(0).choice(rows, (DRAWS, len(rows)))
        rates = self.errors[drawn].sum(1) / np.maximum(1, self.words[drawn].sum(1))
        low, high = np.percentile(rates, (2.5, 97.5))
        return float(low), float(high)


def read_speech(folder: Path | None) -> list[Row]:
    """Read recordings with a text from a folder with a manifest."""
    if folder is None:
        return []
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    return [
        Row("other speech", _floats(decode((folder / line["audio_filepath"]).read_bytes(), sample_rate=RATE)), text)
        for line in lines
        if (text := line.get("text")) and line["duration"] > 1
    ]


def _floats(samples: np.ndarray) -> np.ndarray:
    return samples.astype(np.float64) / (32768 if samples.dtype == np.int16 else 1)


def make_rows(digits: str, speech: Sequence[Row], count: int, seed: int) -> Iterator[Row]:
    """Yield rows of joined digits in the conditions of `SHARES`, and of other speech."""
    draw = np.random.default_rng(seed)
    speakers = list(corpus.read_utterances(digits, RATE).values())
    names = [name for name in SHARES if speech or name not in ("other speech", "other voices, 0 to 20 dB")]
    shares = np.array([SHARES[name] for name in names])
    for name in draw.choice(names, count, p=shares / shares.sum()):
        if name == "other speech":
            yield speech[int(draw.integers(len(speech)))]
            continue
        utterances = speakers[int(draw.integers(len(speakers)))]
        samples, text = _joined(
            [utterances[one] for one in draw.integers(len(utterances), size=draw.integers(*WORDS))], draw
        )
        yield Row(name, CHANGES[name](samples, draw, speech), text)


def _joined(words: Sequence[corpus.Utterance], draw: np.random.Generator) -> tuple[np.ndarray, str]:
    parts = []
    for word in words:
        parts += [np.zeros(int(draw.uniform(*GAP_SECONDS) * RATE)), _floats(word.samples)]
    samples = np.concatenate(parts)
    return samples + FLOOR * draw.standard_normal(len(samples)), " ".join(word.text for word in words)


def _voices_alone(samples: np.ndarray, draw: np.random.Generator, speech: Sequence[Row]) -> np.ndarray:
    chosen = [speech[one].samples for one in draw.choice(len(speech), VOICES, replace=False)]
    return np.sum(
        [np.resize(np.roll(one, int(draw.integers(len(one)))), len(samples)) / one.std() for one in chosen], 0
    )


def _pink(samples: np.ndarray, draw: np.random.Generator, _: Sequence[Row]) -> np.ndarray:
    spectrum = np.fft.rfft(draw.standard_normal(len(samples)))
    return np.fft.irfft(spectrum / np.sqrt(np.arange(len(spectrum)) + 1), len(samples))


def _with_noise(samples: np.ndarray, noise: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    power = (samples**2).mean() / 10 ** (draw.uniform(0, 20) / 10)
    return samples + noise * np.sqrt(power / (noise**2).mean())


def _voices(samples: np.ndarray, draw: np.random.Generator, speech: Sequence[Row]) -> np.ndarray:
    return _with_noise(samples, _voices_alone(samples, draw, speech), draw)


def _muffled(samples: np.ndarray, draw: np.random.Generator, _: Sequence[Row]) -> np.ndarray:
    spectrum = np.fft.rfft(samples)
    spectrum[int(draw.uniform(800, 3_000) / (RATE / 2) * len(spectrum)) :] = 0
    return np.fft.irfft(spectrum, len(samples))


def _clipped(samples: np.ndarray, draw: np.random.Generator, _: Sequence[Row]) -> np.ndarray:
    return samples / np.abs(samples).max() * 10 ** (draw.uniform(6, 30) / 20)  # the file's 16 bits clip


CHANGES: Mapping[str, Callable[[np.ndarray, np.random.Generator, Sequence[Row]], np.ndarray]] = {
    "as recorded": lambda samples, draw, speech: samples,
    "other voices, 0 to 20 dB": _voices,
    "white noise, 0 to 20 dB": lambda samples, draw, _: _with_noise(samples, draw.standard_normal(len(samples)), draw),
    "clipped, 6 to 30 dB over": _clipped,
    "faint, -60 to -30 dB": lambda samples, draw, _: samples * 10 ** (draw.uniform(-60, -30) / 20),
    "muffled, below 0.8 to 3 kHz": _muffled,
}


NOISES: Mapping[str, Callable[[np.ndarray, np.random.Generator, Sequence[Row]], np.ndarray]] = {
    "white": lambda samples, draw, _: draw.standard_normal(len(samples)),
    "pink": _pink,
    "eight voices": _voices_alone,
}


def labels_of(recordings: Sequence[np.ndarray], checkpoint: str) -> pa.Table:
    """Label recordings with a transcript and signals."""
    audio = [{"bytes": _file(samples), "path": None} for samples in recordings]
    table = pa.table({"audio": pa.array(audio, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))})
    with Labeller([Decode(), Label(checkpoint, outputs=[Transcript(), Signals()])], id=None) as labeller:
        return labeller(table)


def label(rows: Sequence[Row], checkpoint: str) -> Labelled:
    """Label rows, and count the word errors of their texts without case and punctuation."""
    labels = labels_of([row.samples for row in rows], checkpoint)
    texts = [text or "" for text in labels.column("pred_text").to_pylist()]
    counts = count_errors([_plain(row.text) for row in rows], [_plain(text) for text in texts])
    return Labelled(labels, counts[:, :3].sum(1), counts[:, 3])


def _file(samples: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.clip(np.round(samples * 32768), -32768, 32767).astype(np.int16), RATE, format="FLAC")
    return file.getvalue()


def _plain(text: str) -> str:
    return " ".join("".join(one if one.isalnum() or one == "'" else " " for one in text.casefold()).split())


def kept(labels: pa.Table, conditions: Sequence[Condition]) -> np.ndarray:
    """Return the numbers of the rows that a `Keep` behind `Label` lets pass."""
    reasons = Keeping(where=conditions)(labels)
    return np.array([row for row, reason in enumerate(reasons) if reason is None], np.int64)


def by_threshold(found: Mapping[str, Labelled]) -> list[dict[str, object]]:
    """Return the rows that stay, and their word error rate, for each condition."""
    alone = [[(name, compare, bound)] for name, compare, bounds in THRESHOLDS for bound in bounds]
    lines = []
    for conditions in [[], *alone, *TOGETHER]:
        text = ", ".join(f"{name} {compare} {bound:g}" for name, compare, bound in conditions)
        line: dict[str, object] = {"condition": text or "none"}
        for checkpoint, labelled in found.items():
            rows = kept(labelled.labels, conditions)
            low, high = labelled.interval(rows)
            line[f"{checkpoint}: rows"] = f"{len(rows) / len(labelled.errors):.0%}"
            line[f"{checkpoint}: WER (95 %)"] = f"{labelled.rate(rows):.1%} ({low:.1%} to {high:.1%})"
        lines.append(line)
    return lines


def by_share(found: Mapping[str, Labelled]) -> list[dict[str, object]]:
    """Return the word error rate of the rows that are best by each signal, for shares of the rows."""
    lines = []
    for name, compare in dict.fromkeys((name, compare) for name, compare, _ in THRESHOLDS):
        line: dict[str, object] = {"signal": f"{name}, {'high' if compare == '>' else 'low'}"}
        for checkpoint, labelled in found.items():
            values = _values(labelled.labels, name) * (1 if compare == ">" else -1)
            for share in KEPT:
                # Ties are kept or left out in the order of the rows, which is drawn.
                best = np.argsort(-values, kind="stable")[: round(share * len(values))]
                line[f"{checkpoint}, {share:.0%} of rows"] = f"{labelled.rate(best):.1%}"
        lines.append(line)
    return lines


def _values(labels: pa.Table, name: str) -> Any:
    values = np.array(column_of(labels, name).to_pylist(), np.float64)
    return np.where(np.isnan(values), -np.inf, values)


def by_condition(rows: Sequence[Row], found: Mapping[str, Labelled]) -> list[dict[str, object]]:
    """Return the word error rates of each condition, and the medians of some signals."""
    lines = []
    for name in SHARES:
        chosen = np.array([number for number, row in enumerate(rows) if row.condition == name], np.int64)
        if not len(chosen):
            continue
        line: dict[str, object] = {"condition": name, "rows": len(chosen)}
        for checkpoint, labelled in found.items():
            line[f"{checkpoint}: WER"] = f"{labelled.rate(chosen):.1%}"
            line["score"] = f"{np.median(_values(labelled.labels, 'pred_score')[chosen]):.3f}"
            for signal in ("snr", "clipped", "loudness", "bandwidth"):
                line[signal] = f"{np.median(_values(labelled.labels, f'signal.{signal}')[chosen]):.3g}"
        lines.append(line)
    return lines


def of_known(speech: Sequence[Row], checkpoint: str, seed: int) -> list[dict[str, object]]:
    """Return the errors of `snr` in dB with noise of known levels, and `bandwidth` of recordings of known rates.

    Noise is added to recordings that have little, by `snr` itself.
    """
    waves = [row.samples for row in speech]
    own = _values(labels_of(waves, checkpoint), "signal.snr")
    clean = [wave for wave, snr in zip(waves, own, strict=True) if snr > CLEAN_SNR]
    draw = np.random.default_rng(seed)
    lines: list[dict[str, object]] = []
    for name, noise_of in NOISES.items():
        line: dict[str, object] = {"measured": f"error of snr, {name}: mean (mean of magnitudes)"}
        for snr in KNOWN_SNR:
            noises = [noise_of(wave, draw, speech) for wave in clean]
            mixed = [
                (wave + noise * np.sqrt((wave**2).mean() / (noise**2).mean() / 10 ** (snr / 10))) / 4
                for wave, noise in zip(clean, noises, strict=True)
            ]
            errors = _values(labels_of(mixed, checkpoint), "signal.snr") - snr
            line[f"{snr} dB"] = f"{errors.mean():+.1f} ({np.abs(errors).mean():.1f})"
        lines.append(line)
    for rate in (RATE, 12_000, 8_000):
        narrow = [soxr.resample(soxr.resample(wave, RATE, rate), rate, RATE) for wave in clean]
        found = np.percentile(_values(labels_of(narrow, checkpoint), "signal.bandwidth"), (5, 50, 95))
        text = ", ".join(f"{one:.0f}" for one in found)
        lines.append({"measured": f"bandwidth at {rate} Hz: 5, 50 and 95 % of {len(clean)}", "0 dB": text})
    return lines


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks quality", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--digits", default=corpus.DEMO_DIGITS, help="glob of audio shards of spoken digits")
    parser.add_argument("--speech", type=Path, help="folder of other speech with a manifest.jsonl")
    parser.add_argument("--checkpoint", nargs="+", default=[str(BUNDLED)], help="CTC checkpoints that know digits")
    parser.add_argument("--rows", type=int, default=300, help="number of rows")
    parser.add_argument("--seed", type=int, default=0, help="seed of the rows")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    names = [Path(one).name for one in args.checkpoint]
    if len({*names}) < len(names):
        parser.error(f"--checkpoint {' '.join(args.checkpoint)}: expected folders with different names")
    speech = read_speech(args.speech)
    rows = list(make_rows(args.digits, speech, args.rows, args.seed))
    found = {name: label(rows, one) for name, one in zip(names, args.checkpoint, strict=True)}
    seconds = sum(len(row.samples) for row in rows) / RATE
    tables = {
        "rows that meet a condition": by_threshold(found),
        "rows that are best by a signal": by_share(found),
        "conditions of recording": by_condition(rows, found),
    }
    if speech:
        tables["signals of known sizes"] = of_known(speech, args.checkpoint[0], args.seed)
    print(f"{len(rows)} rows, {seconds / 60:.0f} minutes")
    for title, lines in tables.items():
        show(title, lines)
    if args.json:
        write_json(args.json, tables)
