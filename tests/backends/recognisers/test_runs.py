"""Runs over a recogniser: plan, languages by column, detected languages, options, kills."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import raysp
from raysp import CheckpointError, PlanError
from raysp.backends.hugging_face.recogniser import Recogniser
from tests.backends.killed_runs import check_killed
from tests.backends.recognisers.loops import written
from tests.backends.runs import pipeline, write_corpus
from tests.backends.theirs import RATE, labelling, waves
from tests.here import run_without_ray
from tests.ops.test_labelling import block_of, labels


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path)


@pytest.mark.slow
def test_a_checkpoint_is_labelled_by_its_name_alone(corpus, recogniser, monkeypatch):
    run_without_ray(monkeypatch)
    folder = recogniser("qwen3_asr")
    made = pipeline(corpus, folder, backend=None)
    plan = raysp.plan(made)
    assert "raysp has no model of type 'qwen3_asr'" in plan.why_not_own[0]
    assert "padded seconds a pass" in plan.facts["model"]
    assert raysp.run(made).rows == 4
    rows = pq.read_table(corpus / "out" / "a.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["ok", "ok", "error", "skipped"]
    [text] = written(folder, "qwen3_asr", [raysp.audio.decode(_recording(corpus), sample_rate=RATE) / 32768])
    assert rows[0]["pred_text"] == text
    assert raysp.plan(made).rows_todo == 0
    assert raysp.verify(str(corpus / "out"), sample=4, trust=True).differences == ()


def _recording(corpus) -> bytes:
    return pq.read_table(corpus / "in" / "a.parquet").column("audio")[0].as_py()["bytes"]


@pytest.mark.slow
def test_windows_alone_are_shown_by_the_plan_and_part_of_the_fingerprint(corpus, recogniser, monkeypatch):
    folder = recogniser("omniasr")
    assert "steps.1.windows_alone" not in raysp.plan(pipeline(corpus, folder)).parts
    monkeypatch.setattr("raysp.backends.hugging_face.padded_batches.VERSIONS", ())
    monkeypatch.setattr("raysp.labelling.planning.planned_checkpoint.read_cached", lambda name: None)
    monkeypatch.setattr("raysp.labelling.planning.planned_checkpoint.write_cached", lambda name, content: None)
    plan = raysp.plan(pipeline(corpus, folder))
    assert plan.parts["steps.1.windows_alone"] is True
    assert "one window a pass (padded batches were not measured with transformers" in plan.facts["model"]


@pytest.mark.slow
def test_rows_are_in_the_languages_of_a_column(corpus, recogniser, monkeypatch):
    run_without_ray(monkeypatch)
    folder = recogniser("cohere_asr")
    file = corpus / "in" / "a.parquet"
    table = pq.read_table(file).slice(0, 2)
    both = pa.concat_tables([table, table, table.slice(0, 1)])
    both = both.append_column("lang", pa.array(["de", "en", "en", "de", "xx"]))
    pq.write_table(both, file)
    made = pipeline(corpus, folder, outputs=[raysp.Transcript(language=raysp.Column("lang"))])
    raysp.run(made)
    rows = pq.read_table(corpus / "out" / "a.parquet").to_pylist()
    assert [row["error_type"] for row in rows] == [None] * 4 + ["unknown_language"]
    wave = raysp.audio.decode(_recording(corpus), sample_rate=RATE)
    alone = [
        labels(labelling(folder, raysp.Transcript(language=language)), block_of([wave]))[0]["pred_text"]
        for language in ("de", "en")
    ]
    assert alone[0] != alone[1]
    assert [rows[0]["pred_text"], rows[2]["pred_text"]] == alone


@pytest.mark.slow
def test_the_language_that_the_model_writes_first_is_detected_with_its_probability(recogniser, monkeypatch):
    op = labelling(recogniser("qwen3_asr"), raysp.Transcript(detect=True))
    model: Recogniser = op.loaded
    tokenizer = model.files.processor.tokenizer
    encode, mark = tokenizer.encode, tokenizer.convert_tokens_to_ids("<asr_text>")
    ids = [*encode("language German"), mark, *encode("aha"), tokenizer.eos_token_id]
    generate = type(model.search.model).generate

    def forced(self, **inputs):
        self.generation_config.suppress_tokens = None
        inputs["prefix_allowed_tokens_fn"] = lambda _, row: [ids[len(row) - inputs["input_ids"].shape[1]]]
        return generate(self, **{**inputs, "max_new_tokens": len(ids)})

    monkeypatch.setattr(type(model.search.model), "generate", forced)
    [row] = labels(op, block_of(waves([16_000]))).values()
    assert row["pred_text"] == "aha"
    assert row["pred_language"]["language"] == "de"
    assert row["pred_language"]["score"] < 1e-6  # of random weights
    assert row["pred_score"] < 0


@pytest.mark.parametrize(
    ("name", "output", "words"),
    [
        ("qwen3_asr", {"language": "xx"}, "language='xx', expected one of its 30: ar, cs"),
        ("qwen3_asr", {"task": "translate"}, "Qwen3ASR.* takes language, prompt: leave it out"),
        (
            "qwen3_asr",
            {"keywords": ["Ray"]},
            "keywords given, which Qwen3ASR.* does not take; it takes language, prompt",
        ),
        ("qwen3_asr", {"generate": {"num_beams": 2}}, "num_beams, expected eos_token_id, max_new_tokens"),
        ("qwen3_asr", {"words": True}, r"without times: leave them out; a second step .*Align\('pred_text', unknown="),
        ("qwen3_asr", {"beams": 4}, "leave beams out, or use generate={'num_beams': 4}, which Whisper and decoders"),
        ("cohere_asr", {}, "does not detect languages: use a checkpoint that does, or name a language"),
        ("canary", {"language": "de", "detect": False, "prompt": "talk"}, "prompt given, which Canary.* does not take"),
        ("canary", {"language": "de", "task": "sing"}, "task='sing', expected 'translate'"),
    ],
)
def test_what_a_model_does_not_take_is_refused_by_the_plan(corpus, recogniser, name, output, words):
    with pytest.raises(CheckpointError, match=words):
        raysp.plan(pipeline(corpus, recogniser(name), outputs=[raysp.Transcript(**output)]))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("qwen3_asr", "Transcript(language=, prompt=, detect=)"),
        ("nemotron3_5_asr", "Transcript(language=, detect=, words=)"),
        ("nemotron_asr_streaming", "Transcript(words=)"),
    ],
)
def test_inspect_lists_the_options_that_a_recogniser_takes(recogniser, raysp_command, name, options):
    assert options in raysp_command("inspect", recogniser(name)).out


def test_windows_are_not_longer_than_the_model_takes(corpus, recogniser):
    outputs = [raysp.Transcript(language="de")]
    with pytest.raises(PlanError, match="takes at most 35 s; set window_seconds=35 or less"):
        raysp.plan(pipeline(corpus, recogniser("cohere_asr"), outputs=outputs, window_seconds=36))


@pytest.mark.slow
def test_a_prompt_and_a_translation_change_the_text(recogniser):
    [wave] = waves([24_000])
    for name, plain, other in [
        ("qwen3_asr", {}, {"prompt": "numbers"}),
        ("canary", {"language": "de"}, {"language": "de", "task": "translate"}),
        ("moss_transcribe_diarize", {}, {"keywords": ["Ray"]}),
    ]:
        op, changed = (labelling(recogniser(name), raysp.Transcript(**options)) for options in (plain, other))
        rows = [labels(one, block_of([wave]))[0] for one in (op, changed)]
        assert rows[0]["pred_score"] != rows[1]["pred_score"]


def test_inspect_shows_options_languages_and_batches(recogniser, raysp_command):
    ran = raysp_command("inspect", recogniser("qwen3_asr"))
    assert (ran.code, ran.err) == (0, "")
    facts = dict(line.strip().split("  ", 1) for line in ran.out.splitlines()[1:] if "  " in line.strip())
    assert facts["options"].strip() == "Transcript(language=, prompt=, detect=)"
    assert facts["language"].strip().startswith("30: ar, cs, da")
    found = json.loads(raysp_command("inspect", recogniser("qwen3_asr"), "--json").out)
    assert (found["outputs"], found["alone"]) == (["Transcript"], "")


@pytest.mark.drivers
@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen3_asr", "voxtral"])
def test_a_killed_run_continues_to_the_labels_of_an_undisturbed_one(tmp_path, recogniser, name):
    check_killed(tmp_path, recogniser(name), "outputs=[raysp.Transcript()]", "before_piece_staged:2")
