"""Label digits, train on the labels that the model is sure of, label them again, and compare.

raysp run pipelines/relabel_loop.py:label
raysp finetune pipelines/relabel_loop.py
raysp run pipelines/relabel_loop.py:relabel
raysp diff loop-labels loop-relabelled
"""

from dataclasses import replace
from pathlib import Path

import raysp

HERE = Path(__file__).parent / "demo"
CORPUS = raysp.Shards(f"{HERE}/audio/*.parquet", text="text")


def labelled_by(checkpoint: str, sink: str) -> raysp.Pipeline:
    """Return the pipeline that labels the corpus with a checkpoint."""
    steps = [raysp.Decode(), raysp.Label(checkpoint, outputs=[raysp.Transcript()])]
    return raysp.Pipeline(CORPUS, steps=steps, sink=raysp.Parquet(sink))


label = labelled_by(f"{HERE}/unispeech-digits-ctc", "loop-labels")

recipe = raysp.Finetune(
    replace(CORPUS, labels="loop-labels", text="pred_text"),
    steps=[
        raysp.Keep(where=[("pred_score", ">", -0.05)]),
        raysp.Decode(),
    ],
    objective=raysp.CTC(label.label.checkpoint, text=raysp.Text("upper", keep="letters")),
    schedule=raysp.Schedule(epochs=2, learning_rate=1e-4),
    batching=raysp.Batching(seconds=20, micro_batches=4),
    sink=raysp.Checkpoint("loop-model"),
)

relabel = labelled_by("loop-model", "loop-relabelled")
