"""Fine-tune the bundled UniSpeech CTC checkpoint on spoken digits; the result runs in raysp and in transformers."""

from pathlib import Path

import raysp

HERE = Path(__file__).parent / "demo"

recipe = raysp.Finetune(
    raysp.Shards(f"{HERE}/audio/*.parquet", text="text"),
    steps=[
        raysp.Decode(),
        raysp.Keep(min_seconds=0.1, max_seconds=20),
    ],
    objective=raysp.CTC(
        f"{HERE}/unispeech-digits-ctc",
        text=raysp.Text("upper", keep="letters"),
    ),
    schedule=raysp.Schedule(epochs=2, learning_rate=1e-4),
    batching=raysp.Batching(seconds=20, micro_batches=4),
    sink=raysp.Checkpoint("finetuned-digits"),
)
