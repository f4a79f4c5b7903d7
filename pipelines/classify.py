"""Label each recording with its three most likely classes from an audio classification checkpoint.

    raysp run pipelines/classify.py --set source.url=CORPUS --set steps.2.checkpoint=CHECKPOINT --set sink.url=OUT

Recordings shorter than a tenth of a second are left out. For classes of frames, such as speaker turns, use
`raysp.Segments()` instead of `raysp.Classes()`.
"""

import raysp

pipeline = raysp.Pipeline(
    source=raysp.Shards("corpus"),
    steps=[
        raysp.Decode(),
        raysp.Keep(min_seconds=0.1),
        raysp.Label("checkpoint", outputs=[raysp.Classes(top_k=3)]),
    ],
    sink=raysp.Parquet("labels-classes"),
)
