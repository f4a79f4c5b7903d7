"""Outputs of checkpoints that write phonemes: transcripts with times and beams, given phonemes, trainings."""

import io
import itertools
import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
import transformers

import raysp
from raysp import CheckpointError
from raysp.models import load_checkpoint
from tests import kit
from tests.corpora import AUDIO, a_pipeline, rows_table, wav, write_shard
from tests.models.tokenizers.phonemes import PHONEMES, save_phonemes
from tests.ops.phases import columns_of
from tests.ops.test_transcribing import ctc_forward
from tests.soaked import some
from tests.text.beams.arpa_files import write_arpa


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
    return ctc_forward(logits, torch.tensor([len(ids)]), [None])


def labelled(output, folder, text: str, columns=None, other: float = -9.0) -> dict:
    loaded = load_checkpoint(folder)
    op = output.op(loaded.summary, loaded)
    forward = frames_of(folder, text, other)
    forward = replace(forward, rows=replace(forward.rows, source=columns or {}))
    return dict(zip(op.schema.names, (column[0] for column in columns_of(op, forward)), strict=False))


@pytest.mark.parametrize(
    ("backend", "words"),
    some(
        itertools.product(["torch", "transformers"], [False, True]),
        *(("torch", False), ("torch", True), ("transformers", False)),
    ),
)
def test_texts_of_a_run_equal_those_of_transformers(tmp_path, plain, of_words, backend, words):
    folder = of_words if words else plain
    sounds = [wav(number, seed=number) for number in (16000, 12345, 30000)]
    audio = pa.array([{"bytes": one, "path": None} for one in sounds], AUDIO)
    write_shard(tmp_path / "in" / "a.parquet", table=pa.table({"id": ["a", "b", "c"], "audio": audio}))
    label = raysp.Label(str(folder), outputs=[raysp.Transcript(words=True)], backend=backend)
    raysp.run(
        a_pipeline(f"{tmp_path}/in/*.parquet", tmp_path / "out", steps=[raysp.Decode(), label]),
        engine="here",
        progress=False,
    )
    rows = pq.read_table(tmp_path / "out" / "a.parquet").to_pylist()
    model = transformers.Wav2Vec2ForCTC.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    for row, sound in zip(rows, sounds, strict=True):
        wave = soundfile.read(io.BytesIO(sound), dtype="float32")[0]
        with torch.no_grad():
            logits = model(**extractor(wave, sampling_rate=16000, return_tensors="pt")).logits
        [expected] = tokenizer.batch_decode(logits.argmax(-1))
        assert row["pred_text"] == expected
        assert len(expected.split()) > 3
        assert " ".join(word["word"] for word in row["pred_words"]) == expected


def test_words_are_between_delimiters_or_else_each_phoneme(plain, of_words):
    output = raysp.Transcript(words=True, chars=True)
    found = labelled(output, of_words, "l ɛ | tʃ ə s")
    assert found["pred_text"] == "l ɛ tʃ ə s"
    assert [one["word"] for one in found["pred_words"]] == ["l ɛ", "tʃ ə s"]
    assert [one["char"] for one in found["pred_chars"]] == ["l", "ɛ", "tʃ", "ə", "s"]
    assert found["pred_words"][1]["start"] == found["pred_chars"][2]["start"]
    found = labelled(output, plain, "l ɛ tʃ")
    assert [one["word"] for one in found["pred_words"]] == ["l", "ɛ", "tʃ"]


def test_beams_have_the_text_and_different_ones(plain, of_words):
    for folder in (plain, of_words):
        found = labelled(raysp.Transcript(beams=8, nbest=4, words=True), folder, "l ɛ tʃ")
        assert found["pred_text"] == "l ɛ tʃ" == found["pred_nbest"][0]["text"]
        assert len({one["text"] for one in found["pred_nbest"]}) == 4


def test_a_language_model_and_hot_words_of_phonemes_are_used(tmp_path, plain):
    lm = write_arpa(tmp_path / "phonemes.arpa", [["dʒ", "ɛ", "l"], ["dʒ", "ɛ"]], 2)
    close = raysp.Transcript(beams=8, lm=str(lm), lm_weight=20.0)
    summary = load_checkpoint(plain).summary
    close.check(summary)
    assert labelled(close, plain, "l ɛ tʃ", other=1.0)["pred_text"] != "l ɛ tʃ"
    raysp.Transcript(beams=8, hot_words={"dʒ ɛ": 4.0}).check(summary)
    found = labelled(raysp.Transcript(beams=8, hot_words={"dʒ ɛ": 4.0}), plain, "tʃ ɛ l", other=1.0)
    assert found["pred_text"] == "tʃ dʒ ɛ l"
    with pytest.raises(CheckpointError, match=r"cannot write 'hello'; its phonemes, separated by spaces, are '.*n s t"):
        raysp.Transcript(beams=8, hot_words={"hello": 1.0}).check(summary)


@pytest.mark.parametrize("text", ["l ɛ | tʃ ə s", "l ɛ tʃ ə s"])
def test_given_phonemes_are_aligned_to_where_they_are_heard(of_words, text):
    heard = labelled(raysp.Transcript(words=True, chars=True), of_words, text)
    output = raysp.Align("said", chars=True)
    output.check(load_checkpoint(of_words).summary)
    found = labelled(output, of_words, text, {"said": [text]})
    assert found["aligned_score"] == pytest.approx(0, abs=1e-5)
    assert found["aligned_skipped"] == 0
    assert [(one["char"], one["start"], one["end"]) for one in found["aligned_chars"]] == [
        (one["char"], one["start"], one["end"]) for one in heard["pred_chars"]
    ]
    words = ["l ɛ", "tʃ ə s"] if "|" in text else text.split()
    assert [one["word"] for one in found["aligned_words"]] == words


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

    with pytest.raises(CheckpointError, match=r"do_phonemize is true in tokenizer_config.json, and raysp does not"):
        train(plain)
    with pytest.raises(KeyboardInterrupt):
        train(save_phonemes(tmp_path / "own", do_phonemize=False))


def test_inspect_shows_the_phonemes(plain):
    found = kit.run(["inspect", plain])
    assert found.code == 0
    assert "18 tokens, phonemes of en-us: <pad> <s>" in " ".join(found.out.split())
