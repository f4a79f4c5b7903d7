"""How to label again with the times of words, from the record of a sink."""

import shlex
from collections.abc import Iterator

from raysp.sink.run_record import RunRecord, objects_in


def how_to_ask(record: RunRecord, prefix: str) -> str:
    """Return the command that labels again with times of words, and the output to add where a model gives none.

    Args:
        record: record of the sink.
        prefix: prefix of the columns, the name of a transcript.
    """
    setting = next((f"steps.{step}.outputs.{output}.words=true" for step, output in _transcripts(record, prefix)), "")
    settings = [*(["--set", setting] if setting else []), "--set", "sink.url=OTHER"]
    command = shlex.join(["raysp", "run", "PIPELINE", *settings])
    with_change = "" if setting else " after that change"
    return (
        f"run `{command}`{with_change}, which labels into another sink; of a model without times of words (an "
        f"encoder-decoder) add a second step Label(CTC, outputs=[Align('{prefix}_text')]) instead, and export with "
        "--set to.column=aligned"
    )


def ask_words(record: RunRecord, prefix: str) -> str:
    """Return the advice for a format that needs words."""
    return (
        f"Ask for them with Transcript(words=True): {how_to_ask(record, prefix)}. Or name the prefix of other columns "
        "with --set to.column=NAME, such as aligned for those of Align()"
    )


def _transcripts(record: RunRecord, prefix: str) -> Iterator[tuple[int, int]]:
    """Yield the places of transcripts with a name: of the step, and of the output in it."""
    for place, step in enumerate(record.steps):
        for number, output in enumerate(objects_in(step, "outputs")):
            if (output.get("type"), output.get("name")) == ("Transcript", prefix):
                yield place, number
