"""Find the language of each recording, then label it with the checkpoint of that language, and merge the labels.

raysp run pipelines/by_language.py:languages --set source.url=CORPUS --set steps.1.checkpoint=CLASSIFIER
raysp run pipelines/by_language.py:english --set source.url=CORPUS --set steps.2.checkpoint=ENGLISH
raysp run pipelines/by_language.py:german --set source.url=CORPUS --set steps.2.checkpoint=GERMAN
raysp merge labels-english labels-german --by pred_score --to labels

Rows of another language stay `skipped`. They are not decoded: the classes are read beside the shards.
"""

from dataclasses import replace

import raysp

CORPUS = raysp.Shards("corpus")

languages = raysp.Pipeline(
    CORPUS,
    steps=[raysp.Decode(), raysp.Label("classifier", outputs=[raysp.Classes()])],
    sink=raysp.Parquet("languages"),
)


def labels_of(language: str, checkpoint: str, sink: str) -> raysp.Pipeline:
    """Return the pipeline that labels the recordings of one language, by the name of its class."""
    steps = [
        raysp.Keep(where=[("pred_label", "==", language)]),
        raysp.Decode(),
        raysp.Label(checkpoint, outputs=[raysp.Transcript()]),
    ]
    return raysp.Pipeline(replace(CORPUS, labels="languages"), steps=steps, sink=raysp.Parquet(sink))


english = labels_of("en", "english", "labels-english")
german = labels_of("de", "german", "labels-german")
