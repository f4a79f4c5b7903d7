"""Configurations and models that cannot be, and the messages that name why."""

import pytest
import torch

import raysp.models
from raysp import CheckpointError
from tests.models.cases import CODES
from tests.models.oracles import random_model

CONFIGURATIONS = [
    ("UniSpeech", {"hidden_size": "768"}, "UniSpeechConfig.hidden_size is '768', expected int"),
    ("UniSpeech", {"conv_bias": 1}, "conv_bias is 1, expected bool"),
    ("UniSpeech", {"conv_dim": [512, None]}, r"conv_dim\[1\] is None"),
    ("UniSpeech", {"conv_stride": [5, 2]}, "expected one length for all three"),
    ("UniSpeech", {"num_attention_heads": 7}, "num_attention_heads is 7, expected a divisor of hidden_size 768"),
    ("UniSpeech", {"hidden_act": torch.nn.functional.gelu}, r"UniSpeechConfig\.hidden_act is .*gelu.*, expected str"),
    ("Wav2Vec2", {"tdnn_dim": (4, 5)}, "expected one length for all three"),
    ("Wav2Vec2", {"adapter_stride": 0}, "a kernel, stride or dilation is below 1"),
    ("SEWD", {"squeeze_factor": 0}, "squeeze_factor is 0"),
    ("SEWD", {"attention_head_size": 7}, "attention_head_size"),
    ("Wav2Vec2Bert", {"position_embeddings_type": "absolute"}, "position_embeddings_type is 'absolute'"),
    ("Wav2Vec2Bert", {"conv_depthwise_kernel_size": 8}, "expected an odd number"),
    ("Wav2Vec2Bert", {"use_intermediate_ffn_before_adapter": True}, "without add_adapter"),
    ("Wav2Vec2Bert", {"add_adapter": True, "output_hidden_size": 30}, "num_attention_heads is 16"),
    ("Wav2Vec2Bert", {"add_adapter": True, "adapter_stride": 0}, "adapter_stride is 0, expected at least 1"),
    ("ParakeetEncoder", {"num_attention_heads": 5}, "num_attention_heads is 5, expected a divisor of hidden_size"),
    ("ParakeetEncoder", {"conv_kernel_size": 4}, "conv_kernel_size is 4, expected an odd number"),
    ("ParakeetEncoder", {"subsampling_factor": 6}, "subsampling_factor is 6, expected a power of two"),
    ("ParakeetEncoder", {"num_mel_bins": 20}, "num_mel_bins is 20, of which the subsampling leaves 3, expected 2: use"),
    ("ParakeetEncoder", {"subsampling_conv_stride": 0}, "subsampling_conv_stride is 0, expected a positive number"),
    ("ParakeetCTC", {"encoder_config": {"model_type": "wav2vec2"}}, "encoder_config has model_type 'wav2vec2'"),
    ("ParakeetCTC", {"encoder_config": 3}, "encoder_config is 3, expected a JSON object"),
    ("ParakeetRNNT", {"blank_token_id": 8193}, r"blank_token_id is 8193, expected a token of the 8193"),
    ("ParakeetRNNT", {"max_symbols_per_step": 0}, "max_symbols_per_step is 0, expected at least 1"),
    ("ParakeetTDT", {"durations": [0]}, r"durations is \[0\], expected numbers of frames"),
    ("ParakeetTDT", {"durations": [-1, 1]}, r"durations is \[-1, 1\], expected"),
    ("Bert", {"hidden_size": 32, "num_attention_heads": 5}, "attention has 5 heads, expected a divisor of the width"),
    ("Bert", {"position_embedding_type": "relative_key"}, "position_embedding_type is 'relative_key', expected 'abs"),
]


def test_wrong_configurations_are_refused():
    for family, flags, message in CONFIGURATIONS:
        with pytest.raises(CheckpointError, match=message):
            getattr(raysp.models, f"{family}Config")(**flags)


MODELS = [
    ("UniSpeechForCTC", {"hidden_act": "softsign"}, "activation is 'softsign', expected one of gelu"),
    ("UniSpeechForCTC", {"feat_extract_norm": "batch"}, "feat_extract_norm is 'batch', expected 'group' or 'layer'"),
    (
        "UniSpeechForPreTraining",
        {**CODES, "num_codevector_groups": 3},
        "codevector_dim is 8, expected a multiple of num",
    ),
    ("Wav2Vec2BertForCTC", {"vocab_size": None}, "vocab_size is None"),
    ("Wav2Vec2ForSpeechClassification", {"pooling_mode": "median"}, "pooling_mode is 'median', expected one of mean"),
    ("Wav2Vec2ForSpeechClassification", {"add_adapter": True}, "does not support add_adapter"),
    *(
        (f"Wav2Vec2For{head}", {"add_adapter": True}, f"Wav2Vec2For{head} does not support add_adapter")
        for head in ("SequenceClassification", "AudioFrameClassification")
    ),
]


def test_models_that_cannot_be_are_refused():
    for name, flags, message in MODELS:
        with pytest.raises(CheckpointError, match=message):
            random_model(name, **flags)
