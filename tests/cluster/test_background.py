"""A context that another thread holds, as a local Ray while its run is planned."""

import signal
import threading
from contextlib import contextmanager

import pytest

from raysp.cluster.connection import Background


class Held:
    """A context that is entered as slowly as a test wants, and that notes by which thread."""

    def __init__(self) -> None:
        self.may_enter = threading.Event()
        self.entered_by: threading.Thread | None = None
        self.left_by: threading.Thread | None = None
        self.threads: list[threading.Thread] = []

    @contextmanager
    def __call__(self):
        assert self.may_enter.wait(10)
        self.entered_by = threading.current_thread()
        try:
            yield
        finally:
            self.left_by = threading.current_thread()


@pytest.fixture
def held():
    made = Held()
    yield made
    made.may_enter.set()


def test_its_caller_continues_while_it_is_entered_and_one_thread_holds_it_to_its_end(held):
    background = Background(held)
    background.begin()
    background.begin()  # once
    assert held.entered_by is None
    held.may_enter.set()
    background.wait()
    thread = held.entered_by
    assert thread is not threading.current_thread()
    assert thread.is_alive()
    assert held.left_by is None
    background.end()
    background.end()
    assert held.left_by is thread
    assert not thread.is_alive()


def test_one_that_was_never_begun_is_not_entered(held):
    background = Background(held)
    background.end()
    assert not background.has_begun
    assert held.entered_by is None


def test_waiting_for_it_enters_it_and_raises_its_error():
    @contextmanager
    def failing():
        raise OSError("no port is free")
        yield

    background = Background(failing)
    with pytest.raises(OSError, match="no port is free"):
        background.wait()
    background.end()


def test_a_signal_ends_the_wait_and_the_context_is_left_all_the_same(held):
    class Stopped(BaseException):
        pass

    def stop(*_: object) -> None:
        raise Stopped

    before = signal.signal(signal.SIGUSR1, stop)
    background = Background(held)
    background.begin()
    timer = threading.Timer(0.1, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR1))
    try:
        timer.start()
        with pytest.raises(Stopped):
            background.wait()
    finally:
        signal.signal(signal.SIGUSR1, before)
    held.may_enter.set()
    background.end()
    assert held.left_by is not None
