"""Decoding in a process of its own: the same samples and errors, and a fault costs one recording."""

import io
import itertools
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest
import soundfile

from raysp import AudioError, RunError, audio
from raysp.audio import DecodeOptions, Excerpt, isolation
from raysp.audio.isolation import Decoder
from raysp.errors import ProgramError
from tests.corpora import wav

MARK = b"a-mark-no-recording-has"


def marked(mark: bytes = MARK, num_samples: int = 1600) -> bytes:
    """Make a whole WAV that has the mark in its first samples."""
    plain = wav(num_samples)
    place = plain.index(b"data") + 8
    return plain[:place] + mark + plain[place + len(mark) :]


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as shared_one:
        yield shared_one


@pytest.fixture
def faulty(monkeypatch):
    """Make decoders whose child fails in a given way at a marked recording."""
    made: list[Decoder] = []

    def make(fault: str, *, answer_seconds: float = 60, memory_bytes: int | None = None) -> Decoder:
        monkeypatch.setenv("RAYSP_DECODER_FAULTS", f"{MARK.decode()}={fault}")
        monkeypatch.setattr(isolation, "ANSWER_SECONDS", answer_seconds)
        if memory_bytes:
            monkeypatch.setattr(isolation, "MEMORY_BYTES", memory_bytes)
        made.append(Decoder())
        return made[-1]

    yield make
    for one in made:
        one.close()


def outcome(call):
    try:
        return call()
    except (AudioError, audio.TooLong) as error:
        return type(error).__name__, getattr(error, "error_type", None), str(error)


def same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and one.tobytes() == other.tobytes()
    return one == other


@pytest.mark.slow
def test_odd_and_bad_files_have_the_same_result_as_in_process(shared, decoder):
    files = [f for kind in ("odd", "bad") for f in sorted((shared / "data" / kind).iterdir()) if f.suffix != ".jsonl"]
    assert len(files) > 200
    pid = None
    for file in files:
        raw = file.read_bytes()
        expected = outcome(lambda raw=raw: audio.decode(raw, sample_rate=16_000))
        assert same(outcome(lambda raw=raw: decoder.decode(Excerpt(raw), DecodeOptions(16_000))), expected), file.name
        with file.open("rb") as opened:
            found = outcome(lambda opened=opened: decoder.decode(Excerpt(opened), DecodeOptions(16_000)))
        assert same(found, expected), file.name
        header = outcome(lambda raw=raw: audio.read_header(raw))
        assert outcome(lambda raw=raw: decoder.read_header(raw)) == header, file.name
        pid = pid or decoder._child._process.pid
    assert decoder._child._process.pid == pid  # none of them harmed it


@pytest.mark.slow
@pytest.mark.parametrize("whole_bytes", [isolation.WHOLE_BYTES, 1000])
def test_many_recordings_come_back_in_their_order(decoder, monkeypatch, whole_bytes):
    monkeypatch.setattr(isolation, "WHOLE_BYTES", whole_bytes)
    monkeypatch.setattr(isolation, "HEAD_BYTES", min(whole_bytes, isolation.HEAD_BYTES))
    kinds = [wav(1000), wav(20_000, subtype="FLOAT"), wav(2_000_000, seed=1), b"", None, b"nonsense", wav(500)]
    recordings = [kinds[number * number % len(kinds)] for number in range(300)]
    excerpts = [Excerpt(one) for one in recordings]
    found = list(decoder.decode_all(excerpts, DecodeOptions(16_000, max_seconds=60)))
    expected = list(audio.decode_all(excerpts, DecodeOptions(16_000, max_seconds=60)))
    assert len(found) == len(expected) == 300
    for one, other in zip(found, expected, strict=True):
        assert str(one) == str(other) if isinstance(one, Exception) else same(one, other)
    headers = list(decoder.read_headers(recordings))
    assert [str(one) for one in headers] == [str(one) for one in audio.read_headers(recordings)]


@pytest.mark.slow
def test_a_child_that_hangs_in_an_unfinished_call_is_replaced(faulty, monkeypatch):
    monkeypatch.setattr(isolation, "CANCEL_SECONDS", 1.0)
    decoder = faulty("sleep")
    next(decoder.decode_all([Excerpt(wav(10)), Excerpt(marked())], DecodeOptions(16_000)))
    time.sleep(1.0)  # until the child is at the excerpt at which it hangs
    pid, start = decoder._child._process.pid, time.monotonic()
    assert decoder.read_header(wav(11)).num_frames == 11
    assert decoder._child._process.pid != pid
    assert time.monotonic() - start < 30


@pytest.mark.slow
def test_a_child_that_is_killed_from_outside_costs_no_recording(decoder):
    raw = wav(4_000_000)
    expected = audio.decode(raw, sample_rate=8000)
    chunks = decoder.decode_chunks(Excerpt(raw), DecodeOptions(8000))
    first = [next(chunks), next(chunks)]
    os.kill(decoder._child._process.pid, 9)
    np.testing.assert_array_equal(np.concatenate([*first, *chunks]), expected)
    found = decoder.decode_all((Excerpt(raw) for _ in range(4)), DecodeOptions(8000))
    next(found)
    os.kill(decoder._child._process.pid, 9)
    for one in found:
        np.testing.assert_array_equal(one, expected)


@pytest.mark.drivers
@pytest.mark.slow
def test_a_hang_costs_the_recording_at_fault_after_the_time_for_its_size(faulty, monkeypatch):
    monkeypatch.setattr(isolation, "ANSWER_BYTES_PER_SECOND", 20_000)
    decoder = faulty("spin", answer_seconds=0.2)
    excerpts = [Excerpt(wav(100)), Excerpt(marked(num_samples=5000)), Excerpt(wav(200))]
    decoder.read_header(wav(1))  # so that its start is not in the time that is taken
    start = time.monotonic()
    one, hung, other = decoder.decode_all(excerpts, DecodeOptions(16_000))
    assert 1.4 <= time.monotonic() - start < 60  # twice 0.2 s of CPU time, and half a second for ten thousand bytes
    assert (len(one), len(other)) == (100, 200)
    assert hung.error_type == "decoder_timeout"
    assert str(hung) == "the decoder returned nothing for 1 s of CPU time, twice; the recording may make it hang"


@pytest.mark.drivers
@pytest.mark.slow
def test_memory_is_bounded_and_the_recording_at_fault_named(faulty):
    decoder = faulty("memory")
    found = list(decoder.decode_all([Excerpt(wav(10)), Excerpt(marked()), Excerpt(wav(20))], DecodeOptions(16_000)))
    assert (len(found[0]), len(found[2])) == (10, 20)
    assert found[1].error_type == "out_of_memory"
    assert "more memory than the decoder's limit (512 MB)" in str(found[1])


@pytest.mark.drivers
@pytest.mark.slow
def test_the_childs_memory_does_not_depend_on_the_recording(decoder):
    def peak() -> int:
        status = Path(f"/proc/{decoder._child._process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) // 1024

    decoder.decode(Excerpt(wav(100)), DecodeOptions(16_000))
    before = peak()
    large = wav(40_000_000)  # 80 MB
    num_samples = sum(len(chunk) for chunk in decoder.decode_chunks(Excerpt(large), DecodeOptions(8000)))
    assert num_samples == 20_000_000
    assert peak() - before < 50


def test_a_file_is_read_in_ranges(decoder, tmp_path):
    path = tmp_path / "long.wav"
    path.write_bytes(wav(3_000_000))

    class Counting(io.FileIO):
        num_bytes = 0

        def read(self, size=-1):
            data = super().read(size)
            Counting.num_bytes += len(data)
            return data

    with Counting(path) as file:
        found = decoder.decode(Excerpt(file, 100, 1), DecodeOptions(16_000))
    np.testing.assert_array_equal(found, audio.decode(path.read_bytes(), sample_rate=16_000)[1_600_000:1_616_000])
    assert Counting.num_bytes < 500_000  # of six million
    with pa.OSFile(str(path)) as opened:
        assert len(decoder.decode(Excerpt(opened), DecodeOptions(16_000))) == 3_000_000


@pytest.mark.parametrize("isolated", [False, True])
def test_a_file_that_cannot_be_read_is_not_an_error_of_the_recording(decoder, tmp_path, isolated):
    path = tmp_path / "long.wav"
    path.write_bytes(wav(3_000_000))

    class Failing(io.FileIO):
        def read(self, size=-1):
            if self.tell() > 1_000_000:
                raise ConnectionResetError("the storage went away")
            return super().read(size)

    with Failing(path) as file, pytest.raises(ConnectionResetError, match="went away"):
        list((decoder if isolated else audio).decode_chunks(Excerpt(file), DecodeOptions(16_000)))
    assert len(decoder.decode(Excerpt(wav(50)), DecodeOptions(16_000))) == 50


@pytest.mark.slow
def test_the_child_ends_with_its_parent_also_while_it_hangs(tmp_path):
    code = f"""
import os, sys
from raysp.audio import Excerpt, DecodeOptions
from raysp.audio.isolation import Decoder
decoder = Decoder()
decoder.read_header({wav(10)!r})
print(decoder._child._process.pid, flush=True)
decoder.decode(Excerpt({marked()!r}), DecodeOptions(16000))
"""
    environment = {**os.environ, "RAYSP_DECODER_FAULTS": f"{MARK.decode()}=sleep"}
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True)
    pid = int(parent.stdout.readline())
    time.sleep(0.3)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            break
        time.sleep(0.05)
    else:
        assert not os.path.exists(f"/proc/{pid}")


def test_a_child_that_does_not_start_is_an_error_with_the_reason(monkeypatch):
    isolation.end_idle()
    monkeypatch.setattr(isolation.protocol, "PROGRAM", "raysp.audio.no_such_module")
    with Decoder() as decoder, pytest.raises(RunError, match=r"did not start: .*No module named raysp.audio.no_such"):
        decoder.decode(Excerpt(wav(10)), DecodeOptions(16_000))


def test_the_child_is_given_no_secrets_and_no_files_of_its_parent(decoder, monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-tell")
    decoder.close()
    decoder.decode(Excerpt(wav(10)), DecodeOptions(16_000))
    pid = decoder._child._process.pid
    assert b"do-not-tell" not in Path(f"/proc/{pid}/environ").read_bytes()
    kinds = [os.readlink(f"/proc/{pid}/fd/{fd}").partition(":")[0] for fd in os.listdir(f"/proc/{pid}/fd")]
    assert sorted(kinds) == ["/dev/null", "/dev/null", "/dev/null", "socket"]


def test_children_leave_no_process_and_no_descriptor(faulty):
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(psutil.Process().children())

    isolation.end_idle()
    before = held()
    with faulty("SIGSEGV") as decoder:
        for _ in range(2):
            assert len([*decoder.decode_all([Excerpt(wav(10)), Excerpt(marked())], DecodeOptions(16_000))]) == 2
    isolation.end_idle()
    assert all(after <= number for after, number in zip(held(), before, strict=True))  # other threads may close theirs


def test_no_output_of_decoders_reaches_the_terminal(shared, capfd):
    names = ["flac-test-files__02_-_increasing_number_of_channels.flac"]
    noisy = [f for f in sorted((shared / "data" / "bad").iterdir()) if f.suffix == ".mp3" or f.name in names]
    with Decoder() as decoder:
        for file in noisy:
            outcome(lambda file=file: decoder.decode(Excerpt(file.read_bytes()), DecodeOptions(16_000)))
    assert capfd.readouterr() == ("", "")


SEEKING = [
    ("WAV", "PCM_16"),
    ("WAV", "FLOAT"),
    ("WAV", "ULAW"),
    ("AIFF", "PCM_24"),
    ("FLAC", "PCM_16"),
    ("W64", "PCM_16"),
]
SKIPPING = [("WAV", "IMA_ADPCM"), ("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("CAF", "ALAC_16")]


@pytest.mark.parametrize(("container", "subtype"), SEEKING + SKIPPING)
def test_a_part_of_a_recording_is_its_frames_to_the_sample(container, subtype):
    file, rate = io.BytesIO(), 48_000 if subtype == "OPUS" else 16_000
    samples = np.random.default_rng(0).normal(0, 0.1, 3 * rate).astype(np.float32)
    with soundfile.SoundFile(file, "w", rate, 1, subtype=subtype, format=container) as sound:
        for start in range(0, len(samples), 8000):
            sound.write(samples[start : start + 8000])
    whole = audio.decode(file.getvalue(), sample_rate=rate)
    for offset, duration in itertools.product([0, 1 / rate, 0.1, 1.2345, 2.9], [None, 0, 1 / rate, 0.5, 9]):
        first = round(offset * rate)
        end = None if duration is None else first + round(duration * rate)
        found = audio.decode(file.getvalue(), sample_rate=rate, offset=offset, duration=duration)
        np.testing.assert_array_equal(found, whole[first:end], err_msg=f"{offset} {duration}")


def test_a_part_that_cannot_be_is_an_error():
    for offset, duration, message in (
        (-1, None, "offset of -1 seconds; expected a number from 0 on"),
        (float("nan"), None, "offset of nan seconds"),
        (float("inf"), None, "offset of inf seconds"),
        (0, -0.5, "duration of -0.5 seconds"),
        (0, float("nan"), "duration of nan seconds"),
        (1.5, None, "the file ends after 1.000 seconds; expected more than offset=1.5"),
    ):
        with pytest.raises(AudioError, match=message) as caught:
            audio.decode(wav(16_000), sample_rate=16_000, offset=offset, duration=duration)
        assert caught.value.error_type == "invalid_audio"


@pytest.mark.slow
def test_a_crash_costs_only_the_recording_at_fault(faulty):
    decoder = faulty("SIGSEGV")
    excerpts = [Excerpt(marked() if number in (3, 4, 8) else wav(100 + number)) for number in range(10)]
    for number, one in enumerate(decoder.decode_all(excerpts, DecodeOptions(16_000))):
        if number in (3, 4, 8):
            assert (one.error_type, str(one)) == (
                "decoder_crashed",
                "the decoder crashed with SIGSEGV on this recording, twice",
            )
        else:
            assert len(one) == 100 + number


def test_an_error_of_the_program_ends_the_call_with_its_traceback(faulty):
    one = faulty("TypeError")
    for call in (
        lambda: one.decode(Excerpt(marked()), DecodeOptions(16_000)),
        lambda: list(one.decode_all([Excerpt(marked())], DecodeOptions(16_000))),
        lambda: list(one.read_headers([marked()])),
    ):
        with pytest.raises(ProgramError, match="TypeError in the decoder") as caught:
            call()
        assert "Traceback (most recent call last)" in str(caught.value)
        assert "raysp/audio/child.py" in str(caught.value)
