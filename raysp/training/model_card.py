"""Model card and figures of a trained checkpoint."""

import json
from pathlib import Path

from raysp.checkpoints.locating import hub_id
from raysp.checkpoints.model_cards import front_matter, licence_of
from raysp.sink.run_record import raysp_version
from raysp.specs.values import JsonValue, to_json
from raysp.training.loop.evaluated import comparable
from raysp.training.loop.session import Session
from raysp.training.preparing import Prepared
from raysp.training.sink.committed_steps import Position
from raysp.training.specs.objectives import Pretrain
from raysp.words import count, duration


def figures(prepared: Prepared, session: Session, loss: float | None) -> dict[str, JsonValue]:
    """Return the content of metrics.json."""
    evaluation, best = prepared.plan.recipe.evaluation, session.best
    found: dict[str, JsonValue] = {}
    if evaluation and best:
        found = {
            "best": {"metric": evaluation.best, "value": comparable(evaluation.best, best.value), "step": best.done}
        }
    return {
        **found,
        "steps": session.position.done,
        "weights_of_step": best.done if best else session.position.done,
        "epochs": session.position.epoch,
        "loss": loss,
        "rows": prepared.index.num_rows,
        "audio_seconds": round(float(prepared.index.seconds.sum()), 3),
        "left_out": dict(prepared.corpus.left_out),
        "fingerprint": prepared.fingerprint,
    }


def card(prepared: Prepared, position: Position, loss: float | None) -> str:
    """Return a README.md with the metadata that the Hugging Face hub reads."""
    plan, index = prepared.plan, prepared.index
    recipe = plan.recipe
    begun_with = recipe.objective.checkpoint
    is_random = recipe.objective.random_weights
    base_model = None if is_random else hub_id(begun_with)  # the hub refuses cards whose base model is a folder
    licence = None if is_random else licence_of(plan.checkpoint.path)
    trained = (
        f"{count(position.done, 'step')} over {count(index.num_rows, 'row')}, {duration(float(index.seconds.sum()))}"
    )
    verb = "pre-trained" if isinstance(recipe.objective, Pretrain) else "trained" if is_random else "fine-tuned"
    begun = f"with the configuration of `{begun_with}` and random weights" if is_random else f"`{begun_with}`"
    sources = "its data" if is_random else "the checkpoint it began with and of its data"
    final = f" The mean loss of the last steps is {loss:.4f}." if loss is not None else ""
    return "\n".join(
        [
            "---",
            front_matter(base_model=base_model, licence=licence, tags=prepared.task.tags),
            "---",
            "",
            f"# {recipe.name or Path(recipe.sink.url).name}",
            "",
            f"{plan.checkpoint.architecture} {begun}, {verb} by raysp {raysp_version()}: {trained} of audio "
            f"from {', '.join(f'`{url}`' for url in recipe.source.urls)}.{final}",
            "",
            "Licence: " + (licence or f"that of {sources}, which is not stated here") + ".",
            "",
            f"Fingerprint of the recipe: `{prepared.fingerprint}`. The recipe:",
            "",
            "```json",
            json.dumps(to_json(recipe), indent=1),
            "```",
            "",
        ]
    )
