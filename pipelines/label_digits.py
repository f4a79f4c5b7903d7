"""Label spoken digits with the small bundled UniSpeech CTC checkpoint, as `make demo` does."""

from pathlib import Path

import raysp

HERE = Path(__file__).parent / "demo"

pipeline = raysp.Pipeline(
    source=raysp.Shards(f"{HERE}/audio/*.parquet", text="text"),
    steps=[
        raysp.Decode(),
        raysp.Label(f"{HERE}/unispeech-digits-ctc", outputs=[raysp.Transcript()]),
    ],
    sink=raysp.Parquet("demo-labels", keep=["speaker_id"]),
)
