"""Every output, search and kind of decoding on the stand-in device: the labels of the CPU."""

import numpy as np
import pyarrow.parquet as pq
import pytest

import raysp
from raysp.audio import decode
from raysp.ops.labelling import Labelling
from raysp.ops.speech.places import Place, with_places
from tests.corpora import CHECKPOINT, DEMO
from tests.device.conftest import assert_same, labelling
from tests.device.stand_in import NAME
from tests.engine.test_every_model import make_checkpoint
from tests.ops.test_labelling import block_of

ARPA = """\\data\\
ngram 1=5
ngram 2=2

\\1-grams:
-1 <unk>
-99 <s> -0.3
-1 </s>
-0.7 seven -0.2
-0.9 two -0.1

\\2-grams:
-0.3 <s> seven
-0.4 seven two

\\end\\
"""


def generating(**options: object) -> raysp.Transcript:
    return raysp.Transcript(generate={"max_new_tokens": 8, **options})


CASES = {
    "greedy": ("demo", [raysp.Transcript()]),
    "words and characters": ("demo", [raysp.Transcript(words=True, chars=True)]),
    "beams": ("demo", [raysp.Transcript(beams=8)]),
    "n-best texts": ("demo", [raysp.Transcript(beams=4, nbest=3, words=True)]),
    "beams with a language model": ("demo", [raysp.Transcript(beams=8, lm="lm", hot_words={"seven": 4.0})]),
    "alignment of texts": ("demo", [raysp.Align("text", words=True, chars=True)]),
    "alignment of labels": ("demo", [raysp.Transcript(), raysp.Align(of="pred")]),
    "alignment with wildcards": ("demo", [raysp.Align("text", wildcard=True)]),
    "alignment by another model": ("ParakeetForCTC", [raysp.Transcript(), raysp.Align("text", checkpoint="demo")]),
    "signals": ("demo", [raysp.Signals(), raysp.Transcript()]),
    "speech": ("demo", [raysp.Speech(), raysp.Transcript()]),
    "embeddings of frames": ("demo", [raysp.Embedding(pooling="none")]),
    "beams over pieces": ("ParakeetForCTC", [raysp.Transcript(beams=4)]),
    "greedy generation": ("SpeechEncoderDecoderModel", [generating()]),
    "generation by beams": ("SpeechEncoderDecoderModel", [generating(num_beams=3)]),
    "processed generation": (
        "SpeechEncoderDecoderModel",
        [generating(repetition_penalty=1.3, no_repeat_ngram_size=2, min_length=3)],
    ),
    "sampling": ("SpeechEncoderDecoderModel", [generating(do_sample=True, top_k=5, top_p=0.9)]),
    "sampling by beams": ("SpeechEncoderDecoderModel", [generating(do_sample=True, num_beams=2)]),
    "alignment of generated texts": (
        "SpeechEncoderDecoderModel",
        [generating(), raysp.Align(of="pred", checkpoint="demo")],
    ),
}


@pytest.fixture(scope="module")
def spoken():
    """Real speech with its texts: ten digits, and nine of them in one recording of several windows."""
    cells = pq.ParquetFile(min((DEMO / "audio").glob("*.parquet"))).read_row_group(0, ["audio", "text"]).to_pylist()
    waves = [decode(cell["audio"]["bytes"], sample_rate=16_000) for cell in cells[:10]]
    texts = [cell["text"] for cell in cells[:10]]
    return [*waves, np.concatenate(waves[:9])], [*texts, " ".join(texts[:9])]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    made = {"demo": CHECKPOINT}
    for name in ("ParakeetForCTC", "SpeechEncoderDecoderModel"):
        made[name] = tmp_path_factory.mktemp(name) / "checkpoint"
        make_checkpoint(name, made[name])
    return made


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    path = tmp_path_factory.mktemp("lm") / "lm.arpa"
    path.write_text(ARPA)
    return str(path)


@pytest.mark.parametrize("name", CASES)
def test_labels_are_those_of_the_cpu(name, spoken, folders, language_model):
    checkpoint, outputs = CASES[name]
    outputs = [with_files(output, folders, language_model) for output in outputs]
    waves, texts = spoken
    rows = labelling(folders[checkpoint], outputs, NAME, texts=texts)(waves)
    assert {row["status"] for row in rows} == {"ok"}
    assert_same(rows, labelling(folders[checkpoint], outputs, "cpu", texts=texts)(waves))


def with_files(output, folders, language_model):
    given = dict(vars(output))
    if given.get("lm") == "lm":
        given["lm"] = language_model
    if given.get("checkpoint") == "demo":
        given["checkpoint"] = str(folders["demo"])
    return type(output)(**given) if given != vars(output) else output


@pytest.mark.parametrize(
    "output",
    [raysp.Transcript(words=True), raysp.Transcript(beams=4), raysp.Transcript(beams=4, hot_words={"seven": 4.0})],
    ids=["greedy", "beams", "hot words"],
)
def test_windows_that_are_cut_at_pauses_are_joined_as_on_the_cpu(output, spoken):
    waves = [(wave * 32767).astype(np.int16) if wave.dtype != np.int16 else wave for wave in spoken[0][:2]]
    places = [Place(3, 0, len(wave) // 320 - 1, np.ones(4, np.float32), 0, len(wave)) for wave in waves]

    def label(device: str) -> list[dict[str, object]]:
        op = Labelling(str(CHECKPOINT), lambda loaded: [output.op(loaded)], batch_seconds=8, device=device)
        return op(with_places(block_of(waves), places))[0].to_pylist()

    assert_same(label(NAME), label("cpu"))
