"""Train a speech encoder with a text decoder on texts, also translations.

    raysp finetune pipelines/finetune_seq2seq.py --set source.url=CORPUS --set objective.checkpoint=ENCODER \
        --set objective.decoder=DECODER --set sink.url=OUT

The decoder is a text model with its tokenizer, such as GPT-2, BERT or mBART. `raysp.Transcript()` labels recordings
with the trained checkpoint.
"""

import raysp

recipe = raysp.Finetune(
    raysp.Shards("corpus", text="text"),
    steps=[
        raysp.Decode(),
        raysp.Keep(min_seconds=0.1, max_seconds=20),
    ],
    objective=raysp.Seq2Seq(
        "encoder",
        decoder="decoder",
        freeze="feature_encoder",
        generate={"num_beams": 4, "max_new_tokens": 200},
    ),
    schedule=raysp.Schedule(epochs=10, learning_rate=1e-4, warmup=0.1),
    sink=raysp.Checkpoint("finetuned-seq2seq"),
)
