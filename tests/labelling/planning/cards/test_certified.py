"""Certificates of cards in plans: which one is found, what is said of it, and what the record of a run keeps."""

import json
from pathlib import Path

import pytest

from raysp.cluster.cards import card_of
from raysp.cluster.resources import Resources
from raysp.labelling.planning import certified
from raysp.labelling.planning.fingerprints import hash_pipeline
from raysp.labelling.planning.run_plan import Pass
from raysp.labelling.planning.settling import settle
from tests.corpora import a_pipeline

CARD = "NVIDIA H100 80GB HBM3"


@pytest.fixture(autouse=True)
def card(tmp_path, monkeypatch) -> Path:
    """A machine with one card, as its driver's tool reports it; returns the folder of certificates."""
    tool = tmp_path / "bin" / "nvidia-smi"
    tool.parent.mkdir()
    tool.write_text(f"#!/bin/sh\necho '{CARD}, 580.95'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tool.parent), prepend=":")
    folder = tmp_path / "certificates"
    folder.mkdir()
    monkeypatch.setenv(certified.FOLDER, str(folder))
    return folder


def write(folder: Path, name: str = "a.json", **changed: object) -> None:
    import torch

    product = {"dtype": "bfloat16", "frames": 15104, "inner": 768, "columns": 3072, "shifts": 72, "unequal": 0}
    found = {
        "format": 1, "card": CARD, "driver": "580.95", "torch": torch.__version__, "cuda": torch.version.cuda,
        "raysp": "0.1.0", "date": "2026-11-25", "models": ["a model"],
        "rows": {"bfloat16": {"rows": 200, "texts": 199, "bits": 3}},
        "products": [product, {**product, "inner": 3072, "unequal": 2}],
    }  # fmt: skip
    (folder / name).write_text(json.dumps({**found, **changed}))


def words(dtype: str = "bfloat16") -> str:
    [found] = certified.cards_here("cuda").found
    return found.words(dtype)


def test_a_card_is_described_without_importing_torch(card):
    import torch

    found = card_of("cuda:0")
    assert (found.card, found.driver, found.torch, found.cuda) == (
        CARD, "580.95", torch.__version__, torch.version.cuda,
    )  # fmt: skip
    assert card_of("cpu") is None


def test_several_cards_of_one_kind_are_described_as_one(tmp_path):
    (tmp_path / "bin" / "nvidia-smi").write_text(f"#!/bin/sh\necho '{CARD}, 580.95'\necho '{CARD}, 580.95'\n")
    assert card_of("cuda").card == CARD


@pytest.mark.parametrize(
    "said", ["exit 9", "echo 'no devices'", "echo", f"echo '{CARD}, 580.95'; echo 'NVIDIA L4, 580.95'"]
)
def test_a_card_whose_driver_says_nothing_is_unknown(said, tmp_path):
    (tmp_path / "bin" / "nvidia-smi").write_text(f"#!/bin/sh\n{said}\n")
    assert card_of("cuda") is None
    assert certified.cards_here("cuda").unknown == "the card is not known here"


def test_the_newest_certificate_of_the_card_its_driver_and_releases_counts(card):
    write(card, "old.json", date="2026-01-01", rows={})
    write(card, "new.json")
    write(card, "other card.json", card="another", date="2026-12-01")
    write(card, "other driver.json", driver="1", date="2026-12-01")
    write(card, "other torch.json", torch="1", date="2026-12-01")
    assert words().startswith(f"{CARD}, driver 580.95, torch ")
    assert words().endswith(
        "certificate of 2026-11-25, in bfloat16 199 of 200 rows had one text in all batches, and 1 of 2 products kept "
        "the bits of shifted rows"
    )
    assert words("float32").endswith("in float32 rows were not measured, and no product was measured")


def test_without_a_certificate_the_plan_says_where_it_was_looked_for_and_how_to_measure_one(card):
    write(card, driver="1")
    assert f"no certificate in {card} (`python -m benchmarks gpu`" in words()
    card.joinpath("damaged.json").write_text("{")
    assert "damaged.json: " in words()
    assert "measure the card again" in words()


def test_a_folder_that_does_not_exist_holds_none(card):
    card.rmdir()
    assert f"no certificate in {card}" in words()


def test_by_default_they_are_in_the_users_cache(card, tmp_path, monkeypatch):
    monkeypatch.delenv(certified.FOLDER)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    place = tmp_path / "cache" / "raysp" / "certificates"
    assert f"no certificate in {place}" in words()
    place.mkdir(parents=True)
    write(place)
    assert "certificate of 2026-11-25" in words()


def test_a_plan_says_what_it_shows_and_labels_depend_on_the_budget_as_before(card):
    pipeline = a_pipeline(label={"batch_seconds": 8})
    resources = Resources(4, 1, machine_cpus=4)
    without = settle(pipeline, resources)[0].settings
    write(card)
    found = settle(pipeline, resources)[0].settings
    assert without.cards[0].certificate is None
    assert found.cards[0].certificate is not None
    assert found.fingerprint_seconds == 8
    assert hash_pipeline(pipeline, [Pass(pipeline, found)]) == hash_pipeline(pipeline, [Pass(pipeline, without)])
    assert settle(pipeline, Resources(4, 1))[0].settings.cards == ()  # a cluster, of which no node is up
    assert settle(a_pipeline(label={"device": "cpu"}), Resources(5, machine_cpus=4))[0].settings.cards == ()


def test_a_plan_runs_passes_as_graphs_where_a_certificate_shows_their_bits(card):
    pipeline, resources = a_pipeline(label={"batch_seconds": 8}), Resources(4, 1, machine_cpus=4)
    write(card)
    assert "does not show for UniSpeechForCTC in bfloat16" in str(settle(pipeline, resources)[0].settings.graphs)
    runs = {"dtype": "bfloat16", "rows": 20, "frames": 1499, "passes": 3, "unequal": 0}
    of_a = {**runs, "architecture": "A"}
    write(
        card,
        graphs=[{**runs, "architecture": "UniSpeechForCTC"}, {**of_a, "unequal": 1}, {**of_a, "in_packs": True}],
    )
    assert settle(pipeline, resources)[0].settings.graphs.is_on
    assert not settle(a_pipeline(label={"dtype": "float16"}), resources)[0].settings.graphs.is_on
    assert not settle(pipeline, Resources(4, 1))[0].settings.graphs.is_on  # a cluster, of which no node is up
    assert settle(a_pipeline(label={"device": "cpu"}), Resources(5, machine_cpus=4))[0].settings.graphs is None
    kept = certified.cards_here("cuda").found[0].record()["certificate"]["keeps_graphs"]
    assert kept == {"A bfloat16": False, "A bfloat16 in packs": True, "UniSpeechForCTC bfloat16": True}


def test_the_record_of_a_run_keeps_the_card_and_the_counts(card):
    assert certified.cards_here("cuda").found[0].record()["certificate"] is None
    write(card)
    found = certified.cards_here("cuda").found[0].record()
    assert (found["card"], found["driver"]) == (CARD, "580.95")
    assert found["certificate"] == {
        "date": "2026-11-25",
        "raysp": "0.1.0",
        "rows": {"bfloat16": {"rows": 200, "texts": 199, "bits": 3}},
        "keeps_products": {"bfloat16": False},
    }
