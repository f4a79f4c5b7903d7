"""Decoding in a process of its own: the same samples and errors; a fault costs one recording, one from outside none."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pytest

from raysp import AudioError, RunError, audio
from raysp.audio import DecodeOptions, Excerpt, decoder_protocol, isolation
from raysp.audio.isolation import Decoder
from raysp.errors import ProgramError
from tests.corpora import wav

MARK = b"a-mark-no-recording-has"
OPTIONS = DecodeOptions(16_000)


def marked(num_samples: int = 1600) -> bytes:
    """Make a whole WAV that has the mark in its first samples."""
    plain = wav(num_samples)
    place = plain.index(b"data") + 8
    return plain[:place] + MARK + plain[place + len(MARK) :]


@pytest.fixture(scope="module")
def decoder():
    with Decoder() as shared_one:
        yield shared_one


@pytest.fixture
def limits(monkeypatch):
    """Shorten limits of the decoder, most of which are a minute and more."""

    def shorten(**values: float) -> None:
        for name, value in values.items():
            monkeypatch.setattr(isolation if hasattr(isolation, name) else decoder_protocol, name, value)

    return shorten


@pytest.fixture
def faulty(monkeypatch):
    """Make a decoder whose child fails in a given way at a marked recording."""
    with contextlib.ExitStack() as made:

        def make(fault: str) -> Decoder:
            monkeypatch.setenv("RAYSP_DECODER_FAULTS", f"{MARK.decode()}={fault}")
            return made.enter_context(Decoder())

        yield make


def pid_of(decoder: Decoder) -> int:
    """Return the process of a decoder that has started."""
    return decoder._child._process.pid


def wait_for_spin(process: psutil.Process) -> None:
    """Wait until a child is at the recording over which it computes for ever."""
    before = process.cpu_times().user
    while process.cpu_times().user < before + 0.5:
        time.sleep(0.05)


def outcome(call):
    try:
        return call()
    except (AudioError, audio.TooLong) as error:
        return type(error).__name__, getattr(error, "error_type", None), str(error)


def same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.dtype == other.dtype and one.tobytes() == other.tobytes()
    return one == other


def kept(of: object, raw: bytes) -> tuple[bytes, str]:
    """Return the samples before the damage of a recording, and the error."""
    samples = []
    try:
        for chunk in of.decode_chunks(Excerpt(raw), DecodeOptions(16_000, keep_prefix=True)):
            samples.append(chunk.tobytes())
    except AudioError as error:
        return b"".join(samples), str(error)
    return b"".join(samples), ""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["odd", "bad"])
def test_odd_and_bad_files_have_the_same_result_as_in_process(shared, decoder, kind):
    files = [f for f in sorted((shared / "data" / kind).iterdir()) if f.suffix != ".jsonl"]
    num_kept = 0
    decoder.read_header(wav(1))
    pid = pid_of(decoder)
    for file in files:
        raw = file.read_bytes()
        expected = outcome(lambda raw=raw: audio.decode(raw, sample_rate=16_000))
        assert same(outcome(lambda raw=raw: decoder.decode(Excerpt(raw), OPTIONS)), expected), file.name
        with file.open("rb") as opened:
            assert same(outcome(lambda opened=opened: decoder.decode(Excerpt(opened), OPTIONS)), expected), file.name
        header = outcome(lambda raw=raw: audio.read_header(raw))
        assert outcome(lambda raw=raw: decoder.read_header(raw)) == header, file.name
        if kind == "bad":
            samples, error = kept(audio, raw)
            assert kept(decoder, raw) == (samples, error), file.name
            assert error == (expected[2] if isinstance(expected, tuple) else ""), file.name
            num_kept += bool(samples and error)
    assert len(files) > (120 if kind == "odd" else 60)
    assert num_kept == (5 if kind == "bad" else 0)
    assert pid_of(decoder) == pid  # none of them harmed it


def test_no_output_of_decoders_reaches_the_terminal(shared, capfd):
    names = ["flac-test-files__02_-_increasing_number_of_channels.flac"]
    noisy = [f for f in sorted((shared / "data" / "bad").iterdir()) if f.suffix == ".mp3" or f.name in names]
    with Decoder() as decoder:
        for file in noisy:
            outcome(lambda file=file: decoder.decode(Excerpt(file.read_bytes()), OPTIONS))
    assert capfd.readouterr() == ("", "")


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
        found = decoder.decode(Excerpt(file, 100, 1), OPTIONS)
    np.testing.assert_array_equal(found, audio.decode(path.read_bytes(), sample_rate=16_000)[1_600_000:1_616_000])
    assert Counting.num_bytes < 500_000  # of six million
    with pa.OSFile(str(path)) as opened:
        assert len(decoder.decode(Excerpt(opened), OPTIONS)) == 3_000_000


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
        list((decoder if isolated else audio).decode_chunks(Excerpt(file), OPTIONS))
    assert len(decoder.decode(Excerpt(wav(50)), OPTIONS)) == 50


def test_a_crash_costs_only_the_recording_at_fault_and_leaves_no_process_and_no_descriptor(faulty):
    def held() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(psutil.Process().children())

    isolation.end_idle()
    before = held()
    with faulty("SIGSEGV") as decoder:
        excerpts = [Excerpt(marked() if number in (1, 2, 4) else wav(100 + number)) for number in range(6)]
        for number, one in enumerate(decoder.decode_all(excerpts, OPTIONS)):
            if number in (1, 2, 4):
                message = "the decoder crashed with SIGSEGV on this recording, twice"
                assert (one.error_type, str(one)) == ("decoder_crashed", message)
            else:
                assert len(one) == 100 + number
    isolation.end_idle()
    assert all(after <= number for after, number in zip(held(), before, strict=True))  # other threads may close theirs


def test_an_error_of_the_program_ends_the_call_with_its_traceback(faulty):
    one = faulty("TypeError")
    for call in (lambda: one.decode(Excerpt(marked()), OPTIONS), lambda: list(one.read_headers([marked()]))):
        with pytest.raises(ProgramError, match="TypeError in the decoder") as caught:
            call()
        assert "Traceback (most recent call last)" in str(caught.value)
        assert "raysp/audio/child.py" in str(caught.value)


def test_a_child_that_does_not_start_is_an_error_with_the_reason(monkeypatch, tmp_path):
    (tmp_path / "soundfile.py").write_text("raise ImportError('built for another machine')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with Decoder() as decoder, pytest.raises(RunError, match=r"did not start: .*built for another machine"):
        decoder.decode(Excerpt(wav(10)), OPTIONS)


def test_the_child_is_given_no_secrets_and_no_files_of_its_parent(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "do-not-tell")
    isolation.end_idle()
    with Decoder() as one:
        one.decode(Excerpt(wav(10)), OPTIONS)
        process = Path(f"/proc/{pid_of(one)}")
        assert b"do-not-tell" not in (process / "environ").read_bytes()
        kinds = [os.readlink(file).partition(":")[0] for file in (process / "fd").iterdir()]
    assert sorted(kinds) == ["/dev/null", "/dev/null", "/dev/null", "socket"]


def test_a_child_that_hangs_in_an_unfinished_call_is_replaced(faulty, limits):
    limits(CANCEL_SECONDS=0.5)
    decoder = faulty("spin")
    next(decoder.decode_all([Excerpt(wav(10)), Excerpt(marked())], OPTIONS))
    pid = pid_of(decoder)
    wait_for_spin(psutil.Process(pid))
    assert decoder.read_header(wav(11)).num_frames == 11
    assert not psutil.pid_exists(pid)
    assert pid_of(decoder) != pid


def test_a_child_that_is_killed_from_outside_costs_no_recording(decoder):
    raw = wav(4_000_000)
    expected = audio.decode(raw, sample_rate=8000)
    chunks = decoder.decode_chunks(Excerpt(raw), DecodeOptions(8000))
    first = [next(chunks), next(chunks)]
    os.kill(pid_of(decoder), 9)
    np.testing.assert_array_equal(np.concatenate([*first, *chunks]), expected)
    found = decoder.decode_all((Excerpt(raw) for _ in range(3)), DecodeOptions(8000))
    next(found)
    os.kill(pid_of(decoder), 9)
    for one in found:
        np.testing.assert_array_equal(one, expected)


def test_a_child_that_is_stopped_is_replaced_and_no_recording_is_at_fault(limits):
    with Decoder() as decoder:
        decoder.read_header(wav(10))  # so that it has started
        limits(ANSWER_SECONDS=0.2)
        stopped = pid_of(decoder)
        os.kill(stopped, signal.SIGSTOP)
        found = list(decoder.decode_all([Excerpt(wav(100)), Excerpt(wav(200))], OPTIONS))
        assert [len(one) for one in found] == [100, 200]
        assert pid_of(decoder) != stopped


def test_endless_external_kills_are_an_error_of_the_run_and_never_of_a_recording(faulty, limits):
    limits(MAX_PAUSE_SECONDS=0.01, MAX_KILLS=3)
    decoder = faulty("SIGKILL")
    found = decoder.decode_all([Excerpt(wav(1600)), Excerpt(marked())], OPTIONS)
    assert len(next(found)) == 1600
    message = r"was killed from outside by SIGKILL, 3 times .* no memory left .* Run again"
    with pytest.raises(RunError, match=message):
        next(found)
    assert len(decoder.decode(Excerpt(wav(50)), OPTIONS)) == 50


def test_the_child_ends_with_its_parent_also_while_it_hangs():
    code = f"""
from raysp.audio import Excerpt, DecodeOptions
from raysp.audio.isolation import Decoder
decoder = Decoder()
decoder.read_header({wav(10)!r})
print(decoder._child._process.pid, flush=True)
decoder.decode(Excerpt({marked()!r}), DecodeOptions(16000))
"""
    environment = {**os.environ, "RAYSP_DECODER_FAULTS": f"{MARK.decode()}=spin"}
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True)
    child = psutil.Process(int(parent.stdout.readline()))
    wait_for_spin(child)
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 60
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.05)


PAUSED = """
import sys
from raysp.audio import Excerpt, DecodeOptions, isolation
from tests.corpora import wav
isolation.ANSWER_SECONDS = 0.7
with isolation.Decoder() as decoder:
    decoder.read_header(wav(10))
    child = decoder._child._process.pid
    print(child, flush=True)
    sys.stdin.readline()
    print(*map(len, decoder.decode_all([Excerpt(wav(100))], DecodeOptions(16_000))), flush=True)
    print("the same" if decoder._child._process.pid == child else "another", flush=True)
"""


@pytest.mark.drivers
def test_a_machine_that_pauses_for_longer_than_the_time_out_changes_nothing():
    parent = subprocess.Popen([sys.executable, "-c", PAUSED], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        child = int(parent.stdout.readline())
        os.kill(child, signal.SIGSTOP)
        parent.stdin.write("go on\n")
        parent.stdin.flush()
        time.sleep(0.3)  # it waits for the answer by now, or will
        os.kill(parent.pid, signal.SIGSTOP)
        time.sleep(1.2)
        os.kill(parent.pid, signal.SIGCONT)  # the order is that in which the machine happens to wake them
        time.sleep(0.1)
        os.kill(child, signal.SIGCONT)
        assert parent.stdout.readline() == "100\n"
        assert parent.stdout.readline() == "the same\n"
    finally:
        parent.kill()
        parent.communicate()


@pytest.mark.drivers
def test_a_hang_costs_the_recording_at_fault_after_the_time_for_its_size(faulty, limits):
    limits(ANSWER_SECONDS=0.2, ANSWER_BYTES_PER_SECOND=20_000, WALL_FACTOR=100)
    decoder = faulty("spin")
    excerpts = [Excerpt(wav(100)), Excerpt(marked(num_samples=5000)), Excerpt(wav(200))]
    decoder.read_header(wav(1))  # so that its start is not in the time that is taken
    start = time.monotonic()
    one, hung, other = decoder.decode_all(excerpts, OPTIONS)
    assert time.monotonic() - start >= 1.4  # twice 0.2 s of CPU time, and half a second for ten thousand bytes
    assert (len(one), len(other)) == (100, 200)
    assert hung.error_type == "decoder_timeout"
    assert str(hung) == "the decoder returned nothing for 1 s of CPU time, twice; the recording may make it hang"


@pytest.mark.drivers
def test_memory_is_bounded_and_the_recording_at_fault_named(faulty):
    found = list(faulty("memory").decode_all([Excerpt(wav(10)), Excerpt(marked()), Excerpt(wav(20))], OPTIONS))
    assert (len(found[0]), len(found[2])) == (10, 20)
    assert found[1].error_type == "out_of_memory"
    assert "more memory than the decoder's limit (512 MB)" in str(found[1])
