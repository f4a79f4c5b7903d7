"""Golden trainings: their curves and the weights that come out, without dropout and masks, so that nothing is drawn."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from safetensors.numpy import load_file

import raysp
from tests.golden import checkpoints, corpora
from tests.golden.recorded import Result, compact, projected

DROPOUTS = ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout")
STILL = dict.fromkeys((*DROPOUTS, "layerdrop", "mask_time_prob", "mask_feature_prob"), 0.0)
STILL_DECODER = {"dropout": 0.0, "attention_dropout": 0.0, "activation_dropout": 0.0, "decoder_layerdrop": 0.0}
OF_A_STEP = ("loss", "norm", "learning_rate", "rows", "audio_seconds")
"""Figures of a step that do not depend on the machine."""

UNDETERMINED = "k_proj.bias"
"""Ending of the names of weights that change no loss, since a softmax ignores what is added to all its inputs: their
gradients are roundings."""


@dataclass(frozen=True)
class Training:
    """A training of two epochs on the digits by one worker."""

    checkpoint: checkpoints.Write
    objective: Callable[[str], object]
    missing: ClassVar[str] = ""
    tolerance: ClassVar[float] = 1e-4
    """Updates divide gradients by their size, which magnifies the roundings of small ones."""

    def run(self, folder: Path) -> Result:
        """Train in a folder."""
        (folder / "in").mkdir()
        self.checkpoint(folder / "checkpoint")
        recipe = raysp.Finetune(
            corpora.digits(folder / "in"),
            steps=[raysp.Decode(), raysp.Keep(min_seconds=0.3)],
            objective=self.objective(str(folder / "checkpoint")),
            schedule=raysp.Schedule(epochs=2, learning_rate=1e-3),
            batching=raysp.Batching(seconds=2, micro_batches=2, window_seconds=10),
            pool=raysp.Pool(1, cpus=1),
            sink=raysp.Checkpoint(str(folder / "out"), every=3),
        )
        result = raysp.finetune(recipe, engine="here")
        head = {"steps": result.steps, "rows": result.rows, "left_out": result.left_out}
        return head, [*_curve(folder / "out"), *_weights(folder / "out")]


def _curve(sink: Path) -> list[dict[str, Any]]:
    files = sorted((sink / ".raysp" / "log").glob("*.jsonl"))
    steps = [json.loads(line) for file in files for line in file.read_text().splitlines()]
    return [compact({"id": f"step {step['done']}", **{name: step[name] for name in OF_A_STEP}}) for step in steps]


def _weights(sink: Path) -> list[dict[str, Any]]:
    tensors = sorted(load_file(sink / "model.safetensors").items())
    return [
        {
            "id": name,
            **({"shape": [*tensor.shape]} if name.endswith(UNDETERMINED) else projected(tensor.astype("float64"))),
        }
        for name, tensor in tensors
    ]


TEXT = raysp.Text("upper")
TRAININGS = {
    "trainings/ctc": Training(
        checkpoints.of_encoder("UniSpeechForCTC", **STILL, ctc_zero_infinity=True),
        lambda checkpoint: raysp.CTC(checkpoint, text=TEXT),
    ),
    "trainings/seq2seq": Training(
        checkpoints.encoder_decoder("bart", of_decoder=STILL_DECODER, **STILL),
        lambda checkpoint: raysp.Seq2Seq(checkpoint, text=TEXT),
    ),
}
