"""The process that probes binary files of KenLM, with the package that tests have."""

import sys
from importlib.util import find_spec
from pathlib import Path

from raysp.text.beams import kenlm
from tests.text.beams.kenlm_package import stand_in

if __name__ == "__main__":
    if find_spec("kenlm") is None:
        sys.modules["kenlm"] = stand_in()
    sys.exit(kenlm.main(Path(sys.argv[1])))
