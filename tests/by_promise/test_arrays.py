"""`Labeller.arrays`: numpy arrays in, label rows out, as of files with the same samples."""

import io

import numpy as np
import pytest
import soundfile

import raysp
from tests.corpora import CHECKPOINT, digits_table

STEPS = [raysp.Decode(), raysp.Label(str(CHECKPOINT), outputs=[raysp.Transcript()])]
ROWS = digits_table(3)
READ = [soundfile.read(io.BytesIO(one["bytes"]), dtype="float32") for one in ROWS.column("audio").to_pylist()]
RECORDINGS, RATE = [samples for samples, _ in READ], READ[0][1]


@pytest.fixture(scope="module")
def labeller():
    with raysp.Labeller(STEPS, keep=["text"]) as found:
        yield found


def test_labels_of_arrays_are_those_of_their_files(labeller):
    texts = ROWS.column("text").to_pylist()
    found = labeller.arrays(RECORDINGS, RATE, columns={"id": ROWS.column("id").to_pylist(), "text": texts})
    assert found.equals(labeller(ROWS).replace_schema_metadata(None))
    ids = labeller.arrays(RECORDINGS, rate=RATE, columns={"text": texts}).column("id")
    assert ids.to_pylist() == ["0", "1", "2"]


def test_other_dtypes_and_channels_have_the_labels_of_the_same_sound(labeller):
    first = RECORDINGS[0]
    alike = [first, first.astype(np.float64), np.round(first * 32768).astype(np.int16), np.stack([first, first])]
    found = labeller.arrays(alike, RATE, columns={"text": [None] * 4})
    assert found.column("pred_text").to_pylist() == ["THREE"] * 4
    assert len(set(found.column("pred_score").to_pylist())) == 1


def test_an_array_without_a_label_costs_its_row_alone(labeller):
    unusable = [np.zeros(0, np.float32), RECORDINGS[0], np.full(4000, np.nan, np.float32)]
    found = labeller.arrays(unusable, RATE, columns={"text": [None] * 3})
    assert found.column("error_type").to_pylist() == ["too_short", None, "invalid_audio"]
    assert labeller.arrays([], RATE, columns={"text": []}).num_rows == 0


@pytest.mark.parametrize(
    ("recording", "rate", "message"),
    [
        ([0.0, 0.1], RATE, r"recordings\[0\]: found a list, expected a numpy array"),
        (
            np.zeros(400, np.int32),
            RATE,
            r"recordings\[0\]: found dtype int32, expected float32 or float64 from -1 to 1",
        ),
        (np.zeros((400, 2), np.float32), RATE, r"found shape \(400, 2\), more channels than samples; .* transpose it"),
        (np.zeros((1, 1, 400), np.float32), RATE, r"found shape \(1, 1, 400\), expected \(num_samples,\)"),
        (np.zeros(400, np.float32), 16_000.5, r"rate=16000.5: expected a whole number"),
        (np.zeros(400, np.float32), 16, r"rate=16: expected 100 to 10,000,000 samples a second"),
    ],
)
def test_what_is_no_recording_is_refused(labeller, recording, rate, message):
    with pytest.raises(raysp.SpecError, match=message):
        labeller.arrays([recording], rate, columns={"text": [None]})


def test_a_step_that_is_in_no_list_is_refused():
    with pytest.raises(raysp.SpecError, match=r"^Pipeline\.steps: found .*; input should be a list$"):
        raysp.Labeller(STEPS[1])


def test_columns_have_a_value_for_each_recording(labeller):
    with pytest.raises(raysp.SpecError, match=r"columns\['text'\]: found 1 value, expected 3, one for each recording"):
        labeller.arrays(RECORDINGS, RATE, columns={"text": ["one"]})
    with pytest.raises(raysp.PlanError, match="no column 'text'"):
        labeller.arrays(RECORDINGS, RATE)
