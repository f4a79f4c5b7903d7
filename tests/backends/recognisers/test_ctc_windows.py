"""Long rows lose no audio: a stand-in for a CTC model writes a letter at the frames of each tone of the features."""

import pytest
import torch

from raysp.backends.hugging_face.models import HuggingFaceModel
from raysp.models.tokenizers.named_tokenizers import read_ctc_tokenizer
from tests.backends.recognisers.test_windows import TONES, check_heard, played, runs, spectrum, tones
from tests.backends.recognisers.tiny_ctc import BUILDERS
from tests.here import run_without_ray
from tests.models.oracles import transformers


class Hearing:
    """Logits by the tone that is loudest at the middle of each frame; the blank between tones.

    Args:
        model: the model whose features and frames it has.
    """

    def __init__(self, model: HuggingFaceModel) -> None:
        self.summary, self.encoded = model.summary, model._keep
        tokenizer = read_ctc_tokenizer(model.summary.path)
        self.letters = tokenizer.convert_tokens_to_ids([chr(ord("a") + place) for place in range(len(TONES))])
        samples = tones(range(len(TONES)))
        inputs = model.prepare([samples])
        [known] = played(inputs)
        self.known = torch.stack(known)
        self.rate = spectrum(inputs).shape[-1] / len(samples)

    def __call__(self, **inputs) -> transformers.modeling_outputs.CausalLMOutput:
        self.encoded(None, None, None)
        rows = spectrum(inputs)
        masks = next(value for name, value in inputs.items() if name.endswith("mask"))
        lengths = [round(share * rows.shape[-1]) for share in masks.float().mean(1).tolist()]
        frames = torch.arange(self.summary.num_frames(round(rows.shape[-1] / self.rate)))
        middles = (frames * self.summary.frame_stride + self.summary.receptive_samples / 2) * self.rate
        ids = [
            self._heard(row[:, :length])[middles.round().long().clamp(max=length - 1)]
            for row, length in zip(rows, lengths, strict=True)
        ]
        logits = torch.nn.functional.one_hot(torch.stack(ids), self.summary.vocab_size).float() * 10
        return transformers.modeling_outputs.CausalLMOutput(logits=logits)

    def _heard(self, energies: torch.Tensor) -> torch.Tensor:
        """Return the id of the tone of each frame of features, or the blank."""
        ids, mean = torch.zeros(energies.shape[1]).long(), energies.mean(1)
        for first, end in runs(energies):
            loud = energies[:, first:end].mean(1) - mean
            ids[first:end] = self.letters[int(torch.cosine_similarity(self.known, loud[None]).argmax())]
        return ids


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize("window_seconds", [30, 13])
def test_every_second_of_a_row_of_any_length_is_heard(recogniser, tmp_path, monkeypatch, name, window_seconds):
    run_without_ray(monkeypatch)
    load = HuggingFaceModel.__init__

    def loaded(self, *args, **options):
        load(self, *args, **options)
        self.model = Hearing(self)

    monkeypatch.setattr(HuggingFaceModel, "__init__", loaded)
    monkeypatch.setattr(HuggingFaceModel, "check_padding", lambda self: None)
    check_heard(tmp_path, recogniser(name), window_seconds)
