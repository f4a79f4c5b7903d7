"""Checks of the order of the steps of a pipeline or recipe, and of the columns that they read and add."""

from collections.abc import Sequence

from raysp.columns import INNER_COLUMNS, INNER_PREFIX
from raysp.specs.steps import EACH, Decode, Keep, Label, Pool, Step


def check_order(steps: Sequence[Step]) -> None:
    """Raise unless there are one `Decode` and, behind it, `Label` steps with only filters between and behind them.

    Raises:
        ValueError: the steps are in another order; the message has them.
    """
    names = [type(step).__name__ for step in steps]
    found = f"found steps [{', '.join(names)}]"
    if names.count("Decode") != 1 or "Label" not in names:
        raise ValueError(f"{found}; expected one Decode and at least one Label")
    place = names.index("Label")
    if names.index("Decode") > place:
        raise ValueError(f"{found}; expected Decode before Label")
    for index, step in enumerate(steps[place + 1 :], place + 1):
        if isinstance(step, Label):
            if step.pool != Pool():
                raise ValueError(
                    f"steps[{index}] Label: found pool={step.pool}; all models of a run are in the same actors, those "
                    "of the pool of the first Label: set it there"
                )
        elif step.columns:
            raise ValueError(
                f"{found}; expected only steps that filter rows behind Label: move {names[index]} before it"
            )


def check_outputs(steps: Sequence[Step], audio: str) -> None:
    """Raise if an output reads a column that is neither one of the source nor of an earlier `Label`, or the audio.

    Raises:
        ValueError: an output does; the message names the output and the column.
    """
    for place, label in labels_of(steps):
        for index, output in enumerate(label.outputs):
            for column in output.reads:
                where = f"steps[{place}] Label: outputs[{index}] {type(output).__name__} reads the column"
                if column == audio:
                    raise ValueError(f"{where} {column!r}, the recordings; give another column of the source")
                for number, step in enumerate(steps):
                    if column in step.columns and not (isinstance(step, Label) and number < place):
                        raise ValueError(
                            f"{where} {column!r}, which steps[{number}] {type(step).__name__} adds; outputs read "
                            "columns of the source and of earlier Label steps: rename the added one, or give such a "
                            "column"
                        )


def check_filters(steps: Sequence[Step]) -> None:
    """Raise if a step behind `Label` reads a column that no step adds.

    Raises:
        ValueError: with the step, the column and those that there are.
    """
    place, _ = labels_of(steps)[0]
    for index, step in enumerate(steps[place + 1 :], place + 1):
        if isinstance(step, Label):
            continue
        added = [column for before in steps[:index] for column in before.columns]
        for column in step.reads:
            if column not in added and column.partition(".")[0] not in added:
                raise ValueError(
                    f"steps[{index}] {type(step).__name__} behind Label reads {column!r}, a column that no step before "
                    f"it adds; expected one of {', '.join(added)}, or a field of one. Move the step before Label to "
                    "filter by columns of the source"
                )


def check_channels(steps: Sequence[Step], audio: str, text: str | None) -> None:
    """Raise if each channel is labelled, and a step, an output or the corpus knows one recording or text a row.

    Args:
        steps: the steps.
        audio: column of the recordings.
        text: column of the reference texts.

    Raises:
        ValueError: a step, an output or the corpus does; the message names it, and has a remedy.
    """
    if not any(isinstance(step, Decode) and step.channel == EACH for step in steps):
        return
    labels = labels_of(steps)
    place, _ = labels[0]
    outputs = [output for _, label in labels for output in label.outputs]
    for index, step in enumerate(steps[:place]):
        if audio in step.reads:
            raise ValueError(
                f"steps[{index}] {type(step).__name__} reads decoded samples ({audio!r}), which are of one channel; "
                "with Decode(channel='each') leave it out, or read samples in a second pipeline with Decode(channel=0)"
            )
    for output in outputs:
        if output.reads:
            raise ValueError(
                f"{type(output).__name__}(name={getattr(output, 'name', '')!r}) reads the column {output.reads[0]!r}, "
                "one value a row, and with Decode(channel='each') every channel has outputs of its own; label the "
                "channel that the column is of by Decode(channel=0)"
            )
    if text is not None and any(output.text_column for output in outputs):
        raise ValueError(
            f"Shards(text={text!r}) is one text a row, and with Decode(channel='each') every channel has a text of its "
            f"own; leave text out, and copy the column by Parquet(keep=[{text!r}])"
        )
    for index, step in enumerate(steps[place + 1 :], place + 1):
        if isinstance(step, Label):
            continue
        of_outputs = {column for output in outputs for column in output.columns}
        lists = [name for name in step.reads if name.partition(".")[0] in of_outputs]
        if lists:
            raise ValueError(
                f"steps[{index}] {type(step).__name__} reads {lists[0]!r} as one value a row, and with "
                "Decode(channel='each') it is a list with an entry for each channel; give "
                "Keep(where='module:function'), a function of such lists"
            )


def late_steps(steps: Sequence[Step]) -> tuple[Step, ...]:
    """Return the steps that add columns, or filter rows by columns that steps before them add, as functions may."""
    added: set[str] = set()
    found = []
    for step in steps:
        if step.columns or not added.isdisjoint(step.reads) or (added and step.reads_all):
            found.append(step)
        added |= {*step.columns}
    return tuple(found)


def labels_of(steps: Sequence[Step]) -> list[tuple[int, Label]]:
    """Return the steps that run models, each with its place."""
    return [(place, step) for place, step in enumerate(steps) if isinstance(step, Label)]


def up_to_label(steps: Sequence[Step]) -> int:
    """Return the number of steps before the first `Label`, that one included; all if there is none."""
    labels = labels_of(steps)
    return labels[0][0] + 1 if labels else len(steps)


def check_reads(steps: Sequence[Step], audio: str) -> None:
    """Raise if a step before `Decode` needs decoded audio, or one that adds no column reads the audio column.

    Raises:
        ValueError: a step does; the message names it.
    """
    names = [type(step).__name__ for step in steps]
    for step in steps[: names.index("Decode")]:
        if step.reads_seconds:
            raise ValueError(
                f"found steps [{', '.join(names)}]; {type(step).__name__} by seconds needs decoded audio: move it "
                "after Decode"
            )
    decoded = next(index for index, step in enumerate(steps) if isinstance(step, Decode))
    for index, step in enumerate(steps):
        if audio not in step.reads or (step.columns and index > decoded):
            continue
        if step.columns:
            name = type(step).__name__
            raise ValueError(f"steps[{index}] {name} reads decoded samples ({audio!r}): move it after Decode")
        name = "Keep: where=" if isinstance(step, Keep) else f"{type(step).__name__}: it"
        raise ValueError(f"steps[{index}] {name} cannot use the audio column {audio!r}")


def check_added(steps: Sequence[Step]) -> None:
    """Raise if an added column has a name that raysp uses between steps, or that the step or one before it reads.

    Raises:
        ValueError: the name is taken; the message names the step and the column.
    """
    for index, step in enumerate(steps):
        where = f"steps[{index}] {type(step).__name__} adds the column"
        for column in step.columns:
            if column in INNER_COLUMNS or column.startswith(INNER_PREFIX):
                raise ValueError(f"{where} {column!r}, a name that raysp uses between steps; rename it")
            until = enumerate(steps[: index + 1])
            readers = [f"steps[{i}] {type(one).__name__}" for i, one in until if column in one.reads]
            if readers:
                raise ValueError(
                    f"{where} {column!r}, and {readers[0]} reads a column of that name; a step reads columns of the "
                    "source and of the steps before it: rename the added one, or move the step that reads it"
                )
