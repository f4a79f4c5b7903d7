"""Actors that cannot load their model."""

from types import SimpleNamespace

import pytest

import raysp
from raysp import RunError, run
from raysp.labelling.engine.on_ray import model_loads
from raysp.labelling.engine.workers import attempts as reports
from tests.labelling.engine.deadly import UnloadableTranscript


@pytest.fixture
def shards(write_shards):
    return write_shards(3, 2)


@pytest.mark.drivers
@pytest.mark.cluster
def test_a_run_continues_while_another_actor_can_load_and_names_the_node(
    local_ray, make_pipeline, shards, tmp_path, caplog
):
    outputs = [UnloadableTranscript(folder=str(tmp_path), failures=1)]
    result = run(make_pipeline(shards, outputs=outputs, pool=raysp.Pool(1)))
    assert (result.exit_code, result.rows) == (0, 6)
    said = [one.getMessage() for one in caplog.records if "failed to start" in one.getMessage()]
    assert len(said) == 1
    assert "starting another one: RunError: node " in said[0]
    assert "No space left on device" in said[0]


@pytest.mark.drivers
@pytest.mark.cluster
def test_a_run_of_which_no_actor_can_load_ends_with_the_reason_after_a_few(local_ray, make_pipeline, shards, tmp_path):
    outputs = [UnloadableTranscript(folder=str(tmp_path), failures=99)]
    with pytest.raises(
        RunError, match=r"node \S+: .*OSError: .*No space left on device.*Run again: committed labels are kept"
    ):
        run(make_pipeline(shards, outputs=outputs, pool=raysp.Pool(1)))
    assert len([*tmp_path.glob("load-*")]) == 3  # one more than are tolerated


class Operator:
    """Stands in for Ray Data's operator: it counts as that does."""

    def __init__(self, budget: int) -> None:
        self.budget, self.running, self._consecutive_actor_init_deaths = budget, 0, 0
        self._actor_pool = SimpleNamespace(num_running_actors=lambda: self.running)

    def _on_actor_init_death(self, error: Exception) -> None:
        self._consecutive_actor_init_deaths += 1
        if self._consecutive_actor_init_deaths > self.budget:
            raise error


def test_failures_count_only_while_no_actor_has_its_model():
    operator = Operator(budget=2)
    model_loads.watch_loads(operator)
    operator.running = 1
    for _ in range(50):
        operator._on_actor_init_death(OSError("a bad GPU"))
    operator.running = 0
    operator._consecutive_actor_init_deaths = 0
    for _ in range(2):
        operator._on_actor_init_death(OSError("a bad GPU"))
    with pytest.raises(OSError, match="a bad GPU"):
        operator._on_actor_init_death(OSError("a bad GPU"))


class TestNodes:
    """Three nodes of a GPU, and one without."""

    @pytest.fixture
    def failed(self) -> set[str]:
        return set()

    @pytest.fixture
    def nodes(self, failed) -> model_loads.FailedNodes:
        gpu = {"CPU": 8.0, "GPU": 1.0}
        totals = {"a": gpu, "b": gpu, "c": gpu, "cpus": {"CPU": 64.0}}
        return model_loads.FailedNodes(lambda: failed, lambda: totals, {"CPU": 1.0, "GPU": 1.0})

    def test_the_next_actor_starts_on_a_node_on_which_no_load_has_failed(self, failed, nodes):
        assert (nodes.learn(), nodes.options()) == (False, {})
        failed.add("b")
        assert nodes.learn()
        assert nodes.options() == {"label_selector": {"ray.io/node-id": "!in(b)"}}
        assert not nodes.learn()  # it was known
        failed.add("a")
        assert nodes.learn()
        assert nodes.options() == {"label_selector": {"ray.io/node-id": "!in(a,b)"}}

    def test_when_loads_failed_on_every_node_that_can_take_an_actor_none_is_avoided(self, failed, nodes):
        failed |= {"a", "b", "c"}
        assert (nodes.learn(), nodes.avoided(), nodes.options()) == (False, frozenset(), {})

    def test_a_node_that_fails_while_others_are_left_ends_no_run(self, failed, nodes):
        operator = Operator(budget=1)
        model_loads.watch_loads(operator, nodes)
        for node in "ab":
            failed.add(node)
            operator._on_actor_init_death(OSError("a bad GPU"))
        assert operator._ray_remote_args_fn()["label_selector"]
        failed.add("c")
        with pytest.raises(OSError, match="a bad GPU"):
            operator._on_actor_init_death(OSError("a bad GPU"))


def test_an_actor_waits_before_it_gives_its_place_to_the_next_while_others_work(monkeypatch):
    slept, failed = [], []
    monkeypatch.setattr(reports.time, "sleep", slept.append)
    for reached in (0, 1):
        attempts = SimpleNamespace(reached=lambda *_, n=reached: n, load_failed=lambda: failed.append("here"))
        error = reports.load_error(attempts, "gpu-7", OSError("full"))
        assert str(error) == "node gpu-7: OSError: full"
    assert failed == ["here", "here"]
    assert slept == [reports.PAUSE_SECONDS]
