"""Archives of NeMo with a transducer: converted ones have the weights and tokens that they had."""

import pytest
import sentencepiece
import torch
import transformers

from raysp import CheckpointError, models
from raysp.models import AutoProcessor, convert_nemo
from tests.models.encoder.nemo_archives import (
    TEXTS,
    random_transducer,
    sentencepiece_model,
    transducer_members,
    write_archive,
)

PADDED = {"user_defined_symbols": ["<pad>"]}
"""Options of a vocabulary with a piece for padding, as multilingual models have it."""


def archive_of(folder, kind, options, **changes):
    proto = sentencepiece_model(**options)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=proto)
    pad = pieces.piece_to_id("<pad>") if options else pieces.vocab_size()
    model = random_transducer(kind, pieces.vocab_size(), pad)
    return write_archive(folder / "model.nemo", transducer_members(model, proto, **changes)), model, pieces


@pytest.mark.parametrize(("kind", "options"), [("RNNT", {}), ("TDT", PADDED)])
def test_an_archive_becomes_a_checkpoint_of_the_same_weights_and_tokens(kind, options, tmp_path):
    archive, model, pieces = archive_of(tmp_path, kind, options)
    summary = convert_nemo(archive, tmp_path / "out")
    assert (summary.architecture, summary.vocab_size) == (f"ParakeetFor{kind}", pieces.vocab_size() + 1)
    found = getattr(models, f"ParakeetFor{kind}").from_pretrained(tmp_path / "out", strict=True)
    theirs = getattr(transformers, f"ParakeetFor{kind}").from_pretrained(tmp_path / "out")
    for name, value in model.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
        assert torch.equal(theirs.state_dict()[name], value), name
    for name in ("max_symbols_per_step", "durations", "decoder_hidden_size", "num_decoder_layers", "pad_token_id"):
        assert getattr(found.config, name, None) == getattr(model.config, name, None), name
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor.tokenizer.get_vocab()["<blank>"] == found.blank == pieces.vocab_size()
    for text in {*TEXTS, "the hat", "mats"}:
        ids = processor.tokenizer(text)["input_ids"]
        assert ids == pieces.encode(text)
        assert processor.decode(ids).strip() == text
    assert theirs.generation_config.decoder_start_token_id == found.blank


REFUSED = {
    "another prediction network": (
        {"decoder___target_": "nemo.collections.asr.modules.StatelessTransducerDecoder"},
        "decoder._target_ is 'nemo.collections.asr.modules.StatelessTransducerDecoder', expected",
    ),
    "two widths": ({"joint__jointnet__joint_hidden": 30}, "pred_hidden is 24 and joint_hidden 30, expected equal"),
    "other durations": (
        {"decoding__durations": [0, 1]},
        r"decoding.durations is \[0, 1\], and the joint network has 4 outputs beside tokens",
    ),
    "more layers": ({"decoder__prednet__pred_rnn_layers": 3}, "decoder.lstm.weight_ih_l2"),
}


@pytest.mark.parametrize(("changes", "message"), REFUSED.values(), ids=REFUSED)
def test_an_archive_of_another_layout_is_refused(changes, message, tmp_path):
    archive, *_ = archive_of(tmp_path, "TDT", {}, **changes)
    with pytest.raises(CheckpointError, match=message) as caught:
        convert_nemo(archive, tmp_path / "out")
    assert str(caught.value).startswith(str(archive))
    assert not (tmp_path / "out").exists()
