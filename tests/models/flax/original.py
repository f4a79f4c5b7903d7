"""Compare the Flax classes with those of transformers 4.57.6, the last releases that had them.

    python -m tests.models.flax.original            # installs the packages below into a folder of its own, and compares
    python -m tests.models.flax.original FOLDER     # the same with a folder to keep

JAX, Flax and PyTorch are those of the present environment. A line for each decoder has the largest difference of
logits, and whether generated tokens are equal, on small random models. The last line has times of a larger model:
seconds of a call after compilation, and how many times longer the original takes: medians of eleven interleaved calls,
by the clock and of the time of all cores. "forward in jax.jit" is compiled by the caller, as in a training.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path

PACKAGES = ("transformers==4.57.6", "huggingface_hub==0.36.2", "tokenizers==0.22.2")
WIDTH = 16  # of encoder and decoder: the original fails to build a projection to BART
ENCODER = {
    "vocab_size": 20,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "conv_dim": (8, 12),
    "conv_stride": (5, 6),
    "conv_kernel": (10, 8),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}
STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True, "conv_bias": True}  # all that the original has
TEXT = {"vocab_size": 40, "max_position_embeddings": 64}
BART = {**TEXT, "d_model": WIDTH, "encoder_layers": 1, "decoder_layers": 2, "decoder_ffn_dim": 24}
BART |= {"decoder_attention_heads": 2, "encoder_attention_heads": 2}
BERT = {**TEXT, "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
GPT2 = {"vocab_size": 40, "n_positions": 64, "n_embd": WIDTH, "n_layer": 2, "n_head": 2, "bos_token_id": 0}
DECODERS = {"Bart": BART, "Bert": BERT, "GPT2": {**GPT2, "eos_token_id": 2}}
LARGER_ENCODER = {**STABLE, "hidden_size": 256, "num_hidden_layers": 6, "num_attention_heads": 4}
LARGER_ENCODER |= {"intermediate_size": 1024, "conv_dim": (128,) * 7}
LARGER_BART = {**BART, "vocab_size": 5000, "d_model": 256, "decoder_layers": 4, "decoder_ffn_dim": 1024}
LARGER_BART |= {"decoder_attention_heads": 4}
TOKENS = {"pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}


def install(folder: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *PACKAGES]
    subprocess.run(pip, check=True)


def models(decoder: str, of_encoder, of_decoder, folder: Path):
    """Return ours and theirs, loaded from one folder."""
    import torch
    import transformers

    import raysp.models
    from tests.models.flax.sisters import perturbed

    torch.manual_seed(0)
    config = raysp.models.SpeechEncoderDecoderConfig.from_encoder_decoder_configs(
        raysp.models.Wav2Vec2Config(**of_encoder), getattr(raysp.models, f"{decoder}Config")(**of_decoder), **TOKENS
    )
    sister = raysp.models.SpeechEncoderDecoderModel(config)
    if of_encoder["hidden_size"] == WIDTH:
        perturbed(sister)
    sister.save_pretrained(folder)
    ours = raysp.models.FlaxSpeechEncoderDecoderModel.from_pretrained(folder)
    return ours, transformers.FlaxSpeechEncoderDecoderModel.from_pretrained(folder, from_pt=True)


def compared(decoder: str, folder: Path) -> dict[str, object]:
    import numpy as np

    ours, theirs = models(decoder, {**ENCODER, **STABLE}, DECODERS[decoder], folder)
    generator = np.random.default_rng(0)
    waves = generator.standard_normal((3, 1800)).astype(np.float32)
    ids = generator.integers(4, 40, (3, 7))
    mine, value = (model(waves, decoder_input_ids=ids).logits for model in (ours, theirs))
    found: dict[str, object] = {"logits": float(np.abs(np.asarray(mine) - np.asarray(value)).max())}
    for name, options in {"greedy": {}, "4 beams": {"num_beams": 4}}.items():
        mine = np.asarray(ours.generate(waves, max_length=16, **options).sequences)
        value = np.asarray(theirs.generate(waves, max_length=16, **options).sequences)
        found[name] = bool((mine == value[:, : mine.shape[1]]).all())
    return found


def timed(folder: Path) -> dict[str, dict[str, float]]:
    import jax
    import numpy as np

    ours, theirs = models("Bart", LARGER_ENCODER, LARGER_BART, folder)
    waves = np.random.default_rng(0).standard_normal((4, 5 * 16000)).astype(np.float32)
    ids = np.full((4, 16), 7)
    options = {"max_length": 32, "num_beams": 4}

    def compiled(model):
        forward = jax.jit(lambda params, waves, ids: model(waves, decoder_input_ids=ids, params=params).logits)
        return lambda: forward(model.params, waves, ids)

    calls = {
        "forward": [lambda model=model: model(waves, decoder_input_ids=ids).logits for model in (ours, theirs)],
        "forward in jax.jit": [compiled(ours), compiled(theirs)],
        "generate": [lambda model=model: model.generate(waves, **options).sequences for model in (ours, theirs)],
    }
    return {kind: ratios(*both) for kind, both in calls.items()}


def ratios(mine, other) -> dict[str, float]:
    """Return the seconds of the first function, and how many times longer the second takes."""
    times: dict[str, list[float]] = {"mine": [], "other": [], "mine, cores": [], "other, cores": []}
    for repeat in range(12):
        for name, call in (("mine", mine), ("other", other)):
            start, start_of_cores = time.perf_counter(), time.process_time()
            call().block_until_ready()
            if repeat:  # the first one compiles
                times[name].append(time.perf_counter() - start)
                times[f"{name}, cores"].append(time.process_time() - start_of_cores)
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {
        "seconds": round(medians["mine"], 3),
        "ratio": round(medians["other"] / medians["mine"], 2),
        "ratio of the time of all cores": round(medians["other, cores"] / medians["mine, cores"], 2),
    }


def show(name: str, found: Mapping[str, object]) -> None:
    sys.stdout.write(f"{name} {json.dumps(found)}\n")
    sys.stdout.flush()


def compare(work: Path) -> None:
    for decoder in DECODERS:
        show(decoder, compared(decoder, work / decoder))
    show("times", timed(work / "larger"))


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as work:
        packages = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(work) / "packages"
        if not (packages / "transformers").is_dir():
            install(packages)
        sys.path.insert(0, str(packages))
        compare(Path(work))
