"""Texts that begin with the token of a language or a task: those of transformers with the same forced tokens."""

import json

import pytest
import torch

import raysp
from raysp import CheckpointError, SpecError
from raysp.models import Wav2Vec2FeatureExtractor, check_checkpoint
from tests.corpora import CHECKPOINT, labels_alone, samples_of, wav
from tests.models.decoder_oracles import VOCAB, make_speech_model, save_pair, theirs_generated
from tests.models.oracles import transformers

PROMPTS = ["en_XX", "de_DE", "deu_Latn", "fr_FR", "fr_CA", "<|translate|>", "de", "<de>"]
WORDS = ["<s>", "<pad>", "</s>", "[UNK]", *PROMPTS]
VOCABULARY = [*WORDS, *(f"w{number}" for number in range(len(WORDS), VOCAB))]
SPECIAL = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "[UNK]"}
BERT_NAMES = {"cls_token": "<s>", "sep_token": "</s>", "mask_token": "[UNK]"}


def checkpoint(folder, start: str = "</s>"):
    """Save an encoder of transformers with a BART decoder, and a tokenizer whose words are the tokens."""
    oracle, _ = save_pair(make_speech_model(config_flags={"decoder_start_token_id": VOCABULARY.index(start)}), folder)
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": False, **SPECIAL, **BERT_NAMES})
    )
    Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
    return oracle, folder


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("writer"))


def theirs(oracle, recording: bytes, **options) -> list[int]:
    values = transformers.Wav2Vec2FeatureExtractor()(samples_of(recording), sampling_rate=16_000, return_tensors="pt")
    return theirs_generated(oracle, values.input_values, **options)[0].tolist()


@pytest.mark.parametrize(
    ("prompt", "tokens", "start", "beams"),
    [
        ({"language": "en"}, ["en_XX"], "</s>", 3),
        ({"language": "en", "task": "translate"}, ["en_XX", "<|translate|>"], "</s>", 1),
        ({"language": "deu_Latn"}, [], "en_XX", 3),
    ],
)
def test_texts_are_those_of_forced_tokens(tmp_path, prompt, tokens, start, beams):
    oracle, folder = checkpoint(tmp_path, start)
    options, recordings = {"num_beams": beams, "max_new_tokens": 9}, [wav(n, seed=n) for n in (4_000, 9_000)]
    output = raysp.Transcript(**prompt, generate=options)
    output.check(check_checkpoint(folder))
    ids = [VOCABULARY.index(token) for token in tokens]
    forced = {0: {"decoder_start_token_id": VOCABULARY.index("deu_Latn")}, 1: {"forced_bos_token_id": (*ids, 0)[0]}}
    forced[2] = {"decoder_input_ids": torch.tensor([ids])}
    for row, recording in zip(labels_alone(folder, output, recordings, batch_seconds=2), recordings, strict=True):
        found = theirs(oracle, recording, **options, **forced[len(ids)])
        assert found[1 : 1 + len(ids)] == ids
        written = [VOCABULARY[index] for index in found[1 + len(ids) :] if VOCABULARY[index] not in SPECIAL.values()]
        assert row["pred_text"].split() == written
        assert row["pred_score"] < 0


def test_the_score_is_the_mean_over_the_tokens_after_the_prompt(writer):
    oracle, folder = writer
    recording = wav(4_000, seed=1)
    found = theirs(oracle, recording, max_new_tokens=9, forced_bos_token_id=VOCABULARY.index("de_DE"))
    values = transformers.Wav2Vec2FeatureExtractor()(samples_of(recording), sampling_rate=16_000, return_tensors="pt")
    with torch.inference_mode():
        logits = oracle(values.input_values, decoder_input_ids=torch.tensor([found[:-1]])).logits[0].log_softmax(-1)
    chosen = logits.gather(-1, torch.tensor(found[1:])[:, None])[:, 0]
    ends = [place for place, token in enumerate(found[1:], 1) if token == 2]
    output = raysp.Transcript(language="de_DE", generate={"max_new_tokens": 9})
    [row] = labels_alone(folder, output, [recording], batch_seconds=2)
    assert row["pred_score"] == pytest.approx(float(chosen[1 : (ends or [len(found)])[0]].mean()), abs=1e-4)


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        (
            {"language": "xx"},
            r"language='xx' is not a token of the decoder's vocabulary; it has 'de_DE', 'deu_Latn', 'en_",
        ),
        ({"language": "fr"}, "language='fr' stands for 'fr_CA', 'fr_FR'; give one of them"),
        ({"language": "en", "task": "translate", "generate": {"max_new_tokens": 63}}, "max_length is 66 tokens"),
    ],
)
def test_names_without_a_token_are_refused(writer, prompt, words):
    with pytest.raises(CheckpointError, match=words):
        raysp.Transcript(**prompt).check(check_checkpoint(writer[1]))


def test_ctc_checkpoints_and_options_that_say_the_same_are_refused():
    with pytest.raises(
        CheckpointError, match="language is for checkpoints with a text decoder, or with adapters of languages such as"
    ):
        raysp.Transcript(language="de").check(check_checkpoint(CHECKPOINT))
    with pytest.raises(SpecError, match="forced_bos_token_id, which language and task choose"):
        raysp.Transcript(language="de", generate={"forced_bos_token_id": 4})
