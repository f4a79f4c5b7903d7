"""`raysp report --suggest`: bounds by quantiles and groups, and what a `Keep` with them keeps."""

import duckdb
import numpy as np
import pytest

import raysp
from tests import corpora, kit

ROWS = 400


@pytest.fixture(scope="module")
def sink(tmp_path_factory):
    """A sink with scores (some null), signals, two languages and a few rows that are not ok."""
    draw = np.random.default_rng(0)
    score = draw.normal(-0.5, 0.3, ROWS).astype(np.float32)
    signal = [
        {"noise": float(n), "snr": float(s)} for n, s in zip(*draw.normal([-60, 20], 9, (ROWS, 2)).T, strict=True)
    ]
    columns = {
        "pred_score": [None if row % 50 == 7 else float(value) for row, value in enumerate(score)],
        "signal": [{**one, **dict.fromkeys(("loudness", "peak"), 0.5)} for one in signal],
        "seconds": draw.gamma(3, 2, ROWS).tolist(),
        "status": ["error" if row % 40 == 3 else "ok" for row in range(ROWS)],
    }
    source = {"language": ["de" if row % 3 else "en" if row % 9 else None for row in range(ROWS)]}
    return str(
        corpora.labelled(tmp_path_factory.mktemp("suggest"), columns, [raysp.Transcript(), raysp.Signals()], source)
    )


def values_of(sink: str, column: str, where: str = "status = 'ok'") -> np.ndarray:
    return np.array(
        duckdb.sql(f"SELECT {column} FROM '{sink}/*.parquet' WHERE {where} AND {column} IS NOT NULL").fetchall()
    )[:, 0]


@pytest.mark.parametrize(("column", "quantile"), [("pred_score", 0.05), ("signal.snr", 0.5), ("seconds", 0.05)])
def test_the_bounds_are_the_quantiles_of_numpy_to_one_part_in_a_thousand(sink, column, quantile):
    [found] = raysp.suggest(sink, [column], quantiles=[quantile]).bounds
    values = values_of(sink, column)
    share = quantile / len(found.where)
    for name, compare, bound in found.where:
        sign = 1 if compare == ">=" else -1
        exact = sign * np.quantile(sign * values, share, method="inverted_cdf")
        assert name == column
        assert bound == pytest.approx(exact, rel=1e-3)
        assert sign * bound <= sign * exact
        assert f"{bound:.4g}" == f"{bound:.10g}"


def test_rows_and_hours_are_those_that_the_conditions_keep(sink):
    for found in raysp.suggest(sink, ["pred_score", "signal.snr"]).bounds:
        conditions = " AND ".join(f"{name}::DOUBLE {compare} {bound}::DOUBLE" for name, compare, bound in found.where)
        query = f"SELECT count(*), sum(seconds) FROM '{sink}/*.parquet' WHERE status = 'ok' AND {conditions}"
        [[rows, seconds]] = duckdb.sql(query).fetchall()
        assert (found.rows, found.seconds) == (rows, pytest.approx(seconds))
        assert found.rows >= (1 - found.quantile) * len(values_of(sink, found.column))
        assert found.of_rows == len(values_of(sink, "row"))


def test_each_group_has_bounds_of_its_own(sink):
    found = raysp.suggest(sink, ["pred_score"], quantiles=[0.1], group="language").bounds
    assert [bounds.group for bounds in found] == ["de", "en", None]
    for bounds in found[:2]:
        assert bounds.where[0] == ("language", "==", bounds.group)
        values = values_of(sink, "pred_score", f"status = 'ok' AND language = '{bounds.group}'")
        assert bounds.where[1][2] == pytest.approx(np.quantile(values, 0.1, method="inverted_cdf"), rel=1e-3)
        assert bounds.keep == f"raysp.Keep(where={list(bounds.where)})"
        assert eval(bounds.keep, {"raysp": raysp}) == raysp.Keep(where=list(bounds.where))
    assert (found[2].where, found[2].keep) == ((), "")
    assert sum(bounds.of_rows for bounds in found) == len(values_of(sink, "row"))


def test_a_pipeline_with_the_step_keeps_the_rows(tmp_path):
    corpora.label_twice(tmp_path)
    [bounds] = raysp.suggest(f"{tmp_path}/A", ["pred_score"], quantiles=[0.4]).bounds
    label = raysp.Label(str(corpora.CHECKPOINT), outputs=[raysp.Transcript()])
    steps = [raysp.Decode(), label, raysp.Keep(where=list(bounds.where))]
    pipeline = corpora.a_pipeline(f"{tmp_path}/in/*.parquet", f"{tmp_path}/kept", steps=steps)
    raysp.run(pipeline, engine="here", progress=False)
    kept = [row for row in kit.rows(f"{tmp_path}/kept") if row["status"] == "ok"]
    assert len(kept) == bounds.rows == 4
    assert (bounds.of_rows, bounds.column) == (6, "pred_score")


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (["signal.gone"], {}, "suggest='signal.gone': found no such column"),
        (["pred_score"], {"quantiles": [1.0]}, "quantile: found 1.0, expected a number between 0 and 1"),
        (["pred_score"], {"group": "gone"}, "group='gone': no column is named 'gone'"),
        (["pred_score"], {"group": "seconds"}, "group='seconds': found double, expected texts, integers or booleans"),
        ([], {}, "no column is given"),
    ],
)
def test_what_has_no_quantiles_is_refused(sink, columns, options, message):
    with pytest.raises((raysp.PlanError, raysp.SpecError), match=message):
        raysp.suggest(sink, columns, **options)


def test_a_column_of_nulls_keeps_nothing(sink, raysp_command):
    [found] = raysp.suggest(sink, ["signal.bandwidth"], quantiles=[0.1]).bounds
    assert (found.rows, found.where, found.keep) == (0, (), "")
    assert raysp_command("report", sink, "--suggest", "signal.bandwidth").code == 0
