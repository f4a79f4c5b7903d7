"""Callback that logs a training to Weights & Biases: `Finetune(..., callbacks=["to_wandb:track"])`.

It needs `pip install wandb`, WANDB_API_KEY, and WANDB_PROJECT for the name of the project.
"""

from typing import Any

import wandb


def track(record: dict[str, Any]) -> None:
    """Log a step. A training that is continued continues its run, which ignores steps that it has."""
    if wandb.run is None:
        wandb.init(id=record["training"], name=record["sink"].rpartition("/")[2], resume="allow")
    if "finished" in record:
        wandb.finish(exit_code=int(record["failed"]))
        return
    done, values = record["done"], {name: record[name] for name in ("loss", "learning_rate", "norm")}
    for key, step in (("before", done - 1), ("evaluation", done)):
        metrics = record[key]["scores"]["metrics"] if key in record else {}
        wandb.log({f"evaluation/{name}": metric["value"] for name, metric in metrics.items()}, step=step)
    wandb.log(values, step=done)
