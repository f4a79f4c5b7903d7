"""Layouts that raysp refuses: their reason and the way out are in the message."""

from tests.published.layout import FRONT, Layout

NOTHING = "Nothing"
NO_MODEL = r"raysp has no model of type '{}'; transformers .* refuses it too: "

REFUSED: dict[str, Layout] = {
    "Qwen/Qwen2-Audio-7B-Instruct": Layout(
        NOTHING,
        (*FRONT, "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"),
        written={"model_type": "qwen2_audio", "architectures": ["Qwen2AudioForConditionalGeneration"]},
        refused=NO_MODEL.format("qwen2_audio"),
    ),
    "Systran/faster-whisper-small": Layout(
        NOTHING,
        ("README.md", "config.json", "model.bin", "tokenizer.json", "vocabulary.txt"),
        contents={"config.json": '{"alignment_heads": [[5, 3]], "lang_ids": [50259], "suppress_ids": [1, 2]}'},
        refused=r'a model of CTranslate2 .*: pass backend="ctranslate2" to Label, or use the checkpoint that it was',
    ),
}
