"""The configurations of cluster/launcher, for Ray's own launcher of machines."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
import ray.autoscaler
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.kubernetes.manifests import CLUSTER, RAY_SETTINGS, Document, read
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
def test_ray_accepts_the_configuration_whose_nodes_are_those_of_kubernetes(cloud):
    config = launcher(cloud)
    assert faults(config) == []
    types = config["available_node_types"]
    for group in of_ray("standing")["spec"]["workerGroupSpecs"]:
        found = types[group["groupName"]]
        assert (found["min_workers"], found["max_workers"]) == (group["minReplicas"], group["maxReplicas"])
        assert found["resources"]["CPU"] == int(group["rayStartParams"].get("num-cpus", found["resources"]["CPU"]))
    setup = "\n".join(config["setup_commands"])
    names = ("RAY_USAGE_STATS_ENABLED", "RAY_AUTH_MODE", "RAY_task_oom_retries", "RAY_worker_niceness")
    assert [one for one in names if f"{one}={RAY_SETTINGS[one]}" not in setup] == []
    # Workers cannot start machines.
    key = "IamInstanceProfile" if cloud == "aws" else "serviceAccounts"
    has_rights = {name: "raysp-head" in json.dumps(one["node_config"][key]) for name, one in types.items()}
    assert has_rights == {"head": True, "decode": False, "model": False}
    if cloud == "aws":  # only signed requests for credentials are answered
        assert {one["node_config"]["MetadataOptions"]["HttpTokens"] for one in types.values()} == {"required"}
