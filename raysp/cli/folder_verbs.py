"""The verb that labels without a pipeline file: label."""

import dataclasses
import shlex
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from raysp.cli.arguments import EngineOptions, FirstRows, Options, Settings, command_line, on_cluster
from raysp.cli.console import PLACEHOLDERS, announce, err, is_json, out, print_command, print_fact, printing, say, show
from raysp.cli.label_verbs import run_on_display, show_try_out
from raysp.cli.printed_runs import print_labels, print_named, print_nothing_labelled, show_exported
from raysp.errors import SpecError, refuse_unused
from raysp.labelling.engine.display import Display
from raysp.words import printable

if TYPE_CHECKING:
    from raysp.specs.pipeline import Pipeline
    from raysp.verbs.export.export_result import Export
    from raysp.verbs.export.formats import Format

TIMED = ("srt", "vtt", "ctm", "textgrid", "clips", "utterances")
"""Formats that need times of words."""
TEXT, ALIGNED = "pred_text", "aligned"
"""Column of the texts, and prefix of the columns of their words by `--align`."""


@dataclass(frozen=True)
class FolderOptions(Options):
    """A folder, and what is made of it."""

    folder: Annotated[str, Argument(metavar="FOLDER", help="Recordings or shards: a folder, file, glob or url.")]
    model: Annotated[str, Option("--model", metavar="NAME", help="A model folder, its url, or a hub id.")]
    words: Annotated[bool, Option("--words", help="Add times of words.")] = False
    align: Annotated[
        str | None, Option(metavar="NAME", help="A CTC model, for times of words if --model has none.")
    ] = None
    language: Annotated[
        str | None, Option(metavar="LANGUAGE", help="Of the speech, for models of several languages.")
    ] = None
    to: Annotated[
        str | None,
        Option(
            "--to",
            metavar="FORMAT",
            help="Export too: srt vtt ctm textgrid jsonl csv nemo dataset clips utterances labelstudio.",
        ),
    ] = None
    labels: Annotated[
        str | None, Option("--out", metavar="OUT", help="Folder of the labels. Default: FOLDER-labels.")
    ] = None
    settings: Settings = None

    @cached_property
    def form(self) -> "Format | None":
        """Format of the export, with its settings; None without an export."""
        if self.to is None:
            return None
        from raysp.specs.work_files import with_overrides
        from raysp.verbs.export.formats import format_of

        if self.to == "rttm":
            raise SpecError("--to rttm: has turns of speakers; add Turns() to the pipeline that --show prints")
        return with_overrides({"to": format_of(self.to)}, self._of_format)["to"]

    @property
    def pipeline(self) -> "Pipeline":
        """The pipeline that labels the folder."""
        import raysp
        from raysp.specs.work_files import with_overrides

        words = self.words or (self.to in TIMED and not self.align)
        steps = [
            raysp.Decode(),
            raysp.Label(self.model, outputs=[raysp.Transcript(words=words, language=self.language)]),
        ]
        if self.align:
            steps.append(raysp.Label(self.align, outputs=[raysp.Align(TEXT, unknown="wildcard")]))
        source = raysp.Shards(self.folder, root=str(Path(self.folder).parent) if Path(self.folder).is_file() else None)
        sink = raysp.Parquet(self.labels or f"{self._folder}-labels")
        pipeline = raysp.Pipeline(source, steps=steps, sink=sink)
        settings = [setting for setting in self.settings or () if setting not in self._of_format]
        return with_overrides(pipeline, settings)

    @property
    def command(self) -> str:
        """The command line."""
        options = {"--align": self.align, "--language": self.language, "--to": self.to, "--out": self.labels}
        words = ["--words"] if self.words else []
        words += [word for name, value in options.items() if value is not None for word in (name, value)]
        words += [word for setting in self.settings or () for word in ("--set", setting)]
        return shlex.join(["raysp", "label", self.folder, "--model", self.model, *words])

    @property
    def comment(self) -> str:
        """The commands that do the same with a file, as a comment of it."""
        commands = [["raysp", "run", "FILE"]]
        if self.to is not None:
            place = ["--beside"] if self.to in ("srt", "vtt") else ["DEST"]
            settings = [word for setting in self._of_format for word in ("--set", setting)]
            commands.append(["raysp", "export", "FILE", *place, "--to", self.to, *settings])
        return "".join(f"# {printable(shlex.join(words))}\n" for words in commands)

    @property
    def _of_format(self) -> list[str]:
        """Settings of the export."""
        if self.to is None:
            return []
        column = [f"to.column={ALIGNED}"] if self.align and self.to in TIMED else []
        return column + [setting for setting in self.settings or () if setting.startswith("to.")]

    @property
    def _folder(self) -> str:
        """Local folder of the recordings, or of the shards."""
        from raysp.storage.options import split_glob
        from raysp.storage.store import scheme_of

        place = split_glob(self.folder.rstrip("/"))[0]
        if scheme_of(place):
            raise SpecError(
                f"FOLDER: {self.folder!r} is a url; add the folder of the labels, as in --out {place}-labels"
            )
        path = Path(place).parent if Path(place).is_file() else Path(place)
        return str(path.resolve() if path.name in ("", "..") else path)


def label(
    of: FolderOptions,
    rows: FirstRows = None,
    shows_pipeline: Annotated[
        bool, Option("--show", help="Print the pipeline as a file for raysp run, and label nothing.")
    ] = False,
    restart: Annotated[bool, Option("--restart", help="Replace another export in the folder of --to.")] = False,
    *,
    on: EngineOptions,
) -> None:
    """Label a folder without a pipeline file. Run again, it does what is left or new.

    --to srt and vtt write beside local recordings, all else to the folder OUT-FORMAT.

    Examples:
      raysp label talks --model facebook/wav2vec2-base-960h --to srt
      raysp label talks --model openai/whisper-small --rows 3
      raysp label talks --model facebook/wav2vec2-base-960h --show > talks.py
    """
    if restart and of.to is None:
        raise SpecError("--restart: replaces an export, and none is asked for; add --to FORMAT, or leave it out")
    form, pipeline = of.form, on_cluster(of.pipeline, on.engine, on.address)
    if shows_pipeline:
        refuse_unused({"--rows": rows}, "--show labels nothing; leave out one of them")
        from raysp.specs.work_files import file_of

        code = f"{of.comment}{file_of(pipeline)}"
        show({"file": code}, lambda: out.print(code, markup=False, end=""))
    sink = pipeline.sink.url
    retry = f"{command_line('retry', sink, None)} --trust"
    PLACEHOLDERS.set(
        {
            "raysp run PIPELINE": of.command,
            "raysp retry PIPELINE": retry,
            "use another sink": "choose another folder by --out",
            "name one of those in outputs": "name one of those in outputs of the file by --show",
            'pass backend="ctranslate2" to Label': "add --set steps.1.backend=ctranslate2",
        }
    )
    announce(f"labelling {of.folder} with {of.model} into {sink} ...")
    result = run_on_display(pipeline, rows, on)
    if rows is not None:
        show_try_out(result, of.command)
    if not is_json():
        with printing():
            print_labels(pipeline, result, retry, has_file=False)
    exported = None if form is None or result.nothing_labelled else _export(pipeline, form, restart=restart)

    def printed() -> None:
        if exported:
            facts = dict(exported.facts)
            print_fact(exported.to, f"{facts.pop('files')} in {facts.pop('in')}")
            print_named(facts, "left out", "no times", "names", "kept", "restored")
            if exported.nothing_exported:
                say(exported.nothing_exported)
        print_command("report", command_line("report", sink, None))
        if form is None:
            print_command("next", f"{command_line('export', sink, None)} {shlex.quote(f'{sink}-csv')} --to csv")
        else:
            print_fact("again", "the same command labels and exports what is new")
        print_nothing_labelled(result)

    more = {"export": dataclasses.asdict(exported)} if exported else {}
    show(result.json, printed, max(result.exit_code, exported.exit_code if exported else 0), **more)


def _export(pipeline: "Pipeline", form: "Format", *, restart: bool) -> "Export":
    """Export labels beside the recordings, or to a folder of their own."""
    import raysp
    from raysp.storage.store import scheme_of
    from raysp.verbs.export.exporting import recordings_folder

    sink = pipeline.sink.url
    folder = recordings_folder(sink, pipeline) if getattr(form, "BESIDE", False) else None
    beside = folder is not None and not scheme_of(folder)
    dest = None if beside else f"{sink.rstrip('/')}-{form.NAME}"
    with Display(err, is_quiet=is_json()) as display:
        shown = partial(show_exported, display)
        return raysp.export(sink, form, dest, beside=beside, pipeline=pipeline, restart=restart, on_shard=shown)
