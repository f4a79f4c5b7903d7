"""Make a checkpoint of published size with random weights: as fast as a trained one, without a download.

python -m benchmarks checkpoint --out /tmp/base
"""

import argparse
import json
import shutil
from pathlib import Path

HERE = Path(__file__).parents[1]
BUNDLED = HERE.parent / "pipelines" / "demo" / "unispeech-digits-ctc"
TOKENIZER_FILES = ("vocab.json", "tokenizer_config.json", "processor_config.json")


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


def main(argv: list[str] | None = None) -> None:
    """Make a checkpoint from the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks checkpoint", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument(
        "--front-end", choices=["group", "layer"], default="group", help="norm of the convolutional front end"
    )
    parser.add_argument("--layers", type=int, default=12, help="number of layers")
    parser.add_argument("--hidden-size", type=int, default=768, help="width of the model")
    parser.add_argument("--seed", type=int, default=0, help="seed of the random generator")
    args = parser.parse_args(argv)
    make(args.out, front_end=args.front_end, layers=args.layers, hidden_size=args.hidden_size, seed=args.seed)
    print(args.out)


if __name__ == "__main__":
    main()
