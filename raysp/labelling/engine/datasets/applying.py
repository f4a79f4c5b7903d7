"""Steps applied to a dataset of Ray Data, within a program of a user."""

import logging
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy

from raysp.cluster.connection import cluster_resources
from raysp.cluster.resources import shortage_of
from raysp.devices import is_accelerator
from raysp.errors import PlanError
from raysp.labelling.engine.datasets.labeller import Labeller
from raysp.labelling.engine.datasets.table_job import PLACE, TableJob, table_job, table_source
from raysp.labelling.engine.job import sleep_while_waiting
from raysp.labelling.planning.run_plan import output_schema
from raysp.labelling.planning.surveying import try_filters
from raysp.specs.steps import Step
from raysp.storage.options import GivenOptions

logger = logging.getLogger(__name__)

BLOCKS_AT_ONCE = 2
"""Blocks of the dataset that an actor with an accelerator labels at once."""


class TableActor(Labeller):
    """Actor that holds the model.

    Args:
        job: steps and columns.

    Raises:
        CheckpointError: the checkpoint is missing, or not the planned one.
    """

    def __init__(self, job: TableJob) -> None:
        sleep_while_waiting()  # before torch is imported
        self._load(job, job.passes[0].settings.cpus_per_actor.number)


def apply(
    steps: Sequence[Step],
    dataset: ray.data.Dataset,
    *,
    id: str | None = "id",
    audio: str = "audio",
    keep: Sequence[str] = (),
    row: str | None = None,
    audio_root: str | None = None,
    storage_options: GivenOptions | None = None,
) -> ray.data.Dataset:
    """Return a dataset with the label rows of a dataset of recordings. Nothing is labelled until it is consumed.

    Rows are those of label shards: the columns `id`, `keep`, `row`, `seconds`, `status`, `error_type` and
    `error_message`, and those of the outputs. A row's label depends neither on the blocks of the dataset nor on the
    batches of the model, and rows keep their order if the context of the dataset preserves the order of blocks.
    The pool of `Label` decodes and labels, a block of the dataset at a time; each actor has a decoding process beside
    its model. Nothing of the calling process is changed. The result has its columns without rows too;
    those of `id` and `keep` are of type null there if the types of the dataset are not known without reading it.

    Args:
        steps: as of a pipeline: one `Decode`, then `Label` steps.
        dataset: rows with a recording each.
        id: column of row ids; None: ids are null.
        audio: column of the recordings: a struct with `bytes` and `path`, or bytes.
        keep: columns to copy to the result.
        row: column of row numbers (integers) for the column `row`; None: row numbers are null.
        audio_root: folder that contains the files of recordings given by path; None: paths are not allowed.
        storage_options: options of the storage of that folder; secrets by `Env`.

    Raises:
        SpecError, CheckpointError: the steps cannot be run.
        PlanError: the dataset lacks a column, as far as its columns are known without reading it; otherwise its
            consumption raises it.
    """
    if not isinstance(dataset, ray.data.Dataset):
        raise PlanError(
            f"raysp.apply(steps, dataset): found a {type(dataset).__name__} as dataset, expected a ray.data.Dataset, "
            "such as ray.data.read_parquet(...); for a pyarrow.Table use raysp.Labeller"
        )
    resources = cluster_resources()
    job = table_job(steps, table_source(id, audio, audio_root, storage_options), keep, row, resources)
    schema = dataset.schema(fetch_if_missing=False)
    types = {} if schema is None else dict(zip(schema.names, schema.types, strict=True))
    if schema is not None and isinstance(schema.base_schema, pa.Schema):
        rows = job.with_audio(schema.base_schema.empty_table())
        job.check(rows.schema)
        try_filters(PLACE, rows.schema, job.pipeline)
        try_filters(PLACE, rows.schema, job.pipeline, output_schema(*job.passes))
    pool, settings = job.pipeline.label.pool, job.passes[0].settings
    if short := shortage_of(pool.low, resources, settings.cpus_per_actor.number, settings.gpus_per_actor):
        logger.warning("%s; the dataset waits until the cluster has them, or lower the pool of the Label step", short)
    of_threads: dict[str, Any] = {}
    if is_accelerator(settings.device):
        of_threads = {"max_concurrent_calls_per_actor": BLOCKS_AT_ONCE, "enable_true_multi_threading": True}
    labelled = dataset.map_batches(
        TableActor,
        fn_constructor_args=[job],
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=settings.cpus_per_actor.number,
        num_gpus=settings.gpus_per_actor or None,
        memory=pool.memory,
        compute=ActorPoolStrategy(min_size=pool.low, max_size=pool.high, **of_threads),
    )
    # Ray Data calls no function for blocks without rows, so columns come from a block of its own.
    empty = job.label_schema(
        {name: kind for name, kind in types.items() if isinstance(kind, pa.DataType)}
    ).empty_table()
    return labelled.union(ray.data.from_arrow(empty))
