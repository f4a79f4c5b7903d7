"""Cut hours into utterances, write each by two models, keep those on which both agree, and train on them.

raysp run pipelines/utterances.py:first --set source.url=TALKS
raysp export first-labels utterances --to utterances --trust
raysp run pipelines/utterances.py:second
raysp export second-labels clips --to clips --trust
raysp finetune pipelines/utterances.py

Each command goes on where it was killed. Audio stays where it is until clips are written; training reads it there too.
The first model gives times of words: Whisper by CTranslate2, a transducer, or a CTC checkpoint.
"""

import re
from pathlib import Path

import pyarrow as pa

import raysp

CTC = f"{Path(__file__).parent}/demo/unispeech-digits-ctc"
DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]

first = raysp.Pipeline(
    raysp.Shards("talks"),
    steps=[
        raysp.Decode(),
        raysp.Label(
            "openai/whisper-tiny.en", backend="ctranslate2", outputs=[raysp.Transcript(words=True), raysp.Signals()]
        ),
    ],
    sink=raysp.Parquet("first-labels"),
)


def spelled(rows: pa.Table) -> dict[str, list[str | None]]:
    """Return the texts of the first model with figures as words, as the second one writes them."""
    texts = rows["text"].to_pylist()
    return {"spelled": [text and re.sub(r"\d", lambda digit: f" {DIGITS[int(digit[0])]} ", text) for text in texts]}


second = raysp.Pipeline(
    raysp.Shards("utterances/**/*.jsonl", audio_root="."),
    steps=[
        raysp.Map(spelled, reads=["text"], adds={"spelled": "string"}),
        raysp.Decode(),
        raysp.Label(CTC, outputs=[raysp.Transcript(words=True), raysp.Agreement("spelled"), raysp.Signals()]),
        raysp.Keep(where=[("agreement.wer", "<=", 0.1), ("signal.snr", ">", 5)]),
    ],
    sink=raysp.Parquet("second-labels", keep=["text"]),
)

recipe = raysp.Finetune(
    raysp.Shards("utterances/**/*.jsonl", audio_root=".", labels="second-labels", text="pred_text"),
    steps=[raysp.Decode()],
    objective=raysp.CTC(CTC, text=raysp.Text("upper", keep="letters")),
    schedule=raysp.Schedule(epochs=2, learning_rate=1e-4),
    batching=raysp.Batching(seconds=60, micro_batches=2),
    sink=raysp.Checkpoint("utterances-model"),
)
