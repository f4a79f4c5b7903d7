"""Draw the output of a command as an SVG: `python docs/pictures/terminal.py run.svg raysp run label.py`."""

import io
import os
import re
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

WIDTH = 100


def drawn(command: list[str]) -> str:
    """Return the SVG of a terminal with a command and what it prints."""
    home = str(Path.cwd().parent)
    settings = {**os.environ, "COLUMNS": str(WIDTH)}
    output = subprocess.run(command, env=settings, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout
    console = Console(record=True, width=WIDTH, file=io.StringIO())
    console.print(Text.from_ansi(f"$ {' '.join(command)}\n{output.replace(home, '~')}"), soft_wrap=False)
    return re.sub(r"@font-face \{.*?\}\s*", "", console.export_svg(title=" "), flags=re.DOTALL)


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(drawn(sys.argv[2:]))
