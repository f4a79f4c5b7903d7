"""Pages from the templates of this package; every text in them is escaped."""

import functools
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from raysp.pages.page_charts import SIDE
from raysp.storage.store import explained

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **values: object) -> str:
    """Return a page. Lone surrogates, as of paths in another encoding than UTF-8, are replaced.

    Args:
        template: name of a template.
        values: its variables.
    """
    return _environment().get_template(template).render(values).encode(errors="replace").decode()


@functools.cache
def _environment() -> "Environment":
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(lambda name: resources.files(__package__).joinpath(name).read_text("utf-8")),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"side": SIDE, "percent": lambda share: f"{100 * share:.2f}%"}
    return environment


def save(page: str, out: str | Path) -> str:
    """Write a page to a local file, and return its place.

    Raises:
        StoreError: the file cannot be written.
    """
    place = Path(out).expanduser()
    with explained("write", place):
        place.write_text(page, encoding="utf-8")
    return str(place)
