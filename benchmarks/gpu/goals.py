"""The goals of a GPU against what was measured, as a table to read and to paste into docs/evidence/performance.md."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from benchmarks.gpu.part import Setting

Rows = Mapping[str, dict[str, dict[str, object]]]
"""Figures by part and case."""


class Goal(NamedTuple):
    """One goal: a figure that is to be at least, or at most, a value."""

    name: str
    part: str
    measured: Callable[[dict[str, dict[str, object]]], float | None]
    value: float
    at_most: bool = False


def figure(case: str, key: str) -> Callable[[dict[str, dict[str, object]]], float | None]:
    """Return what reads a figure of a case."""

    def read(cases: dict[str, dict[str, object]]) -> float | None:
        value = cases.get(case, {}).get(key)
        return float(value) if isinstance(value, int | float) else None

    return read


def share_of(key: str) -> Callable[[dict[str, dict[str, object]]], float | None]:
    """Return what reads the share of the cases with a figure in which it is true."""

    def read(cases: dict[str, dict[str, object]]) -> float | None:
        found = [bool(case.get(key)) for case in cases.values() if key in case or "error" in case]
        return sum(found) / len(found) if found else None

    return read


def least(prefix: str, key: str) -> Callable[[dict[str, dict[str, object]]], float | None]:
    """Return what reads the least figure of the cases whose names begin so; an error counts as 0."""

    def read(cases: dict[str, dict[str, object]]) -> float | None:
        values = [0.0 if "error" in case else case.get(key) for name, case in cases.items() if name.startswith(prefix)]
        return min((float(one) for one in values if isinstance(one, int | float)), default=None)

    return read


BEAMS = "beams with a language model"
GOALS = (
    Goal("classes and outputs with the labels of the CPU", "equality", share_of("same"), 1.0),
    Goal("float32 labels that do not depend on the batch", "independence", figure("rows float32", "same texts"), 1.0),
    Goal("bfloat16 rows with the same bits in all packs", "independence", least("packs ", "share"), 1.0),
    Goal("315M waveform model, 10 s rows", "kernels", figure("unispeech-large 315M, 10 s", "RTFx"), 9_000),
    Goal("W2V-BERT 600M, 30 s rows", "kernels", figure("w2v-bert 600M, 30 s", "RTFx"), 5_000),
    Goal("FastConformer 110M, 10 s rows", "kernels", figure("fastconformer 110M, 10 s", "RTFx"), 30_000),
    Goal("Parakeet 600M, 10 s rows", "kernels", figure("parakeet 600M, 10 s", "RTFx"), 18_000),
    Goal("actor over bare model, 315M", "actor", figure("unispeech-large 315M", "S4/S0"), 0.97),
    Goal("actor over bare model, FastConformer 110M", "actor", figure("fastconformer 110M", "S4/S0"), 0.97),
    Goal("actor, base of 94M: a million hours in 250", "actor", figure("wav2vec2-base 94M", "S4 RTFx"), 4_000),
    Goal("actor, 315M: twice lv60 in transformers", "actor", figure("unispeech-large 315M", "S4 RTFx"), 1_018),
    Goal("encoder-decoder, 25 tokens", "decoders", figure("encoder-decoder, greedy", "RTFx"), 7_000),
    Goal("beams of 8 with a language model over greedy", "decoders", figure(BEAMS, "times greedy"), 1.10, True),
    Goal("alignment, times real time", "decoders", figure("alignment", "RTFx"), 1_000),
)  # fmt: skip


def table(setting: Setting) -> list[dict[str, object]]:
    """Return a row for each goal: the goal, what was measured, and whether it is met."""
    from benchmarks.gpu.process import read

    rows: list[dict[str, object]] = []
    for goal in GOALS:
        cases = {str(row["case"]): row for row in read(setting.out, goal.part)}
        measured = goal.measured(cases)
        rows.append(
            {
                "part": goal.part,
                "goal": goal.name,
                "value": f"{'at most' if goal.at_most else 'at least'} {goal.value:,g}",
                "measured": "not measured" if measured is None else _number(measured),
                "met": _verdict(goal, measured, setting),
            }
        )
    return rows


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _verdict(goal: Goal, measured: float | None, setting: Setting) -> str:
    if measured is None or not (setting.is_gpu or goal.part == "equality"):
        return "-"
    return "yes" if (measured <= goal.value if goal.at_most else measured >= goal.value) else "no"


def write_markdown(path: Path, machine: Mapping[str, object], rows: list[dict[str, object]]) -> None:
    """Write the table for docs/evidence/performance.md."""
    names = list(rows[0])
    head = ", ".join(f"{key} {value}" for key, value in machine.items() if key != "absent packages")
    lines = [f"| {' | '.join(str(row[name]) for name in names)} |" for row in rows]
    path.write_text("\n".join([head, "", f"| {' | '.join(names)} |", "|---" * len(names) + "|", *lines, ""]))
