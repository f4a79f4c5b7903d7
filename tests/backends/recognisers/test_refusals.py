"""Checkpoints and options with which a recogniser would label wrongly are refused by the plan, with the remedy."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

import raysp
from raysp import CheckpointError, PlanError
from tests import kit
from tests.backends.recognisers.loops import LANGUAGES, written
from tests.backends.runs import pipeline
from tests.backends.theirs import labelling, waves
from tests.here import without_packages
from tests.ops.waves import block_of, labels


def plan(corpus, folder, label=None, **output):
    output = {"language": LANGUAGES.get(folder.name), **output}
    return raysp.plan(pipeline(corpus, folder, **{"outputs": [raysp.Transcript(**output)], **(label or {})}))


def inspected(folder: Path) -> str:
    """Return what `raysp inspect` writes about a folder."""
    ran = kit.run(["inspect", folder])
    return ran.err or ran.out


@pytest.mark.parametrize(
    ("name", "values", "generate", "words"),
    [
        ("qwen3_asr", {"max_time": 0.02}, {}, r"generation_config.json has max_time=.*Remove max_time from"),
        ("qwen3_asr", {}, {"max_new_tokens": 0}, "generate has max_new_tokens=0, expected an integer from 1 on"),
        ("canary", {}, {"max_new_tokens": 250}, "asks for 266 tokens .*decoder has 200 positions: .*: 184} or less"),
        ("qwen3_asr", {}, {"eos_token_id": 99999}, "generate has eos_token_id=.99999., expected token ids from 0 to 2"),
        ("qwen3_asr", {"eos_token_id": None}, {}, "has no eos_token_id, so that no text would end"),
        ("qwen3_asr", {}, {"suppress_tokens": [3, -1]}, r"suppress_tokens=\[3, -1\], expected token ids"),
        ("qwen3_asr", {}, {"min_new_tokens": 50}, "min_new_tokens=50, expected at most the 24 tokens"),
        ("qwen3_asr", {"max_new_tokens": None, "max_length": 40}, {}, "max_length=40, which counts the tokens of the "),
        ("nemotron3_5_asr", {"suppress_tokens": [4]}, {}, r"has suppress_tokens=\[4\], with which raysp does not"),
        ("nemotron3_5_asr", {"decoder_start_token_id": 4}, {}, "61 of 62 tokens, decoder_start_token_id is 4"),
    ],
)
def test_settings_of_a_generation_that_would_change_a_text_or_that_none_can_have_are_refused(
    corpus, edited, name, values, generate, words
):
    with pytest.raises(CheckpointError, match=words):
        plan(corpus, edited(name, values=values), generate=generate)


def test_settings_without_effect_are_accepted_and_those_that_read_the_padding_have_one_window_a_pass(edited):
    settings = {"temperature": 0.7, "top_k": 20, "do_sample": True, "num_beams": 4, "length_penalty": 2.0}
    settings |= {"chat_format": "chatml", "repetition_penalty": 1.0, "num_assistant_tokens": 5, "max_time": None}
    alone = "one recording a pass: generation_config.json has {}, which reads the padding"
    assert "one recording a pass" not in inspected(edited("qwen3_asr", values=settings))
    for name, value in {"repetition_penalty": 1.3, "min_length": 30, "bad_words_ids": [[65, 66]]}.items():
        assert alone.format(name) in inspected(edited("qwen3_asr", values={name: value}))


@pytest.mark.slow
def test_max_length_is_that_of_transformers(edited):
    folder = edited("moonshine_streaming", max_new_tokens=None, max_length=9)
    op, recordings = labelling(folder, raysp.Transcript()), waves((24_000, 9_000))
    texts = [row["pred_text"] for row in labels(op, block_of(recordings)).values()]
    assert texts == written(folder, "moonshine_streaming", recordings)
    assert all(len(text) <= 8 for text in texts)


@pytest.mark.parametrize(
    ("name", "output", "words"),
    [
        ("qwen3_asr", {"language": "xx"}, "language='xx', expected one of its 30: ar, cs"),
        ("qwen3_asr", {"task": "translate"}, "Qwen3ASR.* takes language, prompt: leave it out"),
        ("qwen3_asr", {"keywords": ["Ray"]}, "keywords given, which Qwen3ASR.* does not take; it takes language, prom"),
        ("qwen3_asr", {"generate": {"num_beams": 2}}, "num_beams, expected eos_token_id, max_new_tokens"),
        ("qwen3_asr", {"words": True}, r"without times: leave them out; a second step .*Align\('pred_text', unknown="),
        ("qwen3_asr", {"beams": 4}, "leave beams out, or use generate={'num_beams': 4}, which Whisper and decoders"),
        ("cohere_asr", {"language": None}, "does not detect languages: use a checkpoint that does, or name a language"),
        ("canary", {"task": "sing"}, "task='sing', expected 'translate'"),
        ("nemotron3_5_asr", {"chars": True}, "chars need a CTC checkpoint"),
        ("nemotron3_5_asr", {"generate": {"max_new_tokens": 9}}, "generate has max_new_tokens, expected no option"),
        ("nemotron_asr_streaming", {"language": "en"}, "language='en' given; .* takes no option: leave it out"),
        ("nemotron_asr_streaming", {"detect": True}, "NemotronAsrStreamingForRNNT .* detects none"),
        ("omniasr_ctc", {"language": "de"}, "OmniASRForCTC has one vocabulary: leave language out"),
        ("lasr_ctc", {"beams": 2, "hot_words": {"a": 1.0}}, "hot_words need a vocabulary of characters"),
        ("qwen3_asr", {"prompt": "a<|audio_pad|>b"}, r"prompt has '<\|audio_pad\|>', a special token"),
        ("moss_transcribe_diarize", {"keywords": ["Ray", "<|audio_pad|>"]}, r"keywords has '<\|audio_pad\|>'"),
        ("qwen2_audio", {"prompt": "long " * 1000}, r"asks for 50\d\d tokens .* 4096 positions.* or a shorter prompt"),
    ],
)
def test_what_a_model_does_not_take_is_refused_by_the_plan(corpus, recogniser, name, output, words):
    with pytest.raises(CheckpointError, match=words):
        plan(corpus, recogniser(name), **{"language": LANGUAGES.get(name), **output})


def test_windows_are_not_longer_than_the_model_takes_and_words_are_accepted(corpus, recogniser):
    with pytest.raises(PlanError, match="takes at most 35 s; set window_seconds=35 or less"):
        plan(corpus, recogniser("cohere_asr"), {"window_seconds": 36}, language="de")
    plan(corpus, recogniser("moss_transcribe_diarize"), prompt="A talk, <b>.", keywords=["Ray"])


OF_TEN_SECONDS = {"chunk_length": 10, "n_samples": 160_000, "nb_max_frames": 1000}
AS_SAVED = r"copies/.*(as saved|that was saved) with these weights"
TEMPLATE = "chat_template.jinja"


@pytest.mark.parametrize(
    ("name", "file", "values", "words"),
    [
        ("seamless_m4t", "generation_config.json", {"text_decoder_lang_to_code_id": {}}, "has no language tokens"),
        ("canary", "tokenizer_config.json", None, r"transformers .* cannot read it .*as saved with these weights"),
        ("qwen2_audio", "processor_config.json", OF_TEN_SECONDS, r"pads to 1000 frames \(chunk_length 10\), expected "),
        ("omniasr_ctc", "config.json", {"blank_token_id": 99}, "blank_token_id 99, expected the id of a token"),
        ("omniasr_ctc", "config.json", {"vocab_size": 17}, r"tokenizer has 19 tokens, but the head has 17 classes"),
        ("lasr_ctc", "config.json", {"pad_token_id": 2}, "pad_token '<pad>' is id 0, config.json has pad_token_id 2"),
        ("lasr_ctc", "tokenizer.json", None, "tokenizer.json not found, expected the tokens of the head"),
        ("nemotron3_5_asr", "config.json", {"vocab_size": 80}, "tokenizer has 63 tokens, the model 80"),
        ("nemotron3_5_asr", "config.json", {"encoder_config": {"num_mel_bins": 128}}, "80 mel bins, the encoder 128"),
        ("nemotron3_5_asr", "processor_config.json", {"prompt_dictionary": {"de": 0}}, "Unknown `language='auto'`"),
        ("canary", TEMPLATE, None, AS_SAVED),
        ("qwen3_asr", TEMPLATE, "{{ broken", AS_SAVED),
        ("moss_transcribe_diarize", TEMPLATE, "hello", AS_SAVED),
    ],
)
def test_files_that_are_damaged_or_of_another_checkpoint_are_refused_by_name(corpus, edited, name, file, values, words):
    with pytest.raises(CheckpointError, match=words):
        plan(corpus, edited(name, file, values))


def test_a_processor_of_another_class_or_of_other_features_is_refused(corpus, recogniser, edited):
    folder = edited("omniasr_ctc")
    shutil.copy(recogniser("lasr_ctc") / "processor_config.json", folder)
    with pytest.raises(CheckpointError, match=r"LasrFeatureExtractor makes input_features, expected the input_values"):
        plan(corpus, folder)
    folder = edited("qwen3_asr")
    for file in ("processor_config.json", "tokenizer_config.json"):
        settings = json.loads((folder / file).read_text())
        (folder / file).write_text(json.dumps({**settings, "processor_class": "OmniASRProcessor"}))
    with pytest.raises(CheckpointError, match="a OmniASRProcessor, expected"):
        plan(corpus, folder)


def test_a_prompt_that_the_template_leaves_out_is_refused(corpus, edited):
    folder = edited("qwen2_audio")
    file = folder / TEMPLATE
    file.write_text(file.read_text().replace("{{ c.text or (c.keywords or []) | join(' ') }}", ""))
    with pytest.raises(CheckpointError, match="the prompt does not change with"):
        plan(corpus, folder, prompt="Botany.")


def test_phi_is_refused_without_the_adapter_for_speech_or_with_another_kind(corpus, edited):
    folder = edited("phi4_multimodal")
    config = folder / "speech-lora" / "adapter_config.json"
    weights = config.with_name("adapter_model.safetensors")
    settings = json.loads(config.read_text())
    steps = pipeline(corpus, folder).steps
    for values, words in (({"use_dora": True}, "use_dora is set"), ({"r": "four"}, "cannot read it .TypeError")):
        config.write_text(json.dumps({**settings, **values}))
        with pytest.raises(CheckpointError, match=words):
            raysp.Labeller(steps)
    config.write_text(json.dumps(settings))
    save_file({f"other.{name}": weight for name, weight in load_file(weights).items()}, weights)
    with pytest.raises(CheckpointError, match=r"weights of speech-lora do not fit: other\.base_model"):
        raysp.Labeller(steps)
    shutil.rmtree(config.parent)
    with pytest.raises(CheckpointError, match=r"no folder speech-lora, the adapter by which .* by its hub id"):
        raysp.plan(pipeline(corpus, folder))


def test_a_processor_whose_package_is_missing_is_refused_by_the_plan(corpus, recogniser, monkeypatch):
    folder = recogniser("voxtral")
    without_packages(monkeypatch, "mistral_common")
    with pytest.raises(CheckpointError, match=r"needs the package mistral-common, .*pip install 'raysp\[mistral-c"):
        plan(corpus, folder)
