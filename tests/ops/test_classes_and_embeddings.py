"""Embeddings, classes and segments: of a window by itself, and joined over the windows of a longer row."""

from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
import torch

from raysp.capabilities import Capability
from raysp.models.base.outputs import BaseModelOutput, TokenClassifierOutput, XVectorOutput
from raysp.ops.classifying import Segmenting
from raysp.ops.embeddings import MeanEmbedding, SpeakerEmbedding
from raysp.ops.forward import Forward
from tests.ops.phases import a_pass, columns_of

WIDTH = 6
VECTOR = pa.list_(pa.float32(), WIDTH)
MEAN = pa.schema([("e_sum", VECTOR), ("e_weight", pa.int32())])


def forward(output, hidden, frames, parts=None, states=(), rate=1, hidden_frames=None) -> Forward:
    return a_pass(
        frames,
        parts,
        heads={} if output is None else dict.fromkeys(Capability, output),
        encoded=BaseModelOutput(last_hidden_state=hidden, hidden_states=tuple(states)),
        hidden_frames=hidden_frames,
        frames_a_hidden_frame=Fraction(rate),
    )


def staged(op, columns, parts) -> pa.Table:
    """Put the staged columns of windows into a table, as a label actor does."""
    given = columns[len(op.schema) :]
    assert all(value is None for column in given for value, part in zip(column, parts, strict=True) if part is None)
    return pa.table([pa.array(c, f.type) for c, f in zip(given, op.staged, strict=True)], schema=op.staged)


@pytest.fixture
def hidden() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).normal(size=(3, 20, WIDTH)).astype(np.float32))


def test_a_hidden_state_at_half_the_rate_is_cut_where_its_frames_are(hidden):
    states = [hidden[:, :10], hidden[:, 10:]]
    op = MeanEmbedding(pa.schema([("e", VECTOR)]), MEAN, layer=1)
    parts = [(0, 12), (4, 20), None]
    columns = columns_of(op, forward(None, hidden, [20, 20, 8], parts, states, rate=2, hidden_frames=[10, 10, 4]))
    assert staged(op, columns, parts).column("e_weight").to_pylist() == [6, 8, None]
    np.testing.assert_allclose(columns[0][2], states[1][2, :4].mean(0), atol=1e-6)
    np.testing.assert_allclose(columns[1][0], states[1][0, :6].sum(0), atol=1e-5)


def test_a_longer_rows_speaker_is_the_mean_of_its_windows_by_their_frames(hidden):
    op = SpeakerEmbedding(pa.schema([("e", VECTOR)]), MEAN)
    embeddings = hidden[:, 0]
    output = XVectorOutput(logits=embeddings, embeddings=embeddings)
    vectors, *_ = columns_of(op, forward(output, hidden, [20, 20, 20]))
    np.testing.assert_allclose(np.stack(vectors), embeddings)
    parts = [(0, 12), (3, 20), (2, 7)]
    [joined] = op.join(staged(op, columns_of(op, forward(output, hidden, [20, 20, 7], parts)), parts))
    expected = (12 * embeddings[0] + 17 * embeddings[1] + 5 * embeddings[2]) / 34
    np.testing.assert_allclose(joined, expected, atol=1e-6)


def test_a_segment_continues_over_a_joint(hidden):
    span = pa.struct({"label": pa.string(), "start": pa.float64(), "end": pa.float64(), "score": pa.float32()})
    stages = pa.schema([("s_probabilities", pa.list_(pa.float32()))])
    op = Segmenting(pa.schema([("s", pa.list_(span))]), stages, ["cat", "dog"], frame_seconds=0.5)
    windows, parts = [["..xx..", "......"], ["xxx...", ".....x"]], [(0, 4), (2, 6)]  # a string a class
    on = torch.tensor([[[4.0 if c == "x" else -4.0 for c in line] for line in window] for window in windows])
    output = TokenClassifierOutput(logits=on.transpose(1, 2))
    [segments] = op.join(staged(op, columns_of(op, forward(output, hidden, [6, 6], parts)), parts))
    assert [(s["label"], s["start"], s["end"]) for s in segments] == [("cat", 1.0, 2.5), ("dog", 3.5, 4.0)]
