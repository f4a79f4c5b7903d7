"""Packs and graphs on a cluster: by certificates of the cards of all its nodes, and of no other card."""

from dataclasses import replace
from pathlib import Path

import pytest

from raysp import RunError
from raysp.cluster import cards
from raysp.cluster.cards import Card
from raysp.labelling import assembly
from raysp.labelling.engine.running import _resolved
from raysp.labelling.planning import certified
from raysp.labelling.planning.opening import make_plan
from raysp.labelling.planning.run_plan import Opened, Settings
from raysp.labelling.planning.settling import settle
from raysp.ops.precision import Batching
from raysp.sink.run_record import Resolved, RunEntry
from raysp.verbs.verify.recomputing import cards_of
from tests.corpora import a_pipeline, write_shard
from tests.labelling.planning.cards.test_pack_use import CARD, CLUSTER, HALF_SIZE, HERE, RUNS, SUMMARY, settled, write

L4 = replace(CARD, card="NVIDIA L4")
GRAPHS = {"architecture": "UniSpeechForCTC", "rows": 4, "frames": 9, "passes": 3, "unequal": 0}


class Nodes:
    """Nodes of a cluster with their cards, and the devices that were asked for."""

    def __init__(self) -> None:
        self.cards: dict[str, Card | str] = {"10.0.0.1": CARD, "10.0.0.2": CARD}
        self.asked: list[str] = []

    def answer(self, device: str) -> list[tuple[str, Card | str]]:
        self.asked.append(device)
        return [*self.cards.items()]


@pytest.fixture(autouse=True)
def nodes(monkeypatch) -> Nodes:
    made = Nodes()
    monkeypatch.setattr(certified, "cards_of_nodes", made.answer)
    return made


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(certified.FOLDER, str(tmp_path / "certificates"))
    (tmp_path / "certificates").mkdir()
    return tmp_path / "certificates"


def of_l4(folder: Path, *packs: object, **changed: object) -> None:
    write(folder, *packs, name="l4.json", card=L4.card, **changed)


def test_windows_go_in_packs_where_all_nodes_have_a_card_with_a_certificate(folder):
    write(folder, RUNS)
    found = settled(CLUSTER)
    assert (found.batching, found.packs.frames, found.packed_on) == (Batching.PACKED, 30_208, "cuda")
    [card] = found.cards
    assert (card.card, card.nodes) == (CARD, ("10.0.0.1", "10.0.0.2"))
    assert card.words("bfloat16").startswith(f"{CARD} on 2 nodes: certificate of 2026-11-25, ")


def test_of_several_kinds_of_cards_all_must_cover_a_size(folder, nodes):
    nodes.cards["10.0.0.3"] = L4
    write(folder, RUNS, HALF_SIZE)
    of_l4(folder, HALF_SIZE)
    found = settled(CLUSTER)
    assert found.packs.frames == 15_104
    assert str(found.packs).endswith(
        "certificates of all 2 kinds of cards show that a label does not depend on the other windows of a pack on any "
        "of them"
    )
    of_l4(folder, replace(RUNS, frames=7_552))
    found = settled(CLUSTER)
    assert found.batching is Batching.RECORDED
    assert "show equal bits in packs of no number in common of frames" in str(found.packs)


@pytest.mark.parametrize(
    ("cards", "why"),
    [
        ({"10.0.0.3": L4}, f"no certificate of the card of node 10.0.0.3 ({L4}) has packs of this checkpoint"),
        ({"10.0.0.3": L4, "10.0.0.4": L4}, f"of the card of node 10.0.0.3 and 1 more ({L4}) has packs"),
        ({"10.0.0.3": "did not answer within 60 s"}, "node 10.0.0.3 did not answer within 60 s; packs need a"),
    ],
)
def test_one_node_without_leaves_batches_and_is_named(folder, nodes, cards, why):
    write(folder, RUNS)
    nodes.cards.update(cards)
    found = settled(CLUSTER)
    assert (found.batching, found.packed_on) == (Batching.RECORDED, None)
    assert why in str(found.packs)


def test_a_card_whose_rows_depend_on_others_is_named(folder, nodes):
    nodes.cards["10.0.0.3"] = L4
    write(folder, RUNS)
    of_l4(folder, replace(RUNS, unequal=1))
    assert str(settled(CLUSTER).packs).endswith(f"depend on the other rows on the card of node 10.0.0.3 ({L4})")


def test_while_no_node_is_up_windows_go_in_batches(folder, nodes):
    write(folder, RUNS)
    nodes.cards.clear()
    assert "no node with a GPU is up that could be asked for its card (start one of each kind" in str(
        settled(CLUSTER).packs
    )


def test_graphs_need_the_certificates_of_all_cards_too(folder, nodes):
    write(folder, graphs=[{**GRAPHS, "dtype": "float32"}])
    assert settled(CLUSTER, dtype="float32").graphs.is_on
    nodes.cards["10.0.0.3"] = L4
    found = settled(CLUSTER, dtype="float32")
    assert str(found.graphs).startswith(
        f"passes run without graphs: no certificate of the card of node 10.0.0.3 ({L4}) is known"
    )
    of_l4(folder, graphs=[{**GRAPHS, "dtype": "bfloat16"}])
    assert f"of the card of node 10.0.0.3 ({L4}) does not show for" in str(settled(CLUSTER, dtype="float32").graphs)


def test_nodes_are_asked_only_where_a_certificate_could_change_something(folder, nodes):
    assert "no certificate in" in str(settled(CLUSTER).packs)
    write(folder, RUNS)
    for label in ({"dtype": "float32"}, {"device": "cpu", "dtype": "bfloat16"}, {"exact": False}, {"dtype": "tf32"}):
        assert settled(CLUSTER, **label).cards == ()
    in_batches = Resolved("bfloat16", "cuda", 600.0)
    assert settled_before(in_batches).cards == ()
    assert nodes.asked == []
    assert settled_before(replace(in_batches, in_packs=True)).packs.is_on
    assert nodes.asked == ["cuda"]


def settled_before(before: Resolved) -> Settings:
    return settle(a_pipeline(), CLUSTER, before)[0].settings


def test_an_actor_with_another_card_refuses_to_load(folder, monkeypatch):
    write(folder, RUNS)
    in_packs, without = settled(CLUSTER), settled(CLUSTER, dtype="float32")
    monkeypatch.setattr(certified, "card_of", lambda device: CARD)
    assembly.refuse_other_card(in_packs)
    monkeypatch.setattr(certified, "card_of", lambda device: L4)
    assembly.refuse_other_card(without)
    with pytest.raises(RunError) as raised:
        assembly.refuse_other_card(in_packs)
    assert str(raised.value).startswith(f"device='cuda': found {L4}, expected {CARD}, by whose certificates this")
    assert "Run again, so that the plan asks this node too" in str(raised.value)
    monkeypatch.setattr(certified, "card_of", lambda device: None)
    with pytest.raises(RunError, match="found no card that nvidia-smi names"):
        assembly.refuse_other_card(in_packs)


def test_a_run_says_and_records_each_card(folder, nodes, tmp_path):
    nodes.cards["10.0.0.3"] = L4
    write(folder, RUNS)
    of_l4(folder, RUNS, date="2026-11-26")
    write_shard(tmp_path / "in" / "a.parquet", 3)
    plan = make_plan(Opened.of(a_pipeline(f"{tmp_path}/in", tmp_path / "out"), CLUSTER))
    assert plan.facts["card"].startswith(f"{CARD} on 2 nodes: certificate of 2026-11-25")
    assert plan.facts["card 2"].startswith(f"{L4} on 1 node: certificate of 2026-11-26")
    assert {plan.facts["card"], plan.facts["card 2"]} <= {*plan.messages_at_start}
    recorded = _resolved(plan)
    assert [one["certificate"]["date"] for one in recorded["cards"]] == ["2026-11-25", "2026-11-26"]
    assert cards_of([RunEntry("1", "", {}, "", "", recorded)]) == {CARD, L4}


def test_a_card_that_is_not_as_raysp_records_it_is_unknown():
    card = {"card": "a", "driver": None, "torch": "2", "cuda": None, "certificate": None}

    def found(*resolved: dict[str, object]) -> set[Card | None]:
        return cards_of([RunEntry("1", "", {}, "", "", one) for one in resolved])

    assert found({"cards": [card]}, {"cards": [card]}) == {Card("a", None, "2", None)}
    assert found({"cards": [card]}, {}) == {Card("a", None, "2", None), None}
    assert found({"cards": []}) == found({"cards": [{**card, "driver": ["1"]}]}) == found({"cards": "a"}) == {None}


def test_nodes_are_asked_for_the_memory_of_their_gpus_by_plans_with_gpus_alone(folder, monkeypatch):
    asked: list[object] = []

    def answers(nodes: object, function: object) -> list[float | None]:
        asked.append((nodes, function))
        return [None, 4 * (SUMMARY.num_parameters + 400 * SUMMARY.activations_per_second), 80e9]

    monkeypatch.setattr(cards, "with_resource", lambda name: [name] * 3)
    monkeypatch.setattr(cards, "ask", answers)
    write(folder, RUNS, HALF_SIZE)
    settled(CLUSTER, device="cpu", dtype="float32")
    settled(HERE)
    assert asked == []
    assert settled(CLUSTER).packs.frames == HALF_SIZE.frames
    assert asked == [(["GPU"] * 3, cards.gpu_memory)]
