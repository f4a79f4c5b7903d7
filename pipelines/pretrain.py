"""Pre-train the bundled UniSpeech encoder further on spoken digits, with CTC for rows that have a text.

The result is a checkpoint to begin with: `raysp.CTC("pretrained-digits", vocabulary="build", ...)`. Without
`text="text"` no row has a text, and codes of masked frames alone are trained on.
"""

from pathlib import Path

import raysp

HERE = Path(__file__).parent / "demo"

recipe = raysp.Finetune(
    raysp.Shards(f"{HERE}/audio/*.parquet", text="text"),
    steps=[
        raysp.Decode(),
        raysp.Keep(min_seconds=0.1, max_seconds=20),
    ],
    objective=raysp.Pretrain(
        f"{HERE}/unispeech-digits-ctc",
        text=raysp.Text("upper", keep="letters"),
    ),
    schedule=raysp.Schedule(epochs=2, learning_rate=5e-4, head_rate=1.0),
    batching=raysp.Batching(seconds=20, micro_batches=4),
    sink=raysp.Checkpoint("pretrained-digits"),
)
