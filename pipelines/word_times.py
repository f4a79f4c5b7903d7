"""Give times of words to the texts of any recogniser, by a CTC checkpoint over the same decoded audio.

raysp run pipelines/word_times.py --set source.url=CORPUS --set sink.url=OUT \
    --set steps.1.checkpoint=RECOGNISER --set steps.2.checkpoint=CTC
raysp export OUT --to srt --set to.column=aligned

The CTC checkpoint is one of letters, of the language that is spoken. Words with characters that its vocabulary lacks,
such as "25" and "50 %", have times too. Without settings the bundled digits are recognised by Whisper tiny.en.
"""

from pathlib import Path

import raysp

DEMO = Path(__file__).parent / "demo"

pipeline = raysp.Pipeline(
    source=raysp.Shards(f"{DEMO}/audio/*.parquet"),
    steps=[
        raysp.Decode(),
        raysp.Label("openai/whisper-tiny.en", outputs=[raysp.Transcript()]),
        raysp.Label(f"{DEMO}/unispeech-digits-ctc", outputs=[raysp.Align("pred_text", unknown="wildcard")]),
    ],
    sink=raysp.Parquet("labels-times"),
)
