"""How to label again with the times of words, from the record of a sink."""

import shlex
from collections.abc import Iterator, Mapping

from raysp.labelling.finished.finished_labels import Labelling
from raysp.sink.run_record import RunRecord, objects_in
from raysp.specs.values import JsonValue


def how_to_ask(labelling: Labelling, prefix: str) -> str:
    """Return the setting that names the words of an `Align`; or else the command that labels again with words.

    Args:
        labelling: labels without the words of a transcript.
        prefix: prefix of the columns, the name of the transcript.
    """
    if aligned := _aligned(labelling, prefix):
        return f"add {_column_of(aligned)}"
    record = labelling.record
    places = [place for *place, output in _outputs(record, "Transcript") if output.get("name") == prefix]
    setting = next((f"steps.{step}.outputs.{output}.words=true" for step, output in places), "")
    settings = [*(["--set", setting] if setting else []), "--set", "sink.url=OTHER"]
    command = shlex.join(["raysp", "run", "PIPELINE", *settings])
    with_change = "" if setting else " after that change"
    return (
        f"run `{command}`{with_change}, which labels into another sink; of a model without times of words (an "
        f"encoder-decoder) add a second step Label(CTC, outputs=[Align('{prefix}_text')]) instead, and export with "
        "--set to.column=aligned"
    )


def ask_words(labelling: Labelling, prefix: str) -> str:
    """Return the advice for a format that needs words."""
    if aligned := _aligned(labelling, prefix):
        return f"Add {_column_of(aligned)}"
    return (
        f"Ask for them with Transcript(words=True): {how_to_ask(labelling, prefix)}. Or name the prefix of other "
        "columns with --set to.column=NAME, such as aligned for the words of Align()"
    )


def _aligned(labelling: Labelling, prefix: str) -> str:
    """Return the name of an `Align` of the transcript, or of any if there is no transcript; empty without one."""
    text = f"{prefix}_text"
    names = (
        str(output.get("name"))
        for _, _, output in _outputs(labelling.record, "Align")
        if output.get("text") == text or text not in labelling.outputs
    )
    return next(names, "")


def _column_of(name: str) -> str:
    return f"--set to.column={name} for {name}_words"


def _outputs(record: RunRecord, kind: str) -> Iterator[tuple[int, int, Mapping[str, JsonValue]]]:
    """Yield the outputs of a kind with their places: of the step, and of the output in it."""
    for place, step in enumerate(record.steps):
        for number, output in enumerate(objects_in(step, "outputs")):
            if output.get("type") == kind:
                yield place, number, output
