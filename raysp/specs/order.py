"""The order of the steps of a pipeline or recipe, and the columns that pass between them, checked when it is made."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from raysp.columns import INNER_COLUMNS, INNER_PREFIX
from raysp.specs.outputs.output import Output
from raysp.specs.steps import EACH, WITHOUT_MODEL, Decode, Keep, Label, Pool, Step


@dataclass(frozen=True)
class Flow:
    """Steps by their places around the models, and the columns that pass between them."""

    decode: Decode
    """Step that decodes; one that is never used if `reads_audio` is false."""
    before: tuple[Step, ...]
    """Steps before the first model; all if there is none."""
    labels: tuple[Label, ...]
    """Steps that run models; `WITHOUT_MODEL` alone if `reads_audio` is false."""
    after: tuple[tuple[Step, ...], ...]
    """For each model the steps between it and the next one: they filter rows by outputs."""
    late: tuple[Step, ...]
    """Steps of `before` that add columns, or filter rows by columns that steps before them add, as functions may."""
    reads: tuple[str, ...]
    """Source columns that the steps read; the audio column only if a step besides `Decode` reads samples."""
    columns: tuple[str, ...]
    """Columns that the steps add."""
    reads_audio: bool
    """Whether recordings are read; otherwise the steps work on columns alone."""


def flow_of(steps: Sequence[Step], audio: str, *, has_labels: bool = False) -> Flow:
    """Return the steps with the columns between them.

    Expected are one `Decode` and, if the work has models, `Label` steps after it, with only filters between and after
    them. Work that may have models may also have neither, and then reads no audio.

    Args:
        steps: the steps.
        audio: column of the recordings.
        has_labels: whether there are models.

    Raises:
        ValueError: the order is another one, or a step reads or adds a column that it may not; the message names it.
    """
    names = [type(step).__name__ for step in steps]
    listing = f"found steps [{', '.join(names)}]"
    labels = [place for place, step in enumerate(steps) if isinstance(step, Label)]
    decodes = [place for place, step in enumerate(steps) if isinstance(step, Decode)]
    reads_audio = bool(labels or decodes) or not (has_labels and steps)
    if reads_audio and (len(decodes) != 1 or bool(labels) != has_labels):
        number = "at least one Label; or neither, for steps on columns alone" if has_labels else "no Label"
        raise ValueError(f"{listing}; expected one Decode and {number}")
    first = labels[0] if labels else len(steps)
    decoded = decodes[0] if decodes else len(steps)
    if decoded > first:
        raise ValueError(f"{listing}; expected Decode before Label")
    late: list[Step] = []
    reads: dict[str, None] = {}
    readers: dict[str, str] = {}
    added: dict[str, None] = {}
    for place, step in enumerate(steps):
        where = f"steps[{place}] {names[place]}"
        _check_audio(step, where, audio, is_decoded=place > decoded)
        if place < decoded and step.reads_seconds:
            advice = "move it after Decode" if decodes else "filter by a column, where=[('seconds', '>=', 1)]"
            raise ValueError(f"{listing}; {names[place]} by seconds needs decoded audio: {advice}")
        if isinstance(step, Output):
            _check_output(step, where, is_behind=place > first)
        if isinstance(step, Label):
            _check_label(step, where, steps, place, audio=audio, is_first=place == first)
        elif place > first:
            if step.columns:
                raise ValueError(
                    f"{listing}; expected only steps that filter rows after Label: move {names[place]} before it"
                )
            _check_filter(step, where, added)
        else:
            for column in step.reads:
                readers.setdefault(column, where)
            _check_added(step, where, readers)
            fields_of = {name.partition(".")[0] for name in step.reads}
            if step.columns or not added.keys().isdisjoint({*step.reads, *fields_of}) or (added and step.reads_all):
                late.append(step)
        reads |= dict.fromkeys(name for name in step.reads if not {name, name.partition(".")[0]} & added.keys())
        added |= dict.fromkeys(step.columns)
    after = tuple(tuple(steps[label + 1 : end]) for label, end in itertools.pairwise([*labels, len(steps)]))
    return Flow(
        decode=next((step for step in steps if isinstance(step, Decode)), Decode()),
        before=tuple(steps[:first]),
        labels=tuple(step for step in steps if isinstance(step, Label)) if reads_audio else (WITHOUT_MODEL,),
        after=after if reads_audio else ((),),
        late=tuple(late),
        reads=tuple(reads),
        columns=tuple(column for step in steps for column in step.columns),
        reads_audio=reads_audio,
    )


def _check_audio(step: Step, where: str, audio: str, *, is_decoded: bool) -> None:
    """Raise ValueError if a step reads the audio column, unless it adds columns from decoded samples."""
    if isinstance(step, Label) or audio not in step.reads or (step.columns and is_decoded):
        return
    if step.columns:
        raise ValueError(f"{where} reads decoded samples ({audio!r}): move it after Decode")
    subject = "where=" if isinstance(step, Keep) else "it"
    raise ValueError(f"{where}: {subject} cannot use the audio column {audio!r}")


def _check_output(output: Output, where: str, *, is_behind: bool) -> None:
    """Raise ValueError if an output that is a step too stands after `Label`, or reads a transcript of a step."""
    if is_behind:
        raise ValueError(f"{where} after Label reads its columns as one of its outputs: put it into outputs=[...]")
    try:
        output.check_order(())
    except ValueError as error:
        raise ValueError(f"{where}: {str(error).removeprefix('outputs.0 ')}") from None


def _check_added(step: Step, where: str, readers: dict[str, str]) -> None:
    """Raise ValueError if an added column has a name that raysp uses, or that this step or one before it reads."""
    for column in step.columns:
        if column in INNER_COLUMNS or column.startswith(INNER_PREFIX):
            raise ValueError(f"{where} adds the column {column!r}, a name that raysp uses between steps; rename it")
        if column in readers:
            raise ValueError(
                f"{where} adds the column {column!r}, and {readers[column]} reads a column of that name; a step reads "
                "columns of the source and of the steps before it: rename the added one, or move the step that reads it"
            )


def _check_label(label: Label, where: str, steps: Sequence[Step], place: int, *, audio: str, is_first: bool) -> None:
    """Raise ValueError if outputs read columns that they cannot have, or a later `Label` has a pool of its own."""
    if not is_first and label.pool != Pool():
        raise ValueError(
            f"{where}: found pool={label.pool}; all models of a run are in the same actors, those of the pool of the "
            "first Label: set it there"
        )
    for index, output in enumerate(label.outputs):
        for column in output.reads:
            reader = f"{where}: outputs[{index}] {type(output).__name__} reads the column {column!r}"
            if column == audio:
                raise ValueError(f"{reader}, the recordings; give another column of the source")
            for number, step in enumerate(steps):
                if column not in step.columns:
                    continue
                if number >= place or not (isinstance(step, Label) or output.reads_whole_rows):
                    raise ValueError(
                        f"{reader}, which steps[{number}] {type(step).__name__} adds; outputs read columns of the "
                        "source and of earlier Label steps, Agreement also those of Map before it: rename the added "
                        "one, or give such a column"
                    )


def _check_filter(step: Step, where: str, added: dict[str, None]) -> None:
    """Raise ValueError if a step after `Label` reads a column that no step before it adds."""
    for column in step.reads:
        if not {column, column.partition(".")[0]} & added.keys():
            raise ValueError(
                f"{where} after Label reads {column!r}, a column that no step before it adds; expected one of "
                f"{', '.join(added)}, or their fields. Move the step before Label to filter by columns of the source"
            )


def check_channels(steps: Sequence[Step], flow: Flow, audio: str, text: str | None) -> None:
    """Raise if each channel is labelled, and a step, an output or the corpus knows one recording or text a row.

    Args:
        steps: the steps.
        flow: their order.
        audio: column of the recordings.
        text: column of the reference texts.

    Raises:
        ValueError: a step, an output or the corpus does; the message names it, and has a remedy.
    """
    if flow.decode.channel != EACH:
        return
    outputs = [output for label in flow.labels for output in label.outputs]
    of_outputs = {column for output in outputs for column in output.columns}
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
    for index, step in enumerate(steps):
        where = f"steps[{index}] {type(step).__name__}"
        if audio in step.reads:
            raise ValueError(
                f"{where} reads decoded samples ({audio!r}), which are of one channel; with Decode(channel='each') "
                "leave it out, or read samples in a second pipeline with Decode(channel=0)"
            )
        lists = [name for name in step.reads if name.partition(".")[0] in of_outputs]
        if lists and index > len(flow.before):
            raise ValueError(
                f"{where} reads {lists[0]!r} as one value a row, and with Decode(channel='each') it is a list with an "
                "entry for each channel; give Keep(where='module:function'), a function of such lists"
            )
