"""Training of a few weights in place of all: LoRA, and adapters of languages."""

from dataclasses import KW_ONLY
from typing import Annotated

from pydantic import Field

from raysp.specs.values import Listed, spec

Language = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
"""Name of a language as in names of files, such as "tur" or "uzb-script_cyrillic"."""


@spec
class LoRA:
    """LoRA (Hu et al. 2021): linear layers keep their weights, and a product of two narrow matrices is added to each.

    Attributes:
        rank: rank of the products.
        alpha: scale of the products: each is multiplied by `alpha / rank`.
        dropout: probability with which inputs of the products are dropped in training.
        targets: names of the layers, or the last parts of names; None: the projections of all attention to queries,
            keys, values and outputs.
    """

    rank: Annotated[int, Field(ge=1)] = 8
    _: KW_ONLY
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Listed[str] | None = None

    def __post_init__(self) -> None:
        """Check that there are names, and that they are not empty."""
        if self.targets is not None and not (self.targets and all(self.targets)):
            raise ValueError(
                f"found targets {[*self.targets]}; expected names of layers, or None for those of attention"
            )


def check_parts(
    freeze: str | None, lora: LoRA | None, adapter: str | None = None, *, random_weights: bool = False, steps: int = 0
) -> None:
    """Raise ValueError for parts of a model that cannot be trained together.

    Args:
        freeze: part that is not trained.
        lora: LoRA of the model.
        adapter: language of adapter layers.
        random_weights: whether the training begins with random weights.
        steps: number of first steps in which all but the head is not trained.
    """
    parts = {"freeze": freeze, "lora": lora, "adapter": adapter}
    if random_weights and (kept := [name for name, value in parts.items() if value is not None]):
        raise ValueError(f"found random_weights and {kept[0]}, which would keep some of them; leave one out")
    methods = [name for name, value in (("lora", lora), ("adapter", adapter)) if value is not None]
    if len(methods) > 1:
        raise ValueError("found lora and adapter, which both choose the weights that are trained; leave one out")
    if freeze in ("base", "encoder") and steps:
        raise ValueError(
            f"found freeze={freeze!r}, which holds to the end, and freeze_steps={steps}; leave freeze out to train all "
            "after these steps, or freeze_steps"
        )
    if freeze == "base" and methods:
        raise ValueError(f"found freeze='base' and {methods[0]}, which trains parts of the base model; leave one out")
