"""Speech models under their Hugging Face names, resolved when first used: importing this package imports no torch.

A row of a padded batch gives what it gives alone where `attention_mask` says where it ends; nothing else does. Pass
`padding=True, return_attention_mask=True` to the processor of a batch: logits of a CTC head are then the blank behind
each row's end, so that `processor.batch_decode(model(**inputs).logits.argmax(-1))` gives the texts of the rows alone.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from raysp.models.auto import AutoConfig as AutoConfig
    from raysp.models.auto import AutoFeatureExtractor as AutoFeatureExtractor
    from raysp.models.auto import AutoModel as AutoModel
    from raysp.models.auto import AutoModelForAudioClassification as AutoModelForAudioClassification
    from raysp.models.auto import AutoModelForAudioFrameClassification as AutoModelForAudioFrameClassification
    from raysp.models.auto import AutoModelForAudioXVector as AutoModelForAudioXVector
    from raysp.models.auto import AutoModelForCausalLM as AutoModelForCausalLM
    from raysp.models.auto import AutoModelForCTC as AutoModelForCTC
    from raysp.models.auto import AutoModelForSpeechSeq2Seq as AutoModelForSpeechSeq2Seq
    from raysp.models.auto import AutoProcessor as AutoProcessor
    from raysp.models.auto import AutoTokenizer as AutoTokenizer
    from raysp.models.bart import BartConfig as BartConfig
    from raysp.models.bart import BartForCausalLM as BartForCausalLM
    from raysp.models.bert import BertConfig as BertConfig
    from raysp.models.bert import BertLMHeadModel as BertLMHeadModel
    from raysp.models.checking import check_checkpoint as check_checkpoint
    from raysp.models.checking import checkpoint_files as checkpoint_files
    from raysp.models.decoder.cache import KeyValueCache as KeyValueCache
    from raysp.models.decoder.generation_config import GenerationConfig as GenerationConfig
    from raysp.models.encoder.several_heads import save_heads as save_heads
    from raysp.models.features.processors import Wav2Vec2FeatureExtractor as Wav2Vec2FeatureExtractor
    from raysp.models.features.processors import Wav2Vec2Processor as Wav2Vec2Processor
    from raysp.models.features.seamless import SeamlessM4TFeatureExtractor as SeamlessM4TFeatureExtractor
    from raysp.models.features.seamless import Wav2Vec2BertProcessor as Wav2Vec2BertProcessor
    from raysp.models.gpt2 import GPT2Config as GPT2Config
    from raysp.models.gpt2 import GPT2LMHeadModel as GPT2LMHeadModel
    from raysp.models.hubert import HubertConfig as HubertConfig
    from raysp.models.hubert import HubertForCTC as HubertForCTC
    from raysp.models.hubert import HubertForSequenceClassification as HubertForSequenceClassification
    from raysp.models.hubert import HubertModel as HubertModel
    from raysp.models.loading import LoadedCheckpoint as LoadedCheckpoint
    from raysp.models.loading import load_checkpoint as load_checkpoint
    from raysp.models.loading import load_model as load_model
    from raysp.models.mbart import MBartConfig as MBartConfig
    from raysp.models.mbart import MBartForCausalLM as MBartForCausalLM
    from raysp.models.sew_d import SEWDConfig as SEWDConfig
    from raysp.models.sew_d import SEWDForCTC as SEWDForCTC
    from raysp.models.sew_d import SEWDForSequenceClassification as SEWDForSequenceClassification
    from raysp.models.sew_d import SEWDModel as SEWDModel
    from raysp.models.speech_encoder_decoder import SpeechEncoderDecoderConfig as SpeechEncoderDecoderConfig
    from raysp.models.speech_encoder_decoder import SpeechEncoderDecoderModel as SpeechEncoderDecoderModel
    from raysp.models.summary import CheckpointSummary as CheckpointSummary
    from raysp.models.tokenizers.ctc import Wav2Vec2CTCTokenizer as Wav2Vec2CTCTokenizer
    from raysp.models.tokenizers.text import TextTokenizer as TextTokenizer
    from raysp.models.unispeech import UniSpeechConfig as UniSpeechConfig
    from raysp.models.unispeech import UniSpeechForCTC as UniSpeechForCTC
    from raysp.models.unispeech import UniSpeechForPreTraining as UniSpeechForPreTraining
    from raysp.models.unispeech import UniSpeechForPreTrainingOutput as UniSpeechForPreTrainingOutput
    from raysp.models.unispeech import UniSpeechForSequenceClassification as UniSpeechForSequenceClassification
    from raysp.models.unispeech import UniSpeechModel as UniSpeechModel
    from raysp.models.wav2vec2 import Wav2Vec2Config as Wav2Vec2Config
    from raysp.models.wav2vec2 import Wav2Vec2ForAudioFrameClassification as Wav2Vec2ForAudioFrameClassification
    from raysp.models.wav2vec2 import Wav2Vec2ForCTC as Wav2Vec2ForCTC
    from raysp.models.wav2vec2 import Wav2Vec2ForSequenceClassification as Wav2Vec2ForSequenceClassification
    from raysp.models.wav2vec2 import Wav2Vec2ForXVector as Wav2Vec2ForXVector
    from raysp.models.wav2vec2 import Wav2Vec2Model as Wav2Vec2Model
    from raysp.models.wav2vec2_bert import Wav2Vec2BertConfig as Wav2Vec2BertConfig
    from raysp.models.wav2vec2_bert import (
        Wav2Vec2BertForAudioFrameClassification as Wav2Vec2BertForAudioFrameClassification,
    )
    from raysp.models.wav2vec2_bert import Wav2Vec2BertForCTC as Wav2Vec2BertForCTC
    from raysp.models.wav2vec2_bert import (
        Wav2Vec2BertForSequenceClassification as Wav2Vec2BertForSequenceClassification,
    )
    from raysp.models.wav2vec2_bert import Wav2Vec2BertForXVector as Wav2Vec2BertForXVector
    from raysp.models.wav2vec2_bert import Wav2Vec2BertModel as Wav2Vec2BertModel

_MODULE_OF = {
    "AutoConfig": "auto",
    "AutoFeatureExtractor": "auto",
    "AutoModel": "auto",
    "AutoModelForAudioClassification": "auto",
    "AutoModelForAudioFrameClassification": "auto",
    "AutoModelForAudioXVector": "auto",
    "AutoModelForCTC": "auto",
    "AutoModelForCausalLM": "auto",
    "AutoModelForSpeechSeq2Seq": "auto",
    "AutoProcessor": "auto",
    "AutoTokenizer": "auto",
    "BartConfig": "bart",
    "BartForCausalLM": "bart",
    "BertConfig": "bert",
    "BertLMHeadModel": "bert",
    "CheckpointSummary": "summary",
    "GPT2Config": "gpt2",
    "GPT2LMHeadModel": "gpt2",
    "GenerationConfig": "decoder.generation_config",
    "HubertConfig": "hubert",
    "HubertForCTC": "hubert",
    "HubertForSequenceClassification": "hubert",
    "HubertModel": "hubert",
    "KeyValueCache": "decoder.cache",
    "LoadedCheckpoint": "loading",
    "MBartConfig": "mbart",
    "MBartForCausalLM": "mbart",
    "SEWDConfig": "sew_d",
    "SEWDForCTC": "sew_d",
    "SEWDForSequenceClassification": "sew_d",
    "SEWDModel": "sew_d",
    "SeamlessM4TFeatureExtractor": "features.seamless",
    "SpeechEncoderDecoderConfig": "speech_encoder_decoder",
    "SpeechEncoderDecoderModel": "speech_encoder_decoder",
    "TextTokenizer": "tokenizers.text",
    "UniSpeechConfig": "unispeech",
    "UniSpeechForCTC": "unispeech",
    "UniSpeechForPreTraining": "unispeech",
    "UniSpeechForPreTrainingOutput": "unispeech",
    "UniSpeechForSequenceClassification": "unispeech",
    "UniSpeechModel": "unispeech",
    "Wav2Vec2BertConfig": "wav2vec2_bert",
    "Wav2Vec2BertForAudioFrameClassification": "wav2vec2_bert",
    "Wav2Vec2BertForCTC": "wav2vec2_bert",
    "Wav2Vec2BertForSequenceClassification": "wav2vec2_bert",
    "Wav2Vec2BertForXVector": "wav2vec2_bert",
    "Wav2Vec2BertModel": "wav2vec2_bert",
    "Wav2Vec2BertProcessor": "features.seamless",
    "Wav2Vec2CTCTokenizer": "tokenizers.ctc",
    "Wav2Vec2Config": "wav2vec2",
    "Wav2Vec2FeatureExtractor": "features.processors",
    "Wav2Vec2ForAudioFrameClassification": "wav2vec2",
    "Wav2Vec2ForCTC": "wav2vec2",
    "Wav2Vec2ForSequenceClassification": "wav2vec2",
    "Wav2Vec2ForXVector": "wav2vec2",
    "Wav2Vec2Model": "wav2vec2",
    "Wav2Vec2Processor": "features.processors",
    "check_checkpoint": "checking",
    "checkpoint_files": "checking",
    "load_checkpoint": "loading",
    "load_model": "loading",
    "save_heads": "encoder.several_heads",
}

_ELSEWHERE = {  # names that the models' documents use, and what stands for them
    "BatchEncoding": "tokenizers and processors return a BatchFeature, a dict with attributes and .to(device)",
    "BertForCausalLM": "the decoder that the page means is BertLMHeadModel",
    "PreTrainedTokenizer": "tokenizers are Wav2Vec2CTCTokenizer and TextTokenizer, which AutoTokenizer finds",
    "Speech2TextFeatureExtractor": "log-mels of the encoders here are made by SeamlessM4TFeatureExtractor",
    "Speech2TextProcessor": "the processors here are Wav2Vec2Processor and Wav2Vec2BertProcessor",
}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> object:
    """Import the module that defines a public name."""
    # ImportError: of an AttributeError `from raysp.models import ...` would show no more than that it has no such name.
    if name.startswith("Flax"):
        raise ImportError(f"{name!r} is a JAX class, which raysp does not have: use {name.removeprefix('Flax')!r}")
    if name in _ELSEWHERE:
        raise ImportError(f"{name!r} is not in raysp: {_ELSEWHERE[name]}")
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_MODULE_OF])
