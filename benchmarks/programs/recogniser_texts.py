"""Texts and word times of the recordings of a manifest by one library: SYSTEM MODEL MANIFEST OUT THREADS DTYPE.

Each decodes greedily, without temperatures, thresholds and earlier text. Windows of long recordings are cut by each in
its own way; `transformers` cuts into equal parts. OUT is a JSON object of texts, and of words with their starts where
the name of the system says so.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.programs import common

RATE = 16_000
PLAIN = {
    "temperature": 0.0, "beam_size": 1, "condition_on_previous_text": False, "without_timestamps": True,
    "compression_ratio_threshold": None, "log_prob_threshold": None, "no_speech_threshold": None,
    "language": "en",
}  # fmt: skip
BATCH = 8
Label = Mapping[str, Any]


def files(manifest: Path) -> list[Path]:
    """Return the recordings of a manifest, which are in its folder."""
    return [manifest.with_name(json.loads(line)["audio_filepath"]) for line in manifest.read_text().splitlines()]


def by_raysp(kind: str, model: str, manifest: Path, threads: int, dtype: str) -> dict[str, Label]:
    """Run a pipeline, and read its label shards."""
    import tempfile

    import pyarrow.parquet as pq

    import raysp

    with tempfile.TemporaryDirectory(prefix="raysp-bench-") as folder:
        backend, _, words = kind.partition(", ")
        outputs = [raysp.Transcript(words=bool(words))]
        pool = raysp.Pool(actors=1, gpus=0, cpus=threads)
        pipeline = raysp.Pipeline(
            source=raysp.Shards(str(manifest), id=None, audio_root=str(manifest.parent)),
            steps=[
                raysp.Decode(),
                raysp.Label(model, backend=backend, dtype=dtype, outputs=outputs, pool=pool),
            ],
            sink=raysp.Parquet(f"{folder}/out"),
        )
        if errors := raysp.run(pipeline, progress=False).errors:
            raise SystemExit(f"rows without a label: {errors}")
        rows = [
            row for name in sorted(Path(folder, "out").glob("*.parquet")) for row in pq.read_table(name).to_pylist()
        ]
    return {
        file.name: {"text": row["pred_text"] or "", "words": row.get("pred_words") or []}
        for file, row in zip(files(manifest), rows, strict=True)
    }


def by_faster_whisper(kind: str, model: str, manifest: Path, threads: int, dtype: str) -> dict[str, Label]:
    """Run faster-whisper over one recording after another, or the windows of each in batches."""
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    loaded = WhisperModel(model, device="cpu", compute_type=dtype, cpu_threads=threads)
    options: dict[str, Any] = {**PLAIN, "word_timestamps": kind.endswith("words")}
    label: Any = loaded
    if kind.startswith("batched"):
        label, options["batch_size"] = BatchedInferencePipeline(loaded), BATCH
    found = {}
    for file in files(manifest):
        segments = list(label.transcribe(common.waveform(file.read_bytes(), RATE), **options)[0])
        words = [{"word": one.word.strip(), "start": one.start} for part in segments for one in part.words or ()]
        found[file.name] = {"text": " ".join(part.text.strip() for part in segments), "words": words}
    return found


def by_transformers(_: str, model: str, manifest: Path, threads: int, dtype: str) -> dict[str, Label]:
    """Run transformers over batches of windows, in the order of the manifest."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.set_num_threads(threads)
    processor = transformers.AutoProcessor.from_pretrained(model)
    loaded = transformers.AutoModelForSpeechSeq2Seq.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
    parts: dict[str, list[str]] = {}
    for batch in _batches(manifest):
        inputs = processor([wave for _, wave in batch], sampling_rate=RATE, return_tensors="pt")
        with torch.inference_mode():
            ids = loaded.generate(**inputs, do_sample=False, return_timestamps=False)
        texts = processor.batch_decode(ids, skip_special_tokens=True)
        for (name, _), text in zip(batch, texts, strict=True):
            parts.setdefault(name, []).append(text.strip())
    return {name: {"text": " ".join(texts), "words": []} for name, texts in parts.items()}


def _batches(manifest: Path) -> Iterator[list[tuple[str, np.ndarray]]]:
    batch = []
    for file in files(manifest):
        for window in common.windows(common.waveform(file.read_bytes(), RATE), RATE):
            batch.append((file.name, window))
            if len(batch) == BATCH:
                yield batch
                batch = []
    if batch:
        yield batch


SYSTEMS = {
    "raysp, ctranslate2": (by_raysp, "ctranslate2"),
    "faster-whisper": (by_faster_whisper, "one by one"),
    "faster-whisper, batched": (by_faster_whisper, "batched"),
    "raysp, transformers": (by_raysp, "transformers"),
    "transformers": (by_transformers, ""),
    "raysp, ctranslate2, words": (by_raysp, "ctranslate2, words"),
    "faster-whisper, words": (by_faster_whisper, "one by one, words"),
    "faster-whisper, batched, words": (by_faster_whisper, "batched, words"),
}


def main() -> None:
    """Label a manifest."""
    system, model, manifest, out, threads, dtype = sys.argv[1:]
    label, kind = SYSTEMS[system]
    Path(out).write_text(json.dumps(label(kind, model, Path(manifest), int(threads), dtype)))


if __name__ == "__main__":
    main()
