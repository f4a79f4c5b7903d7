"""A checkpoint of published size with random weights: as fast as a trained one, without a download.

python -m benchmarks checkpoint --out /tmp/base
"""

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[1]
BUNDLED = HERE.parent / "pipelines" / "demo" / "unispeech-digits-ctc"
TOKENIZER_FILES = ("vocab.json", "tokenizer_config.json", "processor_config.json")
MADE: Mapping[str, Mapping[str, Any]] = {
    "base": {},
    "base-layer": {"front_end": "layer"},
    "middle": {"layers": 8, "hidden_size": 512},
}
"""Options of `make` by name; `base` has 12 layers, 768 wide."""
NAMES = f"small (bundled), {', '.join(MADE)}, or a folder"


def named(name: str, work: Path) -> Path:
    """Return the folder of a checkpoint, which is made in a folder if it is one of `MADE`."""
    if name in MADE:
        return make(work / name, **MADE[name])
    return BUNDLED if name == "small" else Path(name).absolute()


def make(folder: Path, *, front_end: str = "group", layers: int = 12, hidden_size: int = 768, seed: int = 0) -> Path:
    """Write a UniSpeech CTC checkpoint with random weights from `seed` and the bundled tokenizer."""
    import torch

    from raysp.models.unispeech import UniSpeechConfig, UniSpeechForCTC

    folder.mkdir(parents=True, exist_ok=True)
    for name in TOKENIZER_FILES:
        shutil.copy(BUNDLED / name, folder / name)
    vocabulary = json.loads((BUNDLED / "vocab.json").read_text())
    config = UniSpeechConfig(
        vocab_size=len(vocabulary),
        pad_token_id=vocabulary["<pad>"],
        hidden_size=hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 64,
        intermediate_size=4 * hidden_size,
        feat_extract_norm=front_end,
        conv_bias=front_end == "layer",
        do_stable_layer_norm=front_end == "layer",
    )
    torch.manual_seed(seed)
    UniSpeechForCTC(config).init_weights().save_pretrained(folder)
    if front_end == "layer":
        _require_mask(folder / "processor_config.json")
    return folder


def _require_mask(path: Path) -> None:
    """Set the attention mask, with which published checkpoints with layer norm in the front end were trained."""
    config = json.loads(path.read_text())
    config["feature_extractor"]["return_attention_mask"] = True
    path.write_text(json.dumps(config, indent=2) + "\n")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of a checkpoint."""
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--front-end", choices=["group", "layer"], default="group", help="norm of the convolutional front end"
    )
    parser.add_argument("--layers", type=int, default=12, help="number of layers")
    parser.add_argument("--hidden-size", type=int, default=768, help="width of the model")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random generator")


def run(args: argparse.Namespace) -> None:
    """Make a checkpoint."""
    make(args.out, front_end=args.front_end, layers=args.layers, hidden_size=args.hidden_size, seed=args.seed)
    print(args.out)
