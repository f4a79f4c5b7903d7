"""What the verbs share: exit codes, options, and how pipelines and sinks are named."""

from typing import TYPE_CHECKING, Annotated

import typer

from raysp.errors import SpecError

if TYPE_CHECKING:
    from raysp.pipeline import Pipeline

REFUSED, FAILED, INTERRUPTED, TERMINATED = 2, 1, 130, 143

PipelineFile = Annotated[
    str, typer.Argument(metavar="PIPELINE", help="A Python file that makes a raysp.Pipeline, or FILE:NAME.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="PATH=VALUE", help="Change a value of the pipeline, such as sink.url=out; repeatable."
    ),
]
Sink = Annotated[
    str, typer.Argument(metavar="OUT", help="The folder with the label shards, or the pipeline file that made them.")
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Use the urls, options, variables and modules named by the sink's record.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Address = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Ray cluster. Default: RAY_ADDRESS, else a local Ray.")
]


def load(target: str, settings: list[str] | None) -> "Pipeline":
    """Return the pipeline of a file, with `--set` applied."""
    from raysp.pipeline import load_pipeline, with_overrides

    return with_overrides(load_pipeline(target), settings or [])


def sink_and_pipeline(target: str, settings: list[str] | None) -> tuple[str, "Pipeline | None"]:
    """Return the url of a sink, and the pipeline that made it where its file is given."""
    from raysp.pipeline import is_pipeline_file

    if is_pipeline_file(target):
        pipeline = load(target, settings)
        return pipeline.sink.url, pipeline
    if settings:
        raise SpecError(f"--set {settings[0]}: goes with a pipeline file, found the sink {target!r}")
    return target, None
