import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.backends.recognisers.tiny_ctc import BUILDERS as CTC_BUILDERS
from tests.backends.recognisers.tiny_omni import BUILDERS


@pytest.fixture(scope="session")
def recogniser(tmp_path_factory) -> Callable[[str], Path]:
    """Return the function that returns the folder of a random checkpoint of a model type."""

    @cache
    def built(name: str) -> Path:
        if "voxtral" in name:
            pytest.importorskip("mistral_common", reason="mistral-common is not installed: it asks for numpy<2.4")
        return {**BUILDERS, **CTC_BUILDERS}[name](tmp_path_factory.mktemp(name))

    return built


@pytest.fixture
def edited(tmp_path, recogniser):
    """Return the function that returns a copy of a checkpoint with other values in a JSON file, or without a file."""

    def copy(name: str, file: str = "generation_config.json", values: object = (), **more: object) -> Path:
        folder = shutil.copytree(recogniser(name), tmp_path / "copies" / name, dirs_exist_ok=True)
        if values is None:
            (folder / file).unlink()
        elif isinstance(values, str):
            (folder / file).write_text(values)
        else:
            settings = json.loads((folder / file).read_text())
            part = settings.get("feature_extractor") if file == "processor_config.json" else None
            values = {**dict(values), **more}
            (part if isinstance(part, dict) and values.keys() & part.keys() else settings).update(values)
            (folder / file).write_text(json.dumps(settings))
        return folder

    return copy
