"""Write subtitles for a folder of recordings, named as the recordings. Run again, it does what is new.

    python pipelines/subtitles.py RECORDINGS SUBTITLES [CHECKPOINT]

If SUBTITLES is RECORDINGS, they stand beside the recordings. The same in two commands, with the options of each:

    raysp run pipelines/subtitles.py --set source.url=RECORDINGS --set sink.url=LABELS
    raysp export LABELS SUBTITLES --to srt    # beside the recordings: raysp export LABELS --to srt --beside --trust

CHECKPOINT is a model that gives times of words (CTC or a transducer), here one of English. Cues end after clauses where
the model writes punctuation, else at pauses.
"""

import sys
from dataclasses import replace

import raysp

label = raysp.Label("facebook/wav2vec2-base-960h", outputs=[raysp.Transcript(words=True)])
steps = [raysp.Decode(), label]
pipeline = raysp.Pipeline(raysp.Shards("recordings"), steps=steps, sink=raysp.Parquet("labels"))


def main(recordings: str, subtitles: str, checkpoint: str = label.checkpoint) -> None:
    """Label a folder into `SUBTITLES-labels`, and export the labels, into the folder itself if both are the same."""
    labels = f"{subtitles.rstrip('/')}-labels"
    steps = [raysp.Decode(), replace(label, checkpoint=checkpoint)]
    labelling = raysp.Pipeline(raysp.Shards(recordings), steps=steps, sink=raysp.Parquet(labels))
    raysp.run(labelling)
    beside = subtitles.rstrip("/") == recordings.rstrip("/")
    dest = None if beside else subtitles
    sys.stdout.write(f"{raysp.export(labels, to='srt', dest=dest, beside=beside, pipeline=labelling)}\n")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:]) if len(sys.argv) in (3, 4) else sys.exit(__doc__)
    except raysp.RayspError as error:
        sys.exit(f"subtitles: {error}")
