"""Messages and facts on terminals of any width: broken between words, and whole where nothing draws them."""

import io

import pytest
from rich.cells import cell_len
from rich.console import Console

from raysp.cli import console, printed_runs
from raysp.cli.console import print_command, print_fact, say
from raysp.labelling.engine.display import Display
from raysp.labelling.engine.run_progress import Progress
from raysp.labelling.engine.run_result import RunResult
from raysp.sink.receipts import Counts, WordErrors
from raysp.words import folded
from tests.corpora import a_pipeline

ERRORS = WordErrors(rows=300, words=1300, substitutions=21, insertions=1, deletions=8, unlabelled=2)
RESULT = RunResult(
    "out", "0" * 16, 2, 2, 1, {},
    Counts(300, audio_seconds=135.0, real_samples=93, padded_samples=100, busy_seconds=1.0, errors={"no_audio": 2},
           skipped={"too_short": 4}),
    20.0, ("a.parquet row 7 (id 'x'): no_audio: " + "words " * 30,), word_errors=ERRORS, first_shards=("a.parquet",),
)  # fmt: skip
SETTING = f"source.url=s3://bucket/{'folder/' * 30}"
COMMAND = "raysp status out --storage-option key=AKIA --storage-option secret=env:SECRET --storage-option a=b"


@pytest.fixture(params=[60, 80, 200])
def terminal(request, monkeypatch) -> Console:
    drawn = Console(file=io.StringIO(), force_terminal=True, width=request.param, soft_wrap=True, highlight=False)
    for module in (console, printed_runs):
        for name in ("out", "err"):
            monkeypatch.setattr(module, name, drawn, raising=False)
    return drawn


def printed(terminal: Console) -> list[str]:
    assert isinstance(terminal.file, io.StringIO)
    return terminal.file.getvalue().splitlines()


def test_a_summary_fits_a_terminal_of_any_width_and_a_command_stays_in_one_line(terminal, monkeypatch):
    monkeypatch.setattr(printed_runs, "print_rows", lambda *_: None)
    monkeypatch.setattr("raysp.labelling.finished.first_rows.first_rows", lambda *_, **__: None)
    printed_runs.print_result(a_pipeline("in", "out"), RESULT, "label.py", [SETTING])
    lines = printed(terminal)
    lines.remove(f"once fixed   raysp retry label.py --set {SETTING}")
    assert lines[-2:] == ["report       raysp report out", "next         raysp status out"]
    assert max(map(cell_len, lines)) <= terminal.width
    assert len(lines) <= 20
    names = [line[:12].strip() for line in lines if line[:12].strip()]
    assert names == ["labels", "this run", "model", "skipped rows", "error rows", "word errors", "report", "next"]
    assert all(line[:13] == " " * 13 for line in lines if not line[:12].strip())


def test_a_message_fits_a_terminal_of_any_width_and_long_words_stay_whole(terminal):
    url = "s3://bucket/" + "folder/" * 30
    say(f"{url}: no such file or folder; check the path, or wait until it is mounted, and then try once more")
    first, *others = printed(terminal)
    assert first.startswith("raysp:")
    assert all(line.startswith("  ") and (len(line) <= terminal.width or line.strip() == f"{url}:") for line in others)
    assert url in "".join(printed(terminal))


def test_output_that_is_not_a_terminal_has_whole_lines(capsys):
    print_fact("word errors", "many words " * 30)
    print_command("next", COMMAND)
    say("many words " * 30)
    said = capsys.readouterr()
    assert [len(said.out.splitlines()), len(said.err.splitlines())] == [2, 1]


def test_ids_with_colons_are_printed_as_they_are(capsys):
    print_fact("forgotten", "spk:b:0:x:")
    print_command("next", "raysp status out:b:x")
    said = capsys.readouterr().out
    assert ("spk:b:0:x:" in said, "raysp status out:b:x" in said) == (True, True)


def test_words_are_not_split_at_any_width():
    line = "name          one two  three four"
    for width in range(1, 40):
        lines = folded(line, width).splitlines()
        assert " ".join(part.strip() for part in lines) == line
        assert all(len(part) <= width or len(part.split()) == 1 or "  " in part.strip() for part in lines)
    assert folded(line, None) == line


@pytest.mark.parametrize(
    ("errors", "shown"),
    [
        (
            ERRORS,
            "2.31% of 1,300 reference words in 300 labelled rows (ignoring case and punctuation): "
            "21 substitutions, 1 insertion, 8 deletions; 2 rows with a reference not labelled",
        ),
        (
            WordErrors(rows=1, insertions=2),
            "no reference words in 1 labelled row (ignoring case and punctuation): "
            "0 substitutions, 2 insertions, 0 deletions",
        ),
        (WordErrors(unlabelled=3), "nothing to compare; 3 rows with a reference not labelled"),
    ],
)
def test_word_errors_are_shown_by_kind_and_without_a_rate_if_there_are_no_words(errors, shown):
    assert errors.sentence == shown


@pytest.mark.parametrize(
    ("width", "parts"),
    [
        (200, 9),
        (80, 4),
        (60, 4),
        (24, 2),
    ],
)
def test_the_live_line_never_wraps(width, parts):
    progress = Progress(rows_total=120_000, shards_total=400)
    samples = {"real_samples": 9, "padded_samples": 10, "busy_seconds": 1.0}
    progress.staged = Counts(rows=70_000, audio_seconds=8e5, errors={"no_audio": 1200}, **samples)
    progress._first = (progress.started - 100, 0, 0.0)
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=width)
    display = Display(console)
    with display:
        display.start()
        display.progress(progress)
        [line] = [text for text in display._live.renderable.text.plain.splitlines() if text]
    assert cell_len(line) + 2 <= width
    assert len(line.split(" · ")) == parts
    assert line.startswith("58%")
