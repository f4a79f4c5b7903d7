"""The stores of the tests of the protocol, for the sinks of trainings."""

from tests.sink.conftest import _buckets, store, stores  # noqa: F401
