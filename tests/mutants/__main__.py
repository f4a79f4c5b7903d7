"""Share of mutants of raysp that live through the tests: `python -m tests.mutants draw|cover|run|report`.

A mutant is a small change of one line, such as `<` to `<=`. It lives if every test that runs its line passes.

    python -m tests.mutants draw --seed 20261128 --number 400
    python -m tests.mutants cover tests/text tests/audio      # each folder once; again after its tests changed
    python -m tests.mutants run --budget-seconds 1200         # and again with --resume until all have a result
    python -m tests.mutants report
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict

from tests.mutants import drawing, running

ALIVE = ("lives", "uncovered")


def report() -> Iterator[str]:
    """Yield the share that lives, by room, and each that does."""
    mutants, results = running.drawn(), running.results()
    rooms = Counter(_room(mutants[one.number]) for one in results)
    alive = [one for one in results if one.outcome in ALIVE]
    of_room = Counter(_room(mutants[one.number]) for one in alive)
    share = len(alive) / max(len(results), 1)
    error = (share * (1 - share) / max(len(results), 1)) ** 0.5
    outcomes = ", ".join(f"{number} {name}" for name, number in Counter(one.outcome for one in results).most_common())
    yield f"{len(results)} of {len(mutants)} mutants: {outcomes}"
    yield f"{share:.1%} live (standard error {error:.1%})"
    yield from (f"  {room:<14}{of_room[room]:>4} of {number:>4}" for room, number in rooms.most_common())
    for one in alive:
        mutant = mutants[one.number]
        change = f"{mutant.kind}: {_short(mutant.before)} -> {_short(mutant.after)}"
        yield f"{one.number:>4} {one.outcome}: {mutant.file}:{mutant.line}: {change}"


def _room(mutant: drawing.Mutant) -> str:
    parts = mutant.file.split("/")
    return parts[1] if len(parts) > 2 else "."


def _short(text: str) -> str:
    return f"{text[:57]}..." if len(text := " ".join(text.split())) > 60 else text


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.mutants", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    steps = parser.add_subparsers(dest="step", required=True)
    draw = steps.add_parser("draw", help="draw mutants; results of an earlier draw are removed")
    draw.add_argument("--seed", type=int, default=20261128)
    draw.add_argument("--number", type=int, default=400)
    cover = steps.add_parser("cover", help="record which tests run which lines")
    cover.add_argument("places", nargs="+", help="folders or files of tests")
    cover.add_argument("-m", dest="marks", default=running.QUICK, help="expression of marks (default: %(default)s)")
    run = steps.add_parser("run", help="run the tests of each mutant")
    run.add_argument("--budget-seconds", type=float, default=1200)
    run.add_argument("--resume", action="store_true", help="keep the results so far")
    steps.add_parser("report", help="print the share that lives")
    chosen = parser.parse_args()
    write = sys.stdout.write
    if chosen.step == "draw":
        mutants = drawing.draw(running.CHECKOUT, chosen.seed, chosen.number)
        running.BUILD.mkdir(parents=True, exist_ok=True)
        running.DRAWN.write_text("".join(f"{json.dumps(asdict(mutant))}\n" for mutant in mutants))
        running.RESULTS.unlink(missing_ok=True)
        write(f"{len(mutants)} mutants are in {running.DRAWN}\n")
    elif chosen.step == "cover":
        running.cover(chosen.places, chosen.marks)
    elif chosen.step == "run":
        if not chosen.resume:
            running.RESULTS.unlink(missing_ok=True)
        mutants = running.drawn()
        for result in running.run(mutants, chosen.budget_seconds):
            place = f"{mutants[result.number].file}:{mutants[result.number].line}"
            write(f"{result.number:>4} {result.outcome:<10} {result.seconds:>6.1f} s  {place}  {result.killer}\n")
            sys.stdout.flush()
    else:
        write("\n".join(report()) + "\n")


if __name__ == "__main__":
    main()
