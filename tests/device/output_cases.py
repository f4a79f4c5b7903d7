"""Every output, search and kind of decoding, with the checkpoint of each; importable without pytest."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import raysp
from raysp.ops.labelling import Labelling

ARPA = """\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-1 <unk>
-99 <s> -0.3
-1 </s>
-0.7 SEVEN -0.2
-0.9 TWO -0.1

\\2-grams:
-0.3 <s> SEVEN
-0.4 SEVEN TWO

\\end\\
"""


def labelling(checkpoint: Path, outputs: Sequence[Any], device: str, dtype: str) -> Labelling:
    """Return the op that labels rows in batches of several rows and windows."""
    return Labelling(
        str(checkpoint),
        lambda loaded: [output.op(loaded.summary, loaded) for output in outputs],
        batch_seconds=8,
        dtype=dtype,
        device=device,
        window_seconds=2.5,
        overlap_seconds=0.5,
        reads=tuple({output.text for output in outputs if getattr(output, "text", None)}),
    )


def generating(**options: object) -> raysp.Transcript:
    """Return a short text by a decoder."""
    return raysp.Transcript(generate={"max_new_tokens": 8, **options})


CASES: dict[str, tuple[str, list[Any]]] = {
    "greedy": ("demo", [raysp.Transcript(words=True, chars=True)]),
    "beams with a language model": (
        "demo",
        [raysp.Transcript(beams=8, nbest=3, words=True, lm="lm", hot_words={"SEVEN": 4.0})],
    ),
    "alignment of texts": ("demo", [raysp.Align("text", words=True, chars=True)]),
    "alignment of labels": ("demo", [raysp.Transcript(), raysp.Align(of="pred")]),
    "alignment of unknown characters": ("demo", [raysp.Align("text", unknown="wildcard", case_rules="tr")]),
    "signals": ("demo", [raysp.Signals(), raysp.Transcript()]),
    "speech": ("demo", [raysp.Speech(), raysp.Transcript()]),
    "turns by vectors": ("Wav2Vec2ForXVector", [raysp.Turns(threshold=0.02, least_seconds=0.5)]),
    "turns by vectors of another model": (
        "demo",
        [raysp.Transcript(words=True), raysp.Turns(checkpoint="Wav2Vec2ForXVector", speakers=2, least_seconds=0.5)],
    ),
    "turns by classes of frames": ("Wav2Vec2ForAudioFrameClassification", [raysp.Turns(least_seconds=0)]),
    "turns by classes of frames of another model": (
        "demo",
        [raysp.Transcript(words=True), raysp.Turns(checkpoint="Wav2Vec2BertForAudioFrameClassification")],
    ),
    "embeddings of frames": ("demo", [raysp.Embedding(pooling="none")]),
    "beams over pieces": ("ParakeetForCTC", [raysp.Transcript(beams=4)]),
    "greedy generation": ("SpeechEncoderDecoderModel", [generating()]),
    "generation by beams": ("SpeechEncoderDecoderModel", [generating(num_beams=3)]),
    "processed generation": (
        "SpeechEncoderDecoderModel",
        [generating(repetition_penalty=1.3, no_repeat_ngram_size=2, min_length=3)],
    ),
    "sampling": ("SpeechEncoderDecoderModel", [generating(do_sample=True, top_k=5, top_p=0.9)]),
}


def with_files(output: Any, place: Callable[[str], Path], language_model: str) -> Any:
    """Return an output with the paths that its names stand for.

    Args:
        output: of a case.
        place: returns the folder of a checkpoint by its name.
        language_model: path of a language model.
    """
    given = dict(vars(output))
    if given.get("lm") == "lm":
        given["lm"] = language_model
    if given.get("checkpoint"):
        given["checkpoint"] = str(place(given["checkpoint"]))
    return type(output)(**given) if given != vars(output) else output
