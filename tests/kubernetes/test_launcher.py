"""The configurations of cluster/launcher, for Ray's own launcher of machines."""

import copy
import json
from pathlib import Path

import jsonschema
import pytest
import ray.autoscaler
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.kubernetes.manifests import CLUSTER, read
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
    # Workers cannot start machines.
    key = "IamInstanceProfile" if cloud == "aws" else "serviceAccounts"
    has_rights = {name: "raysp-head" in json.dumps(one["node_config"][key]) for name, one in types.items()}
    assert has_rights == {"head": True, "decode": False, "model": False}
