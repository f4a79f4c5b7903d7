from pathlib import Path

import pytest

from tests.models.oracles import VARIANTS, make_oracle, save_checkpoint


@pytest.fixture(params=VARIANTS, scope="session")
def variant(request):
    return VARIANTS[request.param]


@pytest.fixture(scope="session")
def pair(variant, tmp_path_factory):
    """Their model and ours, loaded from what theirs saved."""
    from raysp.models import UniSpeechForCTC

    oracle = make_oracle(**variant)
    folder = tmp_path_factory.mktemp("checkpoint")
    oracle.save_pretrained(folder)
    return oracle, UniSpeechForCTC.from_pretrained(folder)


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """A whole small CTC checkpoint as transformers saves it."""
    return save_checkpoint(tmp_path / "checkpoint")
