"""What reaches a terminal: no escapes, and one line of progress."""

import pyarrow as pa

import raysp
from tests import kit
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

    def test_ids_and_texts_are_shown_as_they_are_but_harmless(self, recipe, tmp_path):
        table = rows_table(1, audio=kit.digits(1)[0]["audio"])
        for name, value in {"id": self.HOSTILE, "text": "größer [red]ok"}.items():
            table = table.set_column(table.column_names.index(name), name, [[value]])
        write_shard(tmp_path / "in" / "a.parquet", table=table)
        (tmp_path / "in" / f"{self.HOSTILE}.parquet").write_text("nothing")
        for more in (["--rows", 1], []):
            ran = kit.run(["run", recipe, *more, "--set", 'sink.keep=["text"]'], COLUMNS="200")
            for bad in ("\x1b", "\x9b", "\x07", "\r"):
                assert bad not in ran.out + ran.err
            assert "größer [red]ok" in ran.out
            assert "[bold]" in ran.out
            assert "error_type" not in ran.out
            [line] = [line for line in ran.err.splitlines() if "not committed: " in line]
            assert "[bold]" in line

    def test_a_progress_line_has_progress_and_speed(self, tmp_path, capsys):
        corpus = kit.corpus(tmp_path / "in", rows=4, faults=["not_audio", "not_audio"], shards=2)
        raysp.run(corpus.pipeline(tmp_path / "out", label={"batch_seconds": 5}), engine="here", progress=True)
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith("raysp: 100% · 2 errors · 6/6 rows · 0:0")
        for part in (" of audio · RTFx ", " · shards 2/2 · padding efficiency ", " · model waited "):
            assert part in line
        assert "ETA" not in line
