"""Outputs of checkpoints that write phonemes: transcripts with times and beams, given phonemes, trainings."""

import json
from dataclasses import replace

import pyarrow as pa
import pytest
import torch

import raysp
from raysp import CheckpointError
from raysp.models import load_checkpoint
from tests import kit
from tests.corpora import rows_table, wav, write_shard
from tests.models.tokenizers.phonemes import PHONEMES, save_phonemes
from tests.ops.phases import columns_of, ctc_forward


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return save_phonemes(tmp_path_factory.mktemp("plain") / "phonemes")


@pytest.fixture(scope="module")
def of_words(tmp_path_factory):
    return save_phonemes(tmp_path_factory.mktemp("words") / "phonemes", words=True)


def frames_of(folder, text: str, other: float):
    """Return likely frames of phonemes, two of each and a blank behind them."""
    tokens = [*PHONEMES, "|"]
    ids = [index for one in text.split() for index in [tokens.index(one)] * 2 + [0]]
    size = len(json.loads((folder / "vocab.json").read_text()))
    logits = torch.full((1, len(ids), size), other)
    logits[0, torch.arange(len(ids)), torch.tensor(ids)] = 4.0
    return ctc_forward(logits, [len(ids)])


def labelled(output, folder, text: str, columns=None, other: float = -9.0) -> dict:
    loaded = load_checkpoint(folder)
    op = output.op(loaded.summary, loaded)
    forward = frames_of(folder, text, other)
    forward = replace(forward, rows=replace(forward.rows, source=columns or {}))
    return dict(zip(op.schema.names, (column[0] for column in columns_of(op, forward)), strict=False))


def test_words_are_between_delimiters_or_else_each_phoneme(plain, of_words):
    output = raysp.Transcript(words=True, chars=True)
    found = labelled(output, of_words, "l ɛ | tʃ ə s")
    assert found["pred_text"] == "l ɛ tʃ ə s"
    assert [one["word"] for one in found["pred_words"]] == ["l ɛ", "tʃ ə s"]
    assert [one["char"] for one in found["pred_chars"]] == ["l", "ɛ", "tʃ", "ə", "s"]
    assert found["pred_words"][1]["start"] == found["pred_chars"][2]["start"]
    found = labelled(raysp.Transcript(beams=8, nbest=4, words=True), plain, "l ɛ tʃ")
    assert len({one["text"] for one in found["pred_nbest"]}) == 4
    assert [one["word"] for one in found["pred_words"]] == ["l", "ɛ", "tʃ"]


def test_given_phonemes_are_aligned_to_where_they_are_heard(of_words):
    text = "l ɛ | tʃ ə s"
    heard = labelled(raysp.Transcript(words=True, chars=True), of_words, text)
    output = raysp.Align("said", chars=True)
    output.check(load_checkpoint(of_words).summary)
    found = labelled(output, of_words, text, {"said": [text]})
    assert found["aligned_score"] == pytest.approx(0, abs=1e-5)
    assert found["aligned_skipped"] == 0
    assert [(one["char"], one["start"], one["end"]) for one in found["aligned_chars"]] == [
        (one["char"], one["start"], one["end"]) for one in heard["pred_chars"]
    ]
    assert [one["word"] for one in found["aligned_words"]] == ["l ɛ", "tʃ ə s"]


def test_unknown_phonemes_are_counted_and_text_in_letters_is_an_error_that_says_what_is_expected(plain):
    output = raysp.Align("said")
    found = labelled(output, plain, "l ɛ tʃ", {"said": ["l xx ɛ ʔ tʃ"]})
    assert found["aligned_skipped"] == 2
    assert [one["start"] is None for one in found["aligned_words"]] == [False, True, False, True, False]
    with pytest.raises(ValueError, match="'hello there' has none of the checkpoint's phonemes; expected phonemes sep"):
        labelled(output, plain, "l ɛ tʃ", {"said": ["hello there"]})


def test_trainings_take_phonemes_where_the_checkpoint_expects_them_and_say_so_elsewhere(tmp_path, plain):
    table = rows_table(3, audio=wav(32_000))
    write_shard(tmp_path / "in" / "a.parquet", table=table.set_column(2, "text", pa.array(["n tʃ ɔː", "n xx", "l ɛ"])))

    def train(folder) -> None:
        recipe = raysp.Finetune(
            raysp.Shards(f"{tmp_path}/in", text="text"),
            steps=[raysp.Decode()],
            objective=raysp.CTC(str(folder)),
            schedule=raysp.Schedule(steps=1, learning_rate=1e-4),
            batching=raysp.Batching(seconds=6, micro_batches=1),
            sink=raysp.Checkpoint(str(tmp_path / "out")),
            pool=raysp.Pool(1, cpus=1),
        )
        raysp.finetune(recipe, engine="here", on_plan=stop)

    def stop(prepared) -> None:
        assert prepared.corpus.left_out == {"outside_vocabulary": 1}
        assert [count for count in prepared.corpus.num_labels.tolist() if count] == [3, 2]
        raise KeyboardInterrupt

    assert "18 tokens, phonemes of en-us: <pad> <s>" in " ".join(kit.run(["inspect", plain]).out.split())
    with pytest.raises(CheckpointError, match=r"do_phonemize is true in tokenizer_config.json, and raysp does not"):
        train(plain)
    with pytest.raises(KeyboardInterrupt):
        train(save_phonemes(tmp_path / "own", do_phonemize=False))
