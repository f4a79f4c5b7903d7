"""What a plan says beyond its recorded output: notes, refusals of sources, settings, and estimates as JSON."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from tests.corpora import AUDIO, rows_table, write_shard


def write_paths(folder: Path, form: str, bytes_of_last: bytes | None = None) -> None:
    """Write rows with paths in the place of recordings, as `datasets` does."""
    rows = [{"bytes": None, "path": f"/clips/en/{row}.wav"} for row in range(120)]
    rows[-1]["bytes"] = bytes_of_last
    table = pa.table({"id": [str(row) for row in range(120)], "audio": pa.array(rows, AUDIO)})
    folder.mkdir(parents=True, exist_ok=True)
    if form == "parquet":
        write_shard(folder / "p.parquet", table=table, row_group_size=50)
        return
    with pa.OSFile(str(folder / "p.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=50)


@pytest.mark.slow
def test_json_has_the_values_that_are_printed_and_writes_nothing(raysp_command, recipe, tmp_path):
    ran = raysp_command("plan", recipe, "--json", "--set", f"sink.url={tmp_path}/other", "--rtfx", "50", "--price", "2")
    found = json.loads(ran.out)
    assert (ran.code, ran.err, ran.out.count("\n")) == (0, "", 1)
    assert (found["rows"], found["rows_todo"], found["shards"], found["shards_committed"]) == (3, 3, 1, 0)
    assert (found["sink"], found["audio_seconds"], len(found["fingerprint"])) == (f"{tmp_path}/other", None, 16)
    assert found["settings"]["checkpoint"]["architecture"] == "UniSpeechForCTC"
    estimate = found["estimate"]
    assert estimate["audio_seconds"] == {"value": pytest.approx(0.3), "margin": 0.0}
    assert estimate["cost"]["money"]["value"] == pytest.approx(2 * estimate["cost"]["device_hours"]["value"])
    assert not (tmp_path / "other").exists()
    assert "--price without effect: a cost needs a speed" in raysp_command("plan", recipe, "--price", "2").err


def test_what_a_source_has_beside_its_shards_and_rows_is_noted(raysp_command, recipe, tmp_path):
    (tmp_path / "in" / "b.parquet").write_text("nothing")
    ran = raysp_command("plan", recipe)
    [complaint] = ran.complaints
    assert complaint.startswith("raysp: not committed: b.parquet: ")
    assert "found 7 bytes; expected a Parquet file" in complaint
    (tmp_path / "in" / "a.parquet").write_text("nothing")
    assert "nothing to do no shard can be read\n" in raysp_command("plan", recipe).out
    (tmp_path / "audio").mkdir()
    for name in ("a.wav", "c.m4a", "d.aac", "e.webm", "f.mp4", "g.wma", "t.txt", "u.txt", "v.json"):
        (tmp_path / "audio" / name).write_bytes(b"x")
    ran = raysp_command("plan", recipe, "--sample", "0", "--set", f"source.url={tmp_path}/audio")
    assert (ran.complaints, "6 rows" in ran.out) == (["raysp: 3 other files ignored: 2 .txt, 1 .json"], True)


def test_a_sample_of_which_no_row_can_be_labelled_is_said_with_the_remedy(raysp_command, recipe, tmp_path):
    write_shard(tmp_path / "in" / "a.parquet", table=rows_table(3, audio=b"no audio at all"))
    ran = raysp_command("plan", recipe)
    assert (ran.code, len(ran.complaints)) == (0, 1)
    assert "none of 3 sampled rows can be labelled. For unsupported_format: convert the recordings" in ran.err


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_paths_without_bytes_and_without_a_root_are_refused_and_one_recording_is_enough(
    raysp_command, recipe, tmp_path, form
):
    write_paths(tmp_path / "paths", form)
    settings = ("--set", f"source.url={tmp_path}/paths")
    ran = raysp_command("run", recipe, *settings)
    assert (ran.code, ran.out, len(ran.complaints)) == (2, "", 1)
    assert "column 'audio' holds no bytes in any of 120 rows, only paths such as '/clips/en/0.wav'" in ran.err
    assert "source.audio_root='/clips/en', or embed the recordings" in ran.err
    assert raysp_command("plan", recipe, *settings, "--set", "source.audio_root=/clips").code == 0
    write_paths(tmp_path / "in" / "paths", form)
    write_shard(tmp_path / "in" / "z.parquet", table=rows_table(1).slice(1))
    ran = raysp_command("plan", recipe, "--sample", "0", "--set", f"source.url={tmp_path}/in")
    assert (ran.code, len(ran.complaints)) == (0, 2)
    assert "1 of 3 shards hold no rows, such as z.parquet" in ran.err
    assert "1 of 3 shards hold no recordings, such as paths/p.parquet: their rows become errors" in ran.err
    write_paths(tmp_path / "one", form, bytes_of_last=b"RIFF")
    ran = raysp_command("plan", recipe, "--sample", "0", "--set", f"source.url={tmp_path}/one")
    assert (ran.code, ran.complaints) == (0, [])
