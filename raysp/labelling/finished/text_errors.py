"""Word errors of finished labels by a normalisation that a user names, from the texts of the label shards."""

from itertools import chain

from raysp.errors import PlanError
from raysp.evaluation.normalising import Normalisation, normalisation
from raysp.labelling.finished.finished_labels import Labelling
from raysp.sink.word_errors import TextColumns, WordErrors
from raysp.specs.text_rules import Text
from raysp.text.normalisation import TextRules


def asked_rules(normalise: str | Text | None) -> Normalisation | None:
    """Return the normalisation of a name or of rules; None if none is named.

    Raises:
        SpecError: the name is unknown, or its package is not installed.
    """
    if isinstance(normalise, Text):
        return normalisation(TextRules(normalise.case, normalise.keep, normalise.language))
    return None if normalise is None else normalisation(normalise)


def refuse_without_texts(url: str, reference: str | None, *, has_transcript: bool) -> None:
    """Raise if a pipeline counts no word errors.

    Raises:
        PlanError: it names no reference texts, or its labels have no transcript.
    """
    if reference is None:
        found = "found source.text=None; set it to the column of the reference texts, or leave normalise out"
    elif not has_transcript:
        found = "found no transcript among its labels; leave normalise out"
    else:
        return
    raise PlanError(f"{url}: normalise applies to word errors of transcripts against reference texts: {found}")


def count_errors_by(sink: Labelling, rules: Normalisation, columns: TextColumns | None = None) -> WordErrors:
    """Count the word errors of all finished label shards, and of the rows that were left out of them.

    Args:
        sink: the labels.
        rules: normalisation of both texts.
        columns: columns of the texts; None: those of the sink.

    Raises:
        PlanError: as `refuse_without_texts`.
        StoreError: a label shard cannot be read.
    """
    errors, columns = WordErrors.by(rules), columns or sink.texts
    refuse_without_texts(sink.url, sink.reference, has_transcript=columns is not None or not sink.done)
    if columns is None:
        return errors
    names = [*columns, "status"]
    for name in sink.shards:
        if name in sink.done:
            for table in chain(sink.tables(sink.shards[name], names), sink.left_out(sink.shards[name], names)):
                errors.count(table, columns, rules)
    return errors
