"""Exit codes, options, and names of pipelines and sinks, shared by the verbs."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from raysp.cli.console import PLACEHOLDERS
from raysp.cluster.addresses import uses_cluster
from raysp.errors import SpecError

if TYPE_CHECKING:
    from raysp.specs.pipeline import AnyWork
    from raysp.specs.work_files import Loaded

REFUSED, FAILED, INTERRUPTED, TERMINATED = 2, 1, 130, 143
AGAIN = "submit it again"
"""How a job on a cluster is continued."""

PipelineFile = Annotated[
    str, Argument(metavar="PIPELINE", help="A Python file that defines a raysp.Pipeline, or FILE:NAME.")
]
PlannedFile = Annotated[
    str, Argument(metavar="FILE", help="A Python file that defines a raysp.Pipeline or raysp.Finetune, or FILE:NAME.")
]
RecipeFile = Annotated[
    str, Argument(metavar="RECIPE", help="A Python file that defines a raysp.Finetune, or FILE:NAME.")
]
Settings = Annotated[
    list[str] | None, Option("--set", metavar="PATH=VALUE", help="Change a value, as in sink.url=out. Repeatable.")
]
Trust = Annotated[bool, Option("--trust", help="Use the urls, options, variables and modules that the sink names.")]
Debug = Annotated[bool, Option("--debug", help="Show the traceback of an error.")]
StorageOptions = Annotated[
    list[str] | None,
    Option("--storage-option", metavar="KEY=VALUE", help="For its storage; secret: KEY=env:NAME. Repeatable."),
]
_CONSTANTS: Mapping[str, object] = {"true": True, "false": False, "null": None}
"""Values of storage options that are not text. Numbers stay texts: account keys may be all digits."""
By = Annotated[
    list[str] | None, Option(metavar="COLUMN", help="Metrics by its values; seconds: by duration. Repeatable.")
]
Normalise = Annotated[
    str | None,
    Option(
        metavar="NAME", help="Of texts: none, lower, letters (default), letters-tr, whisper-english or whisper-basic."
    ),
]
FirstRows = Annotated[
    int | None, Option(min=1, metavar="N", help="Label only the first N rows and print them; nothing is kept.")
]
AsJson = Annotated[bool, Option("--json", help="Print one JSON object on stdout.")]
Engine = Annotated[
    str, Option(metavar="ENGINE", help="here: this process; ray; auto: here for little audio. Default: RAYSP_ENGINE.")
]


def load(target: str, settings: list[str] | None, read: "Callable[[str], Loaded]") -> "Loaded":
    """Return the pipeline or recipe of a file, by a function that reads it, with `--set` applied."""
    from raysp.specs.work_files import with_overrides

    PLACEHOLDERS.set({f"raysp {verb} PIPELINE": command_line(verb, target, settings) for verb in ("run", "retry")})
    return with_overrides(read(target), settings or [])


def on_cluster(work: "AnyWork", engine: str, address: str | None) -> "AnyWork":
    """Return work as it runs: on a cluster a relative path would not say of which machine."""
    if not uses_cluster(engine, address):
        return work
    from raysp.cluster.resources import with_absolute_paths

    return with_absolute_paths(work)


class Options:
    """Options that several verbs have: each field of a subclass is an argument or an option of the command line."""

    @property
    def named(self) -> dict[str, Any]:
        """The options that have a value."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True)
class EngineOptions(Options):
    """Engine of a run."""

    engine: Engine = "auto"
    address: Annotated[
        str | None,
        Option(
            metavar="ADDRESS", help="Ray cluster; local: a new local Ray, also for small runs. Default: RAY_ADDRESS."
        ),
    ] = None


@dataclass(frozen=True)
class MetricOptions(Options):
    """Metrics of labels and their limits."""

    by: By = None
    over: Annotated[
        str | None, Option(metavar="COLUMN", help="Intervals over its values, such as speakers, not rows.")
    ] = None
    normalise: Normalise = None
    fail_above: Annotated[
        list[str] | None, Option(metavar="METRIC=SHARE", help="Exit with 1 if METRIC is above SHARE. Repeatable.")
    ] = None
    fail_below: Annotated[
        list[str] | None, Option(metavar="METRIC=SHARE", help="Exit with 1 if METRIC is below SHARE. Repeatable.")
    ] = None

    @property
    def named(self) -> dict[str, Any]:
        """The options that have a value, with limits by metric."""
        above, below = parse_limits("--fail-above", self.fail_above), parse_limits("--fail-below", self.fail_below)
        return {**super().named, "fail_above": above, "fail_below": below}


@dataclass(frozen=True)
class SinkOptions(Options):
    """A sink, given by its url or by the file of the pipeline or recipe that made it."""

    sink: Annotated[
        str,
        Argument(metavar="OUT", help="The folder that a run or training wrote, or the file of its pipeline or recipe."),
    ]
    settings: Settings = None
    storage_options: StorageOptions = None
    trust: Trust = False

    @property
    def url(self) -> str:
        """Url of the sink."""
        return self._resolved[0]

    @property
    def access(self) -> dict[str, Any]:
        """Arguments of functions that open the sink."""
        return {**self._resolved[1], "trust": self.trust}

    @cached_property
    def _resolved(self) -> tuple[str, dict[str, Any]]:
        """The url; and the pipeline that made the labels, if a file defines it, or the storage options."""
        from raysp.specs.work_files import is_pipeline_file
        from raysp.work import load_work

        target, settings, storage_options = self.sink, self.settings, self.storage_options
        if is_pipeline_file(target):
            if storage_options:
                raise SpecError(
                    f"--storage-option {_key(storage_options[0])}: applies to a folder of label shards, found the "
                    f"pipeline file {target!r}; change its own options with --set sink.storage_options={{...}}"
                )
            work = load(target, settings, load_work)
            pipeline = work.labelled_by
            return work.sink.url, {"pipeline": pipeline} if pipeline else {"storage_options": work.sink.storage_options}
        if settings:
            raise SpecError(f"--set {settings[0]}: applies to a pipeline file, found the sink {target!r}")
        if self.trust:
            retry = command_line("retry", target, None, storage_options)
            PLACEHOLDERS.set({"raysp retry PIPELINE": f"{retry} --trust"})
        return target, {"storage_options": parse_storage_options(storage_options, [target])}


def parse_storage_options(
    arguments: list[str] | None, places: Sequence[str] | None = None, option: str = "--storage-option"
) -> Mapping[str, object] | None:
    """Return options as a mapping: `a.b=c` is a nested option, `env:NAME` the value of a variable.

    Args:
        arguments: options as KEY=VALUE.
        places: urls and paths that they reach, of which one must be in object storage; None: any.
        option: name of the option.

    Raises:
        SpecError: one is invalid or given twice, or all places are local.
    """
    from raysp.specs.values import Env, refuse_literal_secrets
    from raysp.storage.store import scheme_of

    if not arguments:
        return None
    options: dict[str, object] = {}
    for argument in arguments:
        path, equals, text = argument.partition("=")
        *parents, key = path.split(".")
        if not equals or not key:
            raise SpecError(f"{option} {_key(argument)!r}: expected KEY=VALUE or KEY=env:NAME")
        place = options
        for parent in parents:
            inner = place.setdefault(parent, {})
            if not isinstance(inner, dict):
                raise SpecError(f"{option} {path}: found a value for {parent} too; give one of them")
            place = inner
        if key in place:
            raise SpecError(f"{option} {path}: found twice; give it once")
        try:
            place[key] = Env(text.removeprefix("env:")) if text.startswith("env:") else _CONSTANTS.get(text, text)
            refuse_literal_secrets({key: place[key]}, option)
        except ValueError as error:
            words = str(error).partition(";")[0]
            raise SpecError(f"{words}; give it as {option} {path}=env:NAME") from None
    if places is not None and not any(map(scheme_of, places)):
        raise SpecError(
            f"{option} {_key(arguments[0])}: applies to a url such as s3://bucket/folder, found "
            f"{' and '.join(map(repr, places))}; leave it out"
        )
    return options


def _key(option: str) -> str:
    """Return an option without its value, which may be a secret."""
    return option.partition("=")[0]


def command_line(
    verb: str,
    target: str,
    settings: list[str] | None,
    storage_options: list[str] | None = None,
    *,
    address: str | None = None,
) -> str:
    """Return a command for the shell, with the options that reach a sink and a cluster."""
    words = [word for setting in settings or () for word in ("--set", setting)]
    words += [word for option in storage_options or () for word in ("--storage-option", option)]
    return shlex.join(["raysp", verb, target, *words, *(["--address", address] if address else [])])


def parse_limits(option: str, arguments: list[str] | None) -> dict[str, float]:
    """Return limits by metric.

    Raises:
        SpecError: one is not METRIC=SHARE.
    """
    limits: dict[str, float] = {}
    for argument in arguments or ():
        metric, _, share = argument.partition("=")
        if metric in limits:
            raise SpecError(f"{option}: found {metric} twice; a metric has one limit")
        try:
            limits[metric] = float(share)
        except ValueError:
            raise SpecError(f"{option} {argument}: expected METRIC=SHARE, such as wer=0.2") from None
    return limits
