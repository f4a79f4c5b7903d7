"""Golden cases: what is labelled or trained, with what, by public names only."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import raysp
from tests import kit
from tests.golden import checkpoints, corpora
from tests.golden.corpora import Source
from tests.golden.recorded import TOLERANCE, Result, compact
from tests.golden.trainings import TRAININGS, Training

WINDOWS = {"window_seconds": 2.5, "overlap_seconds": 0.5}


@dataclass(frozen=True)
class Labels:
    """Labels of a corpus by a checkpoint."""

    source: Source
    outputs: Sequence[object]
    checkpoint: Callable[[Path], object] | None = None
    """Write a checkpoint into a folder; None: the bundled one."""
    decode: raysp.Decode = field(default_factory=raysp.Decode)
    before: Sequence[object] = ()
    """Steps between `Decode` and `Label`."""
    after: Sequence[object] = ()
    label: dict[str, Any] = field(default_factory=dict)
    """Further fields of `Label`."""
    keep: Sequence[str] = ()
    """Columns of the source that are kept."""
    tolerance: float = TOLERANCE
    reads: str | None = None
    """Folder beside the checkout that the source reads."""

    @property
    def missing(self) -> str:
        """Reason why the case cannot run here; empty if it can."""
        is_there = self.reads is None or (corpora.RECORDINGS / self.reads).is_dir()
        return "" if is_there else f"needs the recordings of {self.reads}, which are not part of the project"

    def run(self, folder: Path) -> Result:
        """Label in a folder."""
        (folder / "in").mkdir()
        checkpoint = kit.CHECKPOINT
        if self.checkpoint is not None:
            self.checkpoint(checkpoint := folder / "checkpoint")
        label = raysp.Label(
            str(checkpoint),
            outputs=list(self.outputs),
            dtype="float32",
            device="cpu",
            **{"batch_seconds": 60, **self.label},
        )
        pipeline = raysp.Pipeline(
            self.source(folder / "in"),
            steps=[self.decode, *self.before, label, *self.after],
            sink=raysp.Parquet(str(folder / "out"), keep=list(self.keep)),
            max_error_rate=1.0,
        )
        raysp.run(pipeline, engine="here", progress=False)
        record = json.loads((folder / "out" / ".raysp" / "run.json").read_text())
        tables = [pq.read_table(pa.BufferReader(data)) for data in kit.label_shards(folder / "out").values()]
        columns = {one.name: str(one.type) for one in tables[0].schema}
        rows = [compact(row) for table in tables for row in table.to_pylist()]
        return {"label_version": record["parts"]["label_version"], "columns": columns}, rows


CHARS = raysp.Transcript(words=True, chars=True)
BEAMS = raysp.Transcript(beams=8, nbest=3, words=True)
HOT = raysp.Transcript(beams=8, hot_words={"THREE": 2.0, "NINE": 4.0})
LEVELS = [raysp.Transcript(), raysp.Speech(), raysp.Signals()]
LONG = ("en_ami_trn01.flac", "en_sonnet_p002.mp3", "de_aeneas.mp3")
SENTENCES = (
    "1998-15444-0001.flac", "LJ001-0011.flac", "leopard-test_es.wav", "spk2_snt5.wav", "yesno_0_1_0_0_1_0_1_0.wav"
)  # fmt: skip

CTC = [
    raysp.Transcript("greedy", words=True, chars=True),
    raysp.Transcript("beams", beams=4, nbest=2),
    raysp.Align("text"),
    raysp.Embedding(layer="all"),
]
CLASSES = [raysp.Classes(top_k="all"), raysp.Embedding()]
FRAMES = [raysp.Segments(threshold=0.4), raysp.Turns(merge_seconds=0.1, least_seconds=0.2), raysp.Embedding()]
SPEAKERS = [
    raysp.Embedding(pooling="xvector"),
    raysp.Turns(window_seconds=0.5, least_seconds=0.3, threshold=0.3),
]
TRANSDUCED = [raysp.Transcript(words=True, chars=True), raysp.Embedding()]
WRITTEN = [raysp.Transcript(generate={"max_new_tokens": 10}), raysp.Embedding()]
SEARCHED = [raysp.Transcript(generate={"max_new_tokens": 10, "num_beams": 3, "no_repeat_ngram_size": 2})]
GROUP = {"feat_extract_norm": "group", "conv_bias": False, "do_stable_layer_norm": False}
encoder = checkpoints.of_encoder
MODELS: dict[str, tuple[checkpoints.Write, Sequence[object]]] = {
    "UniSpeechForCTC": (encoder("UniSpeechForCTC"), CTC),
    "UniSpeechForSequenceClassification": (encoder("UniSpeechForSequenceClassification"), CLASSES),
    "UniSpeechForPreTraining": (encoder("UniSpeechForPreTraining"), [raysp.Embedding(layer="all")]),
    "Wav2Vec2ForCTC": (encoder("Wav2Vec2ForCTC"), CTC),
    "Wav2Vec2ForSequenceClassification": (encoder("Wav2Vec2ForSequenceClassification"), CLASSES),
    "Wav2Vec2ForSpeechClassification": (encoder("Wav2Vec2ForSpeechClassification"), CLASSES),
    "Wav2Vec2ForAudioFrameClassification": (encoder("Wav2Vec2ForAudioFrameClassification"), FRAMES),
    "Wav2Vec2ForXVector": (encoder("Wav2Vec2ForXVector"), [*SPEAKERS, raysp.Embedding("mixed", layer="mix")]),
    "Wav2Vec2Model": (encoder("Wav2Vec2Model", **GROUP, add_adapter=True), [raysp.Embedding(layer="all")]),
    "HubertForCTC": (encoder("HubertForCTC"), CTC),
    "HubertForSequenceClassification": (encoder("HubertForSequenceClassification"), CLASSES),
    "HubertForSpeechClassification": (encoder("HubertForSpeechClassification"), CLASSES),
    "HubertModel": (
        encoder("HubertModel", feat_proj_layer_norm=False, conv_pos_batch_norm=True),
        [raysp.Embedding(layer="all")],
    ),
    "SEWDForCTC": (encoder("SEWDForCTC"), CTC),
    "SEWDForSequenceClassification": (encoder("SEWDForSequenceClassification"), CLASSES),
    "Wav2Vec2BertForCTC": (encoder("Wav2Vec2BertForCTC"), CTC),
    "Wav2Vec2BertForSequenceClassification": (encoder("Wav2Vec2BertForSequenceClassification"), CLASSES),
    "Wav2Vec2BertForAudioFrameClassification": (encoder("Wav2Vec2BertForAudioFrameClassification"), FRAMES),
    "Wav2Vec2BertForXVector": (encoder("Wav2Vec2BertForXVector"), SPEAKERS),
    "Wav2Vec2BertModel": (encoder("Wav2Vec2BertModel", add_adapter=True), [raysp.Embedding(layer="all")]),
    "several_heads": (
        encoder("UniSpeechForCTC", "UniSpeechForSequenceClassification"),
        [raysp.Transcript(words=True), *CLASSES],
    ),
}
WRITERS: dict[str, tuple[checkpoints.Write, Sequence[object]]] = {
    "ParakeetForCTC": (checkpoints.parakeet("CTC"), [*CTC[:2], raysp.Embedding(layer="all")]),
    "ParakeetForRNNT": (checkpoints.parakeet("RNNT"), TRANSDUCED),
    "ParakeetForTDT": (checkpoints.parakeet("TDT"), TRANSDUCED),
    **{kind: (checkpoints.encoder_decoder(kind), WRITTEN) for kind in checkpoints.DECODERS},
    **{f"{kind}_beams": (checkpoints.encoder_decoder(kind), SEARCHED) for kind in checkpoints.DECODERS},
    "bert_after_Wav2Vec2Bert": (checkpoints.encoder_decoder("bert", "Wav2Vec2Bert"), WRITTEN),
    "bart_after_SEWD": (checkpoints.encoder_decoder("bart", "SEWD"), WRITTEN),
    "gpt2_after_adapter": (checkpoints.encoder_decoder("gpt2", add_adapter=True), WRITTEN),
}
"""Checkpoints that write word pieces, with their outputs."""


def _tolerance(name: str) -> float:
    """Return the tolerance of a checkpoint: logarithms of quiet bands magnify what the processors round differently."""
    return 1e-4 if name.startswith("Parakeet") else TOLERANCE


CASES: dict[str, Labels | Training] = {
    "digits/texts": Labels(corpora.all_digits, [raysp.Transcript()], keep=["speaker_id", "sampling_rate"]),
    "digits/chars": Labels(corpora.digits, [CHARS]),
    "digits/beams": Labels(corpora.digits, [BEAMS]),
    "digits/hot_words": Labels(corpora.digits, [HOT]),
    "digits/aligned": Labels(corpora.digits, [raysp.Align("text", chars=True)]),
    "digits/aligned_wildcard": Labels(corpora.joined, [raysp.Align("text", wildcard=True)]),
    "digits/aligned_of": Labels(corpora.digits, [raysp.Transcript(), raysp.Align(of="pred", name="own")]),
    "digits/embeddings": Labels(
        corpora.digits, [raysp.Embedding(), raysp.Embedding("unit", layer=2, normalize=True, dtype="float16")]
    ),
    "digits/layers": Labels(corpora.joined, [raysp.Embedding(layer="all"), raysp.Embedding("two", layer=[0, -1])]),
    "digits/frames": Labels(corpora.joined, [raysp.Embedding(pooling="none")], label=WINDOWS),
    "digits/levels": Labels(corpora.digits, LEVELS),
    "digits/windows": Labels(corpora.joined, [CHARS, raysp.Align("text"), raysp.Embedding()], label=WINDOWS),
    "digits/windows_of_speech": Labels(corpora.joined, [CHARS, raysp.Speech()], label={**WINDOWS, "windows": "speech"}),
    "digits/windows_beams": Labels(corpora.joined, [BEAMS], label=WINDOWS),
    "digits/channels": Labels(corpora.stereo, [CHARS, raysp.Embedding()], decode=raysp.Decode(channel="each")),
    "digits/channel": Labels(corpora.stereo, [raysp.Transcript()], decode=raysp.Decode(channel=1)),
    "digits/kept": Labels(
        corpora.digits,
        [raysp.Transcript()],
        before=[
            raysp.Map("tests.golden.mapping:shout", adds={"loud": "string", "letters": "int32"}, reads=["text"]),
            raysp.Keep(min_seconds=0.3, where=[("letters", ">", 3)]),
        ],
        after=[raysp.Keep(where="tests.golden.mapping:is_sure")],
    ),
    "digits/faults": Labels(
        corpora.faulty,
        [raysp.Transcript(words=True), raysp.Embedding(), raysp.Signals()],
        decode=raysp.Decode(max_seconds=20),
    ),
    "digits/kept_prefix": Labels(corpora.faulty, [raysp.Transcript()], decode=raysp.Decode(keep_prefix=True)),
    "recordings/long": Labels(
        corpora.real("long", *LONG), [raysp.Transcript(words=True), raysp.Embedding(), *LEVELS[1:]], reads="long"
    ),
    "recordings/sentences": Labels(
        corpora.real("sentences", *SENTENCES),
        [raysp.Transcript(words=True), raysp.Embedding(), *LEVELS[1:]],
        reads="sentences",
    ),
    **{
        f"{folder}/{name}": Labels(corpora.joined, outputs, write, label=WINDOWS, tolerance=_tolerance(name))
        for folder, models in (("models", MODELS), ("writers", WRITERS))
        for name, (write, outputs) in models.items()
    },
    **TRAININGS,
}
