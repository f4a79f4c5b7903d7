"""`raysp evaluate --sink`: label shards with what was compared, for reports, comparisons and exports."""

import re
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.corpora import CHECKPOINT, digits_table

pytestmark = pytest.mark.usefixtures("without_ray")
ROWS = digits_table(6, 4)
ROWS = ROWS.set_column(ROWS.schema.get_field_index("text"), "text", pa.array(["eight", *ROWS["text"].to_pylist()[1:]]))


@pytest.fixture
def corpus(tmp_path) -> Path:
    (tmp_path / "in").mkdir()
    pq.write_table(ROWS, tmp_path / "in" / "a.parquet")
    return tmp_path / "in"


@pytest.fixture
def evaluate(raysp_command, corpus, tmp_path):
    """Function that evaluates into the sink `kept`."""
    return lambda *options: raysp_command("evaluate", CHECKPOINT, corpus, "--sink", tmp_path / "kept", *options)


def test_ids_references_and_columns_of_groups_are_kept(evaluate, tmp_path):
    ran = evaluate("--text", "text", "--by", "speaker_id", "--by", "seconds", "--over", "sampling_rate")
    assert ran.code == 0, ran.err
    kept = pq.read_table(tmp_path / "kept" / "a.parquet")
    assert kept.select(["id", "text", "speaker_id", "sampling_rate"]).equals(
        ROWS.select(["id", "text", "speaker_id", "sampling_rate"]).replace_schema_metadata(kept.schema.metadata)
    )


def test_the_last_lines_are_commands_that_go_on(evaluate, raysp_command, tmp_path):
    ran = evaluate("--text", "text", "--by", "speaker_id", "--worst", "1")
    report, compare = re.findall(r"`raysp (.*?)`", "\n".join(ran.out.splitlines()[-2:]))
    assert raysp_command(*report.split(), "--out", tmp_path / "r.html").code == 0
    assert "Worst rows" in (tmp_path / "r.html").read_text()
    shutil.copytree(tmp_path / "kept", tmp_path / "other")
    ran = raysp_command(*(str(tmp_path / "other") if one == "OTHER" else one for one in compare.split()))
    assert ran.code == 0, ran.err
    titles = ["pred_text, A and B against text", "WER change ", "pred_text, B against A", "agreement "]
    places = [ran.out.index(title) for title in titles]
    assert places == sorted(places)


def test_another_evaluation_goes_on_and_names_columns_that_are_not_kept(evaluate, tmp_path):
    evaluate("--text", "text", "--by", "speaker_id")
    before = (tmp_path / "kept" / "a.parquet").read_bytes()
    ran = evaluate("--text", "text", "--by", "sampling_rate")
    assert (ran.code, (tmp_path / "kept" / "a.parquet").read_bytes()) == (0, before)
    assert "without sampling_rate (an earlier evaluation made them; another sink keeps all)" in ran.out
    assert "--by" not in ran.out.splitlines()[-1]
