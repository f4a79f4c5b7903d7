"""Archives of NeMo: converted ones have the weights, texts and features that they had; hostile ones are refused."""

import tarfile

import pytest
import sentencepiece
import torch
import transformers
import yaml

from raysp import CheckpointError
from raysp.models import AutoProcessor, ParakeetForCTC, convert_nemo
from tests.checkpoints.pickles.hostile import shell
from tests.kit import run
from tests.models.encoder.nemo_archives import (
    TEXTS,
    config_of,
    members_of,
    random_model,
    saved,
    sentencepiece_model,
    weights_of,
    write_archive,
)


@pytest.fixture(scope="module")
def tokenizer_model():
    return sentencepiece_model()


@pytest.fixture(scope="module")
def model(tokenizer_model):
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer_model)
    return random_model(processor.vocab_size())


@pytest.mark.parametrize(("kind", "mode"), [("bpe", "w:gz"), ("unigram", "w")])
def test_an_archive_becomes_a_checkpoint_of_the_same_weights_and_tokens(kind, mode, tmp_path):
    proto = sentencepiece_model(kind)
    pieces = sentencepiece.SentencePieceProcessor(model_proto=proto)
    model = random_model(pieces.vocab_size())
    archive = write_archive(tmp_path / "model.nemo", members_of(model, proto), mode)
    summary = convert_nemo(archive, tmp_path / "out")
    assert (summary.architecture, summary.vocab_size) == ("ParakeetForCTC", pieces.vocab_size() + 1)
    found = ParakeetForCTC.from_pretrained(tmp_path / "out", strict=True)
    assert found.encoder_config.to_dict() == {**model.encoder_config.to_dict(), "initializer_range": 0.02}
    theirs = transformers.ParakeetForCTC.from_pretrained(tmp_path / "out")
    for name, value in model.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
        assert torch.equal(theirs.state_dict()[name], value), name
    processor = AutoProcessor.from_pretrained(tmp_path / "out")
    assert processor.feature_extractor.feature_size == 16
    for text in {*TEXTS, "the hat", "mats"}:
        ids = processor.tokenizer(text)["input_ids"]
        assert ids == pieces.encode(text)
        assert processor.decode(ids, group_tokens=False).strip() == text


def test_a_hybrid_model_gives_its_ctc_head(model, tokenizer_model, tmp_path):
    config = yaml.safe_dump({**config_of(model), "aux_ctc": {"decoder": {}}, "joint": {}}).encode()
    weights = {
        **weights_of(model, "ctc_decoder."),
        "joint.enc.weight": torch.ones(2),
        "decoder.prediction.x": torch.ones(2),
    }
    members = members_of(
        model, tokenizer_model, **{"./model_config.yaml": config, "./model_weights.ckpt": saved(weights)}
    )
    convert_nemo(write_archive(tmp_path / "model.nemo", members), tmp_path / "out")
    found = ParakeetForCTC.from_pretrained(tmp_path / "out")
    assert torch.equal(found.ctc_head.weight, model.ctc_head.weight)


def test_the_command_converts_and_describes(model, tokenizer_model, tmp_path):
    archive = write_archive(tmp_path / "model.nemo", members_of(model, tokenizer_model))
    ran = run(["convert", archive, tmp_path / "out"])
    assert (ran.code, ran.err) == (0, "")
    assert "ParakeetForCTC" in ran.out
    with pytest.raises(CheckpointError, match="out: is not empty, expected a new folder"):
        convert_nemo(archive, tmp_path / "out")


def changed(**values):
    def make(model, members, folder):
        config = config_of(model)
        for name, value in values.items():
            part, _, field = name.partition("__")
            config[part][field] = value
        return {**members, "./model_config.yaml": yaml.safe_dump(config).encode()}

    return make


def with_member(name, content):
    return lambda model, members, folder: {**members, name: content(model, folder) if callable(content) else content}


def without(name):
    return lambda model, members, folder: {other: content for other, content in members.items() if other != name}


def zip_with_bomb(model, folder):
    return saved({"weight": torch.ones(2), "bomb": shell(folder / "exploded")})


def one_weight_less(model, folder):
    return saved({name: value for name, value in weights_of(model).items() if "layers.1.norm_out.bias" not in name})


LAUGHS = b"a: &a [x, x]\nencoder: {b: *a}\npreprocessor: {}\ndecoder: {}\n"
WEIGHTS, CONFIG = "./model_weights.ckpt", "./model_config.yaml"
REFUSED = {
    "a path above": (with_member("../evil", b"x"), r"holds '\.\./evil', expected plain files"),
    "two of a name": (with_member("other/model_config.yaml", b"x"), r"two files named 'model_config\.yaml'"),
    "a pickle that runs": (
        with_member(WEIGHTS, zip_with_bomb),
        r"model_weights\.ckpt: not plain weights: its pickle names posix\.system",
    ),
    "a weight less": (with_member(WEIGHTS, one_weight_less), r"encoder\.layers\.1\.norm_out\.bias"),
    "no weights": (without(WEIGHTS), r"model_weights\.ckpt not found among 0123_tokenizer\.model, model_config\.yaml"),
    "no tokenizer": (without("./0123_tokenizer.model"), r"'nemo:0123_tokenizer\.model' not found among"),
    "an object in YAML": (with_member(CONFIG, b"a: !!python/object/apply:os.system [ls]"), "is not plain YAML"),
    "aliases": (with_member(CONFIG, LAUGHS), "has aliases, expected plain values"),
    "a damaged tokenizer": (with_member("./0123_tokenizer.model", b"\xff" * 9), "not a sentencepiece model"),
    "another vocabulary": (with_member("./0123_tokenizer.model", b"\n\x03\n\x01a"), "has 1 pieces, the head"),
    "layer norms": (changed(encoder__conv_norm_type="layer_norm"), "encoder.conv_norm_type is 'layer_norm'"),
    "more layers": (changed(encoder__n_layers=9), "n_layers is 9, the weights have 2"),
}


@pytest.mark.parametrize(("change", "message"), REFUSED.values(), ids=REFUSED)
def test_a_hostile_or_foreign_archive_is_refused_in_one_line(change, message, model, tokenizer_model, tmp_path):
    archive = write_archive(tmp_path / "model.nemo", change(model, members_of(model, tokenizer_model), tmp_path))
    with pytest.raises(CheckpointError, match=message) as caught:
        convert_nemo(archive, tmp_path / "out")
    assert str(caught.value).startswith(str(archive))
    assert "\n" not in str(caught.value).split(": use")[0] or "norm_out" in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "exploded").exists()


def test_links_and_other_files_are_refused(tmp_path):
    with tarfile.open(tmp_path / "link.nemo", "w") as tar:
        link = tarfile.TarInfo("model_config.yaml")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    with pytest.raises(CheckpointError, match=r"holds 'model_config\.yaml', expected plain files"):
        convert_nemo(tmp_path / "link.nemo", tmp_path / "out")
    (tmp_path / "text.nemo").write_text("no archive")
    for name in ("text.nemo", "missing.nemo"):
        with pytest.raises(CheckpointError, match=f"{name}: not a whole .nemo archive"):
            convert_nemo(tmp_path / name, tmp_path / "out")
