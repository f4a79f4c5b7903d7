"""Long rows: windows through decoding, model and join give the label of the whole row at once."""

import io
import struct
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import raysp
from raysp.audio import read_header
from raysp.audio.waveforms import Windowing
from raysp.capabilities import Capability
from raysp.models import LoadedCheckpoint, check_checkpoint, load_checkpoint
from raysp.models.base.outputs import CausalLMOutput
from raysp.ops.decoding import Decoding
from raysp.ops.labelling import Labelling
from raysp.ops.late_steps import Carrying, Joining
from raysp.ops.rows import waves_of
from raysp.ops.step_ops import Keeping
from tests.corpora import CHECKPOINT, wav
from tests.ops.test_decoding import blocks_of
from tests.ops.test_decoding import piece as piece_of

STRIDE, NEEDED, RATE = 320, 400, 16_000
LM = str(Path(__file__).parents[1] / "golden" / "digits.arpa")
OUTPUTS = (
    raysp.Transcript(words=True, chars=True),
    raysp.Transcript("searched", beams=4, nbest=2, words=True, lm=LM, hot_words={"NINE": 1.0}),
    raysp.Align("text", chars=True),
    raysp.Align("text", name="wild", unknown="wildcard"),
    raysp.Align("text", name="part", wildcard=True),
)
TEXTS = ("ONE two", None, "Nine, nine - X!", "one " * 100)
TOKENS = 20
LENGTHS = (40_000, 3_000, 200, 81_234, 16_000, 16_079, 16_080, 15_999, 120_000)
"""Of rows in samples."""
WINDOWING = Windowing.of(
    sample_rate=RATE, frame_stride=STRIDE, min_samples=NEEDED, window_seconds=1, overlap_seconds=0.25
)


class Nearsighted(torch.nn.Module):
    """A model whose frame sees its own samples and one frame to either side, and no more."""

    min_samples, frame_stride, device, dtype = NEEDED, STRIDE, torch.device("cpu"), torch.float32
    outputs = ("Transcript",)
    gives = (Capability.CTC,)

    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.nn.Linear(3 * NEEDED, TOKENS)
        torch.manual_seed(0)
        torch.nn.init.normal_(self.mix.weight, std=0.5)

    def num_frames(self, num_samples):
        frames = (num_samples - NEEDED) // STRIDE + 1
        return frames * (frames > 0)

    num_hidden_frames = num_frames
    hidden_stride = STRIDE

    @property
    def speech_encoder(self):
        return self

    def layer_sum(self):
        return None

    def encode(self, input_values, layout, output_hidden_states, states):
        frames = input_values.unfold(1, NEEDED, STRIDE)  # (B, T, NEEDED)
        is_padding = torch.arange(frames.shape[1]) >= self.num_frames(layout.counts(self.device))[:, None]
        frames = frames.masked_fill(is_padding[:, :, None], 0.0)
        around = torch.nn.functional.pad(frames, (0, 0, 1, 1))
        logits = self.mix(torch.cat([around[:, :-2], frames, around[:, 2:]], -1))
        return CausalLMOutput(logits=torch.round(logits * 2**12) / 2**12)  # sums in any order

    def read(self, encoded, *_):
        return encoded


@pytest.fixture(scope="module")
def nearsighted() -> LoadedCheckpoint:
    """A loaded checkpoint with the model above; samples go in as they are, since windows are normalised each."""
    real = load_checkpoint(CHECKPOINT, dtype="float32", device="cpu")

    def extract(waves, num_samples):
        return {"input_values": waves, "attention_mask": torch.arange(waves.shape[1]) < num_samples[:, None]}

    return LoadedCheckpoint(
        summary=replace(
            check_checkpoint(CHECKPOINT), frame_stride=STRIDE, receptive_samples=NEEDED, min_samples=NEEDED
        ),
        model=Nearsighted(),
        feature_extractor=SimpleNamespace(
            extract=extract, sampling_rate=RATE, num_inputs=lambda count: count, model_input_names=("input_values",)
        ),
        tokenizer=real.text_tokenizer,
    )


def labelling(loaded, window_seconds=1.0, overlap_seconds=0.25, batch_seconds=2.0) -> Labelling:
    return Labelling(
        loaded,
        lambda one: [output.op(one.summary, one) for output in OUTPUTS],
        reads=["text"],
        batch_seconds=batch_seconds,
        window_seconds=window_seconds,
        overlap_seconds=overlap_seconds,
    )


def piece(recordings: Sequence[bytes]) -> pa.Table:
    """Return rows of recordings, each with a text by its length."""
    return piece_of(recordings, text=[TEXTS[len(one) // 2 % len(TEXTS)] for one in recordings])


def decoding(windowing: Windowing, **changes: object) -> Decoding:
    fields = {"audio": "audio", "block_seconds": 3.0, "carrying": Carrying(outputs=["text"]), **changes}
    return Decoding(windowing=windowing, **fields)


def label(op: Labelling, rows: pa.Table, **changes: object) -> dict[int, dict]:
    """Decode, label and join a piece as a run does; the last block comes first."""
    return join(op, [op(block)[0] for block in blocks_of(decoding(op.windowing, **changes), rows)][::-1])


def join(op: Labelling, tables: Sequence[pa.Table]) -> dict[int, dict]:
    table = pa.concat_tables(tables)
    is_whole = table.column("windows").to_numpy() == 1
    windows = table.filter(~is_whole).sort_by([("row", "ascending"), ("window", "ascending")])
    joined = Joining([output.op(op.loaded.summary) for output in OUTPUTS], RATE)(windows)
    whole = table.filter(is_whole).select(joined.column_names)
    return {row["row"]: row for row in pa.concat_tables([whole, joined]).to_pylist()}


def assert_same(found: object, expected: object, name: str = "") -> None:
    """Compare labels: all of it equal, but scores to three digits, since sums may be added up in any order."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert_same(found[key], value, key)
    elif isinstance(expected, list):
        assert len(found) == len(expected)
        for one, other in zip(found, expected, strict=True):
            assert_same(one, other)
    elif "score" in name and expected is not None:
        assert found == pytest.approx(expected, abs=5e-4)
    else:
        assert found == expected, name


@pytest.mark.slow
@settings(deadline=None, max_examples=10)
@given(
    seconds=st.lists(st.floats(0.03, 4), min_size=1, max_size=3),
    window=st.floats(0.3, 2),
    share=st.floats(0.25, 0.5),
    batch_seconds=st.floats(0.1, 10),
    block_seconds=st.floats(0.5, 20),
)
def test_labels_of_windows_are_those_of_the_whole_at_once(
    nearsighted, seconds, window, share, batch_seconds, block_seconds
):
    rows = piece([wav(int(s * RATE), seed=i) for i, s in enumerate(seconds)])
    whole = label(labelling(nearsighted, 100, 0), rows)
    found = label(labelling(nearsighted, window, window * share, batch_seconds), rows, block_seconds=block_seconds)
    assert len(found) == len(seconds)
    assert any(row["pred_words"] for row in whole.values()) or sum(seconds) < 1
    for row, expected in whole.items():
        assert_same(found[row], expected)
    [alone] = label(labelling(nearsighted, window, window * share), rows.slice(0, 1)).values()
    assert_same(alone, whole[0])


def test_long_rows_come_first_as_a_stream_and_number_their_windows():
    rows = piece([wav(n) for n in LENGTHS])
    found = blocks_of(decoding(WINDOWING, block_seconds=2.5), rows)
    places = [
        (row["row"], row["window"], row["windows"])
        for block in found
        for row in block.select(["row", "window", "windows"]).to_pylist()
    ]
    # Row 5 is longer than a window by less than another frame needs, and so one window all the same.
    windows = {0: 4, 3: 7, 5: 1, 6: 2, 8: 10}
    stream = [(row, w, n if w == n - 1 else None) for row, n in windows.items() for w in range(n)]
    assert places[: len(stream)] == stream
    assert places[len(stream) :] == [(row, 0, 1) for row in (4, 7, 1, 2)]


def test_a_block_holds_no_more_than_its_bytes_whatever_headers_claim(monkeypatch):
    for name in ("BLOCK_BYTES", "STREAM_BLOCK_BYTES"):  # of 128 MiB, which take seconds to fill
        monkeypatch.setattr(f"raysp.ops.decoding.{name}", 4 * 40_000)
    silence = flac_of_unknown_length(200_000)
    assert read_header(silence).seconds < 0.5
    rows = piece([wav(100), silence, wav(200), wav_that_claims(2**31 - 2, 30_000), wav(150_000)])
    found = blocks_of(decoding(WINDOWING, block_seconds=60), rows)
    assert max(sum(len(w) for w in waves_of(block) if w is not None) for block in found) <= 40_000
    windows = [row for block in found for row in block.select(["row", "status", "window", "windows"]).to_pylist()]
    for row, length in enumerate([100, 200_000, 200, 30_000, 150_000]):
        own = [one for one in windows if one["row"] == row]
        count = WINDOWING.num_windows(length)
        assert [one["window"] for one in own] == list(range(count))
        assert [one["windows"] for one in own] == [None] * (count - 1) + [count]
        assert {one["status"] for one in own} == {"ok"}


@pytest.mark.parametrize(
    ("recording", "changes", "outcome"),
    [
        ("broken", {}, ("error", "corrupt_audio", None)),
        ("hidden", {"max_seconds": 5}, ("skipped", "too_long", None)),
        ("hidden", {"after": [Keeping(where=None, max_seconds=5)]}, ("skipped", "filtered", 5.625)),
    ],
)
def test_a_row_that_is_refused_at_its_end_has_no_outputs(nearsighted, recording, changes, outcome):
    broken = bytearray(flac(150_000))
    broken[len(broken) // 2 : len(broken) // 2 + 400] = b"\x55" * 400
    odd = {"broken": bytes(broken), "hidden": flac_of_unknown_length(90_000)}[recording]
    op, good = labelling(nearsighted), [wav(40_000, seed=1), wav(3_000, seed=2)]
    found = label(op, piece([good[0], odd, good[1]]), **changes)
    expected = label(op, piece(good))
    assert_same([found[0], {**found[2], "row": 1}], [expected[0], expected[1]])
    assert tuple(found[1][name] for name in ("status", "error_type", "seconds")) == outcome
    assert [found[1][name] for name in ("pred_text", "pred_score", "pred_words")] == [None] * 3


def flac(num_samples: int, *, silent: bool = False) -> bytes:
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, num_samples) * (not silent)
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def flac_of_unknown_length(num_samples: int) -> bytes:
    """Make a FLAC file as a pipe writes it: its length is unknown, and silence takes almost no bytes."""
    raw = bytearray(flac(num_samples, silent=True))
    raw[21] &= 0xF0
    raw[22:26] = bytes(4)
    return bytes(raw)


def wav_that_claims(num_bytes: int, num_samples: int) -> bytes:
    raw = bytearray(wav(num_samples))
    place = raw.index(b"data")
    raw[place + 4 : place + 8] = struct.pack("<I", num_bytes)
    return bytes(raw)
