"""N-gram models for tests: counts of sentences with absolute discounting, written as ARPA files."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

DISCOUNT = 0.5
Ngram = tuple[str, ...]


def write_arpa(path: Path, sentences: Iterable[Sequence[str]], order: int = 3) -> Path:
    """Write a model of sentences, each a sequence of words or characters."""
    counts = _counts(sentences, order)
    vocabulary = sorted(ngram for ngram in counts[0] if ngram != ("<s>",))
    total, share = sum(counts[0][one] for one in vocabulary), DISCOUNT / (len(vocabulary) + 1)
    probabilities: dict[Ngram, float] = {("<unk>",): share}
    contexts: list[defaultdict[Ngram, list[Ngram]]] = [defaultdict(list) for _ in range(order)]
    for length in range(1, order):
        for ngram in counts[length]:
            contexts[length][ngram[:-1]].append(ngram)
    for ngram in vocabulary:
        probabilities[ngram] = (counts[0][ngram] - DISCOUNT * counts[0][ngram] / total) / total + share / total
    backoffs: dict[Ngram, float] = {}
    for length in range(1, order):
        for context, ngrams in contexts[length].items():
            seen = sum(counts[length][one] for one in ngrams)
            left = DISCOUNT * len(ngrams) / seen
            for one in ngrams:
                probabilities[one] = (counts[length][one] - DISCOUNT) / seen + left * probabilities[one[1:]]
            covered = sum(probabilities[one[1:]] for one in ngrams)
            backoffs[context] = max(1 - sum(probabilities[one] for one in ngrams), 1e-9) / max(1 - covered, 1e-9)
    sections = [[("<s>",), ("<unk>",), *vocabulary], *(sorted(one) for one in counts[1:])]
    path.write_text(_text(sections, probabilities, backoffs))
    return path


def _counts(sentences: Iterable[Sequence[str]], order: int) -> list[Counter[Ngram]]:
    counts: list[Counter[Ngram]] = [Counter() for _ in range(order)]
    for sentence in sentences:
        words = ("<s>", *sentence, "</s>")
        for length in range(1, order + 1):
            counts[length - 1].update(words[i : i + length] for i in range(len(words) - length + 1))
    return counts


def _text(sections: Sequence[Sequence[Ngram]], probabilities: dict[Ngram, float], backoffs: dict[Ngram, float]) -> str:
    lines = ["\\data\\", *(f"ngram {n}={len(ngrams)}" for n, ngrams in enumerate(sections, 1)), ""]
    for n, ngrams in enumerate(sections, 1):
        lines.append(f"\\{n}-grams:")
        for ngram in ngrams:
            log10 = math.log10(probabilities[ngram]) if ngram in probabilities else -99.0
            backoff = f"\t{math.log10(backoffs.get(ngram, 1.0)):.6f}" if n < len(sections) else ""
            lines.append(f"{log10:.6f}\t{' '.join(ngram)}{backoff}")
        lines.append("")
    return "\n".join([*lines, "\\end\\", ""])
