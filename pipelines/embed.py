"""Label each recording with one vector, the mean over the frames, for search, clustering and deduplication.

    raysp run pipelines/embed.py --set source.url=CORPUS --set steps.1.checkpoint=CHECKPOINT --set sink.url=OUT

Without settings it embeds the bundled digits. `--set steps.1.outputs.0.pooling=xvector` selects the vectors of a
speaker checkpoint, `--set steps.1.outputs.0.layer=6` those of `hidden_states[6]`.
"""

from pathlib import Path

import raysp

DEMO = Path(__file__).parent / "demo"

pipeline = raysp.Pipeline(
    source=raysp.Shards(f"{DEMO}/audio/*.parquet"),
    steps=[
        raysp.Decode(),
        raysp.Label(f"{DEMO}/unispeech-digits-ctc", outputs=[raysp.Embedding(normalize=True)]),
    ],
    sink=raysp.Parquet("labels-embeddings"),
)
