"""The kit of the tests does what it says: faults have their outcomes, kills kill, files fail at the n-th change."""

from pathlib import Path

import pytest

from tests import kit
from tests.house.sizes import CHECKOUT, inside_imports
from tests.soaked import soaked


@pytest.fixture(autouse=True)
def here(without_ray):
    """Label in this process, whether or not it is connected to a Ray."""


class TestCorpora:
    @pytest.mark.parametrize("kind", ["parquet", "manifest", "folder", "tar"])
    def test_each_fault_has_its_outcome(self, kind, tmp_path):
        faults = [name for name, fault in kit.FAULTS.items() if kind in fault.kinds and name != "crash_decoder"]
        corpus = kit.corpus(tmp_path / "in", rows=2, faults=faults, kind=kind)
        ran = kit.run(["run", corpus.file(tmp_path / "label.py", tmp_path / "out")])
        assert ran.code == 0, ran.err
        labels = kit.rows(tmp_path / "out")
        assert kit.outcomes(labels) == [(row.id, row.status, row.error_type) for row in corpus.expected]
        assert {row.fault for row in corpus.expected} == {None, *faults}

    def test_a_recording_ends_the_decoding_process(self, tmp_path):
        corpus = kit.corpus(tmp_path / "in", rows=2, faults={1: "crash_decoder"})
        file = corpus.file(tmp_path / "label.py", tmp_path / "out")
        ran = kit.run(["run", file], **corpus.variables)
        assert ran.code == 0, ran.err
        assert [row["error_type"] for row in kit.rows(tmp_path / "out")] == [None, "decoder_crashed", None]


class TestCommands:
    @pytest.mark.drivers
    @pytest.mark.parametrize("when", ["after", *soaked(["before"])])
    @pytest.mark.parametrize("phase", kit.PHASES)
    def test_a_run_that_was_killed_goes_on_to_the_same_rows(self, phase, when, tmp_path):
        corpus = kit.corpus(tmp_path / "in", rows=4, faults=["not_audio"], shards=2)
        whole = kit.run(["run", corpus.file(tmp_path / "whole.py", tmp_path / "whole")])
        assert whole.code == 0, whole.err
        line = ["run", corpus.file(tmp_path / "label.py", tmp_path / "out")]
        kit.killed_at(f"{when}_{phase}", 1, line)
        again = kit.run(line)
        assert again.code == 0, again.err
        assert kit.rows(tmp_path / "out") == kit.rows(tmp_path / "whole")


def test_the_kit_imports_nothing_below_raysp():
    assert inside_imports(Path(kit.__file__).read_text(), CHECKOUT / "raysp") == set()
