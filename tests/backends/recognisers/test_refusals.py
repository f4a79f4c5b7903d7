"""Checkpoints and options with which a recogniser would label wrongly are refused by the plan, with the remedy."""

import json
import shutil
from importlib import util
from pathlib import Path

import pytest

import raysp
from raysp import CheckpointError, PlanError
from raysp.backends.hugging_face.transformers_backend import HuggingFaceModels
from tests.backends.recognisers.loops import LANGUAGES, written
from tests.backends.runs import pipeline, write_corpus
from tests.backends.theirs import labelling, waves
from tests.here import run_without_ray
from tests.ops.test_labelling import block_of, labels

describe = HuggingFaceModels().describe


@pytest.fixture
def corpus(tmp_path):
    return write_corpus(tmp_path)


@pytest.fixture
def edited(tmp_path, recogniser):
    """Return the function that returns a copy of a checkpoint with other values in one of its JSON files."""

    def copy(name: str, file: str = "generation_config.json", **values) -> Path:
        folder = shutil.copytree(recogniser(name), tmp_path / "copies" / name, dirs_exist_ok=True)
        settings = json.loads((folder / file).read_text())
        part = settings["feature_extractor"] if file == "processor_config.json" else settings
        part |= values
        (folder / file).write_text(json.dumps(settings))
        return folder

    return copy


def plan(corpus, folder, **output):
    output = {"language": LANGUAGES.get(folder.name), **output}
    return raysp.plan(pipeline(corpus, folder, outputs=[raysp.Transcript(**output)]))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_time", 0.02),
        ("stop_strings", ["a"]),
        ("prompt_lookup_num_tokens", 3),
        ("dola_layers", "low"),
        ("token_healing", True),
        ("penalty_alpha", 0.6),
        ("guidance_scale", 2.0),
        ("cache_implementation", "static"),
        ("constraints", [[1]]),
    ],
)
def test_a_setting_that_changes_a_greedy_search_is_refused_by_name(edited, name, value):
    with pytest.raises(CheckpointError, match=rf"generation_config.json has {name}=.*Remove {name} from"):
        describe(edited("qwen3_asr", **{name: value}))


def test_settings_without_effect_on_a_greedy_search_are_accepted(edited):
    settings = {"temperature": 0.7, "top_k": 20, "do_sample": True, "num_beams": 4, "length_penalty": 2.0}
    settings |= {"chat_format": "chatml", "repetition_penalty": 1.0, "num_assistant_tokens": 5, "max_time": None}
    assert describe(edited("qwen3_asr", **settings)).alone == ""


@pytest.mark.parametrize("name", ["repetition_penalty", "min_length", "bad_words_ids"])
def test_a_setting_that_reads_the_padding_has_one_window_a_pass(edited, name):
    value = {"repetition_penalty": 1.3, "min_length": 30, "bad_words_ids": [[65, 66]]}[name]
    assert describe(edited("qwen3_asr", **{name: value})).alone == f"generation_config.json has {name}, " + (
        "which reads the padding"
    )


@pytest.mark.slow
def test_max_length_is_that_of_transformers_or_refused(corpus, edited):
    folder = edited("moonshine_streaming", max_new_tokens=None, max_length=9)
    op, recordings = labelling(folder, raysp.Transcript(), windows_alone=True), waves((24_000, 9_000))
    texts = [row["pred_text"] for row in labels(op, block_of(recordings)).values()]
    assert texts == written(folder, "moonshine_streaming", recordings)
    assert all(len(text) <= 8 for text in texts)
    with pytest.raises(
        CheckpointError, match=r"max_length=40, which counts the tokens of the recording: pass generate"
    ):
        plan(corpus, edited("qwen3_asr", max_new_tokens=None, max_length=40))


@pytest.mark.parametrize(
    ("name", "settings", "generate", "words"),
    [
        ("qwen3_asr", {}, {"max_new_tokens": 0}, "generate has max_new_tokens=0, expected an integer from 1 on"),
        ("qwen3_asr", {}, {"max_new_tokens": -1}, "max_new_tokens=-1, expected"),
        ("canary", {}, {"max_new_tokens": 250}, "asks for 266 tokens .*decoder has 200 positions: .*: 184} or less"),
        ("cohere_asr", {"max_new_tokens": 250}, {}, "generation_config.json asks for 266 tokens"),
        (
            "qwen3_asr",
            {},
            {"eos_token_id": 99999},
            "generate has eos_token_id=.99999., expected token ids from 0 to 264",
        ),
        ("qwen3_asr", {}, {"eos_token_id": []}, r"eos_token_id=\[\], expected token ids"),
        ("qwen3_asr", {"eos_token_id": 99999}, {}, "generation_config.json has eos_token_id=.99999."),
        ("qwen3_asr", {"eos_token_id": None}, {}, "has no eos_token_id, so that no text would end"),
        ("qwen3_asr", {}, {"suppress_tokens": [3, -1]}, r"suppress_tokens=\[3, -1\], expected token ids"),
        ("qwen3_asr", {}, {"suppress_tokens": []}, r"suppress_tokens=\[\], expected token ids"),
        ("qwen3_asr", {}, {"min_new_tokens": 50}, "min_new_tokens=50, expected at most the 24 tokens"),
    ],
)
def test_lengths_and_tokens_that_no_text_can_have_are_refused(corpus, edited, name, settings, generate, words):
    with pytest.raises(CheckpointError, match=words):
        plan(corpus, edited(name, **settings), generate=generate)


@pytest.mark.parametrize("name", ["canary", "cohere_asr"])
def test_a_language_without_a_token_is_refused(corpus, edited, name):
    with pytest.raises(CheckpointError, match="language='fr', expected one of its 2: de, en"):
        plan(corpus, edited(name), language="fr")


def test_languages_are_those_of_the_tokens_and_of_the_codes_of_the_model(edited):
    assert describe(edited("seamless_m4t", text_decoder_lang_to_code_id={"deu": 260})).languages == ("deu",)
    with pytest.raises(CheckpointError, match=r"\(text_decoder_lang_to_code_id\) has no language tokens"):
        describe(edited("seamless_m4t", text_decoder_lang_to_code_id={}))
    assert {"deu_Latn", "deu_latn", "de"} <= {*describe(edited("omniasr")).languages}


@pytest.mark.parametrize(
    "name", ["canary", "moss_transcribe_diarize", "nemo_speechlm", "omniasr", "qwen2_audio", "qwen3_asr"]
)
@pytest.mark.parametrize("template", [None, "{{ broken", "hello"])
def test_a_chat_template_that_makes_no_prompt_is_refused(edited, name, template):
    if name == "qwen2_audio" and template is None:
        pytest.skip("its processor has a template of its own")
    folder = edited(name)
    file = folder / "chat_template.jinja"
    file.unlink() if template is None else file.write_text(template)
    with pytest.raises(CheckpointError, match=r"copies/.*(as saved|that was saved) with these weights"):
        describe(folder)


def test_a_processor_of_another_class_is_refused(edited):
    folder = edited("qwen3_asr", "tokenizer_config.json", processor_class="OmniASRProcessor")
    values = json.loads((folder / "processor_config.json").read_text())
    (folder / "processor_config.json").write_text(json.dumps({**values, "processor_class": "OmniASRProcessor"}))
    with pytest.raises(CheckpointError, match="a OmniASRProcessor, expected Qwen3ASRProcessor for model type"):
        describe(folder)


@pytest.mark.parametrize("name", ["canary", "qwen3_asr"])
def test_a_missing_tokenizer_config_is_refused(edited, name):
    folder = edited(name)
    (folder / "tokenizer_config.json").unlink()
    with pytest.raises(CheckpointError, match=r"transformers .* cannot read it .*as saved with these weights"):
        describe(folder)


@pytest.mark.parametrize(
    ("name", "output", "words"),
    [
        ("qwen3_asr", {"prompt": "a<|audio_pad|>b"}, r"prompt has '<\|audio_pad\|>', a special token"),
        ("qwen3_asr", {"prompt": "x <asr_text>"}, "prompt has '<asr_text>'"),
        ("glmasr", {"prompt": "a<|pad|>"}, r"prompt has '<\|pad\|>'"),
        ("qwen2_audio", {"prompt": "<|im_end|>"}, r"prompt has '<\|im_end\|>'"),
        ("moss_transcribe_diarize", {"keywords": ["Ray", "<|audio_pad|>"]}, r"keywords has '<\|audio_pad\|>'"),
        ("qwen2_audio", {"prompt": "long " * 1000}, r"asks for 50\d\d tokens .* 4096 positions.* or a shorter prompt"),
    ],
)
def test_special_tokens_and_long_prompts_are_refused(corpus, edited, name, output, words):
    with pytest.raises(CheckpointError, match=words):
        plan(corpus, edited(name), **output)


def test_a_prompt_that_the_template_leaves_out_is_refused(corpus, edited):
    folder = edited("qwen2_audio")
    file = folder / "chat_template.jinja"
    file.write_text(file.read_text().replace("{{ c.text or (c.keywords or []) | join(' ') }}", ""))
    with pytest.raises(CheckpointError, match="the prompt does not change with"):
        plan(corpus, folder, prompt="Botany.")


def test_words_are_accepted(corpus, edited):
    plan(corpus, edited("moss_transcribe_diarize"), prompt="A talk, <b>.", keywords=["Ray"])


@pytest.mark.slow
def test_a_sink_of_padded_batches_is_not_continued_with_a_version_that_was_not_measured(
    corpus, recogniser, monkeypatch
):
    run_without_ray(monkeypatch)
    made = pipeline(corpus, recogniser("omniasr"))
    raysp.run(made)
    monkeypatch.setattr("raysp.backends.hugging_face.padded_batches.VERSIONS", ("5.1",))
    monkeypatch.setattr("raysp.labelling.planning.planned_checkpoint.read_cached", lambda name: None)
    monkeypatch.setattr("raysp.labelling.planning.planned_checkpoint.write_cached", lambda name, content: None)
    with pytest.raises(
        PlanError, match=r"out: its labels were made in padded batches, and here .* but with 5.1; install"
    ):
        raysp.plan(made)


@pytest.mark.parametrize(
    ("name", "values", "seconds"),
    [
        ("cohere_asr", {"max_audio_clip_s": 10.0}, 10),
        ("cohere_asr", {"max_audio_clip_s": 60.0}, 35),
        ("glmasr", {"chunk_length": 10, "n_samples": 160_000, "nb_max_frames": 1000}, 10),
    ],
)
def test_the_longest_recording_is_that_of_family_and_extractor(edited, name, values, seconds):
    assert describe(edited(name, "processor_config.json", **values)).max_samples == seconds * 16_000


@pytest.mark.parametrize("name", ["moss_transcribe_diarize", "qwen2_audio"])
def test_frames_of_the_extractor_are_those_of_the_encoder(edited, name):
    values = {"chunk_length": 10, "n_samples": 160_000, "nb_max_frames": 1000}
    with pytest.raises(CheckpointError, match=r"pads to 1000 frames \(chunk_length 10\), expected 3000"):
        describe(edited(name, "processor_config.json", **values))


def test_a_processor_whose_package_is_missing_is_refused_by_the_plan(corpus, recogniser, monkeypatch):
    folder = recogniser("voxtral")
    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "mistral_common" else find(name))
    with pytest.raises(
        CheckpointError, match=r"needs the package mistral-common, .*pip install 'raysp\[mistral-common\]'"
    ):
        plan(corpus, folder)
