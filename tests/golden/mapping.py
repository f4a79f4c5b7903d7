"""Functions of the golden cases, as a user writes them."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc


def shout(rows: pa.Table) -> dict[str, Any]:
    """Return the reference text in capitals and the number of its letters."""
    return {"loud": pc.utf8_upper(rows["text"]), "letters": pc.utf8_length(rows["text"])}


def is_sure(rows: pa.Table) -> Any:
    """Return whether the score of a row is high."""
    return pc.greater(rows["pred_score"], -0.02)
