"""Transcripts of transducers: texts, times and scores, in any batch, in windows, and what is refused."""

from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import torch

import raysp
from raysp import CheckpointError
from raysp.capabilities import Capability
from raysp.models import AutoProcessor, check_checkpoint, load_checkpoint
from raysp.models.decoder.transducing import Path
from raysp.ops.labelling import Labelling
from tests.models.oracles import transformers
from tests.models.tokenizers.word_pieces import PIECES, save_transducer
from tests.ops.phases import a_pass, columns_of
from tests.ops.test_labelling import block_of
from tests.ops.test_precision import noise

KINDS = ("RNNT", "TDT")
OUTPUT = raysp.Transcript(words=True, chars=True)
SECONDS = (2.0, 0.7, 1.4, 2.0, 0.3, 1.1)


@pytest.fixture(scope="module", params=KINDS)
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    save_transducer(folder, request.param)
    return folder


def labelled(checkpoint, waves, **options):
    op = Labelling(
        str(checkpoint), lambda loaded: [OUTPUT.op(loaded.summary, loaded)], **{"batch_seconds": 20, **options}
    )
    return op(block_of(waves))[0].to_pylist()


def assert_same(rows, others):
    for row, other in zip(rows, others, strict=True):
        assert row["pred_text"] == other["pred_text"]
        assert row["pred_score"] == pytest.approx(other["pred_score"], abs=1e-4)
        for spans in ("pred_words", "pred_chars"):
            for span, same in zip(row[spans], other[spans], strict=True):
                assert span.pop("score") == pytest.approx(same.pop("score"), abs=1e-4)
                assert span == same


def spoken_path(steps, num_frames, blank):
    """Return a model whose search finds these (piece, frame, span, probability) in one row."""
    ids = [blank if piece is None else PIECES.index(piece) for piece, *_ in steps]
    frames, spans, scores = ([step[place] for step in steps] for place in (1, 2, 3))
    path = Path(*(torch.tensor([one]) for one in (ids, frames, spans)), torch.tensor([scores]).log())
    return SimpleNamespace(blank=blank, search=lambda *_, **__: path), num_frames


def forward_of(num_frames, parts):
    output = SimpleNamespace(pooler_output=torch.zeros(1, num_frames, 1))
    return a_pass([num_frames], parts, heads={Capability.TRANSDUCER: output})


STEPS = [
    (None, 0, 2, 0.9),
    ("▁the", 2, 0, 0.5),
    ("▁cat", 2, 3, 0.8),
    ("s", 5, 1, 0.2),
    (None, 6, 4, 0.9),
    ("▁on", 10, 2, 0.5),
    ("▁on", 12, 0, 0.25),
    (".", 13, 4, 0.5),
]


def op_of(checkpoint, num_frames=15):
    loaded = load_checkpoint(checkpoint)
    op = OUTPUT.op(loaded.summary, loaded)
    op.model, _ = spoken_path(STEPS, num_frames, loaded.model.config.blank_token_id)
    return op


@pytest.mark.parametrize("joints", [(5,), (1, 3, 6, 12)])
def test_windows_are_joined_to_the_label_of_the_row(checkpoint, joints):
    """Each window searches the same tokens, and owns those that begin between two joints."""
    op = op_of(checkpoint)
    whole = [column[0] for column in columns_of(op, forward_of(15, [None]))[:4]]
    edges = [0, *joints, 15]
    staged = []
    for first, end in pairwise(edges):
        columns = columns_of(op, forward_of(15, [(first, end)]))
        assert [column[0] for column in columns[:4]] == [None] * 4
        staged.append([column[0] for column in columns[4:]])
    windows = pa.table([pa.array(column) for column in zip(*staged, strict=True)], schema=op.staged)
    text, score, words, chars = op.join(windows)
    assert (text, score) == (whole[0], pytest.approx(whole[1]))
    for found, expected in ((words, whole[2]), (chars, whole[3])):
        assert [{**one, "start": round(one["start"], 6), "end": round(one["end"], 6)} for one in found] == [
            {**one, "start": round(one["start"], 6), "end": round(one["end"], 6)} for one in expected
        ]


@pytest.mark.slow
def test_a_row_has_its_label_in_any_batch_and_alone(checkpoint):
    waves = noise(SECONDS, seed=3)
    together = labelled(checkpoint, waves, batch_seconds=4)
    assert len({row["pred_text"] for row in together}) >= len(waves) - 1
    assert_same(together, [labelled(checkpoint, [wave])[0] for wave in waves])


def test_a_recording_without_a_frame_has_an_empty_text_and_frames_that_are_not_finite_are_an_error(checkpoint):
    op = Labelling(str(checkpoint), lambda loaded: [OUTPUT.op(loaded.summary, loaded)], batch_seconds=20)
    [row] = op(block_of([np.zeros(100, np.float32)]))[0].to_pylist()
    assert (row["status"], row["pred_text"], row["pred_score"], row["pred_words"]) == ("skipped", "", None, [])
    with torch.no_grad():
        op.loaded.model.encoder_projector.bias[0] = torch.nan
    [row] = op(block_of(noise([1.0], seed=3)))[0].to_pylist()
    assert (row["status"], row["error_type"]) == ("error", "model_output")


@torch.no_grad()
def test_processors_decode_what_theirs_decode(checkpoint):
    """Repeated tokens stay, unlike those of CTC."""
    theirs, ours = transformers.AutoProcessor.from_pretrained(checkpoint), AutoProcessor.from_pretrained(checkpoint)
    model = load_checkpoint(checkpoint).model
    inputs = ours(noise([2.0], seed=3)[0], sampling_rate=16000, return_tensors="pt")
    sequences = model.generate(**inputs).sequences
    expected = theirs.batch_decode(sequences, skip_special_tokens=True)
    assert ours.batch_decode(sequences, skip_special_tokens=True) == expected
    assert ours.decode(sequences[0], skip_special_tokens=True) == theirs.decode(sequences[0], skip_special_tokens=True)
    assert expected[0]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (raysp.Transcript(beams=4), "is a transducer, which is searched greedily: leave beams out"),
        (raysp.Transcript(language="de"), "writes the language that it hears: leave language out"),
        (raysp.Transcript(task="translate"), "task is for checkpoints with a text decoder"),
        (raysp.Transcript(generate={"num_beams": 2}), "is for checkpoints with a text decoder"),
    ],
)
def test_what_a_transducer_does_not_do_is_refused_before_any_work(checkpoint, output, message):
    with pytest.raises(CheckpointError, match=message):
        output.check(check_checkpoint(checkpoint))


def test_a_blank_that_is_another_token_is_refused(tmp_path):
    save_transducer(tmp_path, "TDT")
    path = tmp_path / "config.json"
    path.write_text(path.read_text().replace('"blank_token_id": 20', '"blank_token_id": 3'))
    with pytest.raises(CheckpointError, match=r"the token '<blank>' is id 20, config.json has blank_token_id 3"):
        check_checkpoint(tmp_path)
