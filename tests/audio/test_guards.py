"""Guards of decoding, switched off one by one: the fault that each prevents happens then."""

import io
import os
import subprocess
import sys
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile

from raysp import AudioError
from raysp.audio import DecodeOptions, Excerpt, TooLong, child, decode, isolation, source, stream_decoding
from raysp.audio.isolation import Decoder
from tests.corpora import wav

MARK = b"raysp mark"
SECRET = "sEcReT/neverInAMessage"


def marked() -> bytes:
    """Make a recording that the child does something at."""
    plain = wav(1000)
    place = plain.index(b"data") + 8
    return plain[:place] + MARK + plain[place + len(MARK) :]


class TestTheDecoder:
    """Faults 22 and 24: a recording that hangs, takes all memory, or ends its decoder."""

    @pytest.fixture
    def decoder(self, monkeypatch):
        def make(fault: str) -> Decoder:
            monkeypatch.setenv(child.FAULTS, f"{MARK.decode()}={fault}")
            made.append(Decoder())
            return made[-1]

        made: list[Decoder] = []
        yield make
        for one in made:
            one.close()

    @pytest.mark.drivers
    @pytest.mark.slow
    def test_without_the_time_out_a_hang_is_waited_for(self, decoder, monkeypatch):
        monkeypatch.setattr(isolation, "ANSWER_SECONDS", 0.3)
        with pytest.raises(AudioError) as caught:
            decoder("sleep").decode(Excerpt(marked()), DecodeOptions(16_000))
        assert caught.value.error_type == "decoder_timeout"
        monkeypatch.setattr(isolation, "ANSWER_SECONDS", 1e6)
        hung = decoder("sleep")
        hung.read_header(wav(10))  # so that its start is not in the time that is waited
        found: list[np.ndarray] = []
        thread = threading.Thread(target=lambda: found.append(hung.decode(Excerpt(marked()), DecodeOptions(16_000))))
        thread.start()
        thread.join(1)
        assert thread.is_alive()
        monkeypatch.setenv(child.FAULTS, "")
        os.kill(hung._child._process.pid, 9)  # it is tried once more, by a child that does not hang
        thread.join(60)
        assert len(found[0]) == 1000

    @pytest.mark.drivers
    @pytest.mark.slow
    def test_without_the_limit_of_memory_a_recording_takes_any_amount(self, decoder, monkeypatch):
        with pytest.raises(AudioError) as caught:
            decoder("gigabyte").decode(Excerpt(marked()), DecodeOptions(16_000))
        assert caught.value.error_type == "out_of_memory"
        monkeypatch.setattr(isolation, "MEMORY_BYTES", 8 * 1024**3)
        assert len(decoder("gigabyte").decode(Excerpt(marked()), DecodeOptions(16_000))) == 1000

    @pytest.mark.slow
    def test_without_a_separate_process_a_crash_ends_the_caller(self, decoder):
        with pytest.raises(AudioError) as caught:
            decoder("SIGSEGV").decode(Excerpt(marked()), DecodeOptions(16_000))
        assert caught.value.error_type == "decoder_crashed"
        program = "from raysp.audio import child; child.commit_fault('SIGSEGV')"
        assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -11

    @pytest.mark.slow
    def test_without_the_choice_of_variables_the_child_knows_the_secrets(self, decoder, monkeypatch):
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)

        def environment() -> bytes:
            one = decoder("")
            one.read_header(wav(10))
            return Path(f"/proc/{one._child._process.pid}/environ").read_bytes()

        assert SECRET.encode() not in environment()
        kept = isolation._KEPT_ENVIRONMENT
        monkeypatch.setattr(isolation, "_KEPT_ENVIRONMENT", (*kept, "AWS_SECRET_ACCESS_KEY"))
        assert SECRET.encode() in environment()


class TestSamples:
    """Faults 20 and 22: samples and headers that lie."""

    def test_without_the_look_at_the_samples_nan_reaches_the_model(self, monkeypatch):
        file = io.BytesIO()
        soundfile.write(file, np.array([0.1, np.nan, 0.2], np.float32), 16_000, format="WAV", subtype="FLOAT")
        with pytest.raises(AudioError, match="NaN or infinite samples"):
            decode(file.getvalue(), sample_rate=16_000)
        monkeypatch.setattr(stream_decoding, "check_finite", lambda samples, header: None)
        assert np.isnan(decode(file.getvalue(), sample_rate=16_000)).any()

    @pytest.mark.parametrize(
        ("bound", "value", "recording"),
        [
            ("MIN_SAMPLE_RATE", 1, lambda: wav(300, rate=50)),
            ("MAX_SAMPLE_RATE", 10**10, lambda: wav(300, rate=500_000_000)),
        ],
    )
    def test_without_its_bounds_any_rate_is_resampled(self, monkeypatch, bound, value, recording):
        with pytest.raises(AudioError) as caught:
            decode(recording(), sample_rate=16_000)
        assert caught.value.error_type == "invalid_audio"
        monkeypatch.setattr(source, bound, value)
        rate = soundfile.info(io.BytesIO(recording())).samplerate
        assert len(decode(recording(), sample_rate=16_000)) == round(300 * 16_000 / rate)

    def test_without_the_bound_of_a_chunk_the_header_determines_the_memory(self, monkeypatch):
        file = io.BytesIO()
        soundfile.write(file, np.ones(5000, np.int16), 16_000, format="FLAC")
        lying = bytearray(file.getvalue())
        fields = int.from_bytes(lying[18:26], "big")  # the last 36 bits are the number of frames
        lying[18:26] = (fields >> 36 << 36 | 2**36 - 1).to_bytes(8, "big")
        assert _peak(lambda: decode(bytes(lying), sample_rate=16_000)) < 40_000_000
        monkeypatch.setattr(stream_decoding, "CHUNK_SAMPLES", 1 << 40)
        assert _peak(lambda: decode(bytes(lying), sample_rate=16_000)) > 1_000_000_000

    def test_without_most_seconds_a_small_file_becomes_as_long_as_it_likes(self):
        file = io.BytesIO()
        soundfile.write(file, np.zeros(16_000 * 300, np.int16), 16_000, format="FLAC")
        assert len(file.getvalue()) < 50_000
        with pytest.raises(TooLong):
            decode(file.getvalue(), sample_rate=16_000, max_seconds=10)
        assert len(decode(file.getvalue(), sample_rate=16_000, max_seconds=1e9)) == 16_000 * 300


def _peak(work) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
