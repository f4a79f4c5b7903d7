"""Pauses of the decoder's process and signals from outside: no recording is at fault."""

import os
import signal
import subprocess
import sys
import time

import pytest

from raysp import RunError
from raysp.audio import DecodeOptions, Excerpt, decoder_protocol, isolation
from raysp.audio.decoder_protocol import ExternalFailure, failure_of
from raysp.audio.isolation import Decoder
from tests.corpora import wav

MARK = b"a-mark-no-recording-has"


@pytest.fixture
def decoder():
    with Decoder() as one:
        one.read_header(wav(10))  # so that it has started
        yield one


@pytest.mark.slow
def test_a_child_that_is_stopped_is_replaced_and_no_recording_is_at_fault(decoder, monkeypatch):
    monkeypatch.setattr(isolation, "ANSWER_SECONDS", 0.5)
    stopped = decoder._child._process.pid
    os.kill(stopped, signal.SIGSTOP)
    found = list(decoder.decode_all([Excerpt(wav(100)), Excerpt(wav(200))], DecodeOptions(16_000)))
    assert [len(one) for one in found] == [100, 200]
    assert decoder._child._process.pid != stopped


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
@pytest.mark.slow
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


@pytest.mark.slow
def test_endless_external_kills_are_an_error_of_the_run_and_never_of_a_recording(monkeypatch):
    monkeypatch.setattr(decoder_protocol, "MAX_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(decoder_protocol, "MAX_KILLS", 3)
    plain = wav(1600)
    place = plain.index(b"data") + 8
    monkeypatch.setenv("RAYSP_DECODER_FAULTS", f"{MARK.decode()}=SIGKILL")
    with Decoder() as decoder:
        excerpts = [Excerpt(plain), Excerpt(plain[:place] + MARK + plain[place + len(MARK) :])]
        found = decoder.decode_all(excerpts, DecodeOptions(16_000))
        assert len(next(found)) == 1600
        with pytest.raises(
            RunError, match=r"was killed from outside by SIGKILL, 3 times .* no memory left .* Run again"
        ):
            next(found)
        assert len(decoder.decode(Excerpt(wav(50)), DecodeOptions(16_000))) == 50


@pytest.mark.parametrize(
    ("signals", "error_type", "message"),
    [
        (["SIGKILL", "SIGTERM", "SIGHUP", "SIGUSR1"], None, ""),
        (
            ["SIGSEGV", "SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGXCPU"],
            "decoder_crashed",
            "the decoder crashed with {name} on this recording, twice",
        ),
        (["SIGPROF"], "decoder_timeout", "the decoder returned nothing for 60 s of CPU time, twice"),
    ],
    ids=["from outside", "caused itself", "time out"],
)
def test_signals_of_crashes_are_told_from_those_from_outside(signals, error_type, message):
    for name in signals:
        failure = failure_of(-signal.Signals[name], 60)
        assert isinstance(failure, ExternalFailure) == (error_type is None)
        assert error_type is None or failure.error_type == error_type
        assert str(failure).startswith(message.format(name=name))
