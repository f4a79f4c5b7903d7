"""Pipelines as values: source, steps and sink; and the fingerprint of everything that can change a label."""

import dataclasses
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, field
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, NamedTuple, Protocol, TypeVar, cast

from pydantic import AfterValidator, BeforeValidator

from raysp.columns import ROW_COLUMNS
from raysp.errors import SpecError
from raysp.specs.code import UserCode, read
from raysp.specs.order import Flow, check_channels, flow_of
from raysp.specs.outputs.output import OWN_MODEL, Output
from raysp.specs.steps import Decode, Label, Step, refuse_clash
from raysp.specs.values import (
    JsonValue,
    Listed,
    Share,
    Url,
    from_json,
    imported,
    refuse_literal_secrets,
    replaced,
    spec,
    to_json,
)

if TYPE_CHECKING:
    import pyarrow as pa

Change = Callable[[str], str]
"""A change of a url, path or name of a checkpoint."""
SHARD_PLACES = ("root", "audio_root", "labels")
"""Fields of a source with further places."""
_HUB_DATA = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w.-][\w./-]*)?")


class ReadPlace(NamedTuple):
    """A checkpoint or file that work reads and never writes."""

    field: str
    """Path of the field that names it, such as "steps.1.checkpoint"."""
    name: str
    """Url, path, or for a checkpoint an id of the hub."""
    is_checkpoint: bool = True


TEXTS_OF_ROWS = "holds the texts of rows; set it to a column of strings"
"""`TEXT_USE` of work that ignores rows without texts."""
USUAL_ID = "id"
"""Column of row ids of a source without `id`."""


def _named_options(options: object) -> object:
    """Return the options of a file system of fsspec, and other values unchanged."""
    from raysp.storage.options import FileSystem, options_of

    if not isinstance(options, FileSystem):
        return options
    options = options_of(options)
    try:
        refuse_literal_secrets(options, "storage_options")
    except ValueError as error:
        raise ValueError(
            f"{error}: storage_options={{**fs.storage_options, ...}}, or make the file system without credentials, so "
            "that environment or profile give them"
        ) from None
    return options


def _checked_options(options: Mapping[str, object]) -> Mapping[str, object]:
    """Return a copy that the caller cannot change, as it comes back from JSON."""
    refuse_literal_secrets(options, "storage_options")
    return cast("Mapping[str, object]", from_json(to_json(options)))


StorageOptions = Annotated[Mapping[str, object], BeforeValidator(_named_options), AfterValidator(_checked_options)]


@spec
class Shards:
    """A corpus: audio shards in the Hugging Face audio layout (`audio: struct<bytes, path>`).

    Attributes:
        url: a file, a folder, a glob, or a list of them. With `split`: a data set of the Hugging Face hub,
            "owner/name" or "owner/name@revision".
        root: folder to which names of label shards are relative; None: the folder before the first wildcard, the folder
            itself, the folder of a single file, or the common parent of a list.
        id: column of row ids; None: ids are `<shard>:<row>`, also if the shards have no column "id", the default.
        audio: column of the recordings.
        audio_root: folder that contains the files of recordings given by path; None: for manifests and folders their
            own folder; for shards, paths are not allowed. Links in a folder of recordings may lead into it.
        labels: sink of an earlier run over the same shards. The columns of its label shards are read with the source's,
            row for row, so that steps, `text` and `keep` can name them, and replace columns of the same
            name. Rows that it did not label are left out (`filtered`).
        text: column of reference texts, kept next to the labels to compute the word error rate.
        storage_options: options of the storage, also for `labels` if its url has the same scheme; secrets by
            `Env`.
        split: split of a data set of the hub, whose Parquet files are read from there. The first plan of a sink
            resolves the revision to a commit, which is recorded.
        config: configuration of a data set of the hub that has several.
        shared: whether all machines of a cluster see the same files at local paths of `url` and `audio_root`. If not
            declared, a run on a cluster checks it on nodes that are up.
    """

    url: Url | Listed[Url]
    _: KW_ONLY
    labels: Url | None = None
    root: Url | None = None
    id: str | None = USUAL_ID
    audio: str = "audio"
    text: str | None = None
    audio_root: Url | None = None
    storage_options: StorageOptions = field(default_factory=dict)
    split: str | None = None
    config: str | None = None
    shared: bool = False

    def __post_init__(self) -> None:
        """Check that the url is not empty, and names a data set of the hub if there is a split."""
        if not self.url or not all(self.urls):
            raise ValueError("url is empty; give a file, a folder, a glob or a list of them")
        if self.config is not None and self.split is None:
            raise ValueError(f"config={self.config!r} given without split; give the split of the data set too")
        if self.split is not None and not (isinstance(self.url, str) and _HUB_DATA.fullmatch(self.url)):
            raise ValueError(
                f'split={self.split!r} needs a data set of the Hugging Face hub ("owner/name"), found url '
                f"{self.url!r}; leave split out, or give the id of a data set"
            )

    @property
    def urls(self) -> tuple[str, ...]:
        """The urls as a tuple, even if there is only one."""
        return (self.url,) if isinstance(self.url, str) else tuple(self.url)

    def with_places(self, change: Change) -> "Shards":
        """Return the source with its urls and paths changed, without ids of data sets."""
        url: str | Sequence[str] = self.url
        if self.split is None:
            url = change(self.url) if isinstance(self.url, str) else [*map(change, self.url)]
        places: dict[str, Any] = {n: change(value) for n in SHARD_PLACES if (value := getattr(self, n)) is not None}
        return dataclasses.replace(self, url=url, **places)


@spec
class Parquet:
    """A sink: one Parquet label shard for every shard.

    Attributes:
        url: folder for the label shards.
        keep: source columns to copy to the label shards.
        rows: "all"; or "ok": rows with another status are written to `.raysp/errors/` instead.
        compression: compression of the label shards.
        storage_options: options of the storage; secrets by `Env`.
        shared: whether all machines of a cluster see the same files at a local `url`. If not declared, a run on a
            cluster checks it on nodes that are up.
    """

    url: Url
    _: KW_ONLY
    keep: Listed[str] = ()
    rows: Literal["all", "ok"] = "all"
    compression: Literal["zstd", "snappy", "gzip", "lz4", "none"] = "zstd"
    storage_options: StorageOptions = field(default_factory=dict)
    shared: bool = False

    def __post_init__(self) -> None:
        """Check that the url is not empty."""
        if not self.url:
            raise ValueError("url is empty; give the folder that receives the label shards")


@spec
class Pipeline:
    """A pipeline from audio shards to label shards.

    Attributes:
        source: the corpus.
        steps: steps in order: one `Decode`, then `Label` steps, which run one after the other; before the first `Label`
            any number of `Keep` and `Map` steps or of your own, between and after them `Keep` steps, or your own that
            filter rows. Without `Decode` and `Label`, steps work on columns alone, and no audio is read.
        sink: destination of the label shards.
        name: name shown during a run.
        max_error_rate: largest share of rows that may fail before a run stops (exit code 1). From 200 rows, the share
            itself counts; from 20 rows, the lower end of its Wilson interval of 99.9 % (with the default, 17 of 20
            rows). A stopped run leaves no error rows. 1: a run never stops.
    """

    NOUN: ClassVar = "pipeline"
    VERB: ClassVar = "run"
    TEXT_USE: ClassVar = (
        "is compared with the labels; set it to a column of strings, or remove it and keep this column with "
        "sink.keep=[{!r}]"
    )

    source: Shards
    _: KW_ONLY
    steps: Listed[Step]
    sink: Parquet
    name: str | None = None
    max_error_rate: Share = 0.5

    def __post_init__(self) -> None:
        """Check the order of the steps and the names of all columns."""
        check_channels(self.steps, self.flow, self.source.audio, self.source.text)
        refuse_clash(
            [
                ("every label shard", ROW_COLUMNS),
                *((f"steps[{i}] {type(step).__name__}", step.columns) for i, step in enumerate(self.steps)),
                ("the sink's keep columns", self.kept),
            ]
        )

    @property
    def kept(self) -> tuple[str, ...]:
        """Source columns copied to the label shards: the sink's `keep`, then the reference text."""
        text = self.source.text
        return tuple(self.sink.keep) + ((text,) if text and text not in self.sink.keep else ())

    @cached_property
    def flow(self) -> Flow:
        """The order of the steps, and the columns that pass between them."""
        return flow_of(self.steps, self.source.audio, has_labels=True)

    @property
    def decode(self) -> Decode:
        """The step that decodes."""
        return self.flow.decode

    @property
    def reads_audio(self) -> bool:
        """Whether recordings are decoded and labelled; otherwise the steps work on columns alone."""
        return self.flow.reads_audio

    decoding = decode

    @property
    def label(self) -> Label:
        """The first step that runs a model: the only one of a pass."""
        return self.flow.labels[0]

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The outputs of all models."""
        return tuple(output for label in self.flow.labels for output in label.outputs)

    @property
    def passes(self) -> tuple["Pipeline", ...]:
        """A pipeline of one `Label` for each; outputs of earlier ones are columns of the source for a later one.

        The first has the steps before it. A later one labels the rows that are ok then, and has `Decode` alone.
        """
        first, *later = self.flow.labels
        if not later:
            return (self,)
        of_passes = [
            [*self.flow.before, first],
            *([self.decode, dataclasses.replace(label, pool=first.pool)] for label in later),
        ]
        return tuple(dataclasses.replace(self, steps=steps) for steps in of_passes)

    @property
    def labelled_by(self) -> "Pipeline":
        """The pipeline that makes the labels of the sink."""
        return self

    @property
    def sources(self) -> dict[str, Shards]:
        """The corpus, by the name of its field."""
        return {"source": self.source}

    @property
    def read_places(self) -> Iterator[ReadPlace]:
        """The checkpoints and files that are read and never written."""
        for place, label in enumerate(self.steps):
            if isinstance(label, Label):
                yield ReadPlace(f"steps.{place}.checkpoint", label.checkpoint)
                for number, output in enumerate(label.outputs):
                    prefix = f"steps.{place}.outputs.{number}."
                    yield from (ReadPlace(prefix + name, url) for name, url in output.checkpoints.items())
                    files = {name: url for name, url in output.files.items() if url != OWN_MODEL}
                    yield from (ReadPlace(prefix + name, url, is_checkpoint=False) for name, url in files.items())


class SinkPlace(Protocol):
    """Destination of the results of work."""

    @property
    def url(self) -> str:
        """Url of the folder."""

    @property
    def storage_options(self) -> Mapping[str, object]:
        """Options of the storage."""

    @property
    def shared(self) -> bool:
        """Whether all machines of a cluster see the same files at a local url."""


class ReadsCorpus(Protocol):
    """Reader of a corpus: work, or a part of it."""

    TEXT_USE: ClassVar[str]
    """Use of the column of texts, and the remedy if it holds no texts, with `{!r}` for its name."""

    @property
    def source(self) -> Shards:
        """The corpus."""

    @property
    def steps(self) -> Sequence[Step]:
        """Steps in order."""

    @property
    def flow(self) -> Flow:
        """The order of the steps, and the columns that pass between them."""

    @property
    def decoding(self) -> Decode:
        """The step that decodes, with the longest duration that is read."""

    @property
    def kept(self) -> tuple[str, ...]:
        """Source columns that are used as they are."""


class Work(ReadsCorpus, Protocol):
    """Work that a file defines and a verb acts on, such as a pipeline or a recipe."""

    NOUN: ClassVar[str]
    """Word for it in messages, which is also its usual name in a file."""
    VERB: ClassVar[str]
    """Verb of the command line that runs it."""

    @property
    def name(self) -> str | None:
        """Name shown during a run."""

    @property
    def sink(self) -> SinkPlace:
        """Destination of the results."""

    @property
    def labelled_by(self) -> Pipeline | None:
        """The pipeline that makes the labels of the sink; None: it has no labels."""

    @property
    def sources(self) -> Mapping[str, Shards]:
        """All corpora that are read, by the names of their fields; the first is `source`."""

    @property
    def read_places(self) -> Iterable[ReadPlace]:
        """The checkpoints and files that are read and never written."""


AnyWork = TypeVar("AnyWork", bound=Work)


def with_places(work: AnyWork, place: Change, checkpoint: Change) -> AnyWork:
    """Return work with the urls of its sources, sink and files, and the names of its checkpoints, changed."""
    for field_path, source in work.sources.items():
        work = replaced(work, field_path, source.with_places(place))
    work = replaced(work, "sink.url", place(work.sink.url))
    for read_place in work.read_places:
        work = replaced(work, read_place.field, (checkpoint if read_place.is_checkpoint else place)(read_place.name))
    return work


def read_code(work: ReadsCorpus | None, *specs: object) -> UserCode:
    """Read the files of all functions and spec classes from outside raysp, and of the neighbouring modules they import.

    Args:
        work: work with its steps; None: there is none.
        specs: further specs.

    Raises:
        SpecError: a function cannot be imported, or has no file.
    """
    found = [*_specs((work, *specs))]
    names = [name for value in found for name in getattr(value, "functions", ())]
    return read({type(value) for value in found}, {name: load_function(name) for name in names})


def _specs(value: object) -> Iterator[object]:
    """Yield each spec within a value."""
    items: Iterable[object] = value if isinstance(value, list | tuple) else ()
    if dataclasses.is_dataclass(value):
        yield value
        items = (getattr(value, spec_field.name) for spec_field in dataclasses.fields(value))
    elif isinstance(value, Mapping):
        items = value.values()
    for item in items:
        yield from _specs(item)


def added_schema(pipeline: Pipeline) -> "pa.Schema":
    """Return the columns that steps before `Label` add."""
    import pyarrow as pa

    return pa.schema([field for step in pipeline.flow.before if step.columns for field in step.schema()])


def file_parts(pipeline: Pipeline) -> dict[str, JsonValue]:
    """Return the settings that change a label shard but no label: copied columns and omitted rows."""
    return {"sink.keep": list(pipeline.kept), "sink.rows": pipeline.sink.rows}


def fingerprint(value: object) -> str:
    """Return the hash of a value of JSON, such as the parts of work, 16 hexadecimal digits."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def load_function(name: str) -> Callable[..., object]:
    """Import `module:function`, and return the function.

    Raises:
        SpecError: it cannot be imported, or is not callable.
    """
    if not callable(function := imported(name)):
        raise SpecError(f"{name!r} is a {type(function).__name__}; expected a function")
    return function
