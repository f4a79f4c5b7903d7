"""Packs by a certificate of the card: in which plans, of which size, and how sinks of batches and packs stay apart."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

import raysp
from raysp.cluster.cards import Card
from raysp.cluster.resources import Resources
from raysp.labelling import assembly
from raysp.labelling.planning import certified
from raysp.labelling.planning.fingerprints import hash_pipeline
from raysp.labelling.planning.run_plan import Settings
from raysp.labelling.planning.settling import settle
from raysp.models import CheckpointSummary, check_checkpoint
from raysp.models.base.certificates import PackRuns
from raysp.ops.blocks import PackLimits
from raysp.ops.precision import Batching
from tests.corpora import CHECKPOINT, a_pipeline
from tests.device.class_cases import make_checkpoint

CARD = Card("NVIDIA H100 80GB HBM3", "580.95", torch.__version__, torch.version.cuda)
HERE, CLUSTER = Resources(5, 1, machine_cpus=4), Resources(4, 1, can_grow=True)
SUMMARY = check_checkpoint(CHECKPOINT)
RUNS = PackRuns("UniSpeechForCTC", SUMMARY.shapes, "bfloat16", frames=30_208, rows=40, packs=9, unequal=0)
HALF_SIZE = replace(RUNS, frames=15_104)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """Folder of certificates of a machine with one card."""
    monkeypatch.setattr(certified, "card_of", lambda device: None if device == "cpu" else CARD)
    made = tmp_path / "certificates"
    made.mkdir()
    monkeypatch.setenv(certified.FOLDER, str(made))
    return made


def write(folder: Path, *packs: PackRuns, name: str = "a.json", **changed: object) -> None:
    found = {
        "format": 1, **asdict(CARD), "raysp": "0.1.0", "date": "2026-11-25", "models": [], "rows": {},
        "products": [], "packs": [*map(asdict, packs)],
    }  # fmt: skip
    (folder / name).write_text(json.dumps({**found, **changed}))


def settled(resources: Resources = HERE, **label: object) -> Settings:
    return settle(a_pipeline(label=label), resources)[0].settings


def words(resources: Resources = HERE, **label: object) -> str:
    found = settled(resources, **label)
    assert found.batching is Batching.RECORDED
    assert found.fingerprint_seconds is not None
    return str(found.packs)


def test_windows_go_in_packs_of_a_measured_size(folder):
    write(folder, RUNS)
    found = settled()
    assert (found.batching, found.packs.frames) == (Batching.PACKED, 30_208)
    assert found.batch_seconds == pytest.approx(604.16)
    assert (found.fingerprint_seconds, found.measured, found.packed_on) == (None, None, "cuda")
    assert str(found.packs) == (
        "windows go in packs of 30,208 frames: the certificate of 2026-11-25 shows that a label does not depend on the "
        "other windows of a pack on this card"
    )
    assert str(found.graphs).endswith("does not show for UniSpeechForCTC in bfloat16 that they keep bits in packs")


def test_blocks_are_cut_for_packs_of_that_size(folder):
    label = a_pipeline().label
    assert assembly.pack_limits(settled(), label) is None
    write(folder, RUNS)
    assert assembly.size_of_packs(settled(), label) == 30_208
    assert assembly.pack_limits(settled(), label) == PackLimits(16_000, 320, 30_208 * 320)
    on_cpu = settle(a_pipeline(label={"dtype": "bfloat16", "batch_seconds": 50}), Resources(5, 0, machine_cpus=4))[
        0
    ].settings
    assert assembly.size_of_packs(on_cpu, label) is None
    assert assembly.pack_limits(on_cpu, label) == PackLimits(16_000, 320, 50 * 16_000)


def test_two_budgets_have_one_fingerprint_with_a_certificate_and_two_without(folder):
    pipelines = [a_pipeline(label={"batch_seconds": seconds}) for seconds in (300, 600)]

    def fingerprints() -> list[str]:
        return [hash_pipeline(one, settle(one, HERE))[1] for one in pipelines]

    without = fingerprints()
    write(folder, RUNS, HALF_SIZE)
    with_packs = fingerprints()
    assert len({*without}) == 2
    assert len({*with_packs}) == 1
    assert with_packs[0] not in without


def test_the_largest_size_that_memory_allows_is_chosen(folder):
    write(folder, RUNS, HALF_SIZE, replace(RUNS, frames=60_416))
    assert settled().packs.frames == 30_208
    little = replace(HERE, gpu_memory=4 * (SUMMARY.num_parameters + 400 * SUMMARY.activations_per_second))
    assert settled(little).packs.frames == 15_104
    assert settled(little, batch_seconds=600).packs.frames == 30_208


@pytest.mark.parametrize(
    ("packs", "why"),
    [
        ((), "no certificate of the card has packs of this checkpoint in bfloat16 (`python -m benchmarks gpu"),
        ((replace(RUNS, architecture="HubertForCTC"),), "no certificate of the card has packs of this checkpoint"),
        ((replace(RUNS, shapes="of others"),), "no certificate of the card has packs of this checkpoint"),
        ((replace(RUNS, dtype="float16"),), "no certificate of the card has packs of this checkpoint"),
        ((RUNS, replace(RUNS, unequal=1)), "of 2026-11-25 shows that in packs of this checkpoint in bfloat16 a row's"),
        ((replace(RUNS, rows=0),), "of 2026-11-25 shows that in packs of this checkpoint in bfloat16 a row's"),
        ((replace(RUNS, packs=0),), "of 2026-11-25 shows that in packs of this checkpoint in bfloat16 a row's"),
        ((replace(RUNS, frames=256),), "equal bits in packs of 256 frames, and memory allows 30,208, with windows"),
    ],
)
def test_what_was_not_measured_or_differed_leaves_batches(folder, packs, why):
    write(folder, *packs)
    assert words().startswith("windows go in batches of the recorded budget: ")
    assert why in words()


@pytest.fixture(scope="module")
def decoder(tmp_path_factory) -> CheckpointSummary:
    made = tmp_path_factory.mktemp("made") / "checkpoint"
    make_checkpoint("SpeechEncoderDecoderModel", made)
    return check_checkpoint(made)


def of_texts(decoder: CheckpointSummary, **generate: object) -> Settings:
    outputs = [raysp.Transcript(generate=generate), raysp.Embedding()]
    return settle(a_pipeline(steps=[raysp.Decode(), raysp.Label(str(decoder.path), outputs=outputs)]), HERE)[0].settings


def runs_of(decoder: CheckpointSummary, **changed: object) -> PackRuns:
    return replace(RUNS, architecture=decoder.architecture, shapes=decoder.shapes, frames=102_400, **changed)


@pytest.mark.parametrize(
    ("measured", "beams", "why"),
    [
        ((1,), None, "the certificate of 2026-11-25 shows that a label does not depend on the other windows of a pack"),
        ((1, 3), 3, "the certificate of 2026-11-25 shows that a label does not depend on the other windows of a pack"),
        ((1,), 3, "no certificate of the card has packs of this checkpoint in bfloat16 with 3 beams"),
        ((3,), None, "no certificate of the card has packs of this checkpoint in bfloat16 (`python"),
    ],
)
def test_texts_go_in_packs_by_the_beams_that_were_measured(folder, decoder, measured, beams, why):
    write(folder, *(runs_of(decoder, beams=one) for one in measured))
    found = of_texts(decoder, **({"num_beams": beams} if beams else {}))
    assert why in str(found.packs)
    assert found.batching is (Batching.RECORDED if why.startswith("no") else Batching.PACKED)


def test_passes_of_packs_and_steps_of_their_texts_are_graphs_where_packs_were_measured(folder, decoder):
    graphs = {"dtype": "bfloat16", "rows": 4, "frames": 9, "passes": 3, "unequal": 0}

    def measured(**changed: object) -> tuple[Settings, Settings]:
        classes = ("UniSpeechForCTC", decoder.architecture)
        runs = [{**graphs, "architecture": one, **changed} for one in classes]
        write(folder, RUNS, runs_of(decoder), graphs=runs)
        found = settled(), of_texts(decoder)
        assert [one.batching for one in found] == [Batching.PACKED] * 2
        return found

    of_passes, of_steps = measured(in_packs=True)
    assert str(of_passes.graphs) == (
        "passes of packs run as graphs: the certificate of 2026-11-25 shows that they keep bits"
    )
    assert str(of_steps.graphs).startswith("steps of texts run as graphs: ")
    for changed in ({"in_packs": False}, {"in_packs": True, "unequal": 1}):
        assert not any(one.graphs.is_on for one in measured(**changed))
    assert str(settled(graphs="never").graphs).endswith("graphs='never'")


def test_rows_of_a_product_that_depend_on_their_place_exclude_its_size(folder):
    product = {"dtype": "bfloat16", "frames": 30_208, "inner": 768, "columns": 768, "shifts": 72, "unequal": 1}
    write(folder, RUNS, HALF_SIZE, products=[product])
    assert settled().packs.frames == 15_104
    write(folder, RUNS, products=[{**product, "dtype": "float16"}])
    assert settled().packs.frames == 30_208


def test_a_budget_of_another_size_leaves_batches(folder):
    write(folder, RUNS, HALF_SIZE)
    assert "in packs of 15,104 or 30,208 frames, and batch_seconds=8 asks for 1,536: leave it out" in words(
        batch_seconds=8
    )


def test_where_no_certificate_could_help_nothing_is_said(folder):
    write(folder, RUNS, replace(RUNS, dtype="float32"))
    for label in ({"dtype": "float32"}, {"exact": False}, {"dtype": "tf32"}, {"device": "cpu", "dtype": "bfloat16"}):
        found = settled(**label)
        assert (found.packs, found.packed_on) == (None, None), label


def test_the_newest_certificate_of_the_checkpoint_decides(folder):
    write(folder, RUNS, date="2026-11-01")
    write(folder, replace(RUNS, architecture="HubertForCTC"), name="b.json", date="2026-11-30")
    assert settled().packs.is_on
    write(folder, replace(RUNS, unequal=3), name="c.json", date="2026-11-20")
    assert "the certificate of 2026-11-20 shows that in packs" in words()
