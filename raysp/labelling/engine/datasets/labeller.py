"""The callable that labels tables: an actor class for `map_batches` of Ray Data, or an object in any Python program."""

import threading
from collections.abc import Iterable, Mapping, Sequence, Sized
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from raysp.audio.encoding import wav_of
from raysp.audio.isolation import Decoder, end_idle
from raysp.columns import OK, RESULT_COLUMNS
from raysp.corpus.shards import AUDIO
from raysp.errors import PlanError, RunError, SpecError
from raysp.labelling import assembly
from raysp.labelling.engine.datasets.table_job import PLACE, TableJob, table_job, table_source
from raysp.labelling.engine.later_passes import with_pass
from raysp.labelling.engine.model import Model, ahead, in_order, threads_kept
from raysp.labelling.planning.run_plan import output_schema
from raysp.sink import sorting
from raysp.specs.steps import Label, Pool, Step
from raysp.storage.options import GivenOptions
from raysp.words import count


class Labeller(AbstractContextManager["Labeller"]):
    """Callable that labels the rows of a `pyarrow.Table`, with the model in this process.

    As an actor class of Ray Data::

        dataset.map_batches(
            raysp.Labeller,
            fn_constructor_kwargs={"steps": steps},
            batch_format="pyarrow",
            batch_size=64,
            compute=ray.data.ActorPoolStrategy(size=2),
            num_gpus=1,
        )

    It decodes in a process of its own, which takes up to one CPU beyond those of the model. The pool of the `Label`
    step has no effect: on CPUs the model has the torch threads of the calling thread (`torch.get_num_threads()`), and
    labels several batches at once, each on its share of them. Calls may overlap; each has a decoding process. Use it
    as a context manager to end these processes; they also end with the program.

    Args:
        steps: steps as in a pipeline: one `Decode`, then `Label` steps.
        id: column of row ids; None: ids are null.
        audio: column of the recordings: a struct with `bytes` and `path`, or bytes.
        keep: columns to copy to the result.
        row: column of row numbers (integers) for the column `row`; None: row numbers are null.
        audio_root: folder that contains the files of recordings given by path; None: paths are not allowed.
        storage_options: options of the storage of that folder; secrets by `Env`.

    Raises:
        SpecError, CheckpointError, PlanError: the steps cannot be run.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        id: str | None = "id",
        audio: str = "audio",
        keep: Sequence[str] = (),
        row: str | None = None,
        audio_root: str | None = None,
        storage_options: GivenOptions | None = None,
    ) -> None:
        if isinstance(cast("object", steps), Iterable):  # other values are refused by the pipeline
            steps = [replace(step, pool=Pool()) if isinstance(step, Label) else step for step in steps]
        job = table_job(steps, table_source(id, audio, audio_root, storage_options), keep, row)
        with threads_kept() as threads:
            self._load(job, threads)

    def _load(self, job: TableJob, threads: int) -> None:
        """Load the models, with a number of torch threads on CPUs, which batches that are labelled at once share."""
        self._job = job
        self._models = [Model(step, threads=threads, in_this_thread=True) for step in job.passes]
        self._joins = [assembly.joining(step) for step in job.passes]
        self._filters = [assembly.row_filters(job.pipeline, job.functions, number) for number in range(len(job.passes))]
        self._joining = threading.Lock()

    def __call__(self, rows: pa.Table) -> pa.Table:
        """Return the label rows of some rows, in the same order, with the columns of a label shard.

        A row's label does not depend on the other rows.

        Raises:
            PlanError: a column is missing, or has another type than expected.
            StoreError: the storage of recordings given by path fails.
        """
        if not isinstance(rows, pa.Table):
            raise PlanError(
                f"Labeller: found rows as a {type(rows).__name__}, expected a pyarrow.Table; call "
                'map_batches(raysp.Labeller, ..., batch_format="pyarrow")'
            )
        rows = self._job.with_audio(rows)
        self._job.check(rows.schema)
        audio = self._job.pipeline.source.audio
        source = rows.drop_columns([audio]) if any(keep.reads_source for keep in self._filters) else None
        with threads_kept(), Decoder() as decoder:
            labels = self._filters[0](self._passed(0, rows, decoder), source)
            for number, step in enumerate(self._job.passes[1:], 1):
                is_ok = pc.equal(labels.column("status"), pa.scalar(OK))
                ok_rows, before = rows.filter(is_ok), labels.filter(is_ok)
                for name in step.pipeline.label.reads:
                    if name in before.column_names:
                        ok_rows = ok_rows.append_column(name, before.column(name))
                of_pass = self._passed(number, ok_rows, decoder).set_column(0, "row", before.column("row"))
                labels = self._filters[number](with_pass(labels, of_pass, output_schema(step)), source)
        labels = labels.select([*RESULT_COLUMNS, *self._job.pipeline.flow.columns])
        if labels.num_rows != rows.num_rows:
            raise RunError(
                f"{PLACE}: {count(rows.num_rows, 'row')} became {count(labels.num_rows, 'row')}; this is a bug in "
                "raysp: report it"
            )
        return self._job.label_rows(rows, labels)

    def _passed(self, number: int, rows: pa.Table, decoder: Decoder) -> pa.Table:
        """Return the label rows of one pass, numbered from 0. The next block is decoded while one is labelled."""
        step, model = self._job.passes[number], self._models[number]
        source = step.pipeline.source
        read = sorted({source.audio, *step.pipeline.flow.reads}) if number else self._job.decoded_columns(rows.schema)
        ids = None if source.id is None else rows.column(source.id).to_pylist()
        names = ids and [name for name in ids for _ in range(step.pipeline.decode.most_channels)]
        decode = assembly.decoding(step, None, decoder, self._job.functions)
        with closing(ahead(decode(rows.select(read), 0), 1)) as blocks:
            windows = [*in_order(lambda block: model(block, names=names).labels, blocks, model.at_once)]
        with self._joining:
            return self._joins[number](sorting.in_order(windows))

    def arrays(
        self,
        recordings: "Sequence[npt.NDArray[Any]]",
        rate: int,
        *,
        columns: Mapping[str, Sequence[object]] | None = None,
    ) -> pa.Table:
        """Return the label rows of recordings that are arrays, in the same order.

        A WAV file with the same samples gives the same label: empty ones are `too_short`, NaN is `invalid_audio`.

        Args:
            recordings: samples of shape (num_samples,) or (channels, num_samples); float32 or float64, full scale from
                -1 to 1, or int16.
            rate: samples a second, of all of them.
            columns: the other columns that the steps, `id` and `keep` name, with a value for each recording; without
                the column of ids, these are the places from "0".

        Raises:
            SpecError: an array has another shape or dtype, the rate is not possible, or a column has another length.
            PlanError: a column is missing, or has another type than expected.
        """
        if not isinstance(recordings, Sized):
            raise SpecError(f"recordings: found a {type(recordings).__name__}, expected a list of arrays")
        if isinstance(recordings, np.ndarray) and recordings.ndim < 2 and recordings.dtype != object:
            raise SpecError(
                f"recordings: found one array of shape {recordings.shape}; give a list: "
                f"arrays([samples], rate={rate!r})"
            )
        values_by_name = {name: list(values) for name, values in (columns or {}).items()}
        names, audio = self._job.columns, self._job.pipeline.source.audio
        id_column = self._job.pipeline.source.id
        if id_column in names and id_column not in values_by_name:
            values_by_name[id_column] = [str(place) for place in range(len(recordings))]
        for name, values in values_by_name.items():
            if len(values) != len(recordings) or name == audio:
                expected = f"{len(recordings):,}, one for each recording" if name != audio else "the audio from arrays"
                raise SpecError(f"columns[{name!r}]: found {count(len(values), 'value')}, expected {expected}")
        files = [wav_of(samples, rate, f"recordings[{place}]") for place, samples in enumerate(recordings)]
        arrays = {name: pa.array(cast("Any", values)) for name, values in values_by_name.items()}
        return self(pa.table({**arrays, audio: pa.array([{"bytes": file, "path": None} for file in files], AUDIO)}))

    def close(self) -> None:
        """End the decoding processes that no call uses. A later call starts a new one."""
        end_idle()

    def __exit__(self, *_: object) -> None:
        self.close()
