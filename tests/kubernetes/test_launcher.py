"""The configurations of cluster/launcher, for Ray's own launcher of machines."""

import copy
import json
import re
from pathlib import Path

import jsonschema
import pytest
import ray.autoscaler
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.kubernetes.manifests import CLUSTER, RAY_SETTINGS, read
from tests.kubernetes.test_kubernetes import of_ray

SCHEMA = json.loads(Path(ray.autoscaler.__file__).with_name("ray-schema.json").read_text())


@pytest.mark.parametrize("cloud", ["aws", "gcp"])
def test_ray_accepts_the_configuration_whose_nodes_are_those_of_kubernetes(cloud):
    [config] = read(CLUSTER / "launcher" / f"{cloud}.yaml")
    assert [error.message for error in jsonschema.Draft7Validator(SCHEMA).iter_errors(config)] == []
    validate_config(prepare_config(copy.deepcopy(config)))
    types = config["available_node_types"]
    assert types[config["head_node_type"]]["resources"] == {"CPU": 0, "GPU": 0}, "no work is scheduled there"
    on_spot = {name: "spot" in json.dumps(one["node_config"]).lower() for name, one in types.items()}
    assert on_spot == {"head": False, "decode": True, "model": True}
    for group in of_ray("standing")["spec"]["workerGroupSpecs"]:
        found = types[group["groupName"]]
        assert (found["min_workers"], found["max_workers"]) == (group["minReplicas"], group["maxReplicas"])
        assert found["resources"]["CPU"] == int(group["rayStartParams"].get("num-cpus", found["resources"]["CPU"]))
    [head] = [line for line in config["head_start_ray_commands"] if "ray start --head" in line]
    assert re.search("(?=.*--dashboard-host=127.0.0.1).*--autoscaling-config", head)
    assert "/home/ubuntu/.ray/auth_token" in config["file_mounts"]
    setup = "\n".join(config["setup_commands"])
    names = ("RAY_USAGE_STATS_ENABLED", "RAY_AUTH_MODE", "RAY_task_oom_retries", "RAY_worker_niceness")
    assert [one for one in names if f"{one}={RAY_SETTINGS[one]}" not in setup] == []
    assert "constraints.txt" in setup
    # Workers cannot start machines.
    key = "IamInstanceProfile" if cloud == "aws" else "serviceAccounts"
    has_rights = {name: "raysp-head" in json.dumps(one["node_config"][key]) for name, one in types.items()}
    assert has_rights == {"head": True, "decode": False, "model": False}
    if cloud == "aws":  # only signed requests for credentials are answered
        assert {one["node_config"]["MetadataOptions"]["HttpTokens"] for one in types.values()} == {"required"}
