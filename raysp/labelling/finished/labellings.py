"""The sinks of a comparison or a merge: their finished shards, and which of these have the same input."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from raysp.corpus.shards import Shard
from raysp.errors import PlanError
from raysp.labelling.finished.finished_labels import Labelling
from raysp.labelling.planning.listing import real_place
from raysp.labelling.planning.trust import open_recorded
from raysp.specs.pipeline import Parquet
from raysp.storage.options import GivenOptions
from raysp.words import count, listed
from raysp.work import SinkRequest


@dataclass(frozen=True)
class ShardMatch:
    """Names of the shards of two sinks, by whether they can be compared."""

    compared: tuple[str, ...]
    only_a: tuple[str, ...]
    """Shards that B's plan lacks."""
    only_b: tuple[str, ...]
    other_input: tuple[str, ...]
    """Shards that were made from different files, or from different versions of a file."""
    unfinished_a: tuple[str, ...]
    unfinished_b: tuple[str, ...]
    foreign_a: Mapping[str, str]
    """Shards of `unfinished_a` with a damaged or foreign file in the place of their label shard, with the reason."""
    foreign_b: Mapping[str, str]


def open_all(places: Sequence[str | Parquet], storage_options: GivenOptions | None, *, trust: bool) -> list[Labelling]:
    """Open sinks, and read their plans and which shards are committed.

    Raises:
        PlanError: one is not a sink of label shards, or two are the same.
    """
    named = ((place.url, place.storage_options) if isinstance(place, Parquet) else (place, None) for place in places)
    requests = (SinkRequest(url, options or storage_options, trust=trust) for url, options in named)
    labellings = [Labelling.of(*open_recorded(request)) for request in requests]
    for index, labelling in enumerate(labellings):
        if any(real_place(labelling.url) == real_place(earlier.url) for earlier in labellings[:index]):
            raise PlanError(f"{labelling.url}: found the same sink twice; give the sinks of labellings of one corpus")
    return labellings


def match(a: Labelling, b: Labelling) -> ShardMatch:
    """Return the shards of two sinks that can be compared.

    Raises:
        PlanError: no shard can be compared.
    """
    common = [name for name in a.shards if name in b.shards]
    other = [name for name in common if not _is_same_input(a.shards[name], b.shards[name])]
    shards = ShardMatch(
        compared=tuple(name for name in common if name in a.done & b.done and name not in other),
        only_a=tuple(name for name in a.shards if name not in b.shards),
        only_b=tuple(name for name in b.shards if name not in a.shards),
        other_input=tuple(other),
        unfinished_a=a.unfinished,
        unfinished_b=b.unfinished,
        foreign_a=a.foreign,
        foreign_b=b.foreign,
    )
    if not shards.compared:
        raise PlanError(f"{a.url} and {b.url} have no finished shard in common: {_reason(a, b, shards)}")
    return shards


def _reason(a: Labelling, b: Labelling, shards: ShardMatch) -> str:
    if shards.other_input:
        name = shards.other_input[0]
        return (
            f"{count(len(shards.other_input), 'shard')} that both name, such as {name}, were made from other input "
            f"({_input(a.shards[name])}; {_input(b.shards[name])}); label the same files with both pipelines"
        )
    if common := a.shards.keys() & b.shards.keys():
        foreign = [reason for labelling in (a, b) for name, reason in labelling.foreign.items() if name in common]
        if foreign:
            return str(listed(foreign, 1))
        return (
            f"{count(len(shards.unfinished_a), 'shard')} of the first and {len(shards.unfinished_b):,} of the second "
            "are not finished; finish their runs: `raysp run` again continues them"
        )
    names = " and ".join(
        f"{count(len(names), 'shard')}{f' such as {next(iter(names))}' if names else ''}"
        for names in (a.shards, b.shards)
    )
    return f"found {names}; label the same shards in both, with the same source.root"


def _input(shard: Shard) -> str:
    return f"{shard.url}, {count(shard.num_bytes, 'byte')}, version {shard.version}"


def _is_same_input(a: Shard, b: Shard) -> bool:
    """Return whether two shards were made from the same file; the input id also covers `source.labels`."""
    same_file = (a.num_bytes, a.version, a.num_rows, a.part) == (b.num_bytes, b.version, b.num_rows, b.part)
    return same_file and (a.input_id == b.input_id or a.labels_version != b.labels_version)
