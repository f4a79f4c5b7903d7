"""Parts compared with transformers: texts from CTC ids, features, the quantiser of UniSpeech, memory of a pass.

    python -m benchmarks parts --only memory --repeats 3

Both libraries get the same random weights and the same input, and results are compared first: a difference ends the
measurement. Times are the shortest CPU time of each, on one thread, in turn. Memory is the increase of the resident set
of a forked process, whose free heap was released before.
"""

import argparse
import ctypes
import gc
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.models import LAYER_NORM
from benchmarks.studies.conformer import Run, pair_of, peak_megabytes, time_pair, waves_of
from benchmarks.tables import show, write_json

ROWS, FRAMES = 32, 1499
VOCABULARY = ("<pad>", "<s>", "</s>", "<unk>", "|", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ'")
TOLERANCE = 1e-4
SECONDS = (15.0, 15.0)
"""Of each row, without padding: transformers' group models give other values beside it."""


@dataclass(frozen=True)
class Pair:
    """One operation of both libraries on one input."""

    name: str
    theirs: Run
    ours: Run
    differs: Callable[[], object]
    """Gives what differs between the two results, or something false."""


@dataclass(frozen=True)
class Case:
    """Pairs to measure by `time`, `memory` or both, and the minimum ratio of transformers to raysp."""

    name: str
    floors: Mapping[str, float]
    pairs: Callable[[], Sequence[Pair]]


def ctc_ids(rows: int, frames: int, seed: int = 0) -> Tensor:
    """Return random best ids of speech: every few frames a letter of one or two frames, the rest blanks."""
    rng = np.random.default_rng(seed)
    ids = np.zeros((rows, frames), np.int64)
    for row in ids:
        at = 0
        while (at := at + int(rng.integers(1, 5))) < frames:
            length = int(rng.integers(1, 3))
            row[at : at + length] = rng.integers(4, len(VOCABULARY))
            at += length
    return torch.from_numpy(ids)


def tokenizers() -> tuple[Any, Any]:
    """Return the tokenizer of letters of both libraries."""
    import transformers

    from raysp.models import Wav2Vec2CTCTokenizer

    ours = Wav2Vec2CTCTokenizer({token: i for i, token in enumerate(VOCABULARY)})
    with tempfile.TemporaryDirectory() as folder:
        ours.save_pretrained(folder)
        return transformers.Wav2Vec2CTCTokenizer.from_pretrained(folder), ours


def ctc() -> Sequence[Pair]:
    """Decode texts, then texts with the frames of their characters."""
    from raysp.text.greedy_ctc import BestFrames, CTCTokens, collapse

    theirs, ours = tokenizers()
    ids = ctc_ids(ROWS, FRAMES)
    frames = BestFrames(ids, -torch.rand(ids.shape, generator=torch.Generator().manual_seed(0)))
    num_frames = torch.full((ROWS,), FRAMES)

    def read() -> tuple[list[str], CTCTokens]:
        tokens = collapse(frames, num_frames, blank=0)  # with the frames and scores of each token
        return ours.decode_collapsed_rows(tokens.flat_ids, tokens.counts), tokens

    def other_offsets() -> bool:
        decoded = theirs.batch_decode(ids, output_char_offsets=True)
        chars = [char for row in decoded.char_offsets for char in row]
        starts, ends = ([char[name] for char in chars] for name in ("start_offset", "end_offset"))
        texts, tokens = read()
        found = (texts, tokens.first_frames.tolist(), (tokens.last_frames + 1).tolist())
        return found != (decoded.text, starts, ends)

    def decode() -> list[str]:
        found: list[str] = theirs.batch_decode(ids)
        return found

    return [
        Pair("texts", decode, read, lambda: read()[0] != decode()),
        Pair("and offsets", lambda: theirs.batch_decode(ids, output_char_offsets=True), read, other_offsets),
    ]


def batch_decode() -> Sequence[Pair]:
    """Decode texts with the method of both libraries."""
    theirs, ours = tokenizers()
    ids = ctc_ids(ROWS, FRAMES)
    runs = (lambda: theirs.batch_decode(ids)), (lambda: ours.batch_decode(ids))
    return [Pair("texts", *runs, lambda: runs[0]() != runs[1]())]


def quantizer() -> Sequence[Pair]:
    """Quantise 30 s of frames of two rows."""
    import transformers

    from raysp.models import UniSpeechConfig
    from raysp.models.encoder.heads import GumbelVectorQuantizer

    config = transformers.UniSpeechConfig()
    theirs = transformers.models.unispeech.modeling_unispeech.UniSpeechGumbelVectorQuantizer(config).eval()
    mine = UniSpeechConfig()
    ours = GumbelVectorQuantizer(
        mine.conv_dim[-1],
        num_groups=mine.num_codevector_groups,
        num_codes=mine.num_codevectors_per_group,
        dim=mine.codevector_dim,
    ).eval()
    torch.nn.init.normal_(theirs.weight_proj.weight)  # else every frame has the same code
    ours.load_state_dict(theirs.state_dict())
    features = torch.randn(2, FRAMES, mine.conv_dim[-1], generator=torch.Generator().manual_seed(0))

    def difference() -> float:
        pairs = zip(theirs(features), ours(features), strict=False)
        return over(max(float((a - b).abs().max()) for a, b in pairs))

    return [Pair(f"2 x {FRAMES} frames", lambda: theirs(features), lambda: ours(features), difference)]


def features(name: str) -> Callable[[], Sequence[Pair]]:
    """Return the pairs of an extractor of transformers, which is called row by row: batches of 2, 10 and 30 s."""

    def pairs() -> Sequence[Pair]:
        import transformers

        from raysp.backends.hugging_face.models import known_features
        from raysp.models.features.processors import pad

        extractor = getattr(transformers, name)()
        ours = known_features(extractor)
        assert ours is not None

        def pair(seconds: int, rows: int) -> Pair:
            generator = np.random.default_rng(seconds)
            waves = [0.1 * generator.standard_normal(16_000 * seconds).astype(np.float32) for _ in range(rows)]

            def theirs() -> list[Tensor]:
                return [next(iter(extractor(one, sampling_rate=16_000, return_tensors="pt").values())) for one in waves]

            def found() -> Tensor:
                return next(iter(ours(*pad(waves)).values()))

            return Pair(
                f"{rows} x {seconds} s", theirs, found, lambda: over(float((found() - torch.cat(theirs())).abs().max()))
            )

        return [pair(2, 8), pair(10, 8), pair(30, 4)]

    return pairs


def over(difference: float) -> float:
    """Return a difference above the tolerance, else 0."""
    return difference if not difference <= TOLERANCE else 0.0


def speech(model: str, layers: int, flags: Mapping[str, object] | None = None) -> Callable[[], Sequence[Pair]]:
    """Run a model over waveforms or over features."""

    def pairs() -> Sequence[Pair]:
        theirs, ours = pair_of(model, {"num_hidden_layers": layers, **(flags or {})})
        inputs = waves_of(SECONDS)[0]
        if model.startswith("Wav2Vec2Bert"):
            inputs = torch.randn(len(inputs), ours.num_frames(inputs.shape[1]), 160)
        return [both(f"{len(SECONDS)} x {SECONDS[0]:g} s", theirs, ours, {"": inputs})]

    return pairs


def bart(layers: int) -> Callable[[], Sequence[Pair]]:
    """Run BART's decoder over whole texts and 10 s of frames, for logits only."""

    def pairs() -> Sequence[Pair]:
        theirs, ours = pair_of("BartForCausalLM", {"decoder_layers": layers, "d_model": 512, "decoder_ffn_dim": 2048})
        inputs = {"input_ids": torch.randint(3, 5000, (8, 128)), "encoder_hidden_states": torch.randn(8, 499, 512)}
        return [both("8 x 128 tokens", theirs, ours, inputs)]

    return pairs


def both(name: str, theirs: torch.nn.Module, ours: torch.nn.Module, inputs: Mapping[str, Tensor]) -> Pair:
    """Run both models on the same inputs; "" stands for the first argument."""
    first = [value for key, value in inputs.items() if not key]
    named = {key: value for key, value in inputs.items() if key}
    runs = (lambda: theirs(*first, **named)), (lambda: ours(*first, **named))
    return Pair(name, *runs, lambda: over(float((runs[0]()[0] - runs[1]()[0]).abs().max())))


def cases(layers: int) -> Sequence[Case]:
    """Return the cases."""
    memory = {"memory": 1.0}
    return (
        Case("ctc", {"time": 50.0}, ctc),
        Case("ctc batch_decode", {"time": 10.0}, batch_decode),
        Case("features of Whisper", {"time": 1.0}, features("WhisperFeatureExtractor")),
        Case("features of SeamlessM4T", {"time": 6.0}, features("SeamlessM4TFeatureExtractor")),
        Case("quantizer", {"time": 1.0, "memory": 1.0}, quantizer),
        Case("unispeech memory", memory, speech("UniSpeechModel", layers)),
        Case("unispeech layer memory", memory, speech("UniSpeechModel", layers, LAYER_NORM)),
        Case("wav2vec2 memory", memory, speech("Wav2Vec2Model", layers)),
        Case("hubert memory", memory, speech("HubertModel", layers)),
        Case("hubert layer memory", memory, speech("HubertModel", layers, LAYER_NORM)),
        Case("sew-d memory", memory, speech("SEWDModel", layers)),
        Case("wav2vec2-bert memory", memory, speech("Wav2Vec2BertModel", layers)),
        Case("bart memory", memory, bart(layers)),
    )


def measure(case: Case, repeats: int) -> list[dict[str, object]]:
    """Compare and measure the pairs of one case. Returns a table row for each."""
    rows = []
    with torch.inference_mode():
        for pair in case.pairs():
            used = {"memory": memory_of(pair)} if "memory" in case.floors else {}  # before anything ran
            if differs := pair.differs():
                raise SystemExit(f"{case.name}, {pair.name}: results differ ({differs})")
            taken = {"time": time_pair(pair.theirs, pair.ours, repeats)} if "time" in case.floors else {}
            rows += [row(case, pair, what, figures) for what, figures in {**taken, **used}.items()]
    return rows


def memory_of(pair: Pair) -> tuple[float, float]:
    """Return the memory of each library in megabytes."""
    found = []
    for run in (pair.theirs, pair.ours):
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        found.append(peak_megabytes(run))
    return found[0], found[1]


def row(case: Case, pair: Pair, what: str, figures: tuple[float, float]) -> dict[str, object]:
    """Return a table row."""
    unit, factor = ("ms", 1000.0) if what == "time" else ("MB", 1.0)
    theirs, ours = (factor * figure for figure in figures)
    ratio, floor = theirs / max(ours, 1e-9), case.floors[what]
    return {
        "case": case.name,
        "input": pair.name,
        "": unit,
        "transformers": f"{theirs:.2f}" if theirs < 100 else f"{theirs:.0f}",
        "raysp": f"{ours:.2f}" if ours < 100 else f"{ours:.0f}",
        "ratio": f"{ratio:.2f}",
        "floor": f"{floor:g}" + (", below" if ratio < floor else ""),
    }


def main(argv: list[str] | None = None) -> None:
    """Measure from the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks parts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="cases with this in their names, such as 'memory'")
    parser.add_argument("--layers", type=int, default=2, help="layers of whole models")
    parser.add_argument("--repeats", type=int, default=5, help="number of repeats")
    parser.add_argument("--json", type=Path, help="JSON file for the results")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    every = cases(args.layers)
    chosen = [case for case in every if args.only in case.name]
    if not chosen:
        raise SystemExit(f"--only {args.only!r}: no such case among {', '.join(case.name for case in every)}")
    found = []
    for case in chosen:
        rows = measure(case, args.repeats)
        show(case.name, rows)
        found += rows
    if args.json:
        write_json(args.json, found)
