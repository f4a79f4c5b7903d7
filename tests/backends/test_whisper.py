"""Whisper by transformers: texts are those of a loop over rows, whatever shares the batch."""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import raysp
from raysp import CheckpointError, PlanError
from tests.backends.runs import pipeline
from tests.backends.theirs import RATE, labelling, waves, written
from tests.models.oracles import transformers
from tests.ops.waves import block_of, labels

LENGTHS = (5_000, 9_000, 16_000, 25_000, 320, 32_000)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("output", "options"),
    [
        (raysp.Transcript(language="de", task="translate"), {"language": "de", "task": "translate"}),
        (raysp.Transcript(language="Turkish"), {"language": "tr"}),
        (raysp.Transcript(generate={"num_beams": 3, "max_new_tokens": 9}), {"num_beams": 3, "max_new_tokens": 9}),
    ],
)
def test_texts_are_those_of_a_loop_over_rows_in_any_batch(whisper, corpus, output, options):
    recordings = waves(LENGTHS)
    assert raysp.plan(pipeline(corpus, whisper, outputs=[output])).rows_todo == 4
    expected = written(whisper, recordings, **options)
    assert len({*expected}) == len(LENGTHS)
    found = [labels(labelling(whisper, output, batch_seconds=s), block_of(recordings)) for s in (1, 600)]
    for rows in found:
        assert [row["pred_text"] for row in rows.values()] == expected
    alone, together = ([row["pred_score"] for row in rows.values()] for rows in found)
    np.testing.assert_allclose(alone, together, atol=1e-4)


def test_scores_and_embeddings_are_those_of_tokens_behind_the_prompt_and_of_frames_before_the_padding(whisper):
    [wave] = waves([9_000])
    op = labelling(whisper, raysp.Transcript(), raysp.Embedding(layer=(0, 2, -1)))
    [row] = labels(op, block_of([wave])).values()
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(whisper)
    model = transformers.WhisperForConditionalGeneration.from_pretrained(whisper).eval()
    features = extractor(wave, sampling_rate=RATE, return_tensors="pt").input_features
    ids = model.generate(features, force_unique_generate_call=True)[0]
    with torch.inference_mode():
        logits = model(features, decoder_input_ids=ids[None, :-1]).logits[0].log_softmax(-1)
        encoded = model.get_encoder()(features, output_hidden_states=True)
    chosen = logits.gather(-1, ids[1:, None])[2:, 0]  # behind start, language, and the token for no times
    end = (ids[3:] == model.generation_config.eos_token_id).nonzero()
    assert row["pred_score"] == pytest.approx(float(chosen[: int(end[0]) + 1 if len(end) else None].mean()), abs=1e-4)
    layers = [encoded.hidden_states[0], encoded.hidden_states[2], encoded.last_hidden_state]
    np.testing.assert_allclose(row["embedding"], [one[0, : 9_000 // 320].mean(0) for one in layers], atol=1e-4)


@pytest.mark.slow
def test_scores_of_passes_at_once_are_those_of_passes_after_each_other(whisper):
    op = labelling(whisper, raysp.Transcript(generate={"num_beams": 3}))
    blocks = [block_of(waves([length])) for length in LENGTHS[:4]]
    alone = [labels(op, block)[0]["pred_score"] for block in blocks]
    assert len({*np.round(alone, 4)}) == 4
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            found = pool.map(lambda block: labels(op, block)[0]["pred_score"], blocks)
            np.testing.assert_allclose([*found], alone, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("label", "error", "words"),
    [
        ({"window_seconds": 30, "overlap_seconds": 5}, PlanError, r"takes at most 2 s; set window_seconds=2 or less"),
        ({"outputs": [raysp.Transcript(words=True)]}, CheckpointError, "writes text without times"),
        ({"outputs": [raysp.Transcript(beams=4)]}, CheckpointError, "use generate={'num_beams': 4}"),
        ({"outputs": [raysp.Transcript(generate={"num_bems": 2})]}, CheckpointError, "did you mean 'num_beams'"),
        ({"outputs": [raysp.Transcript(generate={"max_new_tokens": 37})]}, CheckpointError, "asks for 41 tokens"),
        ({"outputs": [raysp.Transcript(language="fr")]}, CheckpointError, "expected one of its 3: de, en, tr$"),
        ({"outputs": [raysp.Align("text")]}, CheckpointError, "does not support Align"),
        ({"outputs": [raysp.Signals(no_speech=True)]}, CheckpointError, "is for Whisper by"),
        ({"dtype": "int8"}, PlanError, "expected backend='ctranslate2'"),
        ({"backend": "torch"}, CheckpointError, "expected one of hubert.*: pass backend=\"transformers\" to Label$"),
    ],
)  # fmt: skip
def test_what_it_cannot_do_is_refused_by_the_plan(corpus, whisper, label, error, words):
    with pytest.raises(error, match=words):
        raysp.plan(pipeline(corpus, whisper, **label))


def changed(whisper, folder, file: str, **values: object):
    shutil.copytree(whisper, folder)
    found = json.loads((folder / file).read_text()) if (folder / file).is_file() else {}
    (folder / file).write_text(json.dumps({**found, **values}))
    return folder


NOISY = {"feature_extractor": {"feature_extractor_type": "WhisperFeatureExtractor", "dither": 0.1}}


@pytest.mark.parametrize(
    ("file", "values", "words"),
    [
        ("config.json", {"model_type": "eardrum"}, r"model_type is 'eardrum', which transformers [\d.]+ does not read"),
        ("config.json", {"architectures": ["WhisperModel"]}, "expected one of WhisperForConditionalGeneration, Wh"),
        ("config.json", {"quantization_config": {"bits": 4}}, "use the checkpoint with its original weights"),
        ("config.json", {"max_source_positions": 70}, "expected a multiple of 70 positions"),
        ("adapter_config.json", {}, "merge it into the model"),
        ("processor_config.json", NOISY, "labels would differ from run to run"),
    ],
)
def test_checkpoints_that_do_not_fit_are_refused(whisper, corpus, tmp_path, file, values, words):
    with pytest.raises(CheckpointError, match=words):
        raysp.plan(pipeline(corpus, changed(whisper, tmp_path / "changed", file, **values)))


def test_weights_of_another_shape_or_in_a_pickle_are_refused(whisper, corpus, tmp_path):
    folder = changed(whisper, tmp_path / "deeper", "config.json", encoder_layers=3)
    with pytest.raises(CheckpointError, match="weights do not fit WhisperForConditionalGeneration: missing_keys "):
        raysp.Labeller(pipeline(corpus, folder).steps)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="pickled weights"):
        raysp.plan(pipeline(corpus, folder))


def test_code_of_a_checkpoint_is_never_run(whisper, corpus, tmp_path):
    (tmp_path / "ran").mkdir()
    of_code = {"auto_map": {"AutoConfig": "evil.Evil", "AutoModelForSpeechSeq2Seq": "evil.Evil"}}
    folder = changed(whisper, tmp_path / "evil", "config.json", **of_code)
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran' / 'code')!r}, 'w')\n")
    labels(labelling(folder, raysp.Transcript()), block_of(waves([9_000])))
    changed(folder, tmp_path / "unknown", "config.json", model_type="eardrum")
    with pytest.raises(CheckpointError):
        raysp.plan(pipeline(corpus, tmp_path / "unknown"))
    assert [*(tmp_path / "ran").iterdir()] == []
