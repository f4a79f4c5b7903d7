"""The report of a sink of labels: one HTML file of at most 300 kB without scripts or links, however many rows."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

import numpy as np

from raysp.errors import PlanError, SpecError
from raysp.evaluation.normalising import Normalisation
from raysp.evaluation.scores import SECONDS, UNDEFINED
from raysp.labelling.finished.finished_labels import Labelling
from raysp.labelling.finished.label_status import Status, label_status
from raysp.labelling.finished.players import played
from raysp.labelling.finished.text_errors import asked_rules, refuse_without_texts
from raysp.labelling.planning.trust import Recorded, open_recorded, read_recorded
from raysp.labelling.reports.label_figures import MOST_MESSAGE, SCORE_BANDS, Rows, read_rows
from raysp.labelling.reports.reservoirs import Values
from raysp.labelling.reports.row_error_rates import Groups
from raysp.labelling.reports.throughput import RunWork, actors_table, charts_of, runs_table, work_of_runs
from raysp.ops.remedies import FILTERED, WITHDRAWN, remedy
from raysp.pages import rendering
from raysp.pages.page_charts import Chart, Share, histogram, shares
from raysp.pages.page_tables import MOST_GROUPS, Table, Verdict, left_out, short
from raysp.sink import receipts
from raysp.sink.lease import Running
from raysp.sink.run_record import RunEntry
from raysp.specs.pipeline import Pipeline
from raysp.specs.text_rules import Text
from raysp.specs.values import JsonValue
from raysp.storage.options import GivenOptions
from raysp.storage.store import Store
from raysp.words import count, duration, printable, times_real_time

MOST_BYTES = 300_000
"""Bytes of the page."""
MOST_FACT = 300
"""Characters of a fact."""
MOST_JSON = 6000
MOST_CELL = 60
MOST_TABLES = 8
MOST_BARS = 12
LEAST_DOUBT = 1e-6
"""Doubts below it are shown as it: scores are stored with 24 bits."""


def render(
    sink: str | Store,
    storage_options: GivenOptions | None = None,
    *,
    by: Sequence[str] | None = None,
    normalise: str | Text | None = None,
    pipeline: Pipeline | None = None,
    trust: bool = False,
) -> tuple[Store, str]:
    """Return the store of a sink of labels, and its report as HTML. Arguments and errors are those of `report`."""
    rules = asked_rules(normalise)
    opened, record = open_recorded(sink, storage_options, pipeline=pipeline, trust=trust)
    labelling, status = Labelling.of(opened, record), label_status(opened.store)
    rows = read_rows(labelling, by, rules)
    if rules is not None:
        has_transcript = rows.columns.hypothesis is not None or not labelling.done
        refuse_without_texts(labelling.url, labelling.reference, has_transcript=has_transcript)
    entries = record.runs
    runs = work_of_runs(receipts.pieces_by_run(opened.store))
    last = next((runs[one.run_id] for one in reversed(entries) if one.run_id in runs), None)
    values: dict[str, object] = {
        "title": _title(labelling),
        "subtitle": _subtitle(status, last),
        "verdict": _verdict(status, rows, last) if labelling.done else [],
        "facts": _facts(labelling, status, rows, last),
        "speed": charts_of(last) if last else [],
        "actors": actors_table(last) if last else None,
        "histograms": _histograms(rows),
        "classes": [(printable(name), *_bars(values)) for name, values in rows.classes.items()],
        "problems": _problems(rows),
        "kept": _kept(status),
        "groups": [_table(column, one, rows) for column, one in [*rows.groups.items()][:MOST_TABLES] if one.found],
        "groups_note": _about_groups(rows, rules),
        "runs": runs_table(runs, entries),
        "environment": _environment(labelling, entries),
        "command": short(entries[-1].command, 2 * MOST_FACT) if entries else "",
        "pipeline": _json(record.pipeline),
        "is_empty": not labelling.done,
    }
    recorded = _recorded(sink, storage_options, pipeline, trust) if rows.worst else None
    return opened.store, _within_bytes(values, labelling, recorded, rows)


def _recorded(
    sink: str | Store, storage_options: GivenOptions | None, pipeline: Pipeline | None, trust: bool
) -> Recorded | None:
    """Return the pipeline that recordings are read by; None if there is none."""
    try:
        url = sink if isinstance(sink, str) else sink.url
        return read_recorded(url, storage_options, pipeline=pipeline, trust=trust)
    except (PlanError, SpecError):  # of another version of raysp, for example
        return None


def _within_bytes(values: Mapping[str, object], sink: Labelling, recorded: Recorded | None, rows: Rows) -> str:
    """Return the page, with as many recordings as there is room for."""
    worst = rows.worst
    without = played(sink, None, worst, 0)
    page = rendering.render("labels.html", **values, worst=without.rows, worst_note=without.note)
    if len(page.encode()) > MOST_BYTES:
        worst = worst[:1]
        values = {**values, "pipeline": ""}
        page = rendering.render("labels.html", **values, worst=without.rows[:1], worst_note=without.note)
    found = played(sink, recorded, worst, MOST_BYTES - len(page.encode()) - MOST_MESSAGE)
    return rendering.render("labels.html", **values, worst=found.rows, worst_note=found.note)


def _title(sink: Labelling) -> str:
    pipeline = sink.record.pipeline
    name = pipeline.get("name") if isinstance(pipeline, dict) else None
    return short(name if name else sink.url.rstrip("/").rpartition("/")[2])


def _subtitle(status: Status, last: RunWork | None) -> str:
    """Return the progress of the labelling, with the time of its last result."""
    share = status.rows_committed / status.rows if status.rows else 1.0
    match status.running:
        case _ if status.is_complete:
            state = "Labelling is done"
        case Running.YES | Running.ELSEWHERE:
            state = f"Labelling is {share:.0%} done"
        case _:
            state = f"Labelling has stopped, {share:.0%} done"
    if last is None:
        return state
    return f"{state}. Last result {datetime.fromtimestamp(last.end, UTC):%Y-%m-%d %H:%M} UTC"


def _verdict(status: Status, rows: Rows, last: RunWork | None) -> list[Verdict]:
    """Return the figures that the page leads with: errors, rows without a label, speed."""
    found = []
    if rows.errors.rows:
        scores = rows.errors.scores()
        found.append(Verdict(scores.value("wer"), "word error rate", scores.interval("wer")))
    elif (score := rows.columns.score) and (values := rows.numbers[score].values).size:
        found.append(Verdict(f"{np.median(values):.3g}", f"median {short(score)}", "log-probability by token"))
    without = status.rows_committed - status.ok
    found.append(Verdict(f"{without:,}", "rows without a label", f"of {status.rows_committed:,}"))
    if last is not None and last.rtfx is not None:
        found.append(Verdict(f"{times_real_time(last.rtfx)} x", "real time", "last run, start included"))
    return found


def _facts(sink: Labelling, status: Status, rows: Rows, last: RunWork | None) -> dict[str, str]:
    shards = f"{status.shards_committed:,} of {count(status.shards, 'shard')}"
    problems = {**status.failed, **status.foreign}
    facts = {
        "Labels of": str(sink.checkpoint or ""),
        "Corpus": _corpus(sink),
        "Rows": f"{status.rows_committed:,} of {count(status.rows, 'row')} committed, in {shards}",
        "Outcome": f"{status.ok:,} ok, {status.skipped:,} skipped, {count(status.error, 'error')}",
        "Audio": f"{duration(status.audio_seconds)} in committed shards",
        **_error_rates(rows),
        "Last run": _last_run(last) if last else "",
        "Models": _models(last) if last else "",
        "Failed": "; ".join(f"{name}: {reason}" for name, reason in [*problems.items()][:3]),
        "Labels in": sink.url,
    }
    return {name: short(fact, MOST_FACT) for name, fact in facts.items() if fact}


def _corpus(sink: Labelling) -> str:
    source = sink.record.pipeline.get("source") if isinstance(sink.record.pipeline, dict) else None
    url = source.get("url") if isinstance(source, dict) else None
    urls = [str(one) for one in (url if isinstance(url, list) else [url]) if one is not None]
    more = [f"and {len(urls) - 3:,} more"] if len(urls) > 3 else []
    return ", ".join([*urls[:3], *more, *([f"references in {sink.reference}"] if sink.reference else [])])


def _error_rates(rows: Rows) -> dict[str, str]:
    if not rows.errors.rows:
        return {}
    scores = rows.errors.scores()
    return {"WER": scores.described("wer"), "CER": f"{scores.value('cer')} ({scores.interval('cer')})"}


def _last_run(last: RunWork) -> str:
    found = f"{count(last.counts.rows, 'row')}, {duration(last.counts.audio_seconds)} of audio"
    if last.wall_seconds is None or last.rtfx is None:
        return found
    return f"{found} in {duration(last.wall_seconds)}: RTFx {last.rtfx:,.1f}, start included"


def _models(last: RunWork) -> str:
    padding, waited = last.counts.padding_efficiency, last.counts.wait_share
    parts = [f"padding efficiency {padding:.1%}"] if padding is not None else []
    parts += [f"waited for input {waited:.1%} of their time"] if waited is not None else []
    return ", ".join([*parts, count(len(last.actors), "actor")])


def _histograms(rows: Rows) -> list[Chart]:
    found = []
    if rows.durations.values.size:
        durations = rows.durations
        found.append(histogram("Duration", durations.values, "seconds", note=durations.note, may_be_log=True))
    for name, sample in rows.numbers.items():
        if not sample.values.size:
            continue
        if name == rows.columns.score and sample.values.max() <= 0:
            doubts = np.clip(-np.expm1(sample.values), LEAST_DOUBT, 1)
            across = "doubt of a token, 1 - exp(score)"
            found.append(histogram(short(name), doubts, across, note=sample.note, may_be_log=True))
        else:
            found.append(histogram(short(name), sample.values, "value", note=sample.note))
    return found


def _bars(values: Values) -> tuple[tuple[Share, ...], str]:
    """Return bars of the most frequent classes, and how many others there are."""
    found = values.counts.most_common()
    names, numbers = [name for name, _ in found[:MOST_BARS]], [number for _, number in found[:MOST_BARS]]
    more = left_out(found, "class", MOST_BARS)
    others = f"{count(values.others, 'row')} of further classes" if values.others else ""
    bars = shares([short(name, MOST_CELL) for name in names], numbers, [f"{number:,}" for number in numbers])
    return bars, "; ".join(one for one in (more, others) if one)


def _problems(rows: Rows) -> list[dict[str, object]]:
    """Return the reasons of rows without a label, the most frequent first."""
    found = sorted(rows.problems.items(), key=lambda item: -item[1].rows)
    return [
        {
            "kind": short(kind, MOST_CELL),
            "rows": count(one.rows, f"{one.status} row"),
            "remedy": "" if kind in (FILTERED, WITHDRAWN) else printable(remedy(kind)),
            "examples": [(short(example.id, 80), short(example.message, MOST_MESSAGE)) for example in one.examples],
        }
        for kind, one in found
    ]


def _kept(status: Status) -> Table | None:
    """Return the rows and the audio that come into each step that filters, that it leaves out, and that it keeps."""
    found: list[tuple[str, ...]] = []
    for one in status.kept:
        found.append((one.step, "in", f"{one.rows:,}", duration(one.seconds)))
        found += [
            ("", short(f"out: {out.rule}", MOST_CELL), f"{out.rows:,}", duration(out.seconds)) for out in one.left_out
        ]
        found.append(("", "kept", f"{one.kept:,}", duration(one.kept_seconds)))
    return Table("Kept rows", ("step", "rows that are", "rows", "decoded"), found) if found else None


def _table(column: str, groups: Groups, rows: Rows) -> Table:
    """Return rows, audio and error rates by the values of a column: the worst first, or the most frequent."""
    compares = rows.columns.compares and rows.errors.rows > 0
    found = [(key, group, group.errors.scores() if compares else None) for key, group in groups.found.items()]
    if column == SECONDS:
        found.sort(key=lambda one: _lower_end(one[0]))
    elif column == rows.columns.score:
        found.sort(key=lambda one: SCORE_BANDS.index(str(one[0])) if one[0] in SCORE_BANDS else len(SCORE_BANDS))
    else:
        found.sort(
            key=lambda one: ((one[2] and -(one[2].metrics["wer"].value or 0.0)) or 0.0, -one[1].statuses.total())
        )
    shown = []
    for key, group, scores in found[:MOST_GROUPS]:
        cells = [f"{group.statuses.total():,}", f"{group.statuses['ok']:,}", duration(group.seconds)]
        if scores:
            cells += [f"{scores.counts['words']:,}", scores.value("wer"), scores.interval("wer"), scores.value("cer")]
        shown.append((short(key, MOST_CELL), *cells))
    name = "seconds" if column == SECONDS else short(column, MOST_CELL)
    metrics = ("words", "WER", "95% interval", "CER") if compares else ()
    title = "By duration" if column == SECONDS else f"By {name}"
    return Table(title, (name, "rows", "ok", "audio", *metrics), shown, left_out(found, "group"))


def _lower_end(name: object) -> float:
    """Return the shortest duration of a band, as a sort key; unknown durations come last."""
    text = str(name).lstrip(">=").partition("-")[0]
    return 0.0 if text.startswith("<") else float(text) if text.isdigit() else float("inf")


def _about_groups(rows: Rows, rules: Normalisation | None) -> str:
    """Return an explanation of the error rates, and which of them are approximate."""
    if not rows.errors.rows:
        return ""
    how = f"normalised by {rules.name}, {rules.description}" if rules else "case and punctuation are ignored"
    notes = [
        f"Words of {rows.columns.hypothesis} against {rows.columns.reference}: {how}",
        "intervals hold 95% of bootstrap draws of rows",
    ]
    if rows.errors.is_bundled:
        notes[-1] += ", which are added up in 1,000 random bundles where they are more"
    if rows.too_long:
        notes.append(f"{count(rows.too_long, 'row')} with longer texts are not compared")
    return printable(f"{'; '.join(notes)}.")


def _environment(sink: Labelling, entries: Sequence[RunEntry]) -> dict[str, str]:
    resolved = sink.record.resolved
    versions = entries[-1].versions if entries else {}
    facts = {
        "Versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "Precision": ", ".join(one for one in (resolved.dtype, resolved.device or "") if one),
        "Checkpoint digest": sink.checkpoint_digest or UNDEFINED,
        "Fingerprint": sink.record.fingerprint,
    }
    return {name: short(fact, MOST_FACT) for name, fact in facts.items() if fact}


def _json(value: JsonValue) -> str:
    """Return a value as text, cut if it is long."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    more = f"\n… and {count(len(text) - MOST_JSON, 'more character')}" if len(text) > MOST_JSON else ""
    return "\n".join(printable(line) for line in f"{text[:MOST_JSON]}{more}".split("\n"))
