"""Tiny random checkpoints of transformers, of architectures that raysp does not read, and their results row by row."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from raysp.audio.waveforms import cut_windows
from raysp.backends.finding import choose
from raysp.ops.labelling import Labelling
from tests.models.oracles import make_oracle, transformers
from tests.ops.waves import block_of, labels

LANGUAGES = ("<|en|>", "<|de|>", "<|tr|>")
WINDOW_SECONDS = 2
OF_MODEL = ("bos_token_id", "decoder_start_token_id", "eos_token_id", "pad_token_id")
RATE = 16_000


def tiny_whisper(folder: Path, *, multilingual: bool = True, vocab_size: int | None = None) -> Path:
    """Write a Whisper for recordings of two seconds, with a vocabulary of letters and, up to a size, unused tokens."""
    torch.manual_seed(0)
    tokenizer = _whisper_tokenizer(has_empty=vocab_size is not None)
    ids = tokenizer.get_vocab()
    config = transformers.WhisperConfig(
        vocab_size=vocab_size or len(ids), num_mel_bins=12, d_model=24, encoder_layers=2, decoder_layers=2,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
        max_source_positions=50 * WINDOW_SECONDS,
        max_target_positions=40, pad_token_id=ids["<|endoftext|>"], bos_token_id=ids["<|endoftext|>"],
        eos_token_id=ids["<|endoftext|>"], decoder_start_token_id=ids["<|startoftranscript|>"],
        init_std=0.4,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config)
    generation = {
        "suppress_tokens": [
            *(index for name, index in ids.items() if len(name) != 1 and name != "<|endoftext|>"),
            *range(len(ids), vocab_size or 0),
        ],
        "begin_suppress_tokens": [ids["<|endoftext|>"]],
        "no_timestamps_token_id": ids["<|notimestamps|>"],
        "is_multilingual": multilingual,
        "max_length": 24,
    }
    if multilingual:
        generation["lang_to_id"] = {one: ids[one] for one in LANGUAGES}
        generation["task_to_id"] = {one: ids[f"<|{one}|>"] for one in ("transcribe", "translate")}
    of_model = {name: getattr(config, name) for name in OF_MODEL}
    model.generation_config = transformers.GenerationConfig(**generation, **of_model)
    model.save_pretrained(folder)
    extractor = transformers.WhisperFeatureExtractor(feature_size=12, chunk_length=WINDOW_SECONDS)
    transformers.WhisperProcessor(extractor, tokenizer).save_pretrained(folder)
    return folder


def _whisper_tokenizer(*, has_empty: bool = False):
    # A space, as bytes are written; and the empty token by which CTranslate2 tells a Whisper of several languages.
    plain = ["\u0120", *"abcdefg", *([""] if has_empty else [])]
    special = ["<|endoftext|>", "<|startoftranscript|>", *LANGUAGES, "<|translate|>", "<|transcribe|>"]
    special += ["<|startoflm|>", "<|startofprev|>", "<|nospeech|>", "<|notimestamps|>"]
    vocabulary = {token: index for index, token in enumerate([*plain, *special])}
    tokenizer = transformers.WhisperTokenizer(vocab=vocabulary, merges=[], language="en", task="transcribe")
    tokenizer.add_special_tokens({"additional_special_tokens": special[1:]})
    return tokenizer


def tiny_writer(folder: Path, name: str) -> Path:
    """Write another encoder-decoder than Whisper, "Moonshine" or "Speech2Text"."""
    torch.manual_seed(0)
    tokenizer = _whisper_tokenizer()
    ids = tokenizer.get_vocab()
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    tokens = {"pad_token_id": end, "bos_token_id": start, "eos_token_id": end}
    if name == "Moonshine":
        heads = {f"{part}_num_attention_heads": 2 for part in ("encoder", "decoder")}
        layers = {f"{part}_num_hidden_layers": 2 for part in ("encoder", "decoder")}
        fields = {"hidden_size": 16, "intermediate_size": 24, "initializer_range": 0.4, **heads, **layers}
        extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    else:
        heads = {f"{part}_attention_heads": 2 for part in ("encoder", "decoder")}
        widths = {f"{part}_ffn_dim": 24 for part in ("encoder", "decoder")}
        fields = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 2, "init_std": 0.4, **heads, **widths}
        fields |= {"conv_channels": 16, "input_feat_per_channel": 16, "num_conv_layers": 2}
        extractor = transformers.Speech2TextFeatureExtractor(feature_size=16, num_mel_bins=16)
    cls = getattr(transformers, f"{name}ForConditionalGeneration")
    model = cls(cls.config_class(vocab_size=len(ids), decoder_start_token_id=start, **tokens, **fields))
    model.generation_config.max_length = 20
    for part in (model, extractor, tokenizer):
        part.save_pretrained(folder)
    return folder


def tiny_spectrogram_classifier(folder: Path) -> Path:
    """Write a classifier of spectrograms of 1.3 seconds."""
    torch.manual_seed(0)
    fields = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    config = transformers.ASTConfig(max_length=128, num_mel_bins=32, num_labels=3, initializer_range=0.3, **fields)
    transformers.ASTForAudioClassification(config).save_pretrained(folder)
    transformers.ASTFeatureExtractor(num_mel_bins=32, max_length=128).save_pretrained(folder)
    return folder


def tiny_waveform_model(folder: Path, name: str, **fields: object) -> Path:
    """Write a model with a front end of convolutions over samples, and the tokens of its CTC head."""
    make_oracle(name, **fields).save_pretrained(folder)
    masks = fields.get("feat_extract_norm") == "layer"
    transformers.Wav2Vec2FeatureExtractor(return_attention_mask=masks).save_pretrained(folder)
    tokens = ["<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNO"]
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Wav2Vec2CTCTokenizer"}))
    return folder


def waves(lengths: Sequence[int]) -> list[np.ndarray]:
    """Make recordings of noise that swells and fades, one for each length in samples."""
    generator = np.random.default_rng(0)
    shapes = [np.abs(np.sin(np.linspace(0, 3 + 5 * place, length))) for place, length in enumerate(lengths)]
    return [(0.3 * shape * generator.standard_normal(len(shape))).astype(np.float32) for shape in shapes]


def written(folder: Path, recordings: Sequence[np.ndarray], **options: object) -> list[str]:
    """Return the texts of transformers, one recording after another."""
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSpeechSeq2Seq.from_pretrained(folder).eval()
    texts = []
    for wave in recordings:
        inputs = extractor(wave, sampling_rate=RATE, return_tensors="pt")
        ids = model.generate(**inputs, do_sample=False, **options)
        texts += tokenizer.batch_decode(ids, skip_special_tokens=True)
    return [text.strip() for text in texts]


def labelling(folder: Path, *outputs: object, backend: str = "transformers", **options: object) -> Labelling:
    """Return the op that labels with a checkpoint by a backend, as a run makes it."""
    opened = choose(folder, backend).open()
    alone = bool(opened.describe(folder).alone)
    given = {"batch_seconds": 600, "window_seconds": WINDOW_SECONDS, "overlap_seconds": 0.5, "windows_alone": alone}
    return Labelling(
        str(folder),
        lambda loaded: [one.op(loaded.summary, loaded) for one in outputs],
        backend=opened,
        **{**given, **options},
    )


def windows_of(op: Labelling, recording: np.ndarray) -> list[np.ndarray]:
    """Return the windows into which an op's recordings are cut."""
    return [window for window, _ in cut_windows(iter([recording]), op.windowing)]


def together_and_alone(op: Labelling, recordings: Sequence[np.ndarray]) -> tuple[list[dict], list[dict]]:
    """Return the rows of recordings in one block, and those of each alone."""
    together = [*labels(op, block_of(recordings)).values()]
    assert {row["status"] for row in together} == {"ok"}
    return together, [labels(op, block_of([wave]))[0] for wave in recordings]
