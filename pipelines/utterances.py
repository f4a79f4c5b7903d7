"""Cut hours into utterances, write each by two models, keep those on which both agree, and train on them.

raysp run pipelines/utterances.py:first
raysp export first-labels utterances --to utterances --trust --set to.max_seconds=6
raysp run pipelines/utterances.py:second
raysp export second-labels clips --to clips --trust
raysp finetune pipelines/utterances.py

Recordings lie in `talks`, in the folder of the commands. If they lie elsewhere, the first command takes
`--set source.url=/data/talks`, the third and the fifth `--set source.audio_root=/data/talks`.

Each command continues where it was killed. Audio is copied by the export of clips only; training reads it in place.
The first model gives times of words: Whisper by CTranslate2, a transducer, or a CTC checkpoint. The second one here
reads digits alone: name your own, and a `spelled` that writes texts as it does.
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

train = raysp.Finetune(
    raysp.Shards("utterances/**/*.jsonl", audio_root=".", labels="second-labels", text="pred_text"),
    steps=[raysp.Decode()],
    objective=raysp.CTC(CTC, text=raysp.Text("upper", keep="letters")),
    schedule=raysp.Schedule(epochs=2, learning_rate=1e-4),
    batching=raysp.Batching(seconds=60, micro_batches=2),
    sink=raysp.Checkpoint("utterances-model"),
)
