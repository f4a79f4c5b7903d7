"""RAYSP_FAIL_AT kills a run at a passing of a phase, in whichever process it is counted."""

import pytest

from tests import kit


@pytest.mark.parametrize("value", ["shard_committed:1", "after_lunch:1"])
def test_an_invalid_value_is_refused_with_the_expected_ones(tmp_path, value):
    file = kit.corpus(tmp_path / "in", rows=1).file(tmp_path / "label.py", tmp_path / "out")
    found = kit.run(["run", file], RAYSP_FAIL_AT=value)
    assert found.code == 2
    phases = ", ".join(kit.PHASES)
    assert f"RAYSP_FAIL_AT='{value}': expected before_ or after_, one of {phases}, " in found.err
    assert found.err.rstrip().endswith("and a count from 1, such as after_shard_committed:2")
    assert not (tmp_path / "out").exists()
