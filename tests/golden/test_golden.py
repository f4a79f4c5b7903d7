"""Labels and trainings equal those that were recorded; `python -m tests.golden record` records them again."""

import pytest

from tests.golden import recorded
from tests.golden.cases import CASES
from tests.soaked import soaked

LATER = {
    *(f"models/{name}ForSequenceClassification" for name in ("Hubert", "SEWD", "Wav2Vec2Bert")),
    *("models/HubertForSpeechClassification", "models/Wav2Vec2BertForAudioFrameClassification"),
    *("models/Wav2Vec2BertForXVector", "outputs/language", "digits/chars", "digits/bfloat16"),
    *(f"writers/{name}" for name in ("bert", "bert_beams", "gpt2", "bart", "bart_beams", "mbart", "ParakeetForRNNT")),
}
"""Cases of the long run: what they have, others have with another encoder, decoder or search."""


@pytest.mark.slow
@pytest.mark.parametrize("name", [*(name for name in CASES if name not in LATER), *soaked(sorted(LATER))])
def test_a_case_equals_its_record(name, tmp_path):
    case = CASES[name]
    if case.missing:
        pytest.skip(case.missing)
    wrong = recorded.differences(name, recorded.read(name), case.run(tmp_path), case.tolerance)
    assert not wrong, "\n".join([*wrong, f"if this changes on purpose: python -m tests.golden record {name}"])


def test_every_record_has_its_case():
    assert sorted(recorded.files()) == sorted(CASES)


def test_records_stay_small():
    assert sum(path.stat().st_size for path in recorded.files().values()) < 2_000_000


def test_a_difference_names_its_row_and_column():
    row = {"id": "a", "pred_text": "ONE", "pred_words": [{"word": "ONE", "start": 0.02}], "pred_score": -1.0}
    other = {**row, "pred_words": [{"word": "ONE", "start": 0.04}], "pred_score": -1.000001}
    head = {"label_version": 6}
    assert recorded.differences("digits", (head, [row]), (head, [row])) == []
    assert recorded.differences("digits", (head, [row]), (head, [other])) == [
        "digits, row 0 ('a'), pred_words[0].start: expected 0.02, found 0.04"
    ]
    assert recorded.differences("digits", (head, [row]), ({"label_version": 7}, [other])) == [
        "digits, label_version: expected 6, found 7"
    ]


def test_a_vector_that_differs_in_a_number_differs_from_its_record():
    vector = [0.01 * number for number in range(100)]
    one, other = ({"id": "a", "embedding": values} for values in (vector, [*vector[:-1], 1.0]))
    wrong = recorded.differences("digits", ({}, [recorded.compact(one)]), ({}, [recorded.compact(other)]))
    assert len(wrong) == 1 + recorded.NUM_DIRECTIONS
