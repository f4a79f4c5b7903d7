"""Families whose windows share padded batches: logits of a row are those of the row alone, within 1e-5."""

import pytest
import torch

from raysp.backends import hf_installed
from raysp.backends.hugging_face.padded_batches import PADDED, VERSIONS, why_alone
from raysp.backends.hugging_face.recogniser import Recogniser
from raysp.backends.hugging_face.recogniser_families import FAMILIES, TextRequest
from raysp.backends.hugging_face.transformers_backend import HuggingFaceModels
from raysp.errors import CheckpointError
from tests.backends.recognisers.builders import BUILDERS
from tests.backends.recognisers.loops import LANGUAGES
from tests.backends.recognisers.tiny_transducers import TRANSDUCER_BUILDERS
from tests.backends.theirs import waves

STEPS, MOST_FRAMES = 3, 64
ENDED_BY_LENGTH = {"voxtral_realtime"}
"""Families whose texts end with the features, and so with those of the longest recording of a batch."""


def logits(model: Recogniser, recordings, name: str) -> torch.Tensor:
    """Return the logits (B, K, V) of the first tokens; of transducers the frames that their networks read."""
    request = TextRequest(language=LANGUAGES.get(name))
    if name in TRANSDUCER_BUILDERS:
        with torch.inference_mode():
            frames, num_frames = model.search.encoded(recordings, request)
        is_padding = torch.arange(frames.shape[1]) >= num_frames[:, None]
        frames = frames.masked_fill(is_padding[..., None], 0.0)
        return torch.nn.functional.pad(frames, (0, 0, 0, MOST_FRAMES - frames.shape[1]))
    inputs = model.search.inputs(recordings, request)
    options = {"max_new_tokens": STEPS, "min_new_tokens": STEPS, "do_sample": False, "output_logits": True}
    with torch.inference_mode():
        return torch.stack(model.search.model.generate(**inputs, **options, return_dict_in_generate=True).logits, 1)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BUILDERS if not FAMILIES[name].is_stream])
def test_the_table_has_the_families_whose_logits_do_not_depend_on_padding(recogniser, name):
    model = HuggingFaceModels().load(recogniser(name), dtype="float32", device="cpu")
    recordings = waves((21_920, 64_000, 9_000))
    together = logits(model, recordings, name)
    alone = torch.cat([logits(model, [wave], name) for wave in recordings])
    scale = max(1.0, float(alone.abs().max()))
    is_exact = bool((together - alone).abs().max() <= 1e-5 * scale)
    assert is_exact == (name in {*PADDED, *ENDED_BY_LENGTH}), (
        f"difference {(together - alone).abs().max():.2g} of {scale:.2g}"
    )


def test_the_table_was_measured_with_the_version_that_is_installed():
    assert hf_installed.version().startswith(tuple(f"{version}." for version in VERSIONS))
    assert why_alone("qwen3_asr") == ""


def test_windows_are_passes_of_their_own_with_a_version_that_was_not_measured(monkeypatch):
    monkeypatch.setattr(hf_installed, "version", lambda: "5.99.1")
    assert why_alone("qwen3_asr") == "padded batches were not measured with transformers 5.99.1, but with 5.24"
    assert why_alone("speecht5") == "padding changes its results, or was not measured"


@pytest.mark.slow
def test_a_model_that_padding_changes_here_is_refused_when_it_is_loaded(recogniser):
    model = HuggingFaceModels().load(recogniser("qwen3_asr"), dtype="float32", device="cpu")
    model.check_padding()
    encode = model.search.model.model.get_audio_features

    def leak(features, *args, **kwargs):
        found = encode(features, *args, **kwargs)
        found.pooler_output = found.pooler_output + features.shape[-1] / 100
        return found

    model.search.model.model.get_audio_features = leak
    with pytest.raises(
        CheckpointError, match=r"differ by .* alone and in a padded batch in torch.float32.*batch_seconds=0.01"
    ):
        model.check_padding()
