"""Train the bundled checkpoint: its configuration, random weights, and spoken digits.

The bundled recordings are too few for new speakers; "The bundled checkpoint" in docs/evidence/quality.md names the
data set.
"""

from pathlib import Path

import raysp

HERE = Path(__file__).parent / "demo"

recipe = raysp.Finetune(
    raysp.Shards(f"{HERE}/audio/*.parquet", text="text"),
    steps=[
        raysp.Decode(),
        raysp.Keep(min_seconds=0.1, max_seconds=35),
    ],
    objective=raysp.CTC(
        f"{HERE}/unispeech-digits-ctc",
        text=raysp.Text("upper", keep="letters"),
        masks={"hidden_dropout": 0.1, "mask_time_prob": 0.05, "mask_time_length": 4},
        random_weights=True,
    ),
    augment=[
        raysp.Speed((0.8, 0.9, 1.0, 1.1, 1.2)),
        raysp.Gain((-12, 12)),
        raysp.Noise(f"{HERE}/noise/*.parquet", snr=(0, 50), share=0.7),
    ],
    schedule=raysp.Schedule(epochs=20, learning_rate=1e-3, head_rate=1.0),
    batching=raysp.Batching(seconds=60, micro_batches=4),
    ema=0.99,
    sink=raysp.Checkpoint("digits", every=100),
)
