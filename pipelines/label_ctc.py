"""Label each recording with text, word times and an embedding from any CTC checkpoint.

    raysp run pipelines/label_ctc.py --set source.url=CORPUS --set steps.1.checkpoint=CHECKPOINT --set sink.url=OUT

Without settings it labels the bundled digits.
"""

from pathlib import Path

import raysp

DEMO = Path(__file__).parent / "demo"

pipeline = raysp.Pipeline(
    source=raysp.Shards(f"{DEMO}/audio/*.parquet"),
    steps=[
        raysp.Decode(),
        raysp.Label(f"{DEMO}/unispeech-digits-ctc", outputs=[raysp.Transcript(words=True), raysp.Embedding()]),
    ],
    sink=raysp.Parquet("labels-ctc"),
)
