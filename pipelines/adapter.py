"""Train MMS for a language: its adapter layers and a head for its characters, 2 million of a billion weights.

    raysp finetune pipelines/adapter.py --set source.url=CORPUS --set objective.adapter=tur --set sink.url=OUT

`language="tr"` has the case rules of Turkish: for other languages add `--set objective.text.language=null`.

The result is a whole checkpoint with `adapter.tur.safetensors`, which raysp and transformers also load into MMS.
"""

import raysp

recipe = raysp.Finetune(
    raysp.Shards("corpus", text="text"),
    steps=[
        raysp.Decode(),
        raysp.Keep(min_seconds=0.3, max_seconds=20),
    ],
    objective=raysp.CTC(
        "facebook/mms-1b-all",
        text=raysp.Text("lower", keep="letters", language="tr"),
        vocabulary="build",
        adapter="tur",
    ),
    schedule=raysp.Schedule(epochs=4, learning_rate=1e-3, head_rate=1.0),
    batching=raysp.Batching(seconds=160, micro_batches=8),
    sink=raysp.Checkpoint("finetuned-adapter"),
)
