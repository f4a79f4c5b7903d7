"""Texts of other decoders: flashlight's with KenLM, and fast_ctc_decode."""

import math
import random
import string

import numpy as np
import pytest
import torch

from raysp.text.beams import arpa
from raysp.text.beams.language_model import Lexicon, NgramScores, Weights, WordModel
from raysp.text.beams.search import BeamSearch
from tests.text.beams.arpa_files import write_arpa
from tests.text.beams.frames_of_logits import top_frames
from tests.text.beams.test_language_model import scored

LETTERS = string.ascii_lowercase[:10]
TOKENS = ["_", "|", *LETTERS]


def speech_like(seed: int, texts: list[str], noise: float = 1.3) -> tuple[torch.Tensor, list[int]]:
    """Return logits of frames that mostly hold the tokens of texts, with errors."""
    generator = torch.Generator().manual_seed(seed)
    draw = random.Random(seed)
    rows = []
    for text in texts:
        ids = []
        for letter in text:
            token = TOKENS.index("|" if letter == " " else letter)
            ids += [token] * draw.randint(1, 2) + [0] * draw.randint(1, 3)
        logits = noise * torch.randn(len(ids), len(TOKENS), generator=generator)
        logits[range(len(ids)), ids] += 4.0
        rows.append(logits)
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True), [len(one) for one in rows]


def words_and_sentences(seed: int, number: int) -> tuple[list[str], list[list[str]]]:
    draw = random.Random(seed)
    words = sorted({"".join(draw.choices(LETTERS, k=draw.randint(1, 5))) for _ in range(30)})
    return words, [draw.choices(words, k=draw.randint(2, 6)) for _ in range(number)]


@pytest.mark.parametrize("beams", [5, 20])
def test_texts_are_those_of_fast_ctc_decode(beams):
    import fast_ctc_decode

    _, sentences = words_and_sentences(0, 12)
    logits, num_frames = speech_like(1, [" ".join(one) for one in sentences], noise=2.0)
    search = BeamSearch(beams, least_log_prob=-math.inf)
    found = search(top_frames(logits, blank=0, kept=11), num_frames)
    same = 0
    for row, [ours] in enumerate(found):
        probabilities = logits[row, : num_frames[row]].softmax(-1).numpy().astype(np.float32)
        text, _ = fast_ctc_decode.beam_search(probabilities, "".join(TOKENS), beams, 0.0)
        same += text == "".join(TOKENS[one] for one in ours.ids)
    assert same == len(found)


@pytest.mark.slow
@pytest.mark.parametrize(("order", "lm_weight", "bonus"), [(2, 0.5, 0.0), (3, 1.0, 1.5)])
def test_texts_with_a_model_of_words_are_those_of_flashlight_with_kenlm(tmp_path, order, lm_weight, bonus):
    words, sentences = words_and_sentences(2, 80)
    path = write_arpa(tmp_path / "words.arpa", sentences[10:], order)
    logits, num_frames = speech_like(3, [f"{' '.join(one)} " for one in sentences[:10]])
    logits = logits.log_softmax(-1)
    model = arpa.parse(path)
    model.log_probs[0][model.unknown] = -60.0  # the other decoder writes words of its lexicon only
    scores = NgramScores(model)
    fusion = WordModel(scores, Lexicon(model, None), ["", "", *LETTERS], Weights(lm_weight, bonus))
    delimiters = np.array([token == "|" for token in TOKENS])
    search = BeamSearch(200, [fusion], delimiters=delimiters, least_log_prob=-math.inf)
    found = search(top_frames(logits, blank=0, kept=11), num_frames)
    theirs = flashlight_texts(str(path), words, logits, num_frames, lm_weight, bonus)
    ours = ["".join(TOKENS[token] for token in one.ids).replace("|", " ").split() for [one] in found]
    theirs = [text.split() for text in theirs]

    def score(row: int, text: str) -> float:
        ids = torch.tensor([[TOKENS.index(token) for token in text]])
        lengths = torch.tensor([num_frames[row]]), torch.tensor([ids.shape[1]])
        loss = torch.nn.functional.ctc_loss(logits[row, : num_frames[row], None], ids, *lengths, reduction="sum")
        words = [word for word in text.split("|") if word]
        return lm_weight * sum(scored(scores, model.ids(words).tolist())) + bonus * len(words) - float(loss)

    for row, ([best], mine, other) in enumerate(zip(found, ours, theirs, strict=True)):
        text = "".join(TOKENS[token] for token in best.ids)
        assert best.score == pytest.approx(score(row, text), abs=1e-2)
        assert mine == other or best.score > score(row, "".join(f"{word}|" for word in other))
    assert sum(mine == other for mine, other in zip(ours, theirs, strict=True)) >= 9
    assert set(words).issuperset(word for one in ours for word in one)


def flashlight_texts(path, words, logits, num_frames, lm_weight, bonus):
    from flashlight.lib.text import decoder as fl
    from flashlight.lib.text.decoder.kenlm import KenLM
    from flashlight.lib.text.dictionary import Dictionary

    vocabulary = Dictionary(words)
    lm = KenLM(path, vocabulary)
    trie = fl.Trie(len(TOKENS), 1)
    for word in words:
        index = vocabulary.get_index(word)
        score = lm.score(lm.start(False), index)[1]
        trie.insert([TOKENS.index(letter) for letter in f"{word}|"], index, score)
    trie.smear(fl.SmearingMode.MAX)
    options = fl.LexiconDecoderOptions(
        beam_size=500,
        beam_size_token=len(TOKENS),
        beam_threshold=500,
        lm_weight=lm_weight * math.log(10),  # KenLM's logarithms are decimal
        word_score=bonus,
        unk_score=-math.inf,
        sil_score=0,
        log_add=True,
        criterion_type=fl.CriterionType.CTC,
    )
    decoder = fl.LexiconDecoder(options, trie, lm, 1, 0, -1, [], False)
    for row, frames in enumerate(num_frames):
        values = logits[row, :frames].float().contiguous()
        [best, *_] = decoder.decode(values.data_ptr(), frames, len(TOKENS))
        yield " ".join(vocabulary.get_entry(index) for index in best.words if index >= 0)
