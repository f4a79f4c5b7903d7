"""Training of a few weights in place of all: LoRA, and adapters of languages."""

from dataclasses import KW_ONLY
from typing import Annotated

from pydantic import Field

from raysp.specs.values import Count, Listed, Named, Positive, spec

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

    rank: Count = 8
    _: KW_ONLY
    alpha: Positive = 16.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Annotated[Listed[Named], Field(min_length=1)] | None = None
