import os

for name in ("COLUMNS", "LINES"):  # readline of the process that starts the workers of pytest-xdist sets them there
    os.environ.pop(name, None)
