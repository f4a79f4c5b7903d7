"""Models that come in Python packages: their files are read, their code is not imported."""

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from raysp.errors import CheckpointError


@dataclass(frozen=True)
class PackagedModel:
    """The file of a model in a package."""

    package: str
    module: str
    file: str
    """Path of the file in the folder of the module."""
    use: str
    """Use of the package, for messages."""
    extra: str
    """Extra of raysp with the package."""
    rate: int | None = None
    """Samples per second of the input; None: it reads no samples."""
    runtime: str | None = None
    """Further package that runs the model."""

    @property
    def key(self) -> str:
        """Key of its digest in settings and fingerprints."""
        return f"raysp[{self.extra}]"

    def path(self) -> Path:
        """Return the file.

        Raises:
            CheckpointError: a package is not installed, or does not have the file.
        """
        if self.runtime is not None and find_spec(self.runtime) is None:
            raise CheckpointError(self._lacks(self.runtime, "is not installed"))
        spec = find_spec(self.module)
        for folder in (spec.submodule_search_locations if spec else None) or ():
            if (file := Path(folder) / self.file).is_file():
                return file
        raise CheckpointError(self._lacks(self.package, f"does not have {self.file}" if spec else "is not installed"))

    def digest(self) -> str:
        """Return the hash of the file, 16 hexadecimal digits; raises as `path`."""
        return hashlib.sha256(self.path().read_bytes()).hexdigest()[:16]

    def _lacks(self, package: str, lacks: str) -> str:
        return f"{package}, the package that {self.use}, {lacks}: pip install 'raysp[{self.extra}]'"


SPEECH_RATE = 16_000
"""Samples per second of the input of the speech detector."""
SPEECH = PackagedModel(
    "silero-vad", "silero_vad", "data/silero_vad_16k.safetensors", "finds speech", "speech", SPEECH_RATE
)
MOS_RATE = 16_000
"""Samples per second of the input of DNSMOS."""
MOS = PackagedModel(
    "speechmos", "speechmos", "dnsmos_models/sig_bak_ovr.onnx", "rates recordings", "mos", MOS_RATE, "onnxruntime"
)
LANGID = PackagedModel("py3langid", "py3langid", "data/model.npz.xz", "recognises languages of texts", "langid")
PACKAGED = {model.key: model for model in (SPEECH, MOS, LANGID)}
