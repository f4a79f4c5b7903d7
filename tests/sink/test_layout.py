import pytest
from hypothesis import given
from hypothesis import strategies as st

import raysp
from raysp import PlanError
from raysp.corpus.shards import Piece
from raysp.sink import layout
from tests.corpora import a_pipeline, write_shard

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
