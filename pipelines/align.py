"""Align the texts of a corpus with its recordings: times of words, and a score that finds wrong texts.

    raysp run pipelines/align.py --set source.url=CORPUS --set steps.1.checkpoint=CHECKPOINT --set sink.url=OUT

Without settings it aligns the texts of the bundled digits. `--set steps.1.outputs.0.text=COLUMN` names another column
of texts, `--set steps.1.outputs.0.wildcard=true` is for texts that are a part of what is said.
"""

from pathlib import Path

import raysp

DEMO = Path(__file__).parent / "demo"

pipeline = raysp.Pipeline(
    source=raysp.Shards(f"{DEMO}/audio/*.parquet"),
    steps=[
        raysp.Decode(),
        raysp.Label(f"{DEMO}/unispeech-digits-ctc", outputs=[raysp.Align("text")]),
    ],
    sink=raysp.Parquet("labels-aligned", keep=["text"]),
)
