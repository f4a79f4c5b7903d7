"""Callback that logs a training to MLflow: `Finetune(..., callbacks=["to_mlflow:track"])`.

It needs `pip install mlflow-skinny` and a server in MLFLOW_TRACKING_URI. With MLFLOW_ENABLE_ASYNC_LOGGING=true no step
waits for it.
"""

from typing import Any

import mlflow


def track(record: dict[str, Any]) -> None:
    """Log a step. A training that is continued continues its run."""
    if mlflow.active_run() is None:
        training = record["training"]
        runs = mlflow.search_runs(filter_string=f"tags.training = '{training}'", output_format="list")
        mlflow.start_run(runs[0].info.run_id if runs else None, tags={"training": training, "sink": record["sink"]})
    if "finished" in record:
        mlflow.end_run("FAILED" if record["failed"] else "FINISHED")
        return
    done, values = record["done"], {name: record[name] for name in ("loss", "learning_rate", "norm")}
    mlflow.log_metrics(values, step=done)
    for key, step in (("before", done - 1), ("evaluation", done)):
        metrics = record[key]["scores"]["metrics"] if key in record else {}
        mlflow.log_metrics({f"evaluation/{name}": metric["value"] for name, metric in metrics.items()}, step=step)
