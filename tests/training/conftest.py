"""Small models, and places of checkpoints and corpora."""

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from raysp.models import Wav2Vec2Config, Wav2Vec2ForCTC
from tests.recipes import SMALL


def small_model():
    torch.manual_seed(0)
    return Wav2Vec2ForCTC(Wav2Vec2Config(**SMALL)).train()


@dataclass(frozen=True)
class Places:
    """Checkpoints and a corpus that tests share, and the folder of a test."""

    words: str
    tiny: Path
    headless: Path
    listener: str
    folder: Path


@pytest.fixture
def at(words, tiny, headless, listener, tmp_path) -> Places:
    return Places(words, tiny, headless, listener, tmp_path)
