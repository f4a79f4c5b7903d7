"""A step and an output that a user wrote, outside raysp."""

import pyarrow as pa

from raysp.specs import spec
from raysp.specs.steps import Output, Step


@spec
class Louder(Step):
    """Make recordings louder."""

    gain: float = 2.0

    @property
    def columns(self) -> tuple[str, ...]:
        return ("gain",)


@spec
class Pitch(Output):
    """The pitch of a recording."""

    name: str = "pitch"

    @property
    def columns(self) -> tuple[str, ...]:
        return (f"{self.name}_hz",)

    def schema(self) -> pa.Schema:
        return pa.schema([(f"{self.name}_hz", pa.float32())])


NOT_A_SPEC = 3


def odd_rows(table: pa.Table) -> list[bool]:
    return [row % 2 == 1 for row in range(table.num_rows)]


def too_few(table: pa.Table) -> list[bool]:
    return [True]
