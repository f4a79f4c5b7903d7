"""Values on their way to a server: batches of whole steps, servers that are away, and an end that waits a while."""

import logging
import threading
import time

import pytest

from raysp.training import trackers
from raysp.training.trackers import Sender


class Server:
    """A receiver that keeps what it takes, fails while it is away, and answers once it may."""

    def __init__(self, *, failures: int = 0) -> None:
        self.requests: list[list[int]] = []
        self.failures = failures
        self.may_answer = threading.Event()

    def __call__(self, steps):
        self.may_answer.wait(30)
        if self.failures:
            self.failures -= 1
            raise ConnectionError("server gone")
        self.requests.append([one.step for one in steps])


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(trackers, "PAUSE", 0.01)


def test_steps_that_wait_are_sent_together_and_whole():
    server = Server()
    sender = Sender("mlflow", server, 5)
    for step in range(1, 7):
        sender.add(step, {"a": 1.0, "b": 2.0})
        if step == 1:
            while sender._thread.is_alive() and not sender._waiting:
                time.sleep(0.001)
            time.sleep(0.05)  # its request has begun
    server.may_answer.set()
    sender.finish(30)
    assert server.requests == [[1], [2, 3], [4, 5], [6]]


def test_values_of_a_server_that_was_away_arrive_once_and_in_order(caplog):
    server = Server(failures=3)
    server.may_answer.set()
    sender = Sender("mlflow", server, 1)
    for step in (1, 2, 3):
        sender.add(step, {"a": 1.0})
    while server.failures:
        time.sleep(0.001)
    sender.finish(30)
    assert server.requests == [[1], [2], [3]]
    assert [one.getMessage() for one in caplog.records] == [
        "tracker 'mlflow': values from step 1 on wait until the server takes them: server gone"
    ]


@pytest.mark.parametrize(("last", "named"), [(2, "step 2"), (4, "3 steps from 2 to 4")])
def test_an_end_without_the_server_names_the_steps_that_are_lost(caplog, last, named):
    server = Server(failures=10**9)
    server.may_answer.set()
    sender = Sender("mlflow", server, 1)
    for step in range(2, last + 1):
        sender.add(step, {"a": 1.0})
    sender.finish(30)
    assert caplog.records[-1].getMessage() == f"tracker 'mlflow': values of {named} are lost there; the sink has them"
    assert not sender._thread.is_alive()


def test_an_end_waits_no_longer_than_it_may(caplog):
    server = Server()
    sender = Sender("mlflow", server, 1)
    sender.add(1, {"a": 1.0})
    begun = time.monotonic()
    with caplog.at_level(logging.WARNING):
        sender.finish(0.05)
    assert (time.monotonic() - begun < 10, "step 1 are lost" in caplog.text) == (True, True)
    server.may_answer.set()
