"""Staged results: names of their files, and which files of a piece and of its parts make it up."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import raysp
from raysp import PlanError
from raysp.corpus.shards import Piece
from raysp.sink import layout, stage
from tests.corpora import a_pipeline, write_shard
from tests.sink import sinks
from tests.sink.sinks import make_shard

SHARD = make_shard()


def files(*pieces: Piece, errors: int = 0) -> dict[Piece, stage.Staged]:
    return {one: stage.Staged(sinks.staged_name(SHARD, one, errors=errors), 1) for one in pieces}


def numbers(pieces) -> list[int]:
    return [row for piece in pieces for row in range(piece.first, piece.end)]


def numbers_of(staged) -> list[int]:
    return numbers(one.rows for one in staged)


def cost(staged) -> tuple[int, int, int]:
    """Return what is better of two choices if it is less."""
    return -len(numbers_of(staged)), sum(one.name.errors for one in staged), len(staged)


@given(st.dictionaries(st.tuples(st.integers(0, 6), st.integers(1, 5)), st.integers(0, 2), max_size=6))
def test_of_any_files_those_are_used_that_hold_most_rows_and_then_fewest_errors(drawn):
    """Files of several runs may overlap in any way, and those of other pieces are not used."""
    staged = {}
    for (first, num_rows), errors in drawn.items():
        staged |= files(Piece(first, first + num_rows), errors=errors)
    piece = Piece(1, 8)
    tiles = stage.tiles(piece, staged.values())
    inside = [one for one in staged.values() if one.rows.first >= 1 and one.rows.end <= 8]
    choices = [chosen for number in range(len(inside) + 1) for chosen in combinations(inside, number)]
    apart = [chosen for chosen in choices if len({*numbers_of(chosen)}) == len(numbers_of(chosen))]
    assert tiles == sorted(tiles, key=lambda tile: tile.rows)
    assert cost(tiles) == min(cost(chosen) for chosen in apart)
    left = stage.unstaged([piece], staged.values())
    assert sorted([*numbers_of(tiles), *numbers(left)]) == numbers([piece])


COMPONENTS = st.one_of(
    st.sampled_from(["a", "a~", "~", "x.parquet", "x.parquet~", "0-10.ab.cd.0", "ä b", "🎧", "a.b.c", "%41", "a\nb"]),
    st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=8),
).filter(lambda part: part not in (".", ".."))
NAMES = st.lists(COMPONENTS, min_size=1, max_size=4).map(lambda parts: "/".join(parts) + ".parquet")
HASHES = st.text("0123456789abcdef", min_size=1, max_size=16)
STAGED = st.builds(
    layout.StagedName,
    shard=NAMES,
    rows=st.builds(Piece, st.integers(0, 10**9), st.integers(0, 10**9)),
    input_id=HASHES,
    fingerprint=HASHES,
    errors=st.integers(0, 10**9),
)


@pytest.mark.slow
@given(st.lists(STAGED, min_size=2, max_size=2, unique=True))
def test_paths_are_found_again_and_none_is_named_parquet_or_stands_where_another_needs_a_folder(names):
    stages = [layout.stage_path(name) for name in names]
    errors = [layout.errors_path(name.shard, name.input_id, name.fingerprint, "ef") for name in names]
    assert [layout.parse_stage_path(path) for path in stages] == names
    for path in (*stages, *errors):
        assert path.startswith(".raysp/")
        assert not any(part.lower().endswith(".parquet") for part in path.split("/"))
    for first, second in (stages, errors):
        assert not second.startswith(f"{first}/")
        assert not first.startswith(f"{second}/")


def test_a_name_that_is_too_long_to_be_stored_is_refused(tmp_path):
    write_shard(tmp_path / "in" / f"{'é' * 100}.parquet", 1)
    with pytest.raises(PlanError, match="has 208 bytes, at most 200 can be stored; rename it"):
        raysp.run(a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out"), engine="here", progress=False)
