"""Embeddings, classes and segments: of a window by itself, and joined over the windows of a longer row."""

from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import raysp
from raysp.capabilities import Capability
from raysp.models.base.outputs import BaseModelOutput, TokenClassifierOutput, XVectorOutput
from raysp.ops.classifying import Segmenting
from raysp.ops.embeddings import MeanEmbedding, SpeakerEmbedding
from raysp.ops.forward import Forward
from tests.corpora import a_pipeline, rows_table, wav, write_shard
from tests.ops.phases import a_pass, columns_of

WIDTH = 6
VECTOR = pa.list_(pa.float32(), WIDTH)
MEAN = pa.schema([("e_sum", VECTOR), ("e_weight", pa.int32())])


LABELS = ["cat", "dog", "owl"]


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


class TestMeanEmbedding:
    schema = pa.schema([("e", VECTOR)])

    def test_a_normalised_mean_has_length_one_joined_or_not(self, hidden):
        op = MeanEmbedding(self.schema, MEAN, normalize=True)
        vectors, *_ = columns_of(op, forward(None, hidden, [20, 20, 20]))
        assert [round(float(np.linalg.norm(v)), 5) for v in vectors] == [1.0] * 3
        parts = [(0, 12), (3, 20), (2, 7)]
        [joined] = op.join(staged(op, columns_of(op, forward(None, hidden, [20, 20, 7], parts)), parts))
        assert np.linalg.norm(joined) == pytest.approx(1)

    def test_a_hidden_state_at_half_the_rate_is_cut_where_its_frames_are(self, hidden):
        states = [hidden[:, :10], hidden[:, 10:]]
        op = MeanEmbedding(self.schema, MEAN, layer=1)
        parts = [(0, 12), (4, 20), None]
        columns = columns_of(op, forward(None, hidden, [20, 20, 8], parts, states, rate=2, hidden_frames=[10, 10, 4]))
        table = staged(op, columns, parts)
        assert table.column("e_weight").to_pylist() == [6, 8, None]
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


class TestSegmenting:
    schema = pa.schema(
        [("s", pa.list_(pa.struct([("label", pa.string()), ("start", pa.float64()), ("end", pa.float64()),
                                   ("score", pa.float32())])))]
    )  # fmt: skip
    staged = pa.schema([("s_probabilities", pa.list_(pa.float32()))])

    def make(self, **options) -> Segmenting:
        return Segmenting(self.schema, self.staged, LABELS[:2], frame_seconds=0.5, **options)

    @staticmethod
    def output(rows: list[list[str]]) -> TokenClassifierOutput:
        """Make logits of rows in which "x" is heard; a string a class."""
        on = torch.tensor([[[4.0 if c == "x" else -4.0 for c in line] for line in row] for row in rows])
        return TokenClassifierOutput(logits=on.transpose(1, 2))

    def test_stretches_may_overlap_and_are_ordered_by_their_start(self, hidden):
        output = self.output([["xx..xx", ".xxx.x"]])
        [segments], _ = columns_of(self.make(), forward(output, hidden, [6]))
        assert [(s["label"], s["start"], s["end"]) for s in segments] == [
            ("cat", 0.0, 1.0), ("dog", 0.5, 2.0), ("cat", 2.0, 3.0), ("dog", 2.5, 3.0),
        ]  # fmt: skip
        assert segments[0]["score"] == pytest.approx(1 / (1 + np.exp(-4)))

    @pytest.mark.parametrize(
        ("options", "expected"),
        [
            ({"end_threshold": 0.3}, [(1, 3), (4, 6), (8, 9)]),
            ({"merge_seconds": 1.0}, [(1, 2), (4, 5), (8, 9)]),
            ({"merge_seconds": 1.1}, [(1, 5), (8, 9)]),
            ({"end_threshold": 0.3, "merge_seconds": 0.6}, [(1, 6), (8, 9)]),
            ({"merge_seconds": 1.1, "min_seconds": 1.0}, [(1, 5)]),
        ],
    )
    def test_segments_end_below_a_lower_threshold_and_close_ones_become_one(self, options, expected):
        scores = np.array([[0.4, 0.6, 0.4, 0.2, 0.7, 0.4, 0.1, 0.35, 0.9, 0.1]], np.float32).T
        op = Segmenting(self.schema, self.staged, ["cat"], frame_seconds=0.5, **options)
        found = op._segments(scores)
        assert [(one["start"] * 2, one["end"] * 2) for one in found] == expected
        assert found[0]["score"] == pytest.approx(scores[slice(*expected[0])].mean())

    def test_a_stretch_continues_over_a_joint(self, hidden):
        op, parts = self.make(), [(0, 4), (2, 6)]
        columns = columns_of(
            op, forward(self.output([["..xx..", "......"], ["xxx...", ".....x"]]), hidden, [6, 6], parts)
        )
        [segments] = op.join(staged(op, columns, parts))
        assert [(s["label"], s["start"], s["end"]) for s in segments] == [("cat", 1.0, 2.5), ("dog", 3.5, 4.0)]


@pytest.mark.slow
def test_half_precision_is_that_of_single_rounded(tmp_path):
    outputs = [
        raysp.Embedding(f"{pooling}_{dtype}", pooling=pooling, dtype=dtype)
        for pooling in ("mean", "none")
        for dtype in ("float32", "float16")
    ]
    write_shard(tmp_path / "in" / "a.parquet", table=rows_table(2, audio=wav(16_000)))
    label = {"outputs": outputs, "window_seconds": 0.5, "overlap_seconds": 0.1}
    raysp.run(a_pipeline(str(tmp_path / "in"), tmp_path / "out", label=label), engine="here", progress=False)
    table = pq.read_table(tmp_path / "out" / "a.parquet")
    for pooling in ("mean", "none"):
        assert "halffloat" in str(table.schema.field(f"{pooling}_float16").type)
        for row in table.to_pylist():
            single, half = (np.array(row[f"{pooling}_float{bits}"]) for bits in (32, 16))
            np.testing.assert_array_equal(half, single.astype(np.float16))
