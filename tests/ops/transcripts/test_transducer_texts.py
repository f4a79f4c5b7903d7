"""Transcripts of transducers and of vocabularies of pieces: without a frame, decoded ids, and what is refused."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import raysp
from raysp import CheckpointError
from raysp.models import AutoProcessor, check_checkpoint, load_checkpoint
from tests.corpora import label_arrays
from tests.models.oracles import transformers
from tests.models.tokenizers.word_pieces import save_parakeet, save_transducer
from tests.ops.test_precision import noise

OUTPUT = raysp.Transcript(words=True, chars=True)


@pytest.fixture(scope="module", params=["RNNT", "TDT"])
def checkpoint(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    save_transducer(folder, request.param)
    return folder


def test_a_recording_without_a_frame_has_an_empty_text_and_frames_that_are_not_finite_are_an_error(tmp_path):
    save_transducer(tmp_path, "RNNT")
    weights = load_file(tmp_path / "model.safetensors")
    weights["encoder_projector.bias"][0] = torch.nan
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    short, broken = label_arrays(tmp_path, OUTPUT, [np.zeros(100, np.float32), *noise([1.0], seed=3)])
    assert (short["status"], short["pred_text"], short["pred_score"], short["pred_words"]) == ("skipped", "", None, [])
    assert (broken["status"], broken["error_type"]) == ("error", "model_output")


@torch.no_grad()
def test_processors_decode_what_theirs_decode(checkpoint):
    """Repeated tokens stay, unlike those of CTC."""
    theirs, ours = transformers.AutoProcessor.from_pretrained(checkpoint), AutoProcessor.from_pretrained(checkpoint)
    inputs = ours(noise([2.0], seed=3)[0], sampling_rate=16000, return_tensors="pt")
    sequences = load_checkpoint(checkpoint).model.generate(**inputs).sequences
    expected = theirs.batch_decode(sequences, skip_special_tokens=True)
    assert ours.batch_decode(sequences, skip_special_tokens=True) == expected
    assert expected[0]


@pytest.mark.parametrize(
    ("kind", "output", "message"),
    [
        ("TDT", raysp.Transcript(beams=4), "is a transducer, which is searched greedily: leave beams out"),
        ("TDT", raysp.Transcript(language="de"), "writes the language that it hears: leave language out"),
        ("TDT", raysp.Transcript(task="translate"), "task is for checkpoints with a text decoder"),
        ("TDT", raysp.Transcript(generate={"num_beams": 2}), "is for checkpoints with a text decoder"),
        ("CTC", raysp.Transcript(beams=4, hot_words={"cat": 2.0}), "hot_words need a vocabulary of characters"),
        ("CTC", raysp.Align(of="pred"), "Align spells texts by letters"),
        ("damaged", OUTPUT, "the token '<blank>' is id 20, config.json has blank_token_id 3"),
    ],
)
def test_what_a_checkpoint_does_not_do_is_refused_before_any_work(tmp_path, kind, output, message):
    if kind == "CTC":
        save_parakeet(tmp_path)
        raysp.Transcript(beams=4, nbest=2).check(check_checkpoint(tmp_path))
    else:
        save_transducer(tmp_path, "TDT")
    if kind == "damaged":
        path = tmp_path / "config.json"
        path.write_text(path.read_text().replace('"blank_token_id": 20', '"blank_token_id": 3'))
    with pytest.raises(CheckpointError, match=message):
        output.check(check_checkpoint(tmp_path))
