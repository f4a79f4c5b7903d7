"""Recognisers that also read images, follow streams or find speakers: what is theirs alone."""

import json
import shutil

import fsspec
import pytest
from safetensors.torch import load_file, save_file

import raysp
from raysp import CheckpointError
from raysp.backends.hugging_face.recogniser_families import FAMILIES
from raysp.backends.hugging_face.transformers_backend import HuggingFaceModels
from tests.backends.killed_runs import check_killed
from tests.backends.recognisers.tiny_omni import OMNI_BUILDERS
from tests.backends.runs import pipeline, write_corpus
from tests.backends.theirs import labelling, waves
from tests.ops.test_labelling import block_of, labels


def test_a_checkpoint_of_object_storage_comes_with_its_chat_template(tmp_path, recogniser, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = fsspec.filesystem("memory")
    store.put(str(recogniser("nemo_speechlm")), "/recognisers/nemo", recursive=True)
    plan = raysp.plan(pipeline(write_corpus(tmp_path), "memory://recognisers/nemo"))
    assert plan.rows_todo == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in OMNI_BUILDERS if not FAMILIES[name].is_stream])
def test_a_prompt_changes_the_text(recogniser, name):
    transcripts = raysp.Transcript(), raysp.Transcript(prompt="numbers")
    ops = [labelling(recogniser(name), transcript, windows_alone=True) for transcript in transcripts]
    plain, prompted = (labels(op, block_of(waves([24_000])))[0]["pred_score"] for op in ops)
    assert plain != prompted


@pytest.mark.slow
def test_a_recording_shorter_than_a_chunk_has_the_text_of_a_pass_of_its_own(recogniser):
    op, recordings = labelling(recogniser("qwen3_omni_moe"), raysp.Transcript()), waves((1_601, 64_000, 4_000, 21_920))
    together = labels(op, block_of(recordings))
    for place, wave in enumerate(recordings):
        alone = labels(op, block_of([wave]))[0]
        assert together[place]["pred_text"] == alone["pred_text"]
        assert together[place]["pred_score"] == pytest.approx(alone["pred_score"], abs=1e-5)


@pytest.mark.drivers
@pytest.mark.slow
@pytest.mark.parametrize("name", OMNI_BUILDERS)
def test_a_killed_run_continues_to_the_labels_of_an_undisturbed_one(tmp_path, recogniser, name):
    check_killed(tmp_path, recogniser(name), "outputs=[raysp.Transcript()]", "before_piece_staged:2")


def test_phi_is_refused_without_the_adapter_for_speech_or_with_another_kind(recogniser, tmp_path):
    folder = shutil.copytree(recogniser("phi4_multimodal"), tmp_path / "phi")
    config = folder / "speech-lora" / "adapter_config.json"
    settings = json.loads(config.read_text())
    for values, words in (({"use_dora": True}, "use_dora is set"), ({"r": "four"}, "cannot read it .TypeError")):
        config.write_text(json.dumps({**settings, **values}))
        with pytest.raises(CheckpointError, match=words):
            HuggingFaceModels().load(folder, dtype="float32", device="cpu")
    config.write_text(json.dumps(settings))
    weights = load_file(config.with_name("adapter_model.safetensors"))
    save_file(
        {f"other.{name}": weight for name, weight in weights.items()}, config.with_name("adapter_model.safetensors")
    )
    with pytest.raises(CheckpointError, match=r"weights of speech-lora do not fit: other\.base_model"):
        HuggingFaceModels().load(folder, dtype="float32", device="cpu")
    shutil.rmtree(config.parent)
    with pytest.raises(CheckpointError, match=r"no folder speech-lora, the adapter by which .* by its hub id"):
        HuggingFaceModels().describe(folder)


def test_a_stream_ends_with_its_recording_alone(recogniser, tmp_path):
    outputs = [raysp.Transcript(generate={"max_new_tokens": 5})]
    with pytest.raises(CheckpointError, match="generate has max_new_tokens, expected no option: Kyutai"):
        raysp.plan(pipeline(write_corpus(tmp_path), recogniser("kyutai_speech_to_text"), outputs=outputs))


@pytest.mark.parametrize("file", ["preprocessor_config.json", "chat_template.json", "tokenizer.json"])
def test_missing_files_of_a_processor_are_refused(recogniser, tmp_path, file):
    folder = shutil.copytree(recogniser("qwen2_5_omni"), tmp_path / "omni")
    (folder / file).unlink()
    with pytest.raises(CheckpointError, match="as saved with these weights"):
        HuggingFaceModels().describe(folder)
