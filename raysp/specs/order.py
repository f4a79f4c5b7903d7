"""Checks of the order of the steps of a pipeline or recipe, and of the columns that they read and add."""

from collections.abc import Sequence

from raysp.columns import INNER_COLUMNS, INNER_PREFIX
from raysp.specs.steps import Decode, Keep, Label, Step


def check_order(steps: Sequence[Step]) -> None:
    """Raise unless there are one `Decode` and, behind it, one `Label` that only filters follow.

    Raises:
        ValueError: with the steps.
    """
    names = [type(step).__name__ for step in steps]
    found = f"found steps [{', '.join(names)}]"
    if names.count("Decode") != 1 or names.count("Label") != 1:
        hint = ": label with a second pipeline, whose source names the sink of this one by labels="
        raise ValueError(f"{found}; expected one Decode and one Label{hint if names.count('Label') > 1 else ''}")
    place = names.index("Label")
    if names.index("Decode") > place:
        raise ValueError(f"{found}; expected Decode before Label")
    for name, step in zip(names[place + 1 :], steps[place + 1 :], strict=True):
        if step.columns:
            raise ValueError(f"{found}; expected only steps that filter rows behind Label: move {name} before it")


def check_outputs(steps: Sequence[Step], audio: str) -> None:
    """Raise if an output reads a column that is not one of the source, or the audio column.

    Raises:
        ValueError: with the output and the column.
    """
    place, label = label_of(steps)
    for index, output in enumerate(label.outputs):
        for column in output.reads:
            where = f"steps[{place}] Label: outputs[{index}] {type(output).__name__} reads the column"
            if column == audio:
                raise ValueError(f"{where} {column!r}, the recordings; give another column of the source")
            for number, step in enumerate(steps):
                if column in step.columns:
                    raise ValueError(
                        f"{where} {column!r}, which steps[{number}] {type(step).__name__} adds; outputs read columns "
                        "of the source: rename the added one, or give a column of the source"
                    )


def check_filters(steps: Sequence[Step]) -> None:
    """Raise if a step behind `Label` reads a column that no step adds.

    Raises:
        ValueError: with the step, the column and those that there are.
    """
    place, _ = label_of(steps)
    added = [column for step in steps for column in step.columns]
    for index, step in enumerate(steps[place + 1 :], place + 1):
        for column in step.reads:
            if column not in added and column.partition(".")[0] not in added:
                raise ValueError(
                    f"steps[{index}] {type(step).__name__} behind Label reads {column!r}, a column that no step adds; "
                    f"expected one of {', '.join(added)}, or a field of one. Move the step before Label to filter by "
                    "columns of the source"
                )


def label_of(steps: Sequence[Step]) -> tuple[int, Label]:
    """Return the step that runs the model, with its place."""
    return next((place, step) for place, step in enumerate(steps) if isinstance(step, Label))


def check_reads(steps: Sequence[Step], audio: str) -> None:
    """Raise if a step before `Decode` needs decoded audio, or one that adds no column reads the audio column.

    Raises:
        ValueError: with the step.
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
        ValueError: with the step and the column.
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
