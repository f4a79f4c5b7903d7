"""What reaches a terminal: no escapes, and one line of progress."""

import pyarrow as pa

from raysp.cli.printed_runs import print_failures, print_rows
from raysp.labelling.engine.display import progress_line
from raysp.labelling.engine.run_progress import Progress
from tests.corpora import rows_table, write_shard


class TestTerminal:
    HOSTILE = "\x1b]0;owned\x07\x1b[31m\x9b2J[bold]\r\nz"

    def test_escapes_in_the_name_of_a_shard_do_not_reach_the_terminal(self, raysp_command, recipe, tmp_path):
        (tmp_path / "in" / "b\x1b[2J\x9b.parquet").write_text("nothing")
        for arguments in (("plan", recipe), ("plan", recipe, "--json")):
            ran = raysp_command(*arguments)
            assert ran.code == 0
            for bad in ("\x1b", "\x9b"):
                assert bad not in ran.out + ran.err

    def test_escapes_in_a_column_and_an_error_do_not_reach_the_terminal(self, raysp_command, recipe, tmp_path):
        table = rows_table(1).append_column("evil\x1b[2J", pa.array(["x"]))
        write_shard(tmp_path / "in" / "a.parquet", table=table)
        ran = raysp_command("plan", recipe, "--set", "source.id=key")
        assert ran.code == 2
        assert "evil" in ran.err
        assert "\x1b" not in ran.err

    def test_ids_and_texts_are_shown_as_they_are_but_harmless(self, capsys):
        columns = {"id": [self.HOSTILE], "row": [0], "status": ["ok"], "pred_text": ["größer [red]ok"]}
        print_rows(pa.table({**columns, "error_type": pa.nulls(1), "error_message": pa.nulls(1)}), "t\x1b[2J")
        print_failures({self.HOSTILE: self.HOSTILE})
        said = capsys.readouterr()
        for bad in ("\x1b", "\x9b", "\x07", "\r"):
            assert bad not in said.out + said.err
        assert "größer [red]ok" in said.out
        assert "[bold]" in said.out
        assert "error_type" not in said.out
        assert len(said.err.splitlines()) == 1

    def test_a_progress_line_has_progress_and_speed(self):
        progress = Progress(rows_total=1000, shards_total=4, shards_committed=1, rows=200, audio_seconds=3600)
        progress.add_block(20, 1800)
        progress.add_block(30, 1800)
        progress.real_samples, progress.padded_samples = 9, 10
        progress.errors["no_audio"] = 3
        line = progress_line(progress)
        for part in (
            "25% · ETA ",
            "250/1,000 rows",
            "2:00:00 of audio",
            "shards 1/4",
            "padding efficiency 90%",
            "3 errors",
            "ETA",
        ):
            assert part in line
