"""The report of a sink of labels: one HTML file of at most 300 kB without scripts or links, however many rows."""

import json
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from raysp.errors import PlanError
from raysp.evaluation.scores import SECONDS, UNDEFINED
from raysp.labelling.finished.finished_labels import Labelling
from raysp.labelling.finished.label_status import Status, label_status
from raysp.labelling.planning.trust import open_recorded
from raysp.labelling.reports.label_figures import BAND_NAMES, MOST_TYPES, Rows, read_rows
from raysp.labelling.reports.row_error_rates import MOST_UNITS, Groups
from raysp.ops.rows import FILTERED, WITHDRAWN, remedy
from raysp.pages import rendering
from raysp.pages.page_charts import Chart, histogram
from raysp.pages.page_tables import MOST_GROUPS, MOST_RUNS, Table, Verdict, runs_table, short, shown_row
from raysp.sink.receipts import Counts, PieceReceipt, load
from raysp.sink.run_record import RunEntry, field_of
from raysp.specs.text_rules import normalisation_of
from raysp.specs.values import JsonValue
from raysp.storage.store import Store
from raysp.text.error_rates import Normalisation
from raysp.words import count, duration, printable, times_real_time
from raysp.work import SinkRequest

MOST_BYTES = 300_000
"""Bytes of the page."""
MOST_FACT = 300
"""Characters of a fact."""
MOST_MESSAGE = 200
"""Characters of an error message."""
MOST_JSON = 6000
MOST_CELL = 60
MOST_TABLES = 8
LONGEST = 10 * 366 * 86400.0
"""Seconds of the longest run; the time of a longer one is not shown."""


def render(request: SinkRequest, by: Sequence[str] | None = None) -> tuple[Store, str]:
    """Return the store of a sink of labels, and its report as HTML. Arguments and errors are those of `report`."""
    rules = None if request.normalise is None else normalisation_of(request.normalise)
    opened, record = open_recorded(request)
    labelling, status = Labelling.of(opened, record), label_status(SinkRequest(opened.store))
    rows = read_rows(labelling, by, rules)
    if rules is not None:
        fault = ""
        if labelling.reference is None:
            fault = "found source.text=None; set it to the column of the reference texts, or leave normalise out"
        elif rows.columns.hypothesis is None and labelling.done:
            fault = "found no transcript among its labels; leave normalise out"
        if fault:
            where = "normalise applies to word errors of transcripts against reference texts"
            raise PlanError(f"{labelling.url}: {where}: {fault}")
    runs = Runs(opened.store, record.runs)
    command = record.runs[-1].command if record.runs else ""
    name = field_of(record.pipeline, "name")
    values: dict[str, object] = {
        "title": short(name if name else labelling.url.rstrip("/").rpartition("/")[2]),
        "subtitle": status.line,
        "verdict": _verdict(status, rows, runs) if labelling.done else [],
        "facts": _facts(labelling, status, rows, runs),
        "histograms": _histograms(rows),
        "problems": _problems(status, rows),
        "groups": [_table(column, groups, rows) for column, groups in [*rows.groups.items()][:MOST_TABLES] if groups],
        "groups_note": _about_groups(rows, rules),
        "runs": runs_table(record.runs, ("rows", "audio", "took", "RTFx"), runs.figures),
        "command": short(command, 2 * MOST_FACT),
        "worst": [shown_row(row) for row in rows.worst],
        "pipeline": _json(record.pipeline),
        "is_empty": not labelling.done,
    }
    page = rendering.render("labels.html", **values)
    if len(page.encode()) > MOST_BYTES:
        page = rendering.render("labels.html", **values | {"worst": [shown_row(rows.worst[0])], "pipeline": ""})
    return opened.store, page


class Runs:
    """Counts and times of the last runs over a sink, from the receipts of their pieces.

    Args:
        store: the sink.
        entries: its runs.
    """

    def __init__(self, store: Store, entries: Sequence[RunEntry]) -> None:
        self.counts = {entry.run_id: Counts() for entry in entries[-MOST_RUNS:]}
        self.ends = defaultdict[str, float](float)
        for run_id, piece in load(store, ("piece",)):
            if isinstance(piece, PieceReceipt) and run_id in self.counts:
                self.counts[run_id] += piece.counts
                self.ends[run_id] = max(self.ends[run_id], piece.finished)
        self.last = next((entry for entry in reversed(entries) if self.counts.get(entry.run_id, Counts()).blocks), None)

    def seconds(self, entry: RunEntry) -> float | None:
        """Return the seconds from the start of a run to its last piece; None if clocks disagree."""
        try:
            seconds = self.ends[entry.run_id] - datetime.fromisoformat(entry.started).timestamp()
        except (ValueError, OverflowError):
            return None
        return seconds if 0 < seconds < LONGEST else None

    def rtfx(self, entry: RunEntry) -> float | None:
        """Return the seconds of audio that a run labelled per second of wall-clock time, its start included."""
        seconds = self.seconds(entry)
        return self.counts[entry.run_id].audio_seconds / seconds if seconds else None

    def figures(self, entry: RunEntry) -> tuple[str, ...]:
        """Return rows, audio, time and speed of a run as text."""
        counts, seconds, rtfx = self.counts[entry.run_id], self.seconds(entry), self.rtfx(entry)
        speed = (duration(seconds), f"{rtfx:,.1f}") if seconds and rtfx else (UNDEFINED, UNDEFINED)
        return (f"{counts.rows:,}", duration(counts.audio_seconds), *speed)


def _verdict(status: Status, rows: Rows, runs: Runs) -> list[Verdict]:
    """Return the figures that the page leads with: errors, rows without a label, speed."""
    without = status.rows_committed - status.ok
    verdict = [Verdict(f"{without:,}", "rows without a label", f"of {status.rows_committed:,}")]
    if rows.errors.rows:
        scores = rows.errors.scores()
        verdict.insert(0, Verdict(scores.value("wer"), "word error rate", scores.interval("wer")))
    if runs.last is not None and (rtfx := runs.rtfx(runs.last)) is not None:
        verdict.append(Verdict(times_real_time(rtfx), "RTFx", "of the last run"))
    return verdict


def _facts(sink: Labelling, status: Status, rows: Rows, runs: Runs) -> dict[str, str]:
    counts, resolved = runs.counts[runs.last.run_id] if runs.last else Counts(), sink.record.resolved
    scores = rows.errors.scores() if rows.errors.rows else None
    padding, waited = counts.padding_efficiency, counts.wait_share
    facts = {
        "checkpoint": sink.checkpoint,
        "corpus": field_of(sink.record.pipeline, "source", "url"),
        "sink": sink.url,
        **{name: fact for name, fact in status.facts.items() if name not in ("kept", "word errors")},
        **{f"kept by {kept.step}": kept.sentence.removeprefix(f"{kept.step}: ") for kept in status.kept[:MOST_GROUPS]},
        "WER": scores and scores.described("wer"),
        "CER": scores and f"{scores.value('cer')} ({scores.interval('cer')})",
        "model": f"padding efficiency {padding:.1%}, waited for input {waited or 0.0:.1%} of its time"
        if padding is not None
        else None,
        "precision": f"{resolved.dtype}, {resolved.device}" if resolved.device else resolved.dtype,
        "checkpoint digest": sink.record.checkpoint_digest,
        "fingerprint": sink.record.fingerprint,
    }
    return {name: short(fact, MOST_FACT) for name, fact in facts.items() if fact}


def _histograms(rows: Rows) -> list[Chart]:
    charts = []
    for name, sample in rows.samples.items():
        if sample.values.size:
            shown = len(sample.values)
            note = "" if shown == sample.seen else f"a random sample of {shown:,} of {sample.seen:,} rows"
            title, across = ("Duration", "seconds") if name == SECONDS else (short(name), "value")
            charts.append(histogram(title, sample.values, across, note=note))
    return charts


def _problems(status: Status, rows: Rows) -> list[dict[str, object]]:
    """Return the reasons of rows without a label, the most frequent first."""
    return [
        {
            "kind": short(kind, MOST_CELL),
            "rows": count(number, "row"),
            "remedy": "" if kind in (FILTERED, WITHDRAWN) else printable(remedy(kind)),
            "examples": [
                (short(id_, 80), short(message, MOST_MESSAGE)) for id_, message in rows.examples.get(kind, ())
            ],
        }
        for kind, number in [*status.errors_by_type.items()][:MOST_TYPES]
    ]


def _table(column: str, groups: Groups, rows: Rows) -> Table:
    """Return rows, audio and error rates by the values of a column: the worst first, or the most frequent."""
    scored = [(key, group, group.errors.scores() if rows.errors.rows else None) for key, group in groups.items()]
    if column == SECONDS:
        scored.sort(key=lambda group: BAND_NAMES.index(str(group[0])) if group[0] else len(BAND_NAMES))
    else:
        scored.sort(key=lambda group: (-((group[2] and group[2].metrics["wer"].value) or 0.0), -group[1].rows))
    cells = []
    for key, group, scores in scored[:MOST_GROUPS]:
        row = [short(key, MOST_CELL), f"{group.rows:,}", f"{group.ok:,}", duration(group.seconds)]
        if scores:
            row += [f"{scores.counts['words']:,}", scores.value("wer"), scores.interval("wer"), scores.value("cer")]
        cells.append(tuple(row))
    name = short(column, MOST_CELL)
    metrics = ("words", "WER", "95% interval", "CER") if rows.errors.rows else ()
    title = "By duration" if column == SECONDS else f"By {name}"
    return Table(title, (name, "rows", "ok", "audio", *metrics), cells, len(scored), "group")


def _about_groups(rows: Rows, rules: Normalisation | None) -> str:
    """Return an explanation of the error rates, and which of them are approximate."""
    if not rows.errors.rows:
        return ""
    how = f"normalised by {rules.name}, {rules.description}" if rules else "case and punctuation are ignored"
    bundled = (
        ", which are added up in 1,000 random bundles where they are more" if rows.errors.rows > MOST_UNITS else ""
    )
    too_long = f"; {count(rows.too_long, 'row')} with longer texts are not compared" if rows.too_long else ""
    return printable(
        f"Words of {rows.columns.hypothesis} against {rows.columns.reference}: {how}; intervals hold 95% of bootstrap "
        f"draws of rows{bundled}{too_long}."
    )


def _json(value: JsonValue) -> str:
    """Return a value as text, cut if it is long."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    more = f"\n… and {count(len(text) - MOST_JSON, 'more character')}" if len(text) > MOST_JSON else ""
    return "\n".join(printable(line) for line in f"{text[:MOST_JSON]}{more}".split("\n"))
