"""The verb that writes the report of a sink."""

from pathlib import Path
from typing import Annotated

import typer

from raysp.cli.console import out, print_json, say, showing
from raysp.cli.options import AsJson, By, Debug, Settings, Sink, StorageOptions, Trust, named_sink
from raysp.words import printable


def report(
    sink: Sink,
    file: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE.html", help="Local file. Default: .raysp/report.html in the sink."),
    ] = None,
    by: By = None,
    settings: Settings = None,
    storage_options: StorageOptions = None,
    trust: Trust = False,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Write the report of a sink, or of a training, as one HTML file. Prints its path.

    Of labels it has speed, durations, errors with remedies, scores, word error rates
    with intervals and the worst rows. Of a training it has curves and evaluations.

    Examples:
      raysp report out --out report.html --by speaker_id
      raysp report pipelines/label_digits.py --set sink.url=out
      raysp report pipelines/finetune_ctc.py
    """
    url, pipeline, options = named_sink(sink, settings, storage_options)
    import raysp

    if not as_json:
        say(f"reading {url} ...")
    place = raysp.report(url, file, options, by=by, pipeline=pipeline, trust=trust)
    with showing(0):
        if as_json:
            print_json({"report": place})
        else:
            out.print(printable(place), markup=False)
