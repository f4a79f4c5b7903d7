"""A small checkpoint of every architecture and head, and the outputs of each; importable without pytest."""

import json
from pathlib import Path

import torch

import raysp
import raysp.models
from raysp.models import (
    BertConfig,
    HubertConfig,
    SeamlessM4TFeatureExtractor,
    SEWDConfig,
    SpeechEncoderDecoderConfig,
    UniSpeechConfig,
    Wav2Vec2BertConfig,
    Wav2Vec2Config,
    Wav2Vec2CTCTokenizer,
    Wav2Vec2FeatureExtractor,
    save_heads,
)
from tests.models.tokenizers.text_tokenizers import BERT_VOCAB, write_bert_tokenizer
from tests.models.tokenizers.word_pieces import save_parakeet, save_transducer

SMALL = {
    "vocab_size": 20, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
    "id2label": {0: "cat", 1: "dog", 2: "owl"},
}  # fmt: skip
WAVES = {
    "conv_dim": (16, 24, 24), "conv_stride": (10, 8, 4), "conv_kernel": (16, 8, 4), "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}  # fmt: skip
TDNN = {"tdnn_dim": (16, 16, 16, 16, 24), "xvector_output_dim": 14}
CONFIGS = {
    "UniSpeech": UniSpeechConfig(**SMALL, **WAVES),
    "Wav2Vec2": Wav2Vec2Config(**SMALL, **WAVES, **TDNN, feat_extract_norm="layer", do_stable_layer_norm=True),
    "Hubert": HubertConfig(**SMALL, **WAVES),
    "SEWD": SEWDConfig(**SMALL, **WAVES, position_buckets=16, max_position_embeddings=40),
    "Wav2Vec2Bert": Wav2Vec2BertConfig(**SMALL, **TDNN, conv_depthwise_kernel_size=7, output_hidden_size=32),
    "adapted Wav2Vec2Bert": Wav2Vec2BertConfig(**SMALL, **TDNN, add_adapter=True, output_hidden_size=24),
}
CASES = {
    "UniSpeechForCTC": [raysp.Transcript(), raysp.Embedding(layer=1)],
    "Wav2Vec2ForCTC": [raysp.Transcript(words=True), raysp.Embedding(pooling="none")],
    "Wav2Vec2ForSequenceClassification": [raysp.Classes(top_k=2)],
    "Wav2Vec2ForAudioFrameClassification": [raysp.Segments(), raysp.Embedding()],
    "Wav2Vec2ForXVector": [raysp.Embedding(pooling="xvector")],
    "HubertModel": [raysp.Embedding(layer=0), raysp.Embedding("last")],
    "HubertForCTC": [raysp.Transcript()],
    "SEWDForCTC": [raysp.Transcript(), raysp.Embedding(layer=2), raysp.Embedding("last")],
    "Wav2Vec2BertForCTC": [raysp.Transcript(), raysp.Embedding()],
    "Wav2Vec2BertForAudioFrameClassification": [raysp.Segments(threshold=0.6)],
    "Wav2Vec2BertForXVector": [raysp.Embedding(pooling="xvector")],
    "adapted Wav2Vec2BertModel": [raysp.Embedding(), raysp.Embedding("inner", layer=1)],
    "UniSpeechForCTC UniSpeechForSequenceClassification": [
        raysp.Transcript(),
        raysp.Embedding(layer=1),
        raysp.Classes(top_k=2),
    ],
    "SEWDForSequenceClassification SEWDForCTC": [raysp.Classes(), raysp.Transcript(words=True)],
    "ParakeetForCTC": [raysp.Transcript(words=True), raysp.Embedding(), raysp.Embedding("inner", layer=1)],
    "ParakeetForRNNT": [raysp.Transcript(words=True), raysp.Embedding()],
    "ParakeetForTDT": [raysp.Transcript(words=True, chars=True), raysp.Embedding("inner", layer=1)],
    "SpeechEncoderDecoderModel": [raysp.Transcript(generate={"max_new_tokens": 8, "num_beams": 2}), raysp.Embedding()],
    "Wav2Vec2Bert SpeechEncoderDecoderModel": [raysp.Transcript(generate={"max_new_tokens": 8})],
}


def make_checkpoint(name: str, folder: Path) -> None:
    """Write the checkpoint of a case of `CASES`, with random weights."""
    if name == "ParakeetForCTC":
        save_parakeet(folder)
        return
    if name.startswith("ParakeetFor"):
        save_transducer(folder, name.removeprefix("ParakeetFor"))
        return
    torch.manual_seed(1)
    if name.endswith("SpeechEncoderDecoderModel"):
        encoder = CONFIGS["Wav2Vec2Bert"] if "Bert" in name else Wav2Vec2Config(**SMALL, **WAVES)
        decoder = BertConfig(
            vocab_size=len(dict.fromkeys(BERT_VOCAB)), hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=48, is_decoder=True, add_cross_attention=True,
        )  # fmt: skip
        config = SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
            encoder, decoder, decoder_start_token_id=2, pad_token_id=0, eos_token_id=3
        )
        write_bert_tokenizer(folder)
    else:
        kind = max((one for one in CONFIGS if name.startswith(one)), key=len)
        config = CONFIGS[kind]
        if "ForCTC" in name:
            tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNO"]
            folder.parent.mkdir(parents=True, exist_ok=True)
            (folder.parent / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
            Wav2Vec2CTCTokenizer(folder.parent / "vocab.json").save_pretrained(folder)
    names = [one for one in name.split() if one not in ("adapted", "Wav2Vec2Bert")]
    classes = [getattr(raysp.models, one) for one in names]
    models = [cls(config).init_weights() for cls in classes]
    with torch.no_grad():
        for model in models:
            for parameter in model.parameters():  # so that labels differ from row to row
                parameter += 0.15 * torch.randn_like(parameter)
    for head in models[1:]:
        setattr(head, head.base_model_prefix, models[0].base_model)
    save_heads(models, folder)
    if "Bert" in name:
        SeamlessM4TFeatureExtractor().save_pretrained(folder)
    else:
        Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)
