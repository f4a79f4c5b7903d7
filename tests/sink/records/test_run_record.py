from dataclasses import replace

import pytest

from raysp import ChangedError, PlanError
from raysp.sink import layout, run_record
from raysp.sink.run_record import RunEntry, RunRecord, differences

PARTS = {"label_version": 1, "steps.1.checkpoint_digest": "ab12", "steps.1.window_seconds": 30}
FILE_PARTS = {"sink.keep": ["speaker_id"], "sink.rows": "all"}


def begin(store, **changes):
    run = RunEntry.now(command=["raysp", "run", "a b.py"], resolved={"steps.1.batch_seconds": 240})
    record = RunRecord(run.started, {"name": "p"}, "f1", PARTS, FILE_PARTS, (run,))
    return run_record.begin(store, replace(record, **changes))


def test_a_sink_records_its_pipeline_and_every_run(store):
    assert run_record.load(store) is None
    first = begin(store)
    second = begin(store)
    assert run_record.load(store) == second
    assert second.runs[0] == first.runs[0]
    assert len(second.runs) == 2
    assert first.created == second.created
    entry = second.runs[1]
    assert entry.command == "raysp run 'a b.py'"
    assert set(entry.versions) == {"raysp", "python", "torch", "ray", "pyarrow", "soundfile", "av"}
    assert entry.resolved == {"steps.1.batch_seconds": 240}


def test_another_pipeline_is_refused_with_the_keys_that_differ(store):
    begin(store)
    with pytest.raises(
        ChangedError,
        match=r"files of `steps.1.checkpoint` changed .*; undo the change, or use another sink$",
    ) as error:
        begin(store, fingerprint="f2", parts={**PARTS, "steps.1.checkpoint_digest": "cd34"})
    assert error.value.differences == (
        "the files of `steps.1.checkpoint` changed (their digest was 'ab12', now 'cd34')",
    )
    assert len(run_record.load(store).runs) == 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"{", "not a run record"),
        (b"[]", "not a run record"),
        (b"{}", "lacks created"),
        (b'{"schema_version": 99}', "schema version 99, this version of raysp reads 1; upgrade raysp"),
    ],
)
def test_a_damaged_record_is_named(store, text, reason):
    store.create(layout.RUN, text)
    with pytest.raises(PlanError, match=rf"run\.json: .*{reason}"):
        run_record.load(store)


def test_differences_name_dotted_keys_of_nested_values():
    old = {"a": {"b": [1, {"c": 2}]}, "gone": 1, "same": [None], "keep": ["x"], "lm": None}
    new = {"a": {"b": [1, {"c": 3}, 4]}, "same": [None], "new": {}, "keep": ["x", "y"], "lm": "x.arpa", "none": None}
    assert differences(old, new) == (
        "`a.b.1.c` was 2, now 3",
        "`gone` was 1, now unset",
        "`keep` was ['x'], now ['x', 'y']",
        "`lm` was unset, now 'x.arpa'",
        "`a.b.2` was unset, now 4",
        "`new` was unset, now {}",
    )
    assert differences(old, old) == ()


def test_differences_of_hashes_name_the_hashed_files():
    old = {"code.rules.py": "ab", "code.gone.py": "ef", "code.numba": "version numba 1", "label_version": 2}
    new = {"code.rules.py": "cd", "code.new.py": "ef", "code.numba": "version numba 2", "label_version": 3}
    assert differences(old, new) == (
        "the code in `rules.py` changed",
        "the code in `gone.py` is no longer used",
        "`code.numba` was 'version numba 1', now 'version numba 2'",
        "this version of raysp labels differently (label version was 2, now 3)",
        "the code in `new.py` is new",
    )
