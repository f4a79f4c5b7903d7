"""Certificates of cards: what was measured is read, and anything else is refused with what to do."""

import json

import pytest

from raysp import PlanError
from raysp.models.base.certificates import read_certificate

RUNS = {"architecture": "UniSpeechForCTC", "dtype": "bfloat16", "rows": 20, "frames": 1499, "passes": 3, "unequal": 0}
PRODUCT = {"dtype": "bfloat16", "frames": 15104, "inner": 768, "columns": 3072, "shifts": 72, "unequal": 0}
PACKS = {
    "architecture": "UniSpeechForCTC", "shapes": "s", "dtype": "bfloat16", "frames": 15104, "rows": 40, "packs": 9,
    "unequal": 0,
}  # fmt: skip
FOUND = {
    "format": 1, "card": "a card", "driver": "580.1", "torch": "2.13.0+cu130", "cuda": "13.0", "raysp": "0.1.0",
    "date": "2026-11-25", "models": ["wav2vec2-base 94M"],
    "rows": {"float32": {"rows": 200, "texts": 200, "bits": 180}, "bfloat16": {"rows": 200, "texts": 199, "bits": 3}},
    "products": [PRODUCT, {**PRODUCT, "inner": 3072, "columns": 768}],
}  # fmt: skip


def read(tmp_path, **changed):
    file = tmp_path / "certificate.json"
    file.write_text(json.dumps({name: one for name, one in {**FOUND, **changed}.items() if one != "left out"}))
    return read_certificate(file)


def test_a_certificate_says_whether_texts_depend_on_the_batch(tmp_path):
    certificate = read(tmp_path)
    assert [certificate.keeps_rows(dtype) for dtype in ("float32", "bfloat16", "float16")] == [True, False, False]
    assert not read(tmp_path, rows={"float32": {"rows": 0, "texts": 0, "bits": 0}}).keeps_rows("float32")


def test_a_certificate_says_whether_all_products_of_a_checkpoint_keep_bits(tmp_path):
    certificate = read(tmp_path)
    assert certificate.keeps_products("bfloat16")
    assert certificate.keeps_products("bfloat16", [(768, 3072)])
    assert not certificate.keeps_products("bfloat16", [(768, 768)])  # was not measured
    assert not certificate.keeps_products("float32")
    assert certificate.keeps_products("bfloat16", frames=PRODUCT["frames"])
    assert not certificate.keeps_products("bfloat16", frames=PRODUCT["frames"] + 1)  # was measured at another size
    assert not read(tmp_path, products=[PRODUCT, {**PRODUCT, "inner": 1, "unequal": 1}]).keeps_products("bfloat16")
    assert not certificate.keeps_graphs("UniSpeechForCTC", "bfloat16")  # older ones have none
    assert read(tmp_path, graphs=[RUNS]).keeps_graphs("UniSpeechForCTC", "bfloat16")
    assert not read(tmp_path, graphs=[RUNS, {**RUNS, "unequal": 1}]).keeps_graphs("UniSpeechForCTC", "bfloat16")
    of_packs = read(tmp_path, graphs=[{**RUNS, "in_packs": True}, {**RUNS, "unequal": 1}])
    assert of_packs.keeps_graphs("UniSpeechForCTC", "bfloat16", in_packs=True)
    assert not of_packs.keeps_graphs("UniSpeechForCTC", "bfloat16")
    assert not read(tmp_path, graphs=[RUNS]).keeps_graphs("UniSpeechForCTC", "bfloat16", in_packs=True)
    assert not read(tmp_path, products=[{**PRODUCT, "unequal": 1}, PRODUCT]).keeps_products("bfloat16")


def test_a_certificate_says_in_packs_of_which_sizes_rows_keep_their_bits(tmp_path):
    key = ("UniSpeechForCTC", "bfloat16", "s")
    assert read(tmp_path).keeps_packs(*key) == ()  # older ones have none
    larger = {**PACKS, "frames": 30208}
    assert read(tmp_path, packs=[larger, PACKS]).keeps_packs(*key) == (15104, 30208)
    assert read(tmp_path, packs=[PACKS]).keeps_packs("UniSpeechForCTC", "bfloat16", "others") == ()
    assert read(tmp_path, packs=[PACKS, {**larger, "unequal": 1}]).keeps_packs(*key) == (15104,)
    assert read(tmp_path, packs=[PACKS, {**PACKS, "unequal": 1}]).keeps_packs(*key) == ()
    assert read(tmp_path, packs=[{**PACKS, "rows": 0}, {**larger, "packs": 0}]).keeps_packs(*key) == ()
    shifted = read(tmp_path, packs=[PACKS, larger], products=[{**PRODUCT, "unequal": 1}])
    assert shifted.keeps_packs(*key) == (30208,)
    by_beams = read(tmp_path, packs=[PACKS, {**larger, "beams": 4}, {**PACKS, "beams": 4, "unequal": 1}])
    assert (by_beams.keeps_packs(*key), by_beams.keeps_packs(*key, 4)) == ((15104,), (30208,))
    assert by_beams.keeps_packs(*key, 3) == ()


def test_a_certificate_holds_for_its_card_driver_and_releases_alone(tmp_path):
    here = {"card": "a card", "driver": "580.1", "torch": "2.13.0+cu130", "cuda": "13.0"}
    assert read(tmp_path).is_of(**here)
    for name in here:
        assert not read(tmp_path).is_of(**{**here, name: "another"})
    assert read(tmp_path, driver=None).is_of(**{**here, "driver": None})


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"format": 2}, "found format 2"),
        ({"card": None}, "card is None, expected a text"),
        ({"torch": 2.13}, "torch is 2.13, expected a text"),
        ({"date": "left out"}, "no field 'date'"),
        ({"rows": [1]}, "attribute"),
        ({"rows": {"float32": {"rows": 200, "texts": -1, "bits": 0}}}, "texts is -1, expected a count"),
        ({"products": [{**PRODUCT, "unequal": True}]}, "unequal is True, expected a count"),
        ({"products": [{**PRODUCT, "frames": "15104"}]}, "frames is '15104', expected a count"),
        ({"packs": [{**PACKS, "unequal": None}]}, "unequal is None, expected a count"),
        ({"packs": [{"architecture": "A"}]}, "no field 'shapes'"),
        ({"graphs": [{**RUNS, "in_packs": 1}]}, "in_packs is 1, expected true or false"),
    ],
)
def test_what_is_no_certificate_is_refused_with_what_to_do(tmp_path, changed, words):
    with pytest.raises(PlanError, match=r"certificate.json: .*: measure the card again") as error:
        read(tmp_path, **changed)
    assert words in str(error.value)


@pytest.mark.parametrize("data", [b"", b"[1", b"[]", b"\xff", b"1" * 5_000_000])
def test_files_that_hold_something_else_are_refused(tmp_path, data):
    file = tmp_path / "certificate.json"
    file.write_bytes(data)
    with pytest.raises(PlanError, match="expected a certificate of format 1"):
        read_certificate(file)
    with pytest.raises(PlanError, match="expected a certificate of format 1"):
        read_certificate(tmp_path / "missing.json")
