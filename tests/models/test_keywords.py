"""Keywords that scripts pass to `from_pretrained`: each has its meaning, or a sentence that says what to do."""

import json
import logging
import shutil

import pytest
import torch

from raysp.errors import CheckpointError
from raysp.models import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForCTC,
    AutoProcessor,
    AutoTokenizer,
    BertConfig,
    BertLMHeadModel,
    GenerationConfig,
    SpeechEncoderDecoderModel,
    UniSpeechConfig,
    UniSpeechForCTC,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
)
from tests.hub_server import lay_out
from tests.models.decoder_oracles import BERT
from tests.models.oracles import make_oracle, save_checkpoint

READERS = [
    UniSpeechForCTC,
    UniSpeechConfig,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Processor,
    AutoConfig,
    AutoFeatureExtractor,
    AutoModel,
    AutoModelForCTC,
    AutoProcessor,
    AutoTokenizer,
]
EVERYDAY = {
    "trust_remote_code": False,
    "token": "hf_x",
    "cache_dir": None,
    "local_files_only": True,
    "force_download": False,
    "low_cpu_mem_usage": True,
    "use_fast": True,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("keywords") / "whole" / "part")


@pytest.mark.parametrize("reader", READERS)
def test_everyday_keywords_are_taken_and_a_subfolder_is_read(reader, folder):
    reader.from_pretrained(folder, **EVERYDAY)
    reader.from_pretrained(folder.parent, subfolder="part", **EVERYDAY)


@pytest.mark.parametrize("reader", READERS)
def test_code_of_a_checkpoint_is_refused_with_a_sentence(reader, folder):
    with pytest.raises(ValueError, match="trust_remote_code=True given, but raysp never runs code that comes with"):
        reader.from_pretrained(folder, trust_remote_code=True)


@pytest.mark.parametrize("reader", READERS)
def test_a_hub_id_is_read_from_a_cache_of_ones_own_and_its_subfolder(reader, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(folder, lay_out(tmp_path / "cache", folder.parent) / "part")
    reader.from_pretrained("owner/name", subfolder="part", cache_dir=tmp_path / "cache", local_files_only=True)
    with pytest.raises(CheckpointError, match=r"not in the cache .*elsewhere, and local_files_only=True disables"):
        reader.from_pretrained("owner/name", cache_dir=tmp_path / "elsewhere", local_files_only=True)


def test_what_is_asked_of_the_hub_reaches_its_library(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    asked = {}
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name, **given: asked.update(given) or str(folder))
    UniSpeechConfig.from_pretrained("owner/name", token="hf_x", force_download=True, revision="v1")
    assert (asked["token"], asked["force_download"], asked["revision"]) == ("hf_x", True, "v1")


def test_safetensors_can_be_required_and_pickles_only_where_they_are_allowed(folder, tmp_path):
    UniSpeechForCTC.from_pretrained(folder, use_safetensors=True)
    with pytest.raises(ValueError, match=r"use_safetensors=False given, .* only with allow_pickle=True"):
        UniSpeechForCTC.from_pretrained(folder, use_safetensors=False)
    oracle = make_oracle()
    oracle.config.save_pretrained(tmp_path)
    torch.save(oracle.state_dict(), tmp_path / "pytorch_model.bin")
    UniSpeechForCTC.from_pretrained(tmp_path, use_safetensors=False, allow_pickle=True)
    with pytest.raises(CheckpointError):
        UniSpeechForCTC.from_pretrained(tmp_path, use_safetensors=True, allow_pickle=True)


def test_keywords_for_the_hub_go_to_both_parts_and_into_no_configuration(folder, tmp_path):
    BertLMHeadModel(BertConfig(**BERT)).save_pretrained(tmp_path)
    model = SpeechEncoderDecoderModel.from_encoder_decoder_pretrained(folder, tmp_path, token="hf_x", use_fast=True)
    assert "hf_x" not in json.dumps(model.config.to_dict())


def test_parameters_and_bytes_are_counted_as_theirs():
    ours, theirs = UniSpeechForCTC(UniSpeechConfig(**make_oracle().config.to_dict())), make_oracle()
    for model in (ours, theirs):
        model.freeze_feature_encoder()
    assert ours.num_parameters() == theirs.num_parameters()
    assert ours.num_parameters(only_trainable=True) == theirs.num_parameters(only_trainable=True)
    assert ours.get_memory_footprint() == theirs.get_memory_footprint()
    decoder = BertLMHeadModel(BertConfig(**BERT))
    tables = sum(m.weight.numel() for m in decoder.modules() if isinstance(m, torch.nn.Embedding))
    assert decoder.num_parameters() - decoder.num_parameters(exclude_embeddings=True) == tables


def test_an_unknown_keyword_is_answered_by_the_one_that_it_looks_like(folder):
    with pytest.raises(
        TypeError, match=r"'num_lables' \(did you mean 'num_labels'\?\): no argument of from_pretrained"
    ):
        UniSpeechForCTC.from_pretrained(folder, num_lables=3)
    with pytest.raises(TypeError, match=r"'revison' \(did you mean 'revision'\?\)"):
        AutoModelForCTC.from_pretrained(folder, revison="main")
    with pytest.raises(TypeError, match=r"'do_normalise' \(did you mean 'do_normalize'\?\): no setting of"):
        Wav2Vec2FeatureExtractor.from_pretrained(folder, do_normalise=True)
    with pytest.raises(TypeError, match=r"'subfoldr' \(did you mean 'subfolder'\?\): no argument of Wav2Vec2Processor"):
        Wav2Vec2Processor.from_pretrained(folder, subfoldr="part")
    with pytest.raises(ValueError, match=r"num_beam=4 \(did you mean 'num_beams'\?\), expected options among"):
        GenerationConfig.from_dict({"num_beam": 4})


def test_a_field_with_a_letter_too_few_is_kept_with_a_warning(caplog):
    caplog.set_level(logging.WARNING, logger="raysp.models")
    assert UniSpeechConfig(num_hiden_layers=3).num_hiden_layers == 3
    assert "no field 'num_hiden_layers' (did you mean 'num_hidden_layers'?)" in caplog.text
    caplog.clear()
    UniSpeechConfig(**make_oracle().config.to_dict(), my_own_field=1)
    assert not caplog.text
