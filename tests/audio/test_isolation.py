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
from hypothesis import given, settings
from hypothesis import strategies as st

from raysp import AudioError, RunError, audio
from raysp.audio import DecodeOptions, Excerpt, isolation
from raysp.audio.isolation import Decoder
from raysp.errors import ProgramError
from tests.corpora import wav
from tests.soaked import some

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


@settings(deadline=None, max_examples=30)
@given(
    num_samples=st.integers(0, 5000),
    offset=st.floats(0, 0.4),
    duration=st.none() | st.floats(0, 0.4),
    channel=st.sampled_from(["mean", 0, 1, -1]),
    sample_rate=st.sampled_from([8000, 16_000]),
    max_seconds=st.sampled_from([0.1, 60]),
)
def test_every_argument_arrives(decoder, num_samples, offset, duration, channel, sample_rate, max_seconds):
    part = {"offset": offset, "duration": duration}
    wanted = {"channel": channel, "sample_rate": sample_rate, "max_seconds": max_seconds}
    raw = wav(num_samples)
    assert same(
        outcome(lambda: decoder.decode(Excerpt(raw, **part), DecodeOptions(**wanted))),
        outcome(lambda: audio.decode(raw, **part, **wanted)),
    )


@pytest.mark.slow
def test_a_long_recording_comes_in_chunks_as_it_is_decoded(decoder):
    file = io.BytesIO()
    soundfile.write(file, np.random.default_rng(0).normal(0, 0.1, 3_000_000), 16_000, format="FLAC")
    chunks = decoder.decode_chunks(Excerpt(file.getvalue()), DecodeOptions(8000))
    first = next(chunks)
    assert len(first) < 1_000_000
    whole = np.concatenate([first, *chunks])
    np.testing.assert_array_equal(whole, audio.decode(file.getvalue(), sample_rate=8000))


@pytest.mark.slow
def test_a_call_ends_the_one_whose_results_were_not_drawn(decoder):
    chunks = decoder.decode_chunks(Excerpt(wav(3_000_000)), DecodeOptions(16_000))
    next(chunks)
    assert len(decoder.decode(Excerpt(wav(77)), DecodeOptions(16_000))) == 77
    with pytest.raises(RuntimeError, match=r"another call of this Decoder began"):
        list(chunks)
    assert len(decoder.decode(Excerpt(wav(78)), DecodeOptions(16_000))) == 78


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bytes", "file", "many"])
def test_an_unfinished_call_keeps_its_child(decoder, tmp_path, kind):
    path = tmp_path / "long.wav"
    path.write_bytes(wav(30_000_000))
    with path.open("rb") as file:
        for number in range(100, 104):
            assert len(decoder.decode(Excerpt(wav(number)), DecodeOptions(16_000))) == number
            pid = decoder._child._process.pid
            long = Excerpt(file if kind == "file" else path.read_bytes())
            if kind == "many":
                next(decoder.decode_all([Excerpt(wav(50)), long, long], DecodeOptions(8000)))
            else:
                next(decoder.decode_chunks(long, DecodeOptions(8000)))
            if number % 2:
                decoder.cancel()
                decoder.cancel()
            assert decoder.read_header(wav(number)).num_frames == number
            assert decoder._child._process.pid == pid


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
def test_a_call_after_one_that_an_exception_ended_has_a_new_child(decoder):
    def broken():
        yield wav(10)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(decoder.read_headers(broken()))
    assert decoder.read_header(wav(11)).num_frames == 11


@pytest.mark.slow
@pytest.mark.parametrize("fault", some(["SIGSEGV", "SIGABRT", "SIGBUS"], "SIGSEGV"))
def test_a_crash_costs_only_the_recording_at_fault(faulty, fault):
    decoder = faulty(fault)
    excerpts = [Excerpt(marked() if number in (3, 4, 8) else wav(100 + number)) for number in range(10)]
    found = list(decoder.decode_all(excerpts, DecodeOptions(16_000)))
    for number, one in enumerate(found):
        if number in (3, 4, 8):
            assert isinstance(one, AudioError)
            assert one.error_type == "decoder_crashed"
            assert str(one) == f"the decoder crashed with {fault} on this recording, twice"
        else:
            assert len(one) == 100 + number


@pytest.mark.slow
@pytest.mark.parametrize("call", ["decode", "read_header", "decode_chunks"])
def test_a_crash_is_an_error_of_every_call_and_the_next_one_works(faulty, call):
    decoder = faulty("SIGSEGV")
    arguments = [marked()] if call == "read_header" else [Excerpt(marked()), DecodeOptions(16_000)]
    for _ in range(2):
        kind, error_type, message = outcome(lambda: list(getattr(decoder, call)(*arguments)))
        assert (kind, error_type) == ("AudioError", "decoder_crashed")
        assert message == "the decoder crashed with SIGSEGV on this recording, twice"
        assert len(decoder.decode(Excerpt(wav(50)), DecodeOptions(16_000))) == 50


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
@pytest.mark.parametrize("fault", some(["sleep", "spin"], "spin"))
def test_a_hang_costs_the_recording_at_fault_after_the_time_for_its_size(faulty, monkeypatch, fault):
    monkeypatch.setattr(isolation, "ANSWER_BYTES_PER_SECOND", 20_000)
    decoder = faulty(fault, answer_seconds=0.2)
    excerpts = [Excerpt(wav(100)), Excerpt(marked(num_samples=5000)), Excerpt(wav(200))]
    decoder.read_header(wav(1))  # so that its start is not in the time that is taken
    start = time.monotonic()
    one, hung, other = decoder.decode_all(excerpts, DecodeOptions(16_000))
    assert 1.4 <= time.monotonic() - start < 60  # twice 0.2 s of CPU time, and half a second for ten thousand bytes
    assert (len(one), len(other)) == (100, 200)
    assert hung.error_type == "decoder_timeout"
    waited = {"sleep": "4 s", "spin": "1 s of CPU time"}[fault]
    assert str(hung) == f"the decoder returned nothing for {waited}, twice; the recording may make it hang"


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


def test_a_decoder_takes_over_the_idle_child_of_another(monkeypatch):
    with Decoder() as one, Decoder() as other:
        one.read_header(wav(10))
        child = one._child._process.pid
        next(other.decode_chunks(Excerpt(wav(3_000_000)), DecodeOptions(16_000)))  # not idle: answers are on their way
        busy = other._child._process
    assert busy.returncode in (0, -9)  # it may see that its reader is gone before it is killed
    with Decoder() as next_one:
        next_one.read_header(wav(10))
        assert next_one._child._process.pid == child
    os.kill(child, 9)
    with Decoder() as next_one:
        assert len(next_one.decode(Excerpt(wav(20)), DecodeOptions(16_000))) == 20
        child = next_one._child._process.pid
    monkeypatch.setenv("LANG", "C.UTF-8:another")
    with Decoder() as next_one:
        next_one.read_header(wav(10))
        assert next_one._child._process.pid != child


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


def test_a_resampled_part_equals_a_file_of_its_frames():
    whole = wav(44_100 * 3, rate=44_100)
    samples, _ = soundfile.read(io.BytesIO(whole), dtype="int16")
    part = io.BytesIO()
    soundfile.write(part, samples[44_100 : 44_100 + 22_050], 44_100, format="WAV")
    found = audio.decode(whole, sample_rate=16_000, offset=1, duration=0.5)
    np.testing.assert_array_equal(found, audio.decode(part.getvalue(), sample_rate=16_000))


@pytest.mark.parametrize(
    ("offset", "duration", "message"),
    [
        (-1, None, "offset of -1 seconds; expected a number from 0 on"),
        (float("nan"), None, "offset of nan seconds"),
        (float("inf"), None, "offset of inf seconds"),
        (0, -0.5, "duration of -0.5 seconds"),
        (0, float("nan"), "duration of nan seconds"),
        (1.5, None, "the file ends after 1.000 seconds; expected more than offset=1.5"),
    ],
)
@pytest.mark.parametrize("subtype", ["PCM_16", "IMA_ADPCM"])
def test_a_part_that_cannot_be_is_an_error(offset, duration, message, subtype):
    raw = wav(16_000, subtype=subtype)
    with pytest.raises(AudioError, match=message if subtype == "PCM_16" else message[:11]) as caught:
        audio.decode(raw, sample_rate=16_000, offset=offset, duration=duration)
    assert caught.value.error_type == "invalid_audio"


def test_a_low_rate_does_not_become_a_chunk_of_hundreds_of_megabytes():
    raw = wav(2_000_000, rate=100)
    chunks = audio.decode_chunks(Excerpt(raw), DecodeOptions(16_000))
    assert max(len(next(chunks)) for _ in range(3)) <= 8_000_000


@pytest.mark.lengthy
@pytest.mark.parametrize("fault", ["TypeError", "AttributeError", "ImportError"])
@pytest.mark.parametrize("call", ["decode", "decode_all", "read_headers"])
def test_an_error_of_the_program_ends_the_call_with_its_traceback(faulty, fault, call):
    one = faulty(fault)
    calls = {
        "decode": lambda: one.decode(Excerpt(marked()), DecodeOptions(16_000)),
        "decode_all": lambda: list(one.decode_all([Excerpt(marked())], DecodeOptions(16_000))),
        "read_headers": lambda: list(one.read_headers([marked()])),
    }
    with pytest.raises(ProgramError, match=f"{fault} in the decoder") as caught:
        calls[call]()
    assert "Traceback (most recent call last)" in str(caught.value)
    assert "raysp/audio/child.py" in str(caught.value)


@pytest.mark.lengthy
def test_a_system_without_a_limit_of_memory_is_named_once(monkeypatch, caplog):
    monkeypatch.setattr(isolation.bounds, "has_memory_limit", lambda: False)  # macOS
    isolation._warn_without_limit.cache_clear()
    for _ in range(2):
        isolation.end_idle()
        with isolation.Decoder() as decoder, pytest.raises(AudioError):
            decoder.read_header(b"no audio")
    (warning,) = [record.getMessage() for record in caplog.records]
    assert warning.startswith("the memory of the decoder is not limited on linux")
    isolation._warn_without_limit.cache_clear()


WITH_UNREAD_ANSWERS = """
import sys, time
from raysp.audio.isolation import Decoder
from tests.corpora import wav
decoder = Decoder()
next(decoder.read_headers([wav()] * 20))
print(flush=True)
time.sleep(600)
"""


def test_a_child_ends_with_a_parent_that_is_killed_before_it_has_read_all_answers():
    with subprocess.Popen([sys.executable, "-c", WITH_UNREAD_ANSWERS], stdout=subprocess.PIPE) as parent:
        try:
            assert parent.stdout.readline() == b"\n"
            [child] = psutil.Process(parent.pid).children()
            time.sleep(1)  # in which it answers, and waits for requests
        finally:
            parent.kill()
    assert psutil.wait_procs([child], timeout=30)[1] == []
