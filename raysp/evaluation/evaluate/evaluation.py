"""Evaluation of a checkpoint: a run that labels shards, and metrics of the labels against a column of the shards."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

import pyarrow as pa

from raysp.cluster.addresses import uses_cluster
from raysp.cluster.resources import with_absolute_paths
from raysp.errors import CheckpointError, PlanError, SpecError, refuse_unused
from raysp.evaluation.comparing import Task, compare_labels
from raysp.evaluation.evaluate.evaluation_result import EvaluationResult
from raysp.evaluation.evaluate.evaluation_rows import EvaluatedRows, join
from raysp.evaluation.evaluate.kept_columns import not_kept, with_compared
from raysp.evaluation.evaluate.question import METRICS, WORST, Question, check_options, task_of
from raysp.evaluation.evaluate.references import ComparedColumns, References, read_references
from raysp.evaluation.intervals import Intervals
from raysp.evaluation.limits import Limit, limits_of
from raysp.evaluation.scores import SECONDS, Comparison, Estimate
from raysp.labelling.engine.display import OnProgress
from raysp.labelling.engine.run_result import RunResult, refuse_no_commit
from raysp.labelling.engine.running import RunOptions, label_corpus
from raysp.labelling.planning.run_plan import Plan
from raysp.models.labelled_passes import REGRESSION, CheckpointSummary
from raysp.sink.label_rows import read_labels
from raysp.specs.outputs.classes import Classes
from raysp.specs.outputs.embedding import Embedding
from raysp.specs.outputs.output import Output
from raysp.specs.outputs.transcript import Transcript
from raysp.specs.pipeline import Parquet, Pipeline, Shards
from raysp.specs.steps import EACH, Decode, Label, Step
from raysp.specs.text_rules import Text, normalisation_of
from raysp.specs.work_files import with_overrides
from raysp.text.error_rates import DEFAULT, Normalised
from raysp.words import count

NOT_KEPT = "not-kept"
"""Url of the sink of a pipeline if none is given; nothing is written there."""
OUTPUTS: Mapping[Task, Output] = {
    "recognition": Transcript(),
    "classification": Classes(),
    "verification": Embedding(pooling="xvector"),
}
"""Outputs whose labels are compared."""
EXPECTED: Mapping[Task, str] = {
    "recognition": "raysp.Transcript()",
    "classification": "raysp.Classes(top_k=1)",
    "verification": "raysp.Embedding(pooling='xvector'), or 'mean', of one layer",
}
"""Outputs whose labels can be compared, as text."""


def evaluate(
    checkpoint: str | Label,
    shards: str | Sequence[str] | Shards,
    *,
    text: str | None = None,
    label: str | None = None,
    speaker: str | None = None,
    by: Sequence[str] = (),
    over: str | None = None,
    normalise: str | Text | None = None,
    fail_above: Mapping[str, float] | None = None,
    fail_below: Mapping[str, float] | None = None,
    rows: int | None = None,
    worst: int | None = None,
    steps: Sequence[Step] | None = None,
    sink: str | Parquet | None = None,
    settings: Sequence[str] = (),
    engine: str = "auto",
    address: str | None = None,
    on_plan: Callable[[Plan], None] | None = None,
    on_progress: OnProgress | None = None,
    progress: bool = True,
) -> EvaluationResult:
    """Label shards with a checkpoint, and compare the labels with a column of the shards.

    With `text` the metrics are the word and the character error rate; with `label` accuracy, macro F1 and, for two
    classes, the equal error rate; with `speaker` the equal error rate of the cosines of pairs of embeddings. Each has a
    95 % bootstrap interval. Rows without a reference and rows that could not be labelled are counted, and are in no
    metric.

    Args:
        checkpoint: model folder, url or hub id; or a `Label` step, for its settings.
        shards: url or urls of the shards; or a `Shards`. Without a `Shards`, ids come from a column "id", if any.
        text: column of the reference texts; None: `shards.text`.
        label: column of the right classes, for a classifier.
        speaker: column of the speakers, for a checkpoint with an x-vector head; a `Label` step with
            `Embedding(pooling="mean")` compares the means of frames instead.
        by: columns; the metrics are also computed for the rows of each of their values. "seconds" stands for bands of
            duration, which are always computed.
        over: column of the units of the bootstrap, such as speakers; None: rows are drawn.
        normalise: with `text`: "none", "lower", "letters" (default), "whisper-english" or "whisper-basic"; or rules.
        fail_above: limits of error rates, by metric; if one is exceeded, `exit_code` is 1.
        fail_below: limits of accuracy and macro F1.
        rows: number of rows, the first of the shards; None: all.
        worst: number of rows with the most errors to list, 10; not of speakers.
        steps: steps before the model; None: `Decode()`.
        sink: place for the labels, with the columns that are compared, from which a repeated evaluation continues, also
            one with other columns; None: they are not kept. Labels of the first `rows` never are: then a sink is
            refused, but on a cluster, where it is the place of a temporary one.
        settings: changes, as `PATH=VALUE`, to the pipeline of source, steps and sink.
        engine: "here", "ray" or "auto", as for `raysp.run`.
        address: address of a Ray cluster; "local": a local Ray that ends with the run; None: RAY_ADDRESS, else a local
            Ray.
        on_plan: called with the plan before any work.
        on_progress: called after every block and commit, and while the last commits are awaited.
        progress: show progress on stderr: one live line on a terminal or in a notebook, else a line every ten seconds.

    Raises:
        SpecError, PlanError, ChangedError, CheckpointError, ShardError, StoreError: before any work.
        RunError: too many error rows, or Ray failed.
    """
    is_kept = sink is not None and rows is None
    source = shards if isinstance(shards, Shards) else Shards(shards) if is_kept else Shards(shards, id=None)
    task, reference = task_of(source, text, label, speaker)
    check_options(task, normalise, worst)
    groups = tuple(name for name in by if name != SECONDS)
    question = Question(
        columns=ComparedColumns(task, reference, tuple(dict.fromkeys([*groups, *([over] if over else [])]))),
        by=groups,
        over=over,
        rules=normalisation_of(DEFAULT if normalise is None else normalise),
        limits=limits_of(fail_above, fail_below, METRICS[task]),
        worst=WORST if worst is None else worst,
    )
    pipeline = with_overrides(_pipeline(checkpoint, source, task, steps, sink), settings)
    _check_pipeline(pipeline, task)
    has_sink = sink is not None or pipeline.sink.url != NOT_KEPT
    is_kept = has_sink and rows is None
    if is_kept:
        pipeline = with_compared(pipeline, question.columns)
    if uses_cluster(engine, address):
        if not has_sink:
            raise SpecError("sink: on a cluster all machines write labels; give a folder or url that they all reach")
        pipeline = with_absolute_paths(pipeline)
    elif rows is not None:
        why = f"labels of the first rows (rows={rows}) are not kept; leave out one of them"
        refuse_unused({"sink": has_sink}, why)
    reading = _Reading(question, on_plan)
    options = RunOptions(engine, address, reading, on_progress, progress)
    result = label_corpus(pipeline, options, rows=rows, is_kept=is_kept, default_text=None if is_kept else text)
    if is_kept:
        refuse_no_commit(result)
    labels = _read_labels(reading.plan, result) if result.table is None else result.table
    joined = join(reading.references, labels, result.shards_failed, _outputs(pipeline, task))
    comparison = _compare(joined, question, reading.plan.settings.checkpoint)
    without_table = dataclasses.replace(result, table=None)
    return _result(question, reading.plan, joined, comparison, without_table, rows=rows, is_kept=is_kept)


class _Reading:
    """A callback that reads the references once a run is planned, and refuses wrong ones before any work."""

    def __init__(self, question: Question, on_plan: Callable[[Plan], None] | None) -> None:
        self._question = question
        self._on_plan = on_plan
        self.plan: Plan
        self.references: list[References]

    def __call__(self, plan: Plan) -> None:
        self.plan = plan
        checkpoint, columns = plan.settings.checkpoint, self._question.columns
        if columns.task == "classification":
            _check_classifier(checkpoint, self._question.limits)
        for name, reason in () if plan.corpus.shards else plan.corpus.unreadable.items():
            raise PlanError(f"no shard can be read, such as {name}: {reason}")
        self.references = read_references(plan.pipeline.source, plan.corpus.shards, columns)
        if columns.task == "classification":
            _check_classes(checkpoint, columns.reference, self.references)
        if columns.task == "verification":
            _check_speakers(columns.reference, self.references)
        if self._on_plan:
            self._on_plan(plan)


def _pipeline(
    checkpoint: str | Label, source: Shards, task: Task, steps: Sequence[Step] | None, sink: str | Parquet | None
) -> Pipeline:
    label = checkpoint if isinstance(checkpoint, Label) else Label(checkpoint, outputs=[OUTPUTS[task]])
    place = sink if isinstance(sink, Parquet) else Parquet(sink or NOT_KEPT)
    return Pipeline(source, steps=[*([Decode()] if steps is None else steps), label], sink=place)


def _outputs(pipeline: Pipeline, task: Task) -> tuple[str, ...]:
    """Return the columns of hypotheses, with scores for classes; or of embeddings; empty without such outputs."""
    for output in pipeline.label.outputs:
        if task == "recognition" and output.text_column is not None:
            return (output.text_column,)
        if task == "classification" and isinstance(output, Classes) and output.top_k == 1:
            return output.columns
        if task == "verification" and isinstance(output, Embedding) and output.is_one_vector:
            return output.columns
    return ()


def _check_pipeline(pipeline: Pipeline, task: Task) -> None:
    """Raise SpecError if the labels of a pipeline cannot be compared with references."""
    if not _outputs(pipeline, task):
        raise SpecError(f"Label: found outputs {list(pipeline.label.outputs)!r}, expected {EXPECTED[task]} among them")
    if pipeline.decode.channel == EACH:
        raise SpecError(
            "steps: found Decode(channel='each'), which labels each channel, and a row has one reference; evaluate "
            "one by Decode(channel=0)"
        )
    if pipeline.sink.rows != "all":
        raise SpecError(f"sink: found rows={pipeline.sink.rows!r}, expected 'all': an evaluation counts all rows")


def _check_classifier(checkpoint: CheckpointSummary, limits: Sequence[Limit]) -> None:
    """Raise unless a checkpoint gives each recording one of its classes, of which a limit of the EER needs two."""
    if checkpoint.is_multi_label or checkpoint.problem_type == REGRESSION or len(checkpoint.labels) < 2:
        raise CheckpointError(
            f"{checkpoint.path}: found {len(checkpoint.labels)} outputs of problem type {checkpoint.problem_type!r}; "
            "an evaluation compares one class of several per recording"
        )
    if len(checkpoint.labels) > 2 and any(limit.metric == "eer" for limit in limits):
        raise PlanError(
            f"fail_above: the equal error rate needs two classes, {checkpoint.path} has {len(checkpoint.labels)}; "
            "use accuracy or f1"
        )


def _check_classes(checkpoint: CheckpointSummary, column: str, references: Sequence[References]) -> None:
    """Raise if no reference is a class of a checkpoint."""
    classes = {name for shard in references for name in shard.references if name is not None}
    if classes.isdisjoint(checkpoint.labels):
        some, expected = (", ".join(map(repr, sorted(names)[:5])) for names in (classes, checkpoint.labels))
        raise PlanError(
            f"column {column!r}: found {some}, none of which is a class of {checkpoint.path} ({expected}, ...); name "
            "the column of the classes, written as in the checkpoint's config.json"
        )


def _check_speakers(column: str, references: Sequence[References]) -> None:
    """Raise PlanError unless there are several speakers, one of them with several rows."""
    rows = Counter(name for shard in references for name in shard.references if name is not None)
    if len(rows) < 2:
        raise PlanError(
            f"column {column!r}: found {count(rows.total(), 'row')} of the speaker {min(rows)!r} alone, expected "
            "several speakers, whose rows are compared with each other; evaluate more rows, or name the column of the "
            "speakers"
        )
    if max(rows.values()) < 2:
        raise PlanError(
            f"column {column!r}: found {count(len(rows), 'speaker')} with one row each, such as {min(rows)!r}, "
            "expected several rows of a speaker; evaluate more rows, or name the column of the speakers"
        )


def _read_labels(plan: Plan, result: RunResult) -> pa.Table:
    """Return the label rows of the shards that are committed, in the order of the plan."""
    store = plan.sink.store
    shards = [shard for shard in plan.corpus.shards if shard.name not in result.shards_failed]
    tables = [table for shard in shards for table in read_labels(store, shard)]
    return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})


def _compare(rows: EvaluatedRows, question: Question, checkpoint: CheckpointSummary) -> Comparison:
    groups = rows.columns.by
    by = {name: groups[name] for name in question.by}
    columns = dataclasses.replace(rows.columns, by=by, over=groups[question.over] if question.over else None)
    task = question.columns.task
    return compare_labels(
        task,
        rows.labelled,
        columns,
        classes=checkpoint.labels if task == "classification" else (),
        normalise=question.rules,
        worst=question.worst,
    )


def _result(
    question: Question,
    plan: Plan,
    joined: EvaluatedRows,
    comparison: Comparison,
    result: RunResult,
    *,
    rows: int | None,
    is_kept: bool,
) -> EvaluationResult:
    columns, rules, scores = question.columns, question.rules, comparison.scores
    return EvaluationResult(
        checkpoint=plan.pipeline.label.checkpoint,
        checkpoint_digest=plan.settings.checkpoint_digest,
        source=plan.pipeline.source.urls,
        first_rows=rows,
        task=columns.task,
        column=columns.reference,
        normalisation=Normalised(rules.name, rules.description) if columns.task == "recognition" else None,
        rows=joined.counts,
        scores=scores,
        by=comparison.by,
        classes=comparison.classes,
        worst=tuple(joined.worst(mismatch) for mismatch in comparison.worst),
        intervals=Intervals(question.over),
        limits=tuple(
            limit.compared(scores.metrics.get(limit.metric, Estimate(None)).value) for limit in question.limits
        ),
        labels=result.sink if is_kept else None,
        run=result,
        not_kept=not_kept(plan.pipeline, columns) if is_kept else (),
    )
