"""What `raysp evaluate` prints, and its exit codes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from rich.cells import cell_len

import raysp
from tests import kit
from tests.classifiers import make_classifier, make_speaker_model
from tests.corpora import AUDIO, CHECKPOINT, DEMO, labelled, write_shard
from tests.here import run_without_ray

HOSTILE = "\x1b]0;owned\x07[bold]\r\n"


@pytest.fixture(autouse=True)
def without_ray(monkeypatch):
    run_without_ray(monkeypatch)


@pytest.fixture
def evaluate(raysp_command):
    def command(shards, *arguments):
        return raysp_command("evaluate", CHECKPOINT, shards, "--text", "text", *arguments)

    return command


@pytest.fixture
def corpus(tmp_path):
    """Spoken digits: three right ones, one with a word too many, one that is no recording, one without a reference."""
    table = pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 6)
    texts, audio = table["text"].to_pylist(), table["audio"].to_pylist()
    texts[1], texts[5] = f"{texts[1]} more", None
    audio[4] = {"bytes": b"no audio at all", "path": None}
    columns = {"text": pa.array(texts, pa.string()), "audio": pa.array(audio, AUDIO)}
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, values)
    write_shard(tmp_path / "in" / "a.parquet", table=table)
    return tmp_path / "in"


@pytest.mark.slow
def test_the_metrics_the_counts_and_the_worst_rows_are_printed(evaluate, corpus):
    ran = evaluate(corpus, "--rows", 6, "--by", "speaker_id")
    assert ran.code == 0
    for line in (
        "rows         4 of 6 rows (at most the first 6) compared with the column text, 0:01 of audio\n",
        "not compared 1 without a reference, 1 error (unsupported_format)\n",
        "WER          20.00% (",
        "): 0 substitutions, 0 insertions, 1 deletion in 5 words\n",
        "normalised   letters: lower case; letters, digits and apostrophes within words\n",
        "intervals    95%, from 1,000 bootstrap draws of rows\n",
        "  1/2  five [-more-]\n",
        "a.parquet row 4: unsupported_format: ",
    ):
        assert line in ran.out
    assert ran.out.count("speaker_id") == 1
    assert len(ran.out.splitlines()) <= 25


@pytest.mark.slow
def test_a_limit_that_is_not_met_ends_with_exit_code_1_and_a_sentence(evaluate, corpus):
    ran = evaluate(corpus, "--rows", 4, "--fail-above", "wer=0.05", "--fail-above", "cer=0.9")
    assert ran.code == 1
    assert ran.err.splitlines()[-1] == "raysp: WER is 20.00%, expected at most 5.00%: not met"
    assert "limit        CER is " in ran.out
    assert evaluate(corpus, "--rows", 4, "--fail-above", "wer=0.2").code == 0


@pytest.mark.slow
def test_json_has_everything(evaluate, corpus):
    ran = evaluate(corpus, "--rows", 6, "--by", "speaker_id", "--json", "--worst", 1, "--fail-above", "wer=0.1")
    assert (ran.code, ran.err) == (1, "")
    found = json.loads(ran.out)
    assert found.keys() == {
        "checkpoint", "checkpoint_digest", "source", "first_rows", "task", "column", "normalisation", "rows", "scores",
        "by", "classes", "worst", "intervals", "limits", "labels", "not_kept", "run", "exit_code",
    }  # fmt: skip
    assert found["scores"]["metrics"]["wer"].keys() == {"value", "low", "high"}
    assert found["scores"]["metrics"]["wer"]["value"] == 0.2
    assert found["rows"] == {
        "total": 6, "compared": 4, "without_reference": 1, "skipped": {}, "errors": {"unsupported_format": 1},
        "uncommitted": 0,
    }  # fmt: skip
    assert found["intervals"] == {"over": None, "draws": 1000, "seed": 0, "confidence": 0.95}
    assert found["normalisation"]["name"] == "letters"
    assert found["by"].keys() == {"seconds", "speaker_id"}
    assert found["limits"] == [{"metric": "wer", "limit": 0.1, "is_upper": True, "found": 0.2, "is_met": False}]
    [worst] = found["worst"]
    assert (worst["row"], worst["edits"]) == (
        1,
        [{"kind": "delete", "reference": "more", "hypothesis": "", "start": 1}],
    )


def test_no_row_being_compared_is_said(evaluate, corpus):
    table = pq.read_table(corpus / "a.parquet")
    place = table.column_names.index("text")
    write_shard(corpus / "a.parquet", table=table.set_column(place, "text", [[None] * 4 + ["four", None]]))
    ran = evaluate(corpus, "--rows", 6)
    assert ran.code == 3
    said = "raysp: no row was compared: 5 without a reference, 1 error (unsupported_format)"
    assert [line for line in ran.err.splitlines() if line.startswith("raysp: no row was compared")] == [said]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--text", "sentence"], "has no column 'sentence'"),
        (["--text", "sampling_rate"], "column 'sampling_rate' holds int32, expected strings"),
        (["--by", "audio"], "column 'audio' holds struct"),
        (["--fail-above", "wer"], "--fail-above wer: expected METRIC=SHARE, such as wer=0.2"),
        (["--fail-below", "x=y"], "--fail-below x=y: expected METRIC=SHARE"),
        (["--fail-above", "f1=0.1"], "fail_above: found 'f1', expected one of wer, cer"),
        (["--label", "text"], "found text='text' and label='text'"),
        (["--speaker", "speaker_id"], "found text='text' and speaker='speaker_id'; give one of them"),
        (["--normalise", "upper"], "found the normalisation 'upper'"),
        (["--rows", "0"], "Invalid value for '--rows'"),
    ],
)
def test_what_cannot_be_evaluated_is_refused_with_exit_code_2(evaluate, corpus, arguments, complaint):
    ran = evaluate(corpus, *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert complaint in ran.err


@pytest.mark.slow
def test_several_shards_of_a_shell_are_one_corpus(evaluate, tmp_path):
    paths = [write_shard(tmp_path / "in" / f"{name}.parquet", 1) for name in ("a", "b")]
    ran = evaluate(paths[0], paths[1], "--rows", 2, "--json")
    assert json.loads(ran.out)["rows"]["total"] == 2


@pytest.mark.slow
def test_a_classifier_has_a_table_of_its_classes(raysp_command, corpus, tmp_path, monkeypatch):
    folder = make_classifier(tmp_path / "classifier", "three", "five", "four")
    options = ("--label", "text", "--rows", 3, "--by", "speaker_id", "--fail-below", "accuracy=1")
    ran = raysp_command("evaluate", folder, corpus, *options)
    assert (ran.code, "raysp: accuracy is " in ran.err) == (1, True)
    assert "normalised" not in ran.out
    assert re.search(r"accuracy     \d+\.\d\d% \(.*\): \d of 3 rows\n", ran.out)
    assert re.search(r"┃ class +┃ +rows ┃ predicted ┃ precision ┃ +recall ┃ +F1 ┃", ran.out)
    assert re.search(r"┃ speaker_id ┃ rows ┃ accuracy ┃ +95% interval ┃ macro F1 ┃", ran.out)
    assert "five more" in ran.out  # a class that the checkpoint does not have


@pytest.mark.slow
def test_speakers_have_an_equal_error_rate_of_pairs(raysp_command, corpus, tmp_path):
    folder = make_speaker_model(tmp_path / "speakers")
    options = ("--speaker", "speaker_id", "--rows", 6, "--by", "sampling_rate", "--over", "speaker_id")
    ran = raysp_command("evaluate", folder, corpus, *options)
    assert ran.code == 0
    assert "rows         5 of 6 rows (at most the first 6) compared with the column speaker_id, " in ran.out
    assert re.search(r"\nEER          \d+\.\d\d% \(.*\): 6 target pairs, 4 non-target pairs\n", ran.out)
    assert "intervals    95%, from 1,000 bootstrap draws of the values of speaker_id\n" in ran.out
    assert re.search(r"┃ sampling_rate ┃ rows ┃ +EER ┃ +95% interval ┃", ran.out)
    assert "Worst" not in ran.out
    found = json.loads(raysp_command("evaluate", folder, corpus, *options, "--json").out)
    assert (found["task"], found["column"], found["worst"], found["classes"]) == ("verification", "speaker_id", [], [])
    assert found["scores"]["metrics"].keys() == {"eer"}
    assert found["scores"]["counts"] == {"speakers": 2, "target_pairs": 6, "non_target_pairs": 4, "without_vector": 0}
    rate = found["scores"]["metrics"]["eer"]["value"]
    ran = raysp_command("evaluate", folder, corpus, *options, "--fail-above", f"eer={rate - 0.01}")
    assert (ran.code, f"raysp: EER is {rate:.2%}, expected at most" in ran.err) == (1, True)


@pytest.mark.slow
def test_speakers_without_a_pair_of_both_kinds_end_with_exit_code_3_and_the_numbers(raysp_command, corpus, tmp_path):
    folder = make_speaker_model(tmp_path / "speakers")
    table = pq.read_table(corpus / "a.parquet").slice(2, 3)
    speakers = pa.array(["a", "b", "b"])  # the last of whom has no recording
    write_shard(corpus / "a.parquet", table=table.append_column("who", speakers))
    ran = raysp_command("evaluate", folder, corpus, "--speaker", "who", "--rows", 3)
    assert (ran.code, "EER          - (-): 0 target pairs, 1 non-target pair\n" in ran.out) == (3, True)
    assert "raysp: EER is undefined: found 0 target pairs, 1 non-target pair, expected some of both; " in ran.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--sink", "{tmp}/out"], "committed and staged labels are kept. To resume: raysp"),
        (["--rows", "2"], "no labels were kept"),
    ],
)
def test_a_stopped_evaluation_says_whether_it_can_be_resumed(evaluate, corpus, tmp_path, options, said):
    class Stopping(MemoryFileSystem):
        """Files while which are read somebody presses Ctrl-C."""

        cachable = False

        def _open(self, *arguments, **keywords):
            raise KeyboardInterrupt

        cat_file = _open

    MemoryFileSystem().pipe_file("/stopping/a.parquet", (corpus / "a.parquet").read_bytes())
    fsspec.register_implementation("memory", Stopping, clobber=True)
    try:
        ran = evaluate("memory://stopping/a.parquet", *(one.format(tmp=tmp_path) for one in options))
    finally:
        fsspec.register_implementation("memory", MemoryFileSystem, clobber=True)
        MemoryFileSystem().rm("/stopping", recursive=True)
    assert ran.code == 130
    assert f"raysp: stopped; {said}" in ran.err


def worst_rows(folder: Path, texts: dict[str, tuple[str, str]], width: int | None = None) -> list[str]:
    """Return the lines of the worst rows of a comparison of texts, by the ids of their rows.

    Args:
        folder: folder of the sinks.
        texts: texts of both sinks by id.
        width: width of a terminal in characters; None: the output is a file.
    """
    for side, name in enumerate("AB"):
        labelled(folder, {"id": [*texts], "pred_text": [pair[side] for pair in texts.values()]}, name=name)
    options = ["--column", "pred_text", "--normalise", "none", "--worst", "20"]
    line = ["diff", f"{folder}/A", f"{folder}/B", *options]
    if width is None:
        said = kit.run(line).out
    else:  # a console that was once forced to be a terminal stays one
        variables = {**os.environ, "COLUMNS": str(width), "FORCE_COLOR": "1", "TERM": "xterm"}
        command = [sys.executable, "-m", "raysp", *line]
        drawn = subprocess.run(command, env=variables, capture_output=True, text=True, check=True).stdout
        said = re.sub(r"\x1b\[\d+m", "", drawn)
    return said.partition("Worst rows, as [-A-]{+B+}\n")[2].splitlines()


class TestDifferences:
    SHOWN = (
        ("one two three", "one too three", "1/3  one [-two-]{+too+} three"),
        ("one two", "one two three", "1/2  one two {+three+}"),
        ("", "one two", "2/0  {+one two+}"),
        ("one", "", "1/1  [-one-]"),
        ("a b c d e f g", "x b c d e f g", "1/7  [-a-]{+x+} b c d …"),
        ("a b c d e f g", "a b c d e f x", "1/7  … d e f [-g-]{+x+}"),
        ("x b c d e f g h y", "b c d e f g h", "2/9  [-x-] b c d … f g h [-y-]"),
        ("x b c d e f g y", "b c d e f g", "2/8  [-x-] b c d e f g [-y-]"),
    )

    def test_differing_words_are_marked_and_equal_ones_far_from_them_left_out(self, tmp_path):
        texts = {f"r{number}": (a, b) for number, (a, b, _) in enumerate(self.SHOWN)}
        found = worst_rows(tmp_path, texts)
        assert sorted(found) == [f"r{number}  {shown}" for number, (_, _, shown) in enumerate(self.SHOWN)]

    def test_a_wrong_class_is_marked(self, tmp_path):
        classifier = make_classifier(tmp_path / "classifier", "cat", "dog")
        for name, label in {"A": "cat", "B": "dog"}.items():
            columns = {"pred_label": [label], "pred_label_scores": [0.9]}
            labelled(tmp_path, columns, [raysp.Classes()], name=name, checkpoint=classifier)
        said = kit.run(["diff", tmp_path / "A", tmp_path / "B"]).out
        assert "u0  0.900  [-cat-]{+dog+}\n" in said

    def test_texts_of_a_corpus_are_harmless_on_a_terminal(self, tmp_path):
        found = worst_rows(tmp_path, {HOSTILE: (f"one {HOSTILE}", "one two")})
        assert "[bold]" in found[0]
        assert not {"\x1b", "\x07", "\r"} & {*found[0]}
        assert len(found) == 1


@pytest.mark.parametrize("width", [60, 140])
def test_on_a_terminal_a_worst_row_has_few_lines_that_fit(tmp_path, width):
    texts = " ".join(f"word{number} same" for number in range(60)), " ".join(["same"] * 60)
    ids = ["a-very-long-id-of-a-recording" * number for number in (1, 2)]
    lines = worst_rows(tmp_path, dict.fromkeys(ids, texts), width)
    assert len(lines) <= 2 * (2 + 1)
    assert max(map(cell_len, lines)) <= width
    assert "60/120" in lines[0]


@pytest.mark.slow
def test_a_table_of_many_groups_shows_the_worst_and_counts_the_others(evaluate, tmp_path):
    table = pq.read_table(min((DEMO / "audio").glob("*.parquet"))).slice(0, 12)
    write_shard(tmp_path / "in" / "a.parquet", table=table)
    ran = evaluate(tmp_path / "in", "--rows", 12, "--by", "id")
    assert len([line for line in ran.out.splitlines() if line.startswith("│")]) == 10
    assert "... and 2 more groups; --json lists all" in ran.out
