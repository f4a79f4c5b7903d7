"""Callback that shows a training in TensorBoard: `Finetune(..., callbacks=["to_tensorboard:track"])`.

It needs `pip install tensorboardX`, and writes to `runs/` where the command runs: `tensorboard --logdir runs`.
"""

from typing import Any

from tensorboardX import SummaryWriter

writers: dict[str, SummaryWriter] = {}


def track(record: dict[str, Any]) -> None:
    """Write a step. A training that is continued replaces the steps after its last commit."""
    folder, done = f"runs/{record['training']}", record["done"]
    if "finished" in record:
        if folder in writers:
            writers.pop(folder).close()
        return
    if folder not in writers:
        writers[folder] = SummaryWriter(folder, purge_step=done, filename_suffix=f".{done}")
    for key, step in (("before", done - 1), ("evaluation", done)):
        for name, metric in record[key]["scores"]["metrics"].items() if key in record else ():
            writers[folder].add_scalar(f"evaluation/{name}", metric["value"], step)
    for name in ("loss", "learning_rate", "norm"):
        writers[folder].add_scalar(f"train/{name}", record[name], done)
