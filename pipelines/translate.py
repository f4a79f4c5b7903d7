"""Translate or transcribe speech with an encoder and a text decoder (`SpeechEncoderDecoderModel`).

    raysp run pipelines/translate.py --set source.url=CORPUS --set steps.1.checkpoint=CHECKPOINT --set sink.url=OUT

Longer recordings are cut at quiet points. `generate` overrides the generation options of the checkpoint.
"""

import raysp

pipeline = raysp.Pipeline(
    source=raysp.Shards("corpus"),
    steps=[
        raysp.Decode(),
        raysp.Label(
            "checkpoint",
            outputs=[raysp.Transcript(generate={"num_beams": 4, "max_new_tokens": 200})],
            overlap_seconds=8,
        ),
    ],
    sink=raysp.Parquet("labels-translated"),
)
