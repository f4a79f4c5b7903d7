"""The example scripts of transformers for speech, run with the models of raysp in place of its imports."""

import json
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pytest
import torch

import raysp.models
from tests.models.oracles import TINY, make_oracle, transformers
from tests.models.promises.programs import classification, ctc, seq2seq
from tests.models.promises.programs.data import DIGITS, digits

WITHOUT_CHANCE = dict.fromkeys(
    ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout", "final_dropout", "layerdrop"),
    0.0,
)
WITHOUT_CHANCE |= {"mask_time_prob": 0.0}
LETTERS = "abcdefghijklmnopqrstuvwxyz"
pytestmark = [pytest.mark.drivers, pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("uncollected")]


@pytest.fixture(autouse=True)
def quiet():
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def start_of_ctc(folder: Path) -> None:
    """Save a model of digits whose head fits the vocabulary that the script makes."""
    options = {"vocab_size": 18, "ignore_mismatched_sizes": True}
    transformers.UniSpeechForCTC.from_pretrained(DIGITS, **options).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)


def start_of_classes(folder: Path) -> None:
    names = {text for split in digits().values() for text in split["text"]}
    options = {"num_labels": len(names), **WITHOUT_CHANCE}
    transformers.UniSpeechForSequenceClassification.from_pretrained(DIGITS, **options).save_pretrained(folder)
    transformers.Wav2Vec2FeatureExtractor().save_pretrained(folder)


def start_of_texts(folder: Path) -> None:
    decoder = transformers.BertConfig(
        vocab_size=60, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=64, is_decoder=True, add_cross_attention=True,
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    encoder = transformers.Wav2Vec2Config(**TINY, **WITHOUT_CHANCE)
    config = transformers.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 2, 0, 3
    transformers.SpeechEncoderDecoderModel(config=config).save_pretrained(folder)
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    tokenizer = transformers.BertTokenizer.from_pretrained(folder)
    transformers.Wav2Vec2Processor(transformers.Wav2Vec2FeatureExtractor(), tokenizer).save_pretrained(folder)


@dataclass
class Script:
    """One of the scripts, with what it begins with and a task of its result."""

    program: object
    make_start: object
    task: str
    measure: str


SCRIPTS = {
    "CTC": Script(ctc, start_of_ctc, "automatic-speech-recognition", "eval_wer"),
    "text decoder": Script(seq2seq, start_of_texts, "automatic-speech-recognition", "eval_wer"),
    "classes": Script(classification, start_of_classes, "audio-classification", "eval_accuracy"),
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_trains_the_same_model_with_both_libraries_and_goes_on(name, tmp_path):
    script, start = SCRIPTS[name], tmp_path / "start"
    torch.manual_seed(0)
    script.make_start(start)
    once = {} if name != "classes" else {"gradient_accumulation_steps": 1}
    ran = {
        models: script.program.main(models, start, tmp_path / models.__name__, **once)
        for models in (raysp.models, transformers)
    }
    (ours, found), (theirs, expected) = ran.values()
    assert type(ours.model).__module__.startswith("raysp.")
    assert found["eval_loss"] == pytest.approx(expected["eval_loss"], rel=1e-4)
    assert found[script.measure] == expected[script.measure]
    weights = theirs.model.state_dict()
    for key, value in ours.model.state_dict().items():
        torch.testing.assert_close(value, weights[key], rtol=0, atol=1e-3, msg=key)
    for one in (ours, theirs):
        assert len(one.predict(one.eval_dataset).predictions) == len(one.eval_dataset)

    out = tmp_path / "raysp.models"
    assert {*FILES} <= {path.name for path in out.iterdir()}
    found, expected = (results(models, type(ours.model).__name__, script.task, out) for models in ran)
    assert found == expected
    if name != "classes":
        again, _ = script.program.main(raysp.models, start, out, max_steps=6)
        steps = [entry["step"] for entry in again.state.log_history if "eval_loss" in entry]
        assert steps == [2, 4, 6, 6]


FILES = (
    *("README.md", "config.json", "model.safetensors", "preprocessor_config.json", "trainer_state.json"),
    *("all_results.json", "train_results.json", "eval_results.json"),
)


def results(models, name: str, task: str, folder: Path):
    """Return what a pipeline of transformers gives for a recording, with a model as one of the libraries opens it."""
    parts = {"feature_extractor": models.AutoFeatureExtractor.from_pretrained(folder)}
    if task != "audio-classification":
        parts["tokenizer"] = models.AutoTokenizer.from_pretrained(folder)
    pipeline = transformers.pipeline(task, model=getattr(models, name).from_pretrained(folder), **parts)
    wave = classification.decoded(digits(1)["eval"]["audio"][0])
    found = pipeline({"raw": wave["array"], "sampling_rate": wave["sampling_rate"]})
    return found if isinstance(found, dict) else [(one["label"], round(one["score"], 3)) for one in found]


def test_the_scripts_begin_with_new_heads_and_another_vocabulary(tmp_path):
    for name, program in (("CTC", ctc), ("classes", classification)):
        trainer, metrics = program.main(raysp.models, DIGITS, tmp_path / name)
        assert np.isfinite(metrics["eval_loss"])
        changed = type(trainer.model).from_pretrained(tmp_path / name)
        assert changed.config.num_labels == trainer.model.config.num_labels
    assert changed.config.id2label == dict(enumerate(sorted(changed.config.label2id)))
    assert transformers.AutoConfig.from_pretrained(tmp_path / "classes").id2label == changed.config.id2label


def test_the_script_of_adapters_trains_one_language_beside_others(tmp_path):
    start, others, out = tmp_path / "start", tmp_path / "others", tmp_path / "out"
    make_oracle("Wav2Vec2ForCTC", do_stable_layer_norm=True).save_pretrained(start)
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(start)
    vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "|": 4, "ä": 5}
    named = {"tokenizer_class": "Wav2Vec2CTCTokenizer", "target_lang": "deu"}
    others.mkdir()
    (others / "vocab.json").write_text(json.dumps({"deu": vocabulary}))
    (others / "tokenizer_config.json").write_text(json.dumps(named))
    trainer, metrics = ctc.main(raysp.models, start, out, language="tur", vocabulary_from=others)
    assert np.isfinite(metrics["eval_loss"])
    before = raysp.models.Wav2Vec2ForCTC.from_pretrained(start).state_dict()
    after = trainer.model.state_dict()
    changed = {key for key, value in after.items() if key in before and not torch.equal(before[key], value)}
    assert changed <= {"lm_head.weight", "lm_head.bias"}
    assert {*json.loads((out / "vocab.json").read_text())} == {"deu", "tur"}
    waves = torch.randn(2, 4000)
    opened = [
        models.Wav2Vec2ForCTC.from_pretrained(out, target_lang="tur").eval() for models in (raysp.models, transformers)
    ]
    with torch.no_grad():
        logits = [model(waves).logits for model in (*opened, trainer.model.eval())]
    torch.testing.assert_close(logits[0], logits[1], rtol=0, atol=1e-4)
    torch.testing.assert_close(logits[0], logits[2], rtol=0, atol=1e-6)
