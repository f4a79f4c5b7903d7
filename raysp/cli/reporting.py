"""The verb that writes the report of a training."""

from pathlib import Path
from typing import Annotated

import typer

from raysp.cli.console import out, print_json
from raysp.cli.options import AsJson, Debug, Settings, StorageOptions, TrainingSink, named_sink
from raysp.words import printable


def report(
    sink: TrainingSink,
    file: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.html", help="Local file. Default: .raysp/report.html in the sink."),
    ] = None,
    settings: Settings = None,
    storage_options: StorageOptions = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write the report of a training as one HTML file. Prints its path.

    It has curves of loss, learning rate and speed, evaluations with intervals, the worst rows, recipe and versions.

    Examples:
      raysp report model --out report.html
      raysp report pipelines/finetune_ctc.py
    """
    url, _, options = named_sink(sink, settings, storage_options)
    import raysp

    place = raysp.report(url, file, options)
    if as_json:
        print_json({"report": place})
    else:
        out.print(printable(place), markup=False)
