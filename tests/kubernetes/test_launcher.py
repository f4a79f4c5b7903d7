import copy
import json
import shlex
from pathlib import Path

import jsonschema
import pytest
import ray.autoscaler
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.kubernetes.manifests import CLUSTER, RAY_SETTINGS, Document, parent_of, read
from tests.kubernetes.test_kubernetes import of_ray

CLOUDS = ("aws", "gcp")
SCHEMA = json.loads(Path(ray.autoscaler.__file__).with_name("ray-schema.json").read_text())


def launcher(cloud: str) -> Document:
    (found,) = read(CLUSTER / "launcher" / f"{cloud}.yaml")
    return found


def faults(config: Document) -> list[str]:
    """Return what Ray's own schema and checks find, and what else a run would miss."""
    found = [error.message for error in jsonschema.Draft7Validator(SCHEMA).iter_errors(config)]
    if found:
        return found
    try:
        validate_config(prepare_config(copy.deepcopy(config)))
        return [*_faults(config)]
    except Exception as error:  # types of Ray's errors vary
        return [f"{type(error).__name__}: {error}"]


def _faults(config: Document) -> list[str]:
    types, found = config["available_node_types"], []
    if types[config["head_node_type"]]["resources"] != {"CPU": 0, "GPU": 0}:
        found.append("head: work is scheduled there")
    for name in ("decode", "model"):
        if not 0 <= types[name]["min_workers"] <= types[name]["max_workers"] <= config["max_workers"]:
            found.append(f"{name}: workers out of order")
        if "spot" not in json.dumps(types[name]["node_config"]).lower():
            found.append(f"{name}: not on spot")
    if types["model"]["resources"] != {"CPU": 2, "GPU": 1} or types["model"]["min_workers"] != 0:
        found.append("model: resources")
    if "spot" in json.dumps(types["head"]["node_config"]).lower():
        found.append("head: on spot")
    if config["idle_timeout_minutes"] > 60 or not config["provider"]["region"]:
        found.append("nodes stay up, or are nowhere")
    if "/home/ubuntu/.ray/auth_token" not in config["file_mounts"]:
        found.append("no token reaches the nodes")
    if not any("RAY_AUTH_MODE=token" in line for line in config["setup_commands"]):
        found.append("anyone who reaches the cluster can run code on it")
    if not any("constraints.txt" in line for line in config["setup_commands"]):
        found.append("nothing is pinned")
    head = [line for line in config["head_start_ray_commands"] if "ray start --head" in line]
    if not head or "--dashboard-host=127.0.0.1" not in head[0] or "--autoscaling-config" not in head[0]:
        found.append("head: how it starts")
    if not any("ray start --address=$RAY_HEAD_IP:6379" in line for line in config["worker_start_ray_commands"]):
        found.append("workers: how they start")
    return found


@pytest.mark.parametrize("cloud", CLOUDS)
def test_ray_accepts_the_configuration(cloud):
    assert faults(launcher(cloud)) == []


@pytest.mark.parametrize("cloud", CLOUDS)
def test_nodes_are_those_of_kubernetes(cloud):
    types = launcher(cloud)["available_node_types"]
    for group in of_ray("standing")["spec"]["workerGroupSpecs"]:
        found = types[group["groupName"]]
        assert (found["min_workers"], found["max_workers"]) == (group["minReplicas"], group["maxReplicas"])
        if "num-cpus" in group["rayStartParams"]:
            assert found["resources"]["CPU"] == int(group["rayStartParams"]["num-cpus"])


@pytest.mark.parametrize("cloud", CLOUDS)
def test_nodes_have_the_settings_of_the_ray_that_raysp_starts(cloud):
    (line,) = [one for one in launcher(cloud)["setup_commands"] if "bashrc" in one]
    exported = dict(
        one.split("=", 1) for one in shlex.split(shlex.split(line)[shlex.split(line).index("echo") + 1])[1:]
    )
    for name in ("RAY_USAGE_STATS_ENABLED", "RAY_AUTH_MODE", "RAY_task_oom_retries", "RAY_worker_niceness"):
        assert exported[name] == RAY_SETTINGS[name]
    assert exported["PATH"].startswith("~/raysp/bin:")


@pytest.mark.parametrize("cloud", CLOUDS)
def test_workers_cannot_start_machines(cloud):
    types = launcher(cloud)["available_node_types"]
    key = "IamInstanceProfile" if cloud == "aws" else "serviceAccounts"
    accounts = {name: json.dumps(one["node_config"][key]) for name, one in types.items()}
    assert accounts["decode"] == accounts["model"]
    assert "raysp-head" in accounts["head"]
    assert "raysp-head" not in accounts["model"]


def test_machines_of_aws_answer_only_signed_requests_for_credentials():
    for one in launcher("aws")["available_node_types"].values():
        assert parent_of(one, "node_config/MetadataOptions/HttpTokens")[0] == {"HttpTokens": "required"}
