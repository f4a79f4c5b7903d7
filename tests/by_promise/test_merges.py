"""Merges of several labellings: by agreement of their texts, and by vote on their words."""

import contextlib
import functools
import json
import shutil

import pyarrow.parquet as pq
import pytest

import raysp
from tests import corpora, kit

TEXTS, WORDS = raysp.Transcript(), raysp.Transcript(words=True)
ERROR, SKIPPED, WITHDRAWN = ("error", "corrupt_audio"), ("skipped", "no_speech"), ("skipped", "withdrawn")
Row = str | tuple[str, str] | None


@pytest.fixture
def sinks(tmp_path):
    """Return a function that makes sinks of one shard, with texts or outcomes and scores of their rows."""

    def make(*texts: list[Row], scores=None, outputs=(TEXTS,), source=None, **columns) -> list[str]:
        made = []
        for number, rows in enumerate(texts):
            shutil.rmtree(tmp_path / "ABCDE"[number], ignore_errors=True)
            outcomes = [row if isinstance(row, tuple) else ("ok", None) for row in rows]
            values = {
                "pred_text": [None if isinstance(row, tuple) else row for row in rows],
                "pred_score": [
                    None if isinstance(row, tuple) or not scores else scores[number][place]
                    for place, row in enumerate(rows)
                ],
                "status": [status for status, _ in outcomes],
                "error_type": [kind for _, kind in outcomes],
                **{name: of_sinks[number] for name, of_sinks in columns.items()},
            }
            made.append(str(corpora.labelled(tmp_path, values, outputs, source, name="ABCDE"[number])))
        return made

    return make


@pytest.fixture
def merged(tmp_path):
    """Return a function that merges sinks and returns the rows, each with the name of its sink as `from`."""

    def merge(*sinks: str, by: str, **options) -> list[dict[str, object]]:
        to = tmp_path / "merged"
        shutil.rmtree(to, ignore_errors=True)
        raysp.merge(*sinks, to=str(to), by=by, **options)
        return [{**row, "from": row["labelling"]["sink"][-1]} for row in kit.rows(to)]

    return merge


def timed(text: str, score: float = 0.5, start: float = 0.0) -> list[dict[str, object]]:
    return [
        {"word": word, "start": start + place, "end": start + place + 0.5, "score": score}
        for place, word in enumerate(text.split())
    ]


def of_each(rows: list[dict[str, object]], name: str) -> list[object]:
    return [row[name] for row in rows]


class TestAgreement:
    def test_the_text_nearest_to_the_other_ones_is_taken(self, sinks, merged):
        made = sinks(
            ["one two three", "a b c d", "yes", "One, two."],
            ["one too three", "a b c x", "yes indeed it is so", "one two"],
            ["one two tree", "y b c x", "yes", "one or two"],
        )
        rows = merged(*made, by="agreement")
        assert of_each(rows, "from") == ["A", "B", "A", "A"]
        assert of_each(rows, "pred_text") == ["one two three", "a b c x", "yes", "One, two."]

    def test_ties_go_by_the_score_then_by_the_order(self, sinks, merged):
        texts = ["a b", "a b", "a b", "a b"], ["a c", "a b", "a b", "a b"], ["a d", "x y", "x y", "x y"]
        scores = [-1.0, -0.5, -0.5, None], [-0.5, -0.1, -0.5, -9.0], [-2.0, 0.0, 0.0, 0.0]
        made = sinks(*texts, scores=scores)
        assert of_each(merged(*made, by="agreement"), "from") == ["B", "B", "A", "B"]
        assert of_each(merged(*made[::-1], by="agreement"), "from") == ["B", "B", "B", "B"]

    def test_rows_that_are_not_ok_take_no_part(self, sinks, merged):
        made = sinks(
            ["a b c", "a b c", ERROR, ERROR, SKIPPED, ERROR],
            ["a b c", ERROR, "x", ERROR, ERROR, WITHDRAWN],
            ["x y z", "x y z", SKIPPED, ERROR, ERROR, "a"],
            scores=[[-2.0] * 6, [-2.0] * 6, [-1.0] * 6],
        )
        rows = merged(*made, by="agreement")
        assert of_each(rows, "from") == ["A", "C", "B", "A", "A", "B"]
        assert of_each(rows, "status") == ["ok", "ok", "ok", "error", "skipped", "skipped"]
        assert of_each(rows, "pred_text") == ["a b c", "x y z", "x", None, None, None]

    def test_the_normalisation_and_the_column_are_chosen(self, sinks, merged):
        made = sinks(
            ["A b"],
            ["a b"],
            ["A B c"],
            outputs=[raysp.Transcript(), raysp.Transcript("b")],
            b_text=[["x y"], ["x"], ["x"]],
        )
        assert of_each(merged(*made, by="agreement"), "from") == ["A"]
        assert of_each(merged(*made, by="agreement", text="b_text"), "from") == ["B"]
        assert of_each(merged(*made, by="agreement", normalise="none"), "from") == ["A"]

    def test_two_are_refused_with_what_they_can_do(self, sinks, raysp_command, tmp_path):
        ran = raysp_command("merge", *sinks(["a"], ["b"]), "--by", "agreement", "--to", tmp_path / "to")
        assert ran.code == 2
        assert "found 2 labellings, expected 3 or more" in ran.err
        assert "--by COLUMN takes the row with the higher score, --by vote the words" in ran.err


class TestVote:
    def test_each_word_goes_by_the_majority(self, sinks, merged):
        made = sinks(
            ["one too three", "the big cat", "a", "", "Yes, sir."],
            ["one two free", "the cat", "a", "", "yes Sir"],
            ["won two three", "the big hat", "", "x", "no sir"],
        )
        rows = merged(*made, by="vote")
        assert of_each(rows, "pred_text") == ["one two three", "the big cat", "a", "", "Yes, sir."]
        assert of_each(rows, "from") == ["A", "A", "A", "A", "A"]
        assert of_each(rows, "status") == ["ok"] * 5

    def test_a_word_is_written_as_in_the_row_that_is_nearest(self, sinks, merged):
        made = sinks(["It is - X -, then"], ["it IS y then?"], ["it's z Then!"], scores=[[-2.0], [-1.0], [-3.0]])
        [row] = merged(*made, by="vote")
        assert (row["from"], row["pred_text"]) == ("B", "it IS y then?")
        made = sinks(["Go on - now"], ["Oh ON now!"], ["go no NOW?"], scores=[[-1.0], [-3.0], [-2.0]])
        [row] = merged(*made, by="vote")
        assert (row["from"], row["pred_text"]) == ("A", "Go on - now")
        made = sinks(["Go on x"], ["Oh on now!"], ["go no now?"], scores=[[-1.0], [-3.0], [-2.0]])
        [row] = merged(*made, by="vote")
        assert (row["from"], row["pred_text"]) == ("A", "Go on now?")

    def test_ties_go_by_scores_of_words_of_rows_and_by_the_order(self, sinks, merged):
        texts = ["a b"], ["a c"], ["a d"]
        rows = [[-3.0], [-1.0], [-2.0]]
        assert merged(*sinks(*texts, scores=rows), by="vote")[0]["pred_text"] == "a c"
        assert merged(*sinks(*texts), by="vote")[0]["pred_text"] == "a b"
        of_words = [[timed("a b", 0.2)], [timed("a c", 0.1)], [timed("a d", 0.3)]]
        made = sinks(*texts, scores=rows, outputs=[WORDS], pred_words=of_words)
        assert merged(*made, by="vote")[0]["pred_text"] == "a d"
        made = sinks(*texts, scores=rows, outputs=[WORDS], pred_words=[*of_words[:2], [None]])
        assert merged(*made, by="vote")[0]["pred_text"] == "a c"

    def test_what_no_longer_fits_the_text_is_null(self, sinks, merged):
        texts = ["one too three", "a"], ["one two free", "a"], ["won two three", "a"]
        outputs = [
            raysp.Transcript(words=True, chars=True),
            raysp.Agreement("text"),
            raysp.Signals(text_language=True, audio_digest=True),
        ]
        signal = {"noise": -60.0, "compression": 0.9, "unread": 2.0}
        agreement = {"wer": 0.5, "cer": 0.5, "edits": 1, "words": 2}
        made = sinks(
            *texts,
            scores=[[-1.0, -1.0]] * 3,
            outputs=outputs,
            pred_words=[[timed(text, start=0.1 * number) for text in rows] for number, rows in enumerate(texts)],
            pred_chars=[[[], []]] * 3,
            signal=[[signal, signal]] * 3,
            text_language=[["en", "en"]] * 3,
            audio_digest=[["0f", "1f"]] * 3,
            agreement=[[agreement, agreement]] * 3,
            source={"text": ["one two three", "a"]},
        )
        elected, kept = merged(*made, by="vote")
        assert elected["pred_text"] == "one two three"
        assert [word["word"] for word in elected["pred_words"]] == ["one", "two", "three"]
        assert [word["start"] for word in elected["pred_words"]] == [0.0, 1.1, 2.0]
        assert [elected[name] for name in ("pred_score", "pred_chars", "agreement", "text_language")] == [None] * 4
        assert [elected["signal"][name] for name in signal] == [-60.0, None, None]
        assert elected["audio_digest"] == "0f"
        [_, before] = kit.rows(made[0])
        assert {name: value for name, value in kept.items() if name not in ("labelling", "from")} == before

    @pytest.mark.parametrize(
        ("third", "starts"),
        [(0.0, [0.0, 1.0]), (0.7, None), (None, None)],
        ids=["in order", "not in order", "no times"],
    )
    def test_words_have_times_if_those_of_all_winners_are_in_order(self, sinks, merged, third, starts):
        late = timed("x b")
        late[1]["start"] = -0.5 if third == 0.7 else 1.0
        words = [[timed("a y")], [late if third is not None else None], [timed("a z")], [timed("w b", start=9.0)]]
        made = sinks(
            ["a y"],
            ["x b"],
            ["a z"],
            ["w b"],
            outputs=[WORDS],
            pred_words=words,
            scores=[[-4.0], [-1.0], [-3.0], [-9.0]],
        )
        [row] = merged(*made, by="vote")
        assert row["pred_text"] == "a b"
        found = row["pred_words"]
        assert (found and [word["start"] for word in found]) == starts

    def test_rows_that_are_not_ok_do_not_vote(self, sinks, merged):
        made = sinks(["a b", ERROR, WITHDRAWN], ["a c", "x", "x"], [ERROR, SKIPPED, "x"], [ERROR, ERROR, "x"])
        rows = merged(*made, by="vote")
        assert of_each(rows, "from") == ["A", "B", "A"]
        assert of_each(rows, "pred_text") == ["a b", "x", None]
        assert of_each(rows, "error_type") == [None, None, "withdrawn"]


class TestMerges:
    @pytest.mark.parametrize(("by", "how"), [("agreement", "lost"), ("vote", "death")])
    def test_a_merge_that_ends_at_any_change_gives_the_same_rows(self, sinks, by, how):
        made = sinks(["one too", "a b", ERROR], ["won two", "a", "x"], ["one two", ERROR, ERROR])
        with kit.failing_files() as files:
            raysp.merge(*made, to=files.url("whole"), by=by)
            expected, num_changes = kit.rows(files.url("whole")), files.changes
            for number in range(1, num_changes + 1):
                place = files.url(f"{by}{how}{number}")
                files.fail_at(number, how)
                with contextlib.suppress(SystemExit, raysp.RayspError):
                    raysp.merge(*made, to=place, by=by)
                files.revive()
                raysp.merge(*made, to=place, by=by)
                assert kit.rows(place) == expected

    def test_another_rule_is_another_merge(self, sinks, tmp_path):
        made = sinks(["a"], ["b"], ["c"], scores=[[-1.0]] * 3)
        to = str(tmp_path / "to")
        raysp.merge(*made, to=to, by="vote")
        for options in ({"by": "agreement"}, {"by": "pred_score"}, {"by": "vote", "normalise": "none"}):
            with pytest.raises(raysp.ChangedError, match="merge"):
                raysp.merge(*made, to=to, **options)
        raysp.merge(*made, to=str(tmp_path / "scored"), by="pred_score")
        recorded = json.loads(pq.read_metadata(tmp_path / "scored" / "a.parquet").metadata[b"raysp.merge"])
        assert {*recorded} == {"merge.by", "merge.fingerprints", "merge.checkpoints", "merge.version"}


class TestByColumn:
    SCORES = ([-0.5, -0.5, None, -0.1, None, -0.5], [-0.4, -0.5, -3.0, None, None, None])
    TEXTS = (["A", "A", "A", "A", ERROR, "A"], ["B", "B", "B", "B", ERROR, SKIPPED])

    def test_ok_goes_before_the_score_the_score_before_the_order_and_null_is_the_lowest(self, sinks, merged):
        made = sinks(*self.TEXTS, scores=self.SCORES)
        rows = merged(*made, by="pred_score")
        assert of_each(rows, "from") == ["B", "A", "B", "A", "A", "A"]
        assert of_each(rows, "pred_text") == ["B", "A", "B", "A", None, "A"]
        assert of_each(merged(*made[::-1], by="pred_score"), "from")[1] == "B"
        assert rows[0]["labelling"]["checkpoint"].endswith("unispeech-digits-ctc")

    def test_verbs_read_the_result_and_no_run_goes_on_with_it(self, sinks, tmp_path):
        made, to = sinks(*self.TEXTS, scores=self.SCORES), str(tmp_path / "to")
        found = raysp.merge(*made, to=to, by="pred_score")
        assert (found.rows, found.shards, found.chosen) == (6, 1, {made[0]: 4, made[1]: 2})
        again = raysp.merge(made[1], to, to=str(tmp_path / "twice"), by="pred_score")
        assert again.rows == 6
        assert of_each(kit.rows(tmp_path / "twice"), "labelling")[5]["sink"] == made[0]  # not that of the first merge
        status = raysp.status(to)
        assert (status.rows, status.shards_committed, status.is_complete) == (6, 1, True)
        assert raysp.diff(made[0], to).rows.compared == 5
        raysp.report(to, tmp_path / "report.html")
        assert raysp.gc(to, dry_run=True).orphans == ()
        for redo in (raysp.retry, functools.partial(raysp.verify, sample=2)):
            with pytest.raises(raysp.ChangedError, match=r"merge\.by"):
                redo(to, trust=True)
        raysp.merge(*sinks(["a"] * 6, ["b"] * 6), to=f"{tmp_path}/ok", by="pred_score")
        assert raysp.verify(f"{tmp_path}/ok").exit_code == 0

    def test_the_same_call_writes_nothing_and_labels_that_changed_or_came_since_are_merged(self, sinks, tmp_path):
        made, to = sinks(*self.TEXTS, scores=self.SCORES), tmp_path / "to"
        label_shard = tmp_path / "B" / "a.parquet"
        aside = label_shard.rename(tmp_path / "aside")
        with pytest.raises(raysp.PlanError, match="0 shards of the first and 1 of the second are not finished"):
            raysp.merge(*made, to=str(to), by="pred_score")
        aside.rename(label_shard)
        raysp.merge(*made, to=str(to), by="pred_score")
        before = (to / "a.parquet").stat().st_mtime_ns
        same = raysp.merge(*made, to=str(to), by="pred_score")
        assert (same.shards, same.shards_before, same.rows) == (1, 1, 0)
        assert (to / "a.parquet").stat().st_mtime_ns == before
        corpora.rewrite(label_shard, lambda table: corpora.with_columns(table, {"pred_score": [0.0] * 6}))
        assert raysp.merge(*made, to=str(to), by="pred_score").shards_before == 0
        assert of_each(kit.rows(to), "pred_text") == [*"BBBB", None, "A"]

    def test_what_cannot_be_merged_is_refused(self, sinks, tmp_path):
        a, b, c = sinks(["a"], ["b"], ["c"])
        for names, by, options, message in (
            (
                (a, b, c),
                "vote",
                {"text": "pred_score"},
                "found a column of float, expected texts; columns of texts are",
            ),
            ((a, b, c), "agreement", {"text": "gone"}, "text='gone': found no such column"),
            ((a, b, c), "vote", {"text": "status"}, "text='status': found no such column"),
            ((a, b, c), "vote", {"normalise": "leters"}, "normalisation 'leters', expected one of none"),
            ((a,), "pred_score", {}, "found 1 labelling, expected 2 or more"),
            ((a, a), "pred_score", {}, "found the same sink twice"),
            ((a, b), "pred_text", {}, "by='pred_text': found a column of string, expected numbers; columns of numbers"),
            ((a, b), "signal.noise", {}, "by='signal.noise': found no such column"),
        ):
            with pytest.raises((raysp.PlanError, raysp.SpecError), match=message):
                raysp.merge(*names, to=str(tmp_path / "to"), by=by, **options)
        assert not (tmp_path / "to").exists()
        with pytest.raises(raysp.PlanError, match="the same folder"):
            raysp.merge(a, b, to=f"{a}/more", by="pred_score")
        words = str(corpora.labelled(tmp_path, {"pred_text": ["a"]}, [WORDS], name="W"))
        with pytest.raises(
            raysp.PlanError, match=r"differ in the columns pred_words \(absent; list<.*merge labellings"
        ):
            raysp.merge(a, words, to=str(tmp_path / "to"), by="pred_score")

    def test_forgotten_rows_stay_withdrawn(self, sinks, raysp_command, merged):
        made = sinks(["a", "b", "c"], ["a", "b", "c"], ["a", "b", "x"])
        assert raysp_command("forget", made[2], "u1").code == 0
        for by in ("agreement", "vote"):
            rows = merged(*made, by=by)
            assert of_each(rows, "pred_text") == ["a", None, "c"]
            assert of_each(rows, "error_type") == [None, "withdrawn", None]
