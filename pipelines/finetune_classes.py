"""Fine-tune the bundled UniSpeech checkpoint to recognise the speakers of the bundled digits.

The classes are those of the column `speaker_id`; `raysp.Classes()` labels recordings with the trained checkpoint.
"""

from pathlib import Path

import raysp

HERE = Path(__file__).parent / "demo"

recipe = raysp.Finetune(
    raysp.Shards(f"{HERE}/audio/*.parquet"),
    steps=[
        raysp.Decode(),
        raysp.Keep(min_seconds=0.1, max_seconds=20),
    ],
    objective=raysp.Classify(f"{HERE}/unispeech-digits-ctc", column="speaker_id"),
    schedule=raysp.Schedule(epochs=2, learning_rate=3e-4),
    batching=raysp.Batching(seconds=20, micro_batches=4),
    sink=raysp.Checkpoint("finetuned-speakers"),
)
