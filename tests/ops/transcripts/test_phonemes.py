"""Outputs of checkpoints that write phonemes: transcripts with times and beams, given phonemes, trainings."""

import pytest

import raysp
from raysp import CheckpointError
from tests import kit
from tests.corpora import label_arrays, rows_table, wav, write_shard
from tests.models.tokenizers.phonemes import save_phonemes
from tests.ops.test_precision import noise

WAVES = noise([1.0, 2.0], seed=2)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return save_phonemes(tmp_path_factory.mktemp("plain") / "phonemes")


def test_words_are_between_delimiters_or_else_each_phoneme(plain, tmp_path):
    output = raysp.Transcript(words=True, chars=True)
    of_words = save_phonemes(tmp_path / "phonemes", words=True)
    for folder in (plain, of_words):
        rows = label_arrays(folder, (output, raysp.Transcript("searched", beams=8, nbest=4, words=True)), WAVES)
        for row in rows:
            assert row["pred_text"].split() == [one["char"] for one in row["pred_chars"]]
            assert row["pred_text"] == " ".join(one["word"] for one in row["pred_words"])
            starts = {one["start"] for one in row["pred_chars"]}
            assert {one["start"] for one in row["pred_words"]} <= starts
            assert len({one["text"] for one in row["searched_nbest"]}) == 4
            lengths = {len(one["word"].split()) for one in row["pred_words"]}
            assert (lengths == {1}) == (folder == plain)


def test_given_phonemes_are_aligned_unknown_ones_are_counted_and_letters_are_an_error(plain):
    texts = {"said": ["l xx ɛ ʔ tʃ", "hello there"]}
    found, refused = label_arrays(plain, raysp.Align("said", chars=True), WAVES, texts)
    assert found["aligned_skipped"] == 2
    assert [one["start"] is None for one in found["aligned_words"]] == [False, True, False, True, False]
    known = [one["start"] for one in found["aligned_chars"] if one["start"] is not None]
    assert known == sorted({*known})
    assert len(known) == 3
    assert refused["error_type"] == "step_failed"
    expected = "'hello there' has none of the checkpoint's phonemes; expected phonemes sep"
    assert expected in refused["error_message"]


def test_a_training_whose_checkpoint_makes_phonemes_of_texts_is_refused(tmp_path, plain):
    write_shard(tmp_path / "in" / "a.parquet", table=rows_table(3, audio=wav(32_000)))
    recipe = raysp.Finetune(
        raysp.Shards(f"{tmp_path}/in", text="text"),
        steps=[raysp.Decode()],
        objective=raysp.CTC(str(plain)),
        schedule=raysp.Schedule(steps=1, learning_rate=1e-4),
        batching=raysp.Batching(seconds=6, micro_batches=1),
        sink=raysp.Checkpoint(str(tmp_path / "out")),
        pool=raysp.Pool(1, cpus=1),
    )
    assert "18 tokens, phonemes of en-us: <pad> <s>" in " ".join(kit.run(["inspect", plain]).out.split())
    with pytest.raises(CheckpointError, match=r"do_phonemize is true in tokenizer_config.json, and raysp does not"):
        raysp.finetune(recipe, engine="here")
