"""Rows in packs for the certificate of a card: equal bits are counted, and so are rows that depend on others."""

import pytest
import torch

from benchmarks.gpu import goals, models, packed_rows
from benchmarks.gpu.part import Setting
from raysp.models import LoadedCheckpoint, load_checkpoint
from raysp.ops import labelling
from raysp.ops.passes import graphed_passes
from raysp.ops.passes.graphed_passes import RecordedPass
from raysp.ops.writing import Writing
from tests.device import stand_in
from tests.soaked import some

stand_in.install()
MODEL = "wav2vec2-base 94M"


@pytest.fixture(autouse=True)
def _few_orders(monkeypatch) -> None:
    """Compare rows alone with those of few orders, enough to see what is counted."""
    monkeypatch.setattr(packed_rows, "SMALL_ORDERS", 2)


@pytest.fixture
def no_speech(monkeypatch) -> None:
    """Compare no labels of the Silero VAD, which costs more than all else of a small model."""
    monkeypatch.setattr(packed_rows, "absent", lambda _: True)


@pytest.fixture
def no_graphs(monkeypatch) -> None:
    monkeypatch.setattr(packed_rows, "has_graphs", lambda _: False)


def compared(tmp_path, name: str = MODEL, dtype: str = "bfloat16") -> tuple[list[dict[str, object]], object]:
    found: list[dict[str, object]] = []
    setting = Setting(stand_in.NAME, tmp_path, few=True)
    figures = packed_rows.compare(lambda: models.make(name, setting.device, dtype), dtype, setting, found, [])
    return found, figures


def test_rows_keep_their_bits_in_packs_of_all_sizes(tmp_path):
    found, figures = compared(tmp_path)
    assert [(one["frames"], one["rows"], one["unequal"]) for one in found] == [(512, 4, 0), (256, 4, 0)]
    assert all(one["packs"] >= 3 for one in found)
    assert (figures["sizes"], figures["keep bits"]) == (2, 2)
    [of_graphs] = figures["graphs"]
    assert (of_graphs["frames"], of_graphs["unequal"], of_graphs["in_packs"], of_graphs["why not"]) == (
        512,
        0,
        True,
        "",
    )
    assert of_graphs["passes"] == found[0]["packs"] + 4


@pytest.mark.usefixtures("no_speech")
def test_rows_are_unequal_with_graphs_of_other_values_and_without_a_graph(tmp_path, monkeypatch):
    monkeypatch.setattr(packed_rows, "SMALL_PACK_SECONDS", packed_rows.SMALL_PACK_SECONDS[:1])
    run = RecordedPass.__call__

    def of_another_pass(self, samples, numbers):
        return run(self, samples * 0.9, numbers)

    monkeypatch.setattr(RecordedPass, "__call__", of_another_pass)
    found, figures = compared(tmp_path)
    assert [one["unequal"] for one in (*found, *figures["graphs"])] == [0, 4]
    assert "gave other values than its kernels" in figures["graphs"][0]["why not"]
    monkeypatch.setattr(graphed_passes, "have_equal_bits", lambda *_: True)
    [of_graphs] = compared(tmp_path)[1]["graphs"]
    assert (of_graphs["unequal"], of_graphs["why not"]) == (4, "")


@pytest.mark.usefixtures("no_speech", "no_graphs")
def test_rows_that_depend_on_the_others_of_a_pack_are_counted(tmp_path, monkeypatch):
    as_float = labelling.as_float

    def with_all_of_a_pack(samples):
        values = as_float(samples)
        return values * (values.abs() > values.abs().mean() / 4)

    monkeypatch.setattr(labelling, "as_float", with_all_of_a_pack)
    found, figures = compared(tmp_path)
    assert [one["unequal"] for one in found] == [4, 4]
    assert figures["keep bits"] == 0


@pytest.mark.usefixtures("no_speech", "no_graphs")
def test_sizes_that_exceed_the_memory_are_left_out(tmp_path, monkeypatch):
    run_pack = LoadedCheckpoint.run_pack

    def with_little_memory(*given, size, **options):
        if size > 256:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run_pack(*given, size=size, **options)

    monkeypatch.setattr(LoadedCheckpoint, "run_pack", with_little_memory)
    found, _ = compared(tmp_path)
    assert [(one["frames"], one["unequal"]) for one in found] == [(256, 0)]


def test_models_whose_windows_go_in_batches_are_left_out(tmp_path):
    found, figures = compared(tmp_path, dtype="float32")
    assert found == []
    assert "do not go in packs" in figures["left out"]


def test_published_models_are_measured_in_bfloat16_and_checkpoints_in_half_precision(tmp_path):
    made = [one[:2] for one in packed_rows.made(Setting("cuda", tmp_path, checkpoints=("a", "b")))]
    assert made[:6] == [(name, "bfloat16") for name in (*packed_rows.MODELS, packed_rows.DECODER)]
    assert made[6:] == [(name, dtype) for name in "ab" for dtype in ("bfloat16", "float16")]


def of_texts(tmp_path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = []
    setting = Setting(stand_in.NAME, tmp_path)
    [make] = [make for name, _, make in packed_rows.made(setting) if name == packed_rows.DECODER]
    graphs: list[dict[str, object]] = []
    packed_rows.compare(make, "bfloat16", setting, found, graphs)
    return found + graphs


@pytest.mark.usefixtures("no_speech")
def test_texts_and_scores_are_compared_for_each_number_of_beams(tmp_path, monkeypatch):
    found = of_texts(tmp_path)
    assert [(one["frames"], one.get("beams"), one["unequal"]) for one in found] == [
        (512, 1, 0), (256, 1, 0), (512, 4, 0), (256, 4, 0), (512, None, 0),
    ]  # fmt: skip
    of_scores = Writing._of_scores

    def with_those_of_others(self, ids, log_probs, *rows):
        return of_scores(self, ids, log_probs + log_probs[:, :1].mean(), *rows)

    monkeypatch.setattr(Writing, "_of_scores", with_those_of_others)
    monkeypatch.setattr(packed_rows, "SMALL_PACK_SECONDS", packed_rows.SMALL_PACK_SECONDS[:1])
    assert all(one["unequal"] > 0 for one in of_texts(tmp_path))


@pytest.mark.usefixtures("no_speech")
@pytest.mark.parametrize("kind", some(["ParakeetForTDT", "ParakeetForRNNT"], "ParakeetForTDT"))
def test_texts_of_transducers_are_compared(kind, checkpoints, tmp_path):
    found: list[dict[str, object]] = []
    graphs: list[dict[str, object]] = []
    setting = Setting(stand_in.NAME, tmp_path)
    packed_rows.compare(
        lambda: load_checkpoint(checkpoints(kind), dtype="float16", device=stand_in.NAME),
        "float16",
        setting,
        found,
        graphs,
    )
    assert [(one["beams"], one["unequal"]) for one in found] == [(1, 0), (1, 0)]
    assert [one["unequal"] for one in graphs] == [0]


def test_labels_are_compared_beside_bits(checkpoints):
    outputs = packed_rows.outputs_of(load_checkpoint(checkpoints("ParakeetForTDT")), 1, 4)
    assert [one.schema.names[0] for one in outputs] == ["bits", *packed_rows.COLUMNS[2:], packed_rows.COLUMNS[0]]


def test_the_goal_is_the_least_share_of_all_models():
    read = goals.least("packs ", "share")
    cases = {"rows float32": {"share": 0.1}, "packs a": {"share": 1.0}, "packs b": {"left out": "no packs"}}
    assert read(cases) == 1.0
    assert read({**cases, "packs c": {"share": 0.5}}) == 0.5
    assert read({**cases, "packs c": {"error": "no such kernel"}}) == 0.0
    assert read({}) is None
