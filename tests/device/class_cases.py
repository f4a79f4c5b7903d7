"""A small checkpoint of every architecture and head, and the outputs of each; importable without pytest."""

from pathlib import Path

import raysp
from tests.golden.checkpoints import encoder_decoder, of_encoder, parakeet

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
    if name.startswith("ParakeetFor"):
        parakeet(name.removeprefix("ParakeetFor"))(folder)
    elif name.endswith("SpeechEncoderDecoderModel"):
        encoder_decoder("bert", "Wav2Vec2Bert" if "Bert" in name else "Wav2Vec2")(folder)
    elif name.startswith("adapted"):
        of_encoder(name.removeprefix("adapted "), add_adapter=True, output_hidden_size=24)(folder)
    else:
        of_encoder(*name.split())(folder)
