"""Archives of NeMo: converted ones have the weights, texts and features that they had; hostile ones are refused."""

import pytest
import sentencepiece
import torch
import transformers
import yaml

from raysp import CheckpointError, models
from raysp.models import AutoProcessor, ParakeetForCTC, convert_nemo
from tests.checkpoints.pickles.hostile import shell
from tests.kit import run
from tests.models.encoder import nemo_archives as nemo
from tests.models.encoder.nemo_archives import CONFIG, TOKENIZER, WEIGHTS, members_of, saved, write_archive


def made(head: str, **options):
    """Return a random model, its tokenizer, and that as sentencepiece reads it."""
    proto = nemo.sentencepiece_model(**options)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=proto)
    pad = pieces.piece_to_id("<pad>") if "user_defined_symbols" in options else pieces.vocab_size()
    return nemo.random_model(head, pieces.vocab_size(), pad), proto, pieces


@pytest.fixture(scope="module")
def ctc():
    return made("CTC")


PADDED = {"user_defined_symbols": ["<pad>"]}
KINDS = [("CTC", {"kind": "unigram"}, "w:gz"), ("RNNT", {}, "w"), ("TDT", PADDED, "w")]


@pytest.mark.parametrize(("kind", "options", "mode"), KINDS)
def test_an_archive_becomes_a_checkpoint_of_the_same_weights_and_tokens(kind, options, mode, tmp_path):
    model, proto, pieces = made(kind, **options)
    archive, name = write_archive(tmp_path / "model.nemo", members_of(model, proto), mode), f"ParakeetFor{kind}"
    summary = convert_nemo(archive, tmp_path / "out")
    assert (summary.architecture, summary.vocab_size) == (name, pieces.vocab_size() + 1)
    found = getattr(models, name).from_pretrained(tmp_path / "out", strict=True)
    theirs = getattr(transformers, name).from_pretrained(tmp_path / "out")
    assert found.encoder_config.to_dict() == {**model.encoder_config.to_dict(), "initializer_range": 0.02}
    for weight, value in model.state_dict().items():
        assert torch.equal(found.state_dict()[weight], value), weight
        assert torch.equal(theirs.state_dict()[weight], value), weight
    for field in ("max_symbols_per_step", "durations", "decoder_hidden_size", "num_decoder_layers", "pad_token_id"):
        assert getattr(found.config, field, None) == getattr(model.config, field, None), field
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor.feature_extractor.feature_size == 16
    for text in {*nemo.TEXTS, "the hat", "mats"}:
        ids = processor.tokenizer(text)["input_ids"]
        assert ids == pieces.encode(text)
        assert processor.decode(ids, **({"group_tokens": False} if kind == "CTC" else {})).strip() == text
    if kind != "CTC":
        assert processor.tokenizer.get_vocab()["<blank>"] == found.blank == pieces.vocab_size()
        assert theirs.generation_config.decoder_start_token_id == found.blank


def test_the_command_converts_a_hybrid_model_by_its_ctc_head(ctc, tmp_path):
    model, proto, _ = ctc
    config = yaml.safe_dump({**nemo.config_of(model), "aux_ctc": {"decoder": {}}, "joint": {}}).encode()
    others = {"joint.enc.weight": torch.ones(2), "decoder.prediction.x": torch.ones(2)}
    members = {CONFIG: config, TOKENIZER: proto, WEIGHTS: saved({**nemo.weights_of(model, "ctc_decoder."), **others})}
    archive = write_archive(tmp_path / "model.nemo", members)
    ran = run(["convert", archive, tmp_path / "out"])
    assert (ran.code, ran.err) == (0, "")
    assert "ParakeetForCTC" in ran.out
    found = ParakeetForCTC.from_pretrained(tmp_path / "out")
    assert torch.equal(found.ctc_head.weight, model.ctc_head.weight)
    with pytest.raises(CheckpointError, match="out: is not empty, expected a new folder"):
        convert_nemo(archive, tmp_path / "out")


RUNS = r"ckpt: not plain weights: its pickle names posix\.system"
LAUGHS = b"a: &a [x, x]\nencoder: {b: *a}\npreprocessor: {}\ndecoder: {}\n"
REFUSED = {
    "a path above": ({"../evil": b"x"}, r"holds '\.\./evil', expected plain files"),
    "a link": ({CONFIG: "/etc/passwd"}, r"holds '(\./)?model_config\.yaml', expected plain files"),
    "two of a name": ({"other/model_config.yaml": b"x"}, r"two files named 'model_config\.yaml'"),
    "no weights": ({WEIGHTS: None}, r"model_weights\.ckpt not found among 0123_tokenizer\.model, model_config\.yaml"),
    "no tokenizer": ({TOKENIZER: None}, r"'nemo:0123_tokenizer\.model' not found among"),
    "an object in YAML": ({CONFIG: b"a: !!python/object/apply:os.system [ls]"}, "is not plain YAML"),
    "aliases": ({CONFIG: LAUGHS}, "has aliases, expected plain values"),
    "a damaged tokenizer": ({TOKENIZER: b"\xff" * 9}, "not a sentencepiece model"),
    "another vocabulary": ({TOKENIZER: b"\n\x03\n\x01a"}, "has 1 pieces, the head"),
}
"""Members in place of those of an archive; None: without."""


LAYOUTS = [
    ("CTC", {"encoder__conv_norm_type": "layer_norm"}, "encoder.conv_norm_type is 'layer_norm'"),
    ("CTC", {"encoder__n_layers": 9}, "n_layers is 9, but the weights have 2"),
    ("TDT", {"decoding__durations": [0, 1]}, r"durations is \[0, 1\], and the joint network has 4 outputs beside"),
]
"""Changes of an archive's configuration, by part__field."""


def test_a_hostile_or_foreign_archive_is_refused_in_one_line(ctc, tmp_path):
    model, proto, _ = ctc
    tdt = made("TDT")[:2]
    cases = [({**members_of(model, proto), **changes}, message) for changes, message in REFUSED.values()]
    cases += [(members_of(*(ctc[:2] if kind == "CTC" else tdt), **changes), text) for kind, changes, text in LAYOUTS]
    cases += [({**members_of(model, proto), WEIGHTS: saved({"weight": shell(tmp_path / "exploded")})}, RUNS)]
    for members, message in cases:
        there = {name: content for name, content in members.items() if content is not None}
        archive = write_archive(tmp_path / "model.nemo", there)
        with pytest.raises(CheckpointError, match=message) as caught:
            convert_nemo(archive, tmp_path / "out")
        assert str(caught.value).startswith(str(archive))
        assert "\n" not in str(caught.value)
        assert [path.name for path in tmp_path.iterdir()] == ["model.nemo"]
