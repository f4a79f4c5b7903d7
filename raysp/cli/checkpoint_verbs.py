"""The verbs for checkpoints and for this machine: inspect, convert, models, doctor."""

import dataclasses
import itertools
from typing import TYPE_CHECKING, Annotated, Any

from typer import Argument, Option

from raysp.capabilities import Capability
from raysp.cli.arguments import FAILED, StorageOptions, parse_storage_options
from raysp.cli.console import err, escape, is_json, out, print_facts, print_folded, printing, show
from raysp.cli.printed_runs import show_done
from raysp.errors import CheckpointError, SpecError
from raysp.labelling.engine.display import Display
from raysp.models.labelled_passes import OWN
from raysp.words import count, listed, megabytes

if TYPE_CHECKING:
    from raysp.models.converting import Conversion
    from raysp.models.labelled_passes import CheckpointSummary

MOST_NAMES = 40


def inspect(
    checkpoint: Annotated[str, Argument(metavar="CHECKPOINT", help="A model folder, its url, or a hub id.")],
    backend: Annotated[
        str | None,
        Option(metavar="NAME", help="torch, transformers, ctranslate2 or vllm. Default: the choice of a run."),
    ] = None,
    storage_options: StorageOptions = None,
) -> None:
    """Check a checkpoint and show its outputs. Loads no weights.

    Examples:
      raysp inspect pipelines/demo/unispeech-digits-ctc
      raysp inspect openai/whisper-small
      raysp inspect s3://models/ctc --storage-option profile=models
    """
    from raysp.backends.finding import NAMED, choose, files_of
    from raysp.checkpoints.hub import locate
    from raysp.labelling.planning.planned_checkpoint import choose_backend
    from raysp.specs.outputs.table import outputs_for

    options = parse_storage_options(storage_options, [checkpoint])
    if backend is not None and backend not in NAMED:
        raise SpecError(f"--backend: found {backend!r}, expected one of {', '.join(NAMED)}")
    why = ""
    if backend is None:
        _, summary, why = choose_backend(lambda backend: locate(checkpoint, options, files_of(backend)))
    else:
        folder = locate(checkpoint, options, files_of(backend))
        summary = choose(folder, backend).open().describe(folder)
    refused: dict[str, object] = {"not by raysp": why or None, "does not fit": _generation(summary)[1]}
    facts: dict[str, object]
    if is_json():
        refusals = {name.replace(" ", "_"): reason for name, reason in refused.items()}
        facts = {**refusals, **dataclasses.asdict(summary), "outputs": outputs_for(summary)}
        facts |= {"writes_text": summary.writes_text, "language_model": _facts_of_language_model(summary)}
    else:
        facts = {**refused, **_facts_of_checkpoint(summary)}
    show(facts, lambda: print_facts(checkpoint, facts))


def convert(
    source: Annotated[
        str, Argument(metavar="CHECKPOINT", help="A folder with pytorch_model.bin, its url, a hub id, or a .nemo file.")
    ],
    folder: Annotated[str, Argument(metavar="FOLDER", help="A new or empty folder for the checkpoint.")],
    storage_options: StorageOptions = None,
) -> None:
    """Convert pickled weights, or a .nemo archive, to safetensors. Runs no code of them.

    Pickles are read in a process with bounds on memory and time. FOLDER appears when all is written and verified.

    Examples:
      raysp convert facebook/hubert-base-ls960 models/hubert
      raysp convert facebook/wav2vec2-base@main models/wav2vec2 --json
      raysp convert parakeet-ctc-0.6b.nemo models/parakeet-ctc
    """
    from raysp.storage.store import scheme_of

    options = parse_storage_options(storage_options, [source])
    if scheme_of(folder):
        raise SpecError(f"FOLDER: found {folder!r}, expected a local folder: convert into one, then copy it")
    if source.endswith(".nemo"):
        if scheme_of(source):
            raise SpecError(f"CHECKPOINT: found {source!r}, expected a local file: download the archive first")
        from raysp.models.nemo import convert_nemo

        summary = convert_nemo(source, folder)
        show(summary, lambda: print_facts(folder, _facts_of_checkpoint(summary)))
    from raysp.models.converting import convert_checkpoint

    with Display(err, is_quiet=is_json()) as display:

        def shown(done: int, of: int) -> None:
            show_done(display, f"{done / 1e9:,.1f} of {of / 1e9:,.1f} GB written and verified")

        conversion = convert_checkpoint(source, folder, storage_options=options, on_progress=shown)
    show(conversion, lambda: print_facts(folder, _facts_of_conversion(conversion)))


def _facts_of_conversion(conversion: "Conversion") -> dict[str, object]:
    summary = conversion.summary
    opens = {"opens": f"no: {conversion.unread}"} if summary is None else _facts_of_checkpoint(summary)
    return {
        "converted": f"{count(conversion.num_tensors, 'tensor')}, {megabytes(conversion.num_bytes)}, in "
        f"{listed(conversion.written, MOST_NAMES)}; each verified",
        "stored once": listed([f"{name} (as {kept})" for name, kept in conversion.tied.items()], MOST_NAMES),
        "copied": listed(conversion.copied, MOST_NAMES),
        "left out": listed(conversion.left_out, MOST_NAMES),
        **opens,
    }


def models() -> None:
    """List the supported architectures and their outputs."""
    from raysp.backends.hf_installed import OF_SPEECH
    from raysp.backends.hugging_face.recogniser_families import FAMILIES, REFUSED
    from raysp.models.registry import DECODERS, MODULES, architectures_of, capabilities_of
    from raysp.specs.outputs.table import outputs_of

    by_type = {
        model_type: {
            name: outputs_of(capabilities_of(cls)) for name, cls in sorted(architectures_of(model_type).items())
        }
        for model_type in sorted(MODULES)
    }
    decoders, recognisers, others = sorted(DECODERS), sorted(FAMILIES), sorted(OF_SPEECH)

    def printed() -> None:
        own = {
            ", ".join(group): [*dict.fromkeys(itertools.chain(*architectures.values()))]
            for architectures, group in itertools.groupby(by_type, by_type.__getitem__)
        }
        print_facts("Models of raysp, with the outputs of their heads", {**own, "text decoders": decoders})
        print_facts("Models by transformers", {"with Transcript": recognisers, "by their heads": others})
        out.print("[bold]Refused recognisers[/bold]")
        for reason, refused in itertools.groupby(sorted(REFUSED, key=REFUSED.__getitem__), REFUSED.__getitem__):
            print_folded(out, f"  {', '.join(sorted(refused))}: {reason}", 4)
        out.print("Classes: docs/models.md, --json. Options and languages: raysp inspect.")

    facts = {"models": by_type, "decoders": decoders, "recognisers": recognisers, "others": others}
    show({**facts, "refused": dict(REFUSED)}, printed)


def _facts_of_checkpoint(summary: "CheckpointSummary") -> dict[str, object]:
    from raysp.backends.finding import choice_of
    from raysp.specs.outputs.table import outputs_for

    rate, parameters = summary.sample_rate, summary.num_parameters
    activations = 4 * summary.activations_per_second / 1e6
    sizes = {
        "float32": (4 * parameters / 1e6, activations),
        "bfloat16, float16": (2 * parameters / 1e6, activations / 2),
    }
    memory = [f"{dtype}: {own:,.1f} MB, {more:,.1f} MB per second of audio" for dtype, (own, more) in sizes.items()]
    return {
        "architecture": f"{summary.architecture} ({summary.model_type})",
        "runs by": choice_of(summary).library or None,
        "parameters": f"{parameters:,} in {count(summary.num_layers, 'layer')}, {summary.hidden_size:,} wide",
        "stored": f"{megabytes(summary.weight_bytes)} in {summary.dtype}",
        "memory": "; ".join(memory),
        "rate": f"{rate:,} samples a second, a frame every {1000 * summary.frame_seconds:g} ms, "
        f"at least {1000 * summary.min_samples / rate:g} ms"
        + (f", at most {summary.max_samples / rate:g} s" if summary.max_samples else ""),
        "not used": summary.unused_words or None,
        "batches": _batches(summary),
        "options": _options(summary),
        "outputs": outputs_for(summary),
        "embedding": f"{summary.output_size:,} wide" if Capability.HIDDEN_STATES in summary.gives else None,
        "xvector": summary.xvector_size and f"{summary.xvector_size:,} wide",
        "vocabulary": _vocabulary(summary),
        "texts": _generation(summary)[0],
        "language model": _language_model(summary),
        "language": _language(summary),
        "classes": f"{len(summary.labels):,}: {listed(summary.labels, MOST_NAMES)}" if summary.labels else None,
        "problem": summary.problem_type,
    }


def _options(summary: "CheckpointSummary") -> str | None:
    """Return the options of `Transcript` that a recogniser takes; None without any."""
    flags = {"detect": summary.detects, "words": summary.writes_times}
    names = [*summary.takes, *(name for name, is_taken in flags.items() if is_taken)]
    return f"Transcript({', '.join(f'{name}=' for name in names)})" if names else None


def _batches(summary: "CheckpointSummary") -> str | None:
    if summary.alone:
        return f"one recording a pass: {summary.alone}"
    return None if summary.takes_padding else "recordings of one length, since padding changes its results"


def _generation(summary: "CheckpointSummary") -> tuple[str | None, str | None]:
    """Return the longest text of a window, or else the reason why there is none; None twice without a decoder."""
    from raysp.models.generation_checks import check_generation

    if not summary.writes_text or summary.backend != OWN:
        return None, None
    try:
        most = check_generation(summary.path, {}).max_length - 1
    except CheckpointError as error:
        return None, str(error)
    return f"at most {count(most, 'token')} for a window (max_length, max_new_tokens)", None


def _language(summary: "CheckpointSummary") -> str | None:
    """Return the announced language, the number of languages, and the file with its weights; None without languages."""
    from raysp.checkpoints.contents import languages_of

    if summary.languages:
        needed = "" if not summary.contradiction else "; outputs have to name one"
        return f"{len(summary.languages)}: {listed(summary.languages, MOST_NAMES)}{needed}"
    languages = languages_of(summary.path)
    if summary.contradiction:
        return f"one that outputs have to name, of {count(len(languages), 'language')}: {summary.contradiction}"
    if not languages or summary.language is None:
        return None
    default = f"{summary.language} unless an output names another one of {count(len(languages), 'language')}"
    return f"{default}; by {summary.adapter}, which differs from the weights" if summary.adapter else default


def _vocabulary(summary: "CheckpointSummary") -> str | None:
    """Return the number of tokens, and the tokens themselves for CTC checkpoints; None without a vocabulary."""
    from raysp.models.tokenizers.ctc import Wav2Vec2CTCTokenizer
    from raysp.models.tokenizers.named_tokenizers import read_tokenizer
    from raysp.models.tokenizers.phonemes import Wav2Vec2PhonemeCTCTokenizer

    if summary.vocab_size is None or summary.contradiction:
        return None
    if summary.writes_text and summary.backend != OWN:
        return count(summary.vocab_size, "token")
    tokenizer = read_tokenizer(summary.path)
    if not isinstance(tokenizer, Wav2Vec2CTCTokenizer):
        return f"{count(summary.vocab_size, 'token')} of a {tokenizer.tokenizer_class}"
    tokens = [token for _, token in sorted(tokenizer.decoder.items())]
    kind = ""
    if isinstance(tokenizer, Wav2Vec2PhonemeCTCTokenizer):
        kind = f", phonemes of {tokenizer.phonemizer_lang}"
    rest = " ..." if len(tokens) > MOST_NAMES else ""
    return f"{count(summary.vocab_size, 'token')}{kind}: {' '.join(tokens[:MOST_NAMES])}{rest}"


def _facts_of_language_model(summary: "CheckpointSummary") -> dict[str, Any] | str | None:
    """Return facts of the language model that comes with a checkpoint, or its defect; None without one."""
    from raysp.checkpoints.language_models import FOLDER, describe_own
    from raysp.models.auto import WITH_LM, processor_class

    folder = summary.path / FOLDER
    try:
        if folder.is_dir():
            return describe_own(folder)
        return "it is not there; lm='own' fetches it from the hub" if processor_class(summary.path) == WITH_LM else None
    except (CheckpointError, OSError) as error:
        return str(error)


def _language_model(summary: "CheckpointSummary") -> str | None:
    facts = _facts_of_language_model(summary)
    if not isinstance(facts, dict):
        return facts
    return (
        f"{facts['order']}-grams of {count(facts['words'], 'word')} ({facts['kind']}, {megabytes(facts['bytes'])}), "
        f"alpha {facts['alpha']:g}, beta {facts['beta']:g}: Transcript(beams=8, lm='own')"
    )


def doctor() -> None:
    """Check this machine: versions, processors, memory, a local Ray."""
    from raysp.cluster.doctor import examine

    findings = []
    for finding in examine():
        findings.append(finding)
        if not is_json():
            with printing(f"{finding.what} cannot be shown"):
                mark = "[green]ok  [/green]" if finding.ok else "[red]fail[/red]"
                out.print(f"{mark} {escape(finding.what)}: {escape(finding.found)}")
                if finding.advice:
                    out.print(f"     {escape(finding.advice)}")

    code = 0 if all(finding.ok for finding in findings) else FAILED
    show({"findings": list(map(dataclasses.asdict, findings))}, lambda: None, code)
