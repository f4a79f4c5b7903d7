"""How many requests a commit makes: on object storage each takes its time, and there may be a million commits."""

from collections import Counter

import pytest

from raysp.sink import stage
from raysp.storage.store import LocalStore
from tests.sink.sinks import commit_sample, expected, labels, make_shard, stage_piece


class CountingStore:
    """A store that counts requests by their kind."""

    def __init__(self, store: LocalStore) -> None:
        self._store = store
        self.url = store.url
        self.scratch = store.scratch  # local
        self.requests: Counter[str] = Counter()

    def __getattr__(self, name):
        def request(*arguments, **options):
            self.requests[name] += 1
            return getattr(self._store, name)(*arguments, **options)

        return request


@pytest.mark.parametrize(
    ("cuts", "blocks", "most"),
    [
        ((0, 23), 1, {"list": 1, "stat": 1, "open": 1, "publish": 1, "create": 1, "delete": 1}),
        ((0, 4, 9, 23), 2, {"list": 1, "stat": 1, "open": 6, "publish": 1, "create": 1, "delete": 6}),
    ],
    ids=["one block", "three pieces of two blocks"],
)
def test_a_commit_lists_once_and_touches_each_block_twice(tmp_path, cuts, blocks, most):
    store, shard = CountingStore(LocalStore(tmp_path)), make_shard(cuts=cuts)
    for piece in shard.pieces:
        stage_piece(store, shard, piece, of=blocks)
    store.requests.clear()
    commit_sample(store, shard)
    assert store.requests == most
    assert labels(store, shard) == expected(shard)
    assert list(stage.staged(store, [shard], "f00dfeed00000001")) == []
