"""The driver's counts of uncommitted shards: pieces without a result, rows, errors, staged bytes.

Their size depends on work in flight, not on the number of rows.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from raysp.corpus.shards import Piece, Shard
from raysp.labelling.engine.run_progress import FIRST_SHARDS, Example, Progress
from raysp.labelling.engine.workers.messages import LabelledBlock
from raysp.ops.remedies import FILTERED
from raysp.sink.receipts import BlockReceipt, ShardReceipt
from raysp.sink.stage import is_complete
from raysp.sink.todo import Todo
from raysp.words import count

MAX_EXAMPLES = 5


class OpenShards:
    """Uncommitted shards, and sums over their labelled blocks.

    Args:
        todo: the plan.
        progress: updated with each block.
    """

    def __init__(self, todo: Iterable[Todo], progress: Progress) -> None:
        self.progress = progress
        self.todo = {one.shard.name: one for one in todo}
        self.pending = {name: set(one.pieces) for name, one in self.todo.items()}
        self.failed: dict[str, str] = {}
        self.staged_bytes = Counter({one.shard.name: one.staged_bytes for one in self.todo.values()})
        """Bytes staged, by uncommitted shard."""
        self._blocks: dict[tuple[str, Piece], dict[tuple[int, int], LabelledBlock]] = {}
        self._long_errors: dict[str, set[int]] = {}
        self._counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
        """Skipped and error rows that `progress` has of each uncommitted shard, by type."""
        self._audio: dict[tuple[str, Piece], tuple[float, float]] = {}
        """Seconds claimed by headers and seconds labelled, by incomplete piece."""

    def submit(self, shard: str, piece: Piece) -> None:
        """Record that workers were given a piece. Called from another thread."""
        if piece in self.pending.get(shard, ()):
            self.progress.in_flight.add((shard, piece))

    def add(self, labelled: LabelledBlock) -> Shard | None:
        """Count a staged block, and return its shard if that is now complete. Repeated messages count once."""
        block = labelled.receipt
        piece = Piece(block.first, block.end)
        waiting = self.pending.get(block.shard, set())
        if piece not in waiting:
            return None
        seen = self._blocks.setdefault((block.shard, piece), {})
        if (block.k, block.of) in seen:
            return None
        seen[block.k, block.of] = labelled
        is_whole = is_complete(seen.keys())
        self._measure(block, piece, labelled.claimed_seconds, is_whole=is_whole)
        self._count(labelled)
        if not is_whole:
            return None
        self.progress.staged.add(seen.values())
        self.progress.in_flight.discard((block.shard, piece))
        del self._blocks[block.shard, piece]
        del self._audio[block.shard, piece]
        waiting.discard(piece)
        if waiting or block.shard in self.failed:
            return None
        self._long_errors.pop(block.shard, None)
        return self.todo[block.shard].shard

    def _measure(self, block: BlockReceipt, piece: Piece, claimed: float, *, is_whole: bool) -> None:
        """Count audio: for a complete piece the seconds that its headers claim, else the seconds labelled."""
        key, progress = (block.shard, piece), self.progress
        if key not in self._audio:
            progress.begun_rows += self._rows(block.shard, piece)
        before, labelled = self._audio.get(key, (0.0, 0.0))
        seconds = labelled + block.audio_seconds
        claimed = max(claimed, before) or (seconds if is_whole else 0.0)
        self._audio[key] = claimed, seconds
        progress.begun_seconds += claimed - before
        progress.done_seconds += (claimed if is_whole else min(seconds, claimed)) - min(labelled, before)

    def _rows(self, shard: str, piece: Piece) -> int:
        retry = self.todo[shard].retry
        return len(retry.of(piece)) if retry else piece.num_rows

    def _count(self, labelled: LabelledBlock) -> None:
        block, progress = labelled.receipt, self.progress
        self.staged_bytes[block.shard] += block.staged_bytes
        progress.add_block(block.rows, block.audio_seconds)
        progress.real_samples += block.real_samples
        progress.padded_samples += block.padded_samples
        progress.memory_bytes = max(progress.memory_bytes, labelled.memory_bytes)
        progress.busy_seconds += block.forward_seconds
        progress.wait_seconds += block.load_seconds
        errors = Counter(labelled.errors) + Counter(self._new_errors(block.shard, labelled.long_errors))
        progress.errors.update(errors)
        progress.skipped.update(labelled.skipped)
        self._counted[block.shard].update(errors + Counter(labelled.skipped))
        examples = (Example(block.shard, *one) for one in labelled.examples)
        progress.examples = [*progress.examples, *examples][:MAX_EXAMPLES]

    def _new_errors(self, shard: str, long_errors: Mapping[int, str]) -> list[str]:
        """Return error types of rows of several windows that no earlier block has reported."""
        if not long_errors:
            return []
        seen = self._long_errors.setdefault(shard, set())
        new = [error_type for row, error_type in long_errors.items() if row not in seen]
        seen.update(long_errors)
        return new

    def forget(self, shard: str, piece: Piece) -> None:
        """Subtract the counts of a piece that is labelled again."""
        self.progress.in_flight.discard((shard, piece))
        if (shard, piece) in self._audio:
            claimed, labelled = self._audio.pop((shard, piece))
            self.progress.begun_rows -= self._rows(shard, piece)
            self.progress.begun_seconds -= claimed
            self.progress.done_seconds -= min(labelled, claimed)
        for block in self._blocks.pop((shard, piece), {}).values():
            self.staged_bytes[shard] -= block.receipt.staged_bytes
            self.progress.rows -= block.receipt.rows
            self.progress.audio_seconds -= block.receipt.audio_seconds
            self.progress.errors -= Counter(block.errors)
            self.progress.skipped -= Counter(block.skipped)
            self._counted[shard] -= Counter(block.errors) + Counter(block.skipped)

    def fail(self, shard: str, reason: str) -> None:
        """Record that a shard is not committed."""
        self.failed[shard] = reason
        # Of a copy, since `submit` adds to the set in another thread.
        self.progress.in_flight -= {one for one in list(self.progress.in_flight) if one[0] == shard}

    def committed(self, receipt: ShardReceipt) -> None:
        """Record that a shard is committed.

        Rows of several windows are judged when their windows are joined, so some that no block reported are filtered
        out or fail here. They are added for shards that this run has labelled whole.
        """
        shard, progress = receipt.shard, self.progress
        progress.shards_committed += 1
        progress.new_commits += 1
        progress.unchanged += receipt.existing
        if receipt.ok and not receipt.existing:
            progress.first_shards = sorted([*progress.first_shards, shard])[:FIRST_SHARDS]
        del self.pending[shard], self.staged_bytes[shard]
        todo, counted = self.todo[shard], self._counted.pop(shard, Counter())
        if not receipt.existing and not todo.keeps_rows and todo.num_rows == todo.shard.num_rows:
            for error_type, number in (Counter(receipt.errors_by_type) - counted).items():
                (progress.skipped if error_type == FILTERED else progress.errors)[error_type] += number

    def unfinished(self) -> dict[str, str]:
        """Return shards that failed, or have pieces without a message, with the reasons."""
        lost = {
            name: f"no result for {count(len(pieces), 'piece')}; run again"
            for name, pieces in self.pending.items()
            if pieces and name not in self.failed
        }
        return {**self.failed, **lost}
