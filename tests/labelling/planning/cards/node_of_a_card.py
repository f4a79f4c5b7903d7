"""A run in packs on a Ray whose node gets another card after the plan: `python -m ... CORPUS SINK CARD`.

CARD is the file whose text the node's nvidia-smi prints. Prints the facts of the plan, then the error of the run.
"""

import sys
from pathlib import Path

import ray

import raysp
from raysp.labelling.planning.run_plan import Plan
from tests.corpora import CHECKPOINT


def main(corpus: str, sink: str, card: Path) -> None:
    label = raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()], device="cuda")
    pipeline = raysp.Pipeline(raysp.Shards(corpus), steps=[raysp.Decode(), label], sink=raysp.Parquet(sink))

    def exchange(plan: Plan) -> None:
        sys.stdout.write("\n".join([*plan.facts.values(), *plan.messages, ""]))
        card.write_text("NVIDIA L4, 580.95\n")

    ray.init(address="local", num_cpus=3, num_gpus=1, include_dashboard=False, log_to_driver=False)
    try:
        raysp.run(pipeline, on_plan=exchange, progress=False)
    except raysp.RunError as error:
        sys.stdout.write(f"RunError: {error}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
