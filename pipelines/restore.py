"""Add punctuation and capitals to the texts of a first run (here `label_ctc.py`), in a second one that finds speakers.

raysp run pipelines/restore.py --set source.url=CORPUS --set source.labels=LABELS --set steps.2.checkpoint=SPEAKERS

Classes of the token classifier are the mark after a word, "0" for none. The labels of the first run stay.
"""

import re
import textwrap
from functools import cache

import pyarrow as pa

import raysp


@cache
def classifier():  # type: ignore[no-untyped-def]  # noqa: ANN201
    """Return the model, which each process loads once; another one is another fingerprint."""
    from transformers import pipeline

    return pipeline("token-classification", "oliverguhr/fullstop-punctuation-multilang-large")


def restored(rows: pa.Table) -> dict[str, list[str | None]]:
    """Return the texts of rows with punctuation and capitals. Texts are classified alone, 600 characters at a time."""
    return {"restored_text": [text and _written(text.lower()) for text in rows["pred_text"].to_pylist()]}


def _written(text: str) -> str:
    marked = []
    for part in textwrap.wrap(text, 600):
        marks = {one["end"]: one["entity"].strip("0") for one in classifier()(part)}  # a word ends with its last token
        marked += [word[0] + marks.get(word.end(), "") for word in re.finditer(r"\S+", part)]
    return re.sub(r"(^|[.?!] )(.)", lambda start: start[0].upper(), " ".join(marked))


columns = raysp.Map(restored, reads=["pred_text"], adds={"restored_text": "string"})
steps = [columns, raysp.Decode(), raysp.Label("speakers", outputs=[raysp.Turns()])]
pipeline = raysp.Pipeline(raysp.Shards("corpus", labels="labels"), steps=steps, sink=raysp.Parquet("restored"))
