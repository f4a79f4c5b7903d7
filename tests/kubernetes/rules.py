"""Rules for the pods of a run beyond the schemas, one function per kind of pod."""

import re
from collections.abc import Mapping
from typing import Any

from raysp import __version__
from tests.kubernetes.manifests import PINS, Document

SPOT_TAINTS = {
    ("cloud.google.com/gke-spot", "Equal", "true"),
    ("kubernetes.azure.com/scalesetpriority", "Equal", "spot"),
    ("raysp.io/spot", "Exists", None),
}
"""Taints of spot nodes, as tolerated: key, operator and value."""
WRITABLE = {"/dev/shm", "/tmp", "/home/raysp", "/var/cache/raysp"}
"""Folders that Ray and raysp write to; the rest of the file system is read-only."""
UNITS = {"": 1, "m": 1e-3, "Mi": 2**20, "Gi": 2**30}


def check_nodes(document: Document) -> None:
    """Check a RayJob or RayCluster of `cluster/kubernetes`."""
    spec = document["spec"]
    if document["kind"] == "RayJob":
        head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
        folder = re.fullmatch(r"raysp run (\S+)/\w+\.py", spec["entrypoint"])[1]
        mounts = {mount["mountPath"]: mount["name"] for mount in head["containers"][0]["volumeMounts"]}
        maps = {one["name"]: one["configMap"]["name"] for one in head["volumes"] if "configMap" in one}
        assert maps[mounts[folder]] == "raysp-pipeline"
        _check_pod(spec["submitterPodTemplate"]["spec"], writable={"/tmp", "/home/raysp"})
    cluster = spec.get("rayClusterSpec", spec)
    assert cluster["rayVersion"] == PINS["ray"]
    assert cluster["authOptions"]["mode"] == "token", "anyone who reaches the cluster could run code on it"
    check_confined(cluster["autoscalerOptions"]["securityContext"])
    params, pod = cluster["headGroupSpec"]["rayStartParams"], cluster["headGroupSpec"]["template"]["spec"]
    assert (params["num-cpus"], params["num-gpus"]) == ("0", "0"), "no work is scheduled there"
    assert "tolerations" not in pod, "it does not start on a spot node"
    environment = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
    assert 30 <= int(environment["RAY_JOB_STOP_WAIT_TIME_S"]) < pod["terminationGracePeriodSeconds"]
    _check_ray_pod(pod, params)
    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    for group in groups.values():
        _check_worker(group)
    assert groups["decode"]["minReplicas"] >= 1, "a node has a CPU for the first task"
    assert groups["model"]["minReplicas"] == 0, "GPUs would be paid for while nothing is labelled"


def _check_worker(group: Document) -> None:
    pod = group["template"]["spec"]
    assert pod["automountServiceAccountToken"] is False
    assert {(one["key"], one["operator"], one.get("value")) for one in pod["tolerations"]} >= SPOT_TAINTS
    shell = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    drain = re.search(r"ray drain-node .*--deadline-remaining-seconds (\d+) && sleep (\d+)$", shell[2])
    assert int(drain[1]) == int(drain[2]) < pod["terminationGracePeriodSeconds"]
    _check_ray_pod(pod, group["rayStartParams"])


def _check_ray_pod(pod: Document, params: Mapping[str, str]) -> None:
    container = pod["containers"][0]
    volumes = {one["name"]: one for one in pod["volumes"]}
    mounts = {one["mountPath"]: one["name"] for one in container["volumeMounts"]}
    shared = volumes[mounts["/dev/shm"]]["emptyDir"]
    most = amount(container["resources"]["limits"]["memory"])
    assert int(params["object-store-memory"]) < amount(shared["sizeLimit"]) < most / 2
    _check_pod(pod, writable=WRITABLE)


def _check_pod(pod: Document, *, writable: set[str]) -> None:
    container, context = pod["containers"][0], pod["securityContext"]
    assert pod["serviceAccountName"] == "raysp", "the account that may read the corpus"
    assert (context["runAsNonRoot"], context["seccompProfile"]["type"]) == (True, "RuntimeDefault")
    check_confined(container["securityContext"])
    image, _, tag = container["image"].rpartition(":")
    assert (image.rpartition("/")[2] in {"raysp-cpu", "raysp-cuda"}, tag) == (True, __version__)
    volumes = {one["name"]: one for one in pod["volumes"]}
    mounts = {one["mountPath"]: volumes[one["name"]] for one in container["volumeMounts"]}
    empty = {path: volume["emptyDir"] for path, volume in mounts.items() if "emptyDir" in volume}
    assert writable <= {path for path, folder in empty.items() if amount(folder["sizeLimit"]) > 0}
    secrets = [one for one in container.get("env", []) if re.search("SECRET|PASSWORD|TOKEN|KEY", one["name"])]
    assert not [one for one in secrets if "value" in one]


def check_confined(context: Mapping[str, Any]) -> None:
    """Check the security context of a container."""
    assert (context["allowPrivilegeEscalation"], context["readOnlyRootFilesystem"]) == (False, True)
    assert context["capabilities"] == {"drop": ["ALL"]}


def amount(quantity: str) -> float:
    """Return the number that a quantity of Kubernetes stands for."""
    number, unit = re.fullmatch(r"([\d.]+)(\D*)", quantity).groups()
    return float(number) * UNITS[unit]
