"""Keywords and options of transformers in programs with the models of raysp."""

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from raysp.checkpoints.hub import REFUSED_KEYWORDS
from raysp.models import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForCTC,
    AutoProcessor,
    AutoTokenizer,
    GenerationConfig,
    UniSpeechForCTC,
    Wav2Vec2Config,
    Wav2Vec2ForCTC,
)
from raysp.models import SpeechEncoderDecoderModel as EncoderDecoder
from raysp.models.base.modeling import ARGUMENTS, UPLOADING, Model
from raysp.models.decoder.logits import MinP
from tests.models.oracles import TINY, transformers
from tests.models.test_keywords import encoder_decoder

DEMO = Path(__file__).parents[3] / "pipelines" / "demo"
DIGITS = DEMO / "unispeech-digits-ctc"
DOCUMENT = Path(__file__).parents[3] / "docs" / "reference" / "api.md"
RATE = 16_000


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(DIGITS)


@pytest.fixture
def tiny_ctc(tmp_path) -> Path:
    torch.manual_seed(0)
    Wav2Vec2ForCTC(Wav2Vec2Config(**TINY)).save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture(scope="module")
def decoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decoder")
    encoder_decoder().save_pretrained(folder)
    return EncoderDecoder.from_pretrained(folder), transformers.SpeechEncoderDecoderModel.from_pretrained(folder).eval()


def test_generate_takes_the_options_of_transformers(decoders):
    waves = torch.randn(2, 3000, generator=torch.Generator().manual_seed(0))
    tokens = {"decoder_start_token_id": 1, "pad_token_id": 0, "eos_token_id": 2}
    options = transformers.GenerationConfig(max_new_tokens=3, num_beams=2, **tokens)
    found, expected = (model.generate(waves, generation_config=options).tolist() for model in decoders)
    assert found == expected


@pytest.mark.parametrize(("share", "at_least"), [(0.1, 1), (0.5, 1), (1.0, 3)])
def test_tokens_below_a_share_of_the_best_are_left_out_as_in_transformers(share, at_least):
    scores = torch.randn(4, 30, generator=torch.Generator().manual_seed(0)) * 3
    theirs = transformers.MinPLogitsWarper(share, min_tokens_to_keep=at_least)(None, scores.clone())
    found = MinP(share, at_least)(torch.zeros(4, 1), scores.clone())
    assert torch.equal(found.softmax(-1) > 1e-12, theirs.softmax(-1) > 1e-12)


def taken(call: str) -> set[str]:
    """Return the keywords that the table of the documents names as taken by a call."""
    row = next(line for line in DOCUMENT.read_text().splitlines() if line.startswith(f"| {call} |"))
    return {*re.findall(r"`(\w+)`", row.split("|")[2])}


def arguments_of(function) -> set[str]:
    return {*inspect.signature(function).parameters} - {"self", "save_directory", "overrides", "options"}


def test_the_table_of_keywords_is_that_of_the_code():
    assert taken("`from_pretrained`") == {*ARGUMENTS, "torch_dtype"}
    assert taken("`save_pretrained`") == {*arguments_of(Model.save_pretrained), *UPLOADING}
    assert taken("`generate`") == {*arguments_of(EncoderDecoder.generate), "GenerationConfig"}
    assert taken("options of `GenerationConfig`") == {one.name for one in fields(GenerationConfig)}


@pytest.mark.parametrize("option", [{"trust_remote_code": True}, {"use_safetensors": False}])
def test_keywords_of_loading_that_are_not_taken_are_refused(tiny_ctc, option):
    with pytest.raises(ValueError, match=next(iter(option))):
        Wav2Vec2ForCTC.from_pretrained(tiny_ctc, **option)


def test_the_message_on_code_of_a_checkpoint_begins_with_what_is_refused(tiny_ctc):
    with pytest.raises(ValueError, match=r"^trust_remote_code=True is refused: .* Omit it; `raysp models` lists"):
        Wav2Vec2ForCTC.from_pretrained(tiny_ctc, trust_remote_code=True)


@pytest.mark.parametrize("keyword", REFUSED_KEYWORDS)
def test_keywords_of_loading_that_are_not_taken_are_refused_by_all_classes_with_a_way_out(keyword):
    for cls in (AutoConfig, AutoTokenizer, AutoFeatureExtractor, AutoProcessor, AutoModelForCTC, UniSpeechForCTC):
        for value in ("x", {}):
            with pytest.raises(ValueError, match=f"^{keyword}={value!r} given, which raysp does not take: "):
                cls.from_pretrained(DIGITS, **{keyword: value})
        assert cls.from_pretrained(DIGITS, **{keyword: None}) is not None


@pytest.mark.parametrize("option", [{"save_function": print}, {"token": "x"}, {"distributed_checkpoint": True}])
def test_keywords_of_saving_that_are_not_taken_are_refused(tiny_ctc, tmp_path, option):
    model = Wav2Vec2ForCTC.from_pretrained(tiny_ctc)
    with pytest.raises((TypeError, ValueError), match=next(iter(option))):
        model.save_pretrained(tmp_path / "out", **option)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["assistant_model", "stop_strings", "guidance_scale", "streamer", "logits_processor"])
def test_options_of_generation_that_are_not_taken_are_refused_in_one_line(decoders, name):
    with pytest.raises(ValueError, match=f"generation does not support {name}=") as raised:
        decoders[0].generate(torch.zeros(1, 3000), **{name: decoders[1]})
    assert "\n" not in str(raised.value)


def test_tokens_are_added_behind_the_others(processor):
    tokenizer = AutoProcessor.from_pretrained(DIGITS).tokenizer
    before = len(tokenizer)
    assert tokenizer.add_tokens(["<hm>", "<hm>"]) == 1
    assert (len(tokenizer), tokenizer.get_vocab()["<hm>"]) == (before + 1, before)
    assert tokenizer.encode("ONE<hm>")[-1] == before
    assert processor.model_input_names == [*processor.feature_extractor.model_input_names, "labels"]
